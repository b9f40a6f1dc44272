//! placeholder

pub mod error;
pub mod route;
pub mod verify;

pub use error::{Error, Result};
