//! `bnkit fold`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::bail;
use bnkit::fold::Options;
use bnkit::pipeline::{self, FoldJob};

use super::Answer;
use crate::args::fold::Fold;
use crate::output::{self, Output};
use crate::progress::Bar;

pub(super) fn run(args: &Fold, force: bool, output: &Output) -> anyhow::Result<Answer> {
    if args.no_verify && args.proof.end_to_end() {
        bail!("--require end-to-end asks for a proof and --no-verify forbids it");
    }
    let target = args
        .output
        .clone()
        .unwrap_or_else(|| default_output(&args.model));
    let target = (!args.dry_run).then_some(target);
    if let Some(target) = &target {
        writable(target, &args.model, force)?;
    }
    if let Some(stats) = &args.keep_stats {
        output::folder_exists(stats)?;
        let same = |other: &Path| output::same_file(stats, other) || stats == other;
        if same(&args.model) || target.as_deref().is_some_and(same) {
            bail!("--keep-stats: {} is the model itself", stats.display());
        }
    }
    let models: Vec<&Path> = [
        Some(args.model.as_path()),
        target.as_deref(),
        args.keep_stats.as_deref(),
    ]
    .into_iter()
    .flatten()
    .collect();
    output.check(&models)?;

    let report = pipeline::fold(
        &job(args, target, force, output.wants_hashes()),
        &Bar::new(output.quiet()),
    )?;
    output.result(&report)?;
    Ok(match &report.failure {
        None => Answer::Yes,
        Some(why) => {
            output::failed(why);
            Answer::No
        }
    })
}

fn job(args: &Fold, output: Option<PathBuf>, force: bool, hash: bool) -> FoldJob {
    FoldJob {
        input: args.model.clone(),
        output,
        force,
        hash,
        provenance: args.provenance,
        fold: Options {
            only: args.only.clone(),
            skip: args.skip.clone(),
            assume_constant: args.assume_constant,
            allow_bad_statistics: args.allow_bad_statistics,
            through_branches: args.through_branches,
            aggressive: args.aggressive,
            lower: args.lower,
        },
        keep_stats: args.keep_stats.clone(),
        verify: (!args.no_verify).then(|| args.proof.options()),
        require_end_to_end: args.proof.end_to_end(),
        require_all_folded: args.require_all_folded,
    }
}

/// `NAME.folded.onnx` beside the input.
fn default_output(model: &Path) -> PathBuf {
    let is_onnx = model
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"));
    let name = if is_onnx {
        model.file_stem()
    } else {
        model.file_name()
    };
    let mut name = name.map_or_else(|| OsString::from("model"), OsString::from);
    name.push(".folded.onnx");
    model.with_file_name(name)
}

/// An error if the output must not or cannot be written: better now than after the work.
pub(super) fn writable(target: &Path, model: &Path, force: bool) -> anyhow::Result<()> {
    output::folder_exists(target)?;
    if target.is_dir() {
        bail!("{}: this is a folder; -o names a file", target.display());
    }
    // A dangling link counts as existing: the rename would replace it.
    if force || target.symlink_metadata().is_err() {
        return Ok(());
    }
    if output::same_file(target, model) {
        bail!(
            "{}: this is the input itself (--force replaces it)",
            target.display()
        );
    }
    bail!(
        "{}: this file exists already (--force replaces it, -o names another)",
        target.display()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_output_lies_beside_the_input() {
        let name = |model: &str| default_output(Path::new(model));
        assert_eq!(name("a/net.onnx"), Path::new("a/net.folded.onnx"));
        assert_eq!(name("net.v2.ONNX"), Path::new("net.v2.folded.onnx"));
        assert_eq!(name("/m/net"), Path::new("/m/net.folded.onnx"));
        assert_eq!(name("net.pb"), Path::new("net.pb.folded.onnx"));
    }
}
