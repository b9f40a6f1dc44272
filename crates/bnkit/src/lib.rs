//! Fold BatchNorm out of trained checkpoints, exactly, and prove it.

mod affine;
mod clean;
pub mod data;
pub mod error;
pub mod explain;
pub mod fold;
mod glob;
mod hash;
pub mod inspect;
pub mod pipeline;
mod refusal;
pub mod report;
pub mod route;
pub mod site;
pub mod verify;

pub use error::{Error, Result};
