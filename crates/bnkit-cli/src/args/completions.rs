//! `bnkit completions`.

use clap::Args;
use clap_complete::Shell;

/// Write shell completions to stdout
///
/// For bash:  bnkit completions bash > ~/.local/share/bash-completion/completions/bnkit
/// For zsh:   bnkit completions zsh > "${fpath[1]}/_bnkit"
/// For fish:  bnkit completions fish > ~/.config/fish/completions/bnkit.fish
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = super::EXIT_CODES)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}
