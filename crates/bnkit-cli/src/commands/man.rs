//! `bnkit man`: the pages follow from the declared arguments, as `--help` does.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};

use super::Answer;
use crate::args::Cli;
use crate::args::man::Man;
use crate::output;

pub(super) fn run(args: &Man) -> anyhow::Result<Answer> {
    let pages = pages()?;
    match &args.output {
        Some(folder) => write(&pages, folder)?,
        None => {
            if let Some((_, text)) = pages.first() {
                output::raw(text)?;
            }
        }
    }
    Ok(Answer::Yes)
}

fn write(pages: &[(String, Vec<u8>)], folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("{}: cannot be created", folder.display()))?;
    for (name, text) in pages {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    Ok(())
}

/// Names and contents, the page of `bnkit` itself first.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    // A page is the same for all builds of a version.
    let mut command = Cli::command().long_version(None::<&str>);
    command.build();
    let commands: Vec<Command> = command.get_subcommands().cloned().collect();
    [command].into_iter().chain(commands).map(page).collect()
}

fn page(command: Command) -> io::Result<(String, Vec<u8>)> {
    let page = clap_mangen::Man::new(command.long_version(None::<&str>));
    let page = page
        .source(concat!("bnkit ", env!("CARGO_PKG_VERSION")))
        .manual("bnkit manual");
    let mut text = Vec::new();
    page.render(&mut text)?;
    // What follows the options is the table of exit codes, and manual pages have a name for that.
    let text = String::from_utf8_lossy(&text).replace(".SH EXTRA\n", ".SH \"EXIT STATUS\"\n");
    Ok((page.get_filename(), text.into_bytes()))
}
