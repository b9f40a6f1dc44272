//! Bytes ⇄ checkpoint: reading, viewing, editing and writing model files without losing anything.
//!
//! This crate knows formats and graphs. It knows nothing of BatchNorm, of running a model, or of printing.
//!
//! The parts, in the order in which a file passes them:
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`proto`] | the ONNX schema as prost types, for the small messages |
//! | [`tensor`], [`dtype`] | element types and dense tensors |

pub mod dtype;
pub mod error;
pub mod proto;
pub mod tensor;

pub use dtype::DType;
pub use error::{Error, Result};
pub use tensor::Tensor;
