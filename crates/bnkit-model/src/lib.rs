//! Bytes ⇄ checkpoint: reading, viewing, editing and writing model files without losing anything.
//!
//! This crate knows formats and graphs. It knows nothing of BatchNorm, of running a model, or of printing.
//!
//! The parts, in the order in which a file passes them:
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`source`] | where bytes come from: a file read at offsets, or memory |
//! | [`wire`] | the protobuf wire format: fields as byte ranges, and the writer for single fields |
//! | [`proto`] | the ONNX schema as prost types, for the small messages |
//! | [`onnx`] | the model: scopes, nodes, values, tensors; loading, editing and saving |
//! | [`safetensors`] | state dicts: single and sharded files, reading and writing |
//! | [`tensor`], [`dtype`], [`stored`] | element types, dense tensors, elements that stay where they are |
//! | `output`, `place`, `temporary` | one file in the making, several that appear together, and their names until then |
//! | [`Limits`] | what a file may ask for, at most |
//! | [`format`](mod@format) | which of the formats a file is in, by its content |

pub mod dtype;
pub mod error;
pub mod format;
mod limits;
pub mod onnx;
mod output;
mod place;
pub mod proto;
pub mod safetensors;
pub mod source;
pub mod stored;
pub mod temporary;
pub mod tensor;
pub mod wire;

pub use dtype::DType;
pub use error::{Error, Result};
pub use limits::Limits;
pub use tensor::Tensor;
