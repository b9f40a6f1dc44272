//! The `bnkit` command: arguments in, one library call, a printed result and an exit code out.
//!
//! A library with one function, so that a program and a Python package can be the same command.
//!
//! Three thin layers: `args` says what may be asked, `commands` asks the library, `print` says the answer. Nothing
//! here computes anything about a model.

mod args;
mod commands;
mod config;
mod interrupt;
mod output;
mod print;
mod progress;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches};

use args::Cli;
use commands::Answer;

/// Does what the command line asks for, prints, and gives the exit code: 0 yes, 1 no, 2 it could not be done. The first of `args` is the
/// name of the program.
///
/// It is for a process that does nothing else: it sets up threads, colours and signals for the whole of it.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    match run(&args.into_iter().collect::<Vec<_>>()) {
        Ok(Answer::Yes) => 0,
        Ok(Answer::No) => 1,
        Err(error) => match error.downcast_ref::<clap::Error>() {
            Some(usage) => {
                // Help and version come as "errors" too. Nobody is left to be told that printing failed.
                let _ = usage.print();
                if usage.use_stderr() { 2 } else { 0 }
            }
            None => {
                output::error(&error);
                2
            }
        },
    }
}

fn run(args: &[OsString]) -> anyhow::Result<Answer> {
    let command = Cli::command();
    let mut matches = command.clone().try_get_matches_from(args)?;
    if let Some(path) = matches.get_one::<PathBuf>("config") {
        let running = matches.subcommand_name().unwrap_or_default();
        matches = config::apply(command, running, path)?.try_get_matches_from(args)?;
    }
    commands::run(Cli::from_arg_matches(&matches)?)
}
