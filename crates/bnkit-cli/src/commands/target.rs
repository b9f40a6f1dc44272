//! Where outputs go, and whether they may.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::bail;
use bnkit_model::format::Format;

use crate::output;

/// What an output beside the input is called, in the format of the input.
pub(super) fn beside_as(format: Format, model: &Path, ending: &str) -> PathBuf {
    let kind = match format {
        Format::Onnx => return beside(model, ending),
        Format::Safetensors => ".safetensors",
        Format::SafetensorsIndex => ".safetensors.index.json",
    };
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(kind).unwrap_or(&name);
    model.with_file_name(format!("{stem}.{ending}{kind}"))
}

/// `NAME.ENDING.onnx` beside the input.
pub(super) fn beside(model: &Path, ending: &str) -> PathBuf {
    let is_onnx = model
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"));
    let name = if is_onnx {
        model.file_stem()
    } else {
        model.file_name()
    };
    let mut name = name.map_or_else(|| OsString::from("model"), OsString::from);
    name.push(format!(".{ending}.onnx"));
    model.with_file_name(name)
}

/// Where a recalibrated model goes if nothing else is said.
pub(super) fn recalibrated(format: Format, model: &Path, folded: bool) -> PathBuf {
    let ending = if folded {
        "recalibrated.folded"
    } else {
        "recalibrated"
    };
    beside_as(format, model, ending)
}

/// An error if the file to be written (no model: statistics, outputs, a partial) must not or cannot be.
pub(super) fn file(target: &Path, models: &[&Path], force: bool) -> anyhow::Result<()> {
    if models.iter().any(|model| output::same_file(target, model)) {
        bail!("{}: this is a model; name another file", target.display());
    }
    writable(target, models[0], force)
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
        let name = |model: &str| beside(Path::new(model), "folded");
        assert_eq!(name("a/net.onnx"), Path::new("a/net.folded.onnx"));
        assert_eq!(name("net.v2.ONNX"), Path::new("net.v2.folded.onnx"));
        assert_eq!(name("/m/net"), Path::new("/m/net.folded.onnx"));
        assert_eq!(name("net.pb"), Path::new("net.pb.folded.onnx"));
        let index = beside_as(
            Format::SafetensorsIndex,
            Path::new("m/model.safetensors.index.json"),
            "folded",
        );
        assert_eq!(index, Path::new("m/model.folded.safetensors.index.json"));
    }
}
