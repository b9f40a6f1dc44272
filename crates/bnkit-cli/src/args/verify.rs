//! `bnkit verify`.

use std::path::PathBuf;

use clap::Args;

use super::proof::Proof;

/// Run two models on the same inputs and say whether they are numerically equivalent
///
/// A is the yardstick: it is run in f32 and in f64, and the difference between the two is the noise that no equivalent
/// model can be expected to stay below.
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Verify {
    /// The first model: the yardstick
    pub(crate) a: PathBuf,

    /// The second model
    pub(crate) b: PathBuf,

    #[command(flatten)]
    pub(crate) proof: Proof,
}
