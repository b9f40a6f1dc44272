//! Running ONNX models on tract: eval mode, in single and in double precision, and train mode.
//!
//! The double-precision run is the yardstick that proofs need: every float of the model becomes a double, so what two graphs
//! differ by is logic and not rounding. tract computes a number of models silently wrong, or panics on them; the copy of the model
//! that it sees is therefore normalised first ([`normalise`](self)), and what cannot be run faithfully is refused by name.
//!
//! This crate knows nothing of folding, of files (but for external data beside a model) and of printing.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `session` | load and run: the way from bytes to outputs |
//! | `normalise` | the rewrites that a copy of the model undergoes before tract sees it, one concern a file |
//! | `compile` | from tract's graph to one that runs |
//! | `parts` | large graphs, rewritten part by part |
//! | `operators` | operators of our own, where tract has none in double precision, or slow ones |
//! | `train` | train mode: each BatchNorm normalises with its batch and tells what it saw |
//! | `convolve` | convolutions of our own, in single and in double precision |
//! | `buffers` | memory of activations that is used again |
//! | `moments` | count, mean and squared deviations per channel, mergeable |
//! | `kernels` | the loops over activations, for the processor at hand |
//! | `apart` | a model's structure without its large constants, which become tract's tensors in one step |
//! | `spec` | which inputs a model wants |
//! | `engine` | what runs models: tract, and a second engine where there is one |
//! | `ort` | ONNX Runtime as that second engine (feature `ort`, not in the default build) |
//! | `outline` | what a model says of itself, read once |
//! | `flow` | which outputs hang on operators that jump (Round, TopK …) |
//! | `constant` | tensors: protobuf, tract and ours; external data |
//! | `perturb` | small changes to constants, to measure what rounding them costs |
//! | `quiet` | panics of tract become errors, without a word on stderr |

mod apart;
mod buffers;
mod compile;
mod constant;
mod convolve;
mod engine;
mod error;
mod flow;
mod kernels;
mod moments;
mod normalise;
mod operators;
#[cfg(feature = "ort")]
mod ort;
mod outline;
mod parts;
mod perturb;
mod quiet;
mod session;
mod spec;
mod train;

pub use constant::{constants, tensor_from_pb};
pub use engine::{Engine, Second, Tract, Values, second};
pub use error::{EngineError, Result};
pub use flow::Jump;
pub use moments::Moments;
pub use outline::Outline;
pub use perturb::Perturbation;
pub use quiet::catch_panic;
pub use session::{LoadOptions, Precision, Session};
pub use spec::{Dim, InputSpec, inputs};
pub use train::{BatchRun, GivenStatistics, Norm, Sample, Statistics, TrainOptions, Trainer};
