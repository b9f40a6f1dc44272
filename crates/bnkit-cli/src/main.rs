//! The `bnkit` command: arguments in, one library call, a printed result and an exit code out.
//!
//! Three thin layers: [`args`] says what may be asked, [`commands`] asks the library, [`mod@print`] says the answer. Nothing
//! here computes anything about a model.

mod args;
mod commands;
mod config;
mod interrupt;
mod output;
mod print;
mod progress;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::Cli;
use commands::Answer;

fn main() -> ExitCode {
    match run() {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => match error.downcast_ref::<clap::Error>() {
            Some(usage) => {
                // Help and version come as "errors" too. Nobody is left to be told that printing failed.
                let _ = usage.print();
                ExitCode::from(if usage.use_stderr() { 2 } else { 0 })
            }
            None => {
                output::error(&error);
                ExitCode::from(2)
            }
        },
    }
}

fn run() -> anyhow::Result<Answer> {
    let command = Cli::command();
    let mut matches = command.clone().try_get_matches()?;
    if let Some(path) = matches.get_one::<PathBuf>("config") {
        let running = matches.subcommand_name().unwrap_or_default();
        matches = config::apply(command, running, path)?.try_get_matches()?;
    }
    commands::run(Cli::from_arg_matches(&matches)?)
}
