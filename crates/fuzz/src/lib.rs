//! What the fuzz targets do, and how models are mutated. `docs/testing.md` says how they are run.

pub mod mutate;
pub mod targets;

/// The command is a program and no library, so its configuration is compiled in here.
#[allow(dead_code, unreachable_pub)]
#[path = "../../bnkit-cli/src"]
mod cli {
    pub(crate) mod args;
    pub(crate) mod config;
}

/// A configuration file, for a command that has nearly all options.
pub fn config(bytes: &[u8]) {
    use clap::CommandFactory;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("written");
    for running in ["fold", "recalibrate"] {
        if let Ok(command) = cli::config::apply(cli::args::Cli::command(), running, file.path()) {
            let _ = command.try_get_matches_from(["bnkit", running, "m.onnx"]);
        }
    }
}
