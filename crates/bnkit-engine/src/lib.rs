//! Running ONNX models on tract: eval mode, in single and in double precision.
//!
//! The double-precision run is the yardstick that proofs need: every float of the model becomes a double, so what two graphs
//! differ by is logic and not rounding. tract computes a number of models silently wrong, or panics on them; the copy of the model
//! that it sees is therefore normalised first ([`normalise`](self)), and what cannot be run faithfully is refused by name.
//!
//! This crate knows nothing of folding, of files (but for external data beside a model) and of printing. Train mode (each
//! BatchNorm normalises with its batch) will enter as an operator of our own in tract's registry, beside [`operators`](self).
//!
//! | module | what it holds |
//! | --- | --- |
//! | `session` | load and run: the way from bytes to outputs |
//! | `normalise` | the rewrites that a copy of the model undergoes before tract sees it, one concern a file |
//! | `operators` | operators of our own, where tract has none in double precision |
//! | `spec` | which inputs a model wants |
//! | `flow` | which outputs hang on operators that jump (Round, TopK …) |
//! | `constant` | tensors: protobuf, tract and ours; external data |
//! | `perturb` | small changes to constants, to measure what rounding them costs |
//! | `quiet` | panics of tract become errors, without a word on stderr |

mod constant;
mod error;
mod flow;
mod normalise;
mod operators;
mod perturb;
mod quiet;
mod session;
mod spec;

pub use constant::{constant_types, constants, tensor_from_pb};
pub use error::{EngineError, Result};
pub use flow::{Jump, jumps, value_names};
pub use perturb::Perturbation;
pub use session::{LoadOptions, Precision, Session};
pub use spec::{Dim, InputSpec, inputs, outputs};
