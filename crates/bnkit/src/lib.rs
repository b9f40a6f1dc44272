//! Fold BatchNorm out of trained checkpoints, exactly, and prove it.
//!
//! A job is one function: [`pipeline::fold`] opens a model, plans, proves, writes and reports. Each step is a public
//! function too: [`fold::plan`] decides without changing anything, [`fold::Plan::apply`] gives the folded model,
//! [`verify::prove`] proves it, and [`model::onnx::Model::save`] writes it. A job struct has a `new` with what must be said,
//! and public fields for the rest. A "no" (not equivalent, drifted) is in the report's `failure`; errors are for what could
//! not be done. Progress goes to a [`pipeline::Progress`], calibrations and proofs end early by a [`calibrate::Interrupt`].
//!
//! ```
//! use bnkit::fold::{Options, plan};
//! use bnkit::model::onnx::Model;
//!
//! # fn main() -> bnkit::Result<()> {
//! let model = Model::open("../../testdata/models/tiny_resnet.onnx".as_ref())?;
//! let plan = plan(&model, &Options::default())?;
//! assert_eq!(plan.summary.folded, plan.summary.batch_norms);
//! # Ok(())
//! # }
//! ```

pub mod accuracy;
mod affine;
pub mod calibrate;
mod chain;
pub mod check;
pub mod checkpoint;
mod clean;
pub mod convert;
pub mod data;
pub mod diff;
pub mod error;
pub mod explain;
pub mod fold;
mod glob;
mod hash;
pub mod inspect;
mod norms;
pub mod pipeline;
pub mod profile;
mod refusal;
pub mod release;
pub mod report;
pub mod route;
pub mod site;
pub mod state;
pub mod unfold;
pub mod verify;
pub mod yaml;

pub use error::{Error, Result};

/// Models, tensors and file formats: the crate `bnkit-model` in the version that this crate takes and gives, so that a program
/// needs to depend on `bnkit` alone.
pub use bnkit_model as model;

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
