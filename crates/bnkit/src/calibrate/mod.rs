//! Re-estimating the running statistics of BatchNorms from calibration data, and judging those that are stored.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `jobs` | the jobs of the command line: recalibrate, validate, run, stats, merge |
//! | `report` | what they say, as values |
//! | `options` | what may be said about them |
//! | `modules`, `calls` | whose statistics: BatchNorm nodes, those of one module together; what the engine calls them |
//! | `batches` | the data, cut into batches and shards |
//! | `methods` | how batch statistics become running statistics |
//! | `sampling` | how certain they are, and when enough has been seen |
//! | `network`, `observe`, `sequential` | running the network: one pass, repeated passes |
//! | `apply` | new statistics into a model |
//! | `partial` | what a shard saw, as a file |
//! | `moments` | what batches showed, as a value that adds up and knows which batches |
//! | `outcome` | what became of each layer |
//! | `drift` | stored against observed statistics |
//! | `exports` | running statistics as files of their own, and back |
//! | `explain` | what the warnings mean |
//! | `files` | small files that appear complete or not at all |

pub(crate) mod apply;
pub(crate) mod batches;
mod calls;
pub(crate) mod drift;
mod explain;
mod exports;
pub(crate) mod files;
mod jobs;
mod methods;
pub(crate) mod modules;
mod moments;
pub(crate) mod network;
mod observe;
mod options;
mod outcome;
mod partial;
mod report;
mod sampling;
mod sequential;

pub(crate) use explain::EXPLANATIONS;
pub(crate) use jobs::stats_layers;
pub use jobs::*;
pub(crate) use jobs::{in_model, open_batches};
pub use moments::Moments;
pub use options::*;
pub use report::*;

#[cfg(test)]
mod tests;
