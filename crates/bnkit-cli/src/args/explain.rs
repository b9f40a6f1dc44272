//! `bnkit explain`.

use clap::Args;

/// Say what a code of a report means, and what to do; without CODE, list all of them
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Explain {
    /// A code, as in shared-output
    pub(crate) code: Option<String>,
}
