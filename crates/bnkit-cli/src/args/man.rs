//! `bnkit man`.

use std::path::PathBuf;

use clap::Args;

/// Write the manual page bnkit(1) to stdout, or with -o the pages of all commands into a folder
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Man {
    /// Write bnkit.1, bnkit-fold.1 … into DIR; older pages are replaced
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}
