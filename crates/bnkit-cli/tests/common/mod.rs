//! Running the command as a user does.

#![allow(dead_code, reason = "every test binary uses its own part of this")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What came of a run.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The command, in an environment that does not colour anything.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bnkit"));
    command
        .env_remove("CLICOLOR_FORCE")
        .env_remove("NO_COLOR")
        .env("COLUMNS", "100");
    command
}

/// Runs `bnkit ARGS` in `folder`.
pub(crate) fn bnkit(folder: &Path, args: &[&str]) -> Run {
    Run::from(
        command()
            .current_dir(folder)
            .args(args)
            .output()
            .expect("the command starts"),
    )
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("no signal ended it"),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }
}

impl Run {
    /// Exit code 2: one message on stderr that has `parts` in it, nothing on stdout.
    #[track_caller]
    pub(crate) fn is_error(&self, parts: &[&str]) {
        assert_eq!(self.code, 2, "{}", self.stderr);
        assert_eq!(self.stdout, "");
        assert!(self.stderr.starts_with("error: "), "{}", self.stderr);
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "{part:?} is missing in {}",
                self.stderr
            );
        }
    }

    /// Exit code 0.
    #[track_caller]
    pub(crate) fn is_done(&self) -> &Self {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// A model of the test data.
pub(crate) fn model(name: &str) -> PathBuf {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/models"
    ))
    .join(name)
}

/// A folder of its own with a copy of a model as `net.onnx`.
pub(crate) fn folder_with(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(model(name), folder.path().join("net.onnx")).unwrap();
    folder
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// An array as NumPy writes it: `kind` is its type ("<f4"), `data` its elements in C order.
pub(crate) fn npy(path: &Path, kind: &str, dims: &[usize], data: &[u8]) {
    let dims: String = dims.iter().map(|dim| format!("{dim}, ")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({dims}), }}");
    let padding = 64 - (10 + header.len() + 1) % 64;
    header += &" ".repeat(padding);
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    std::fs::write(path, bytes).unwrap();
}

/// Floats that differ from element to element, spread around `centre`.
pub(crate) fn floats(count: usize, centre: f32) -> Vec<u8> {
    let value = |at: usize| ((at * 7919) % 1009) as f32 / 504.0 - 1.0 + centre;
    (0..count).flat_map(|at| value(at).to_le_bytes()).collect()
}

/// 40 samples that the network was not made for, four to a batch.
pub(crate) const BATCHED: [&str; 4] = ["--data", "x.npy", "--batch-size", "4"];

/// A folder with the network as `net.onnx` and data far from its statistics as `x.npy`.
pub(crate) fn calibration_folder() -> tempfile::TempDir {
    let folder = folder_with("tiny_resnet.onnx");
    let data = floats(40 * 3 * 32 * 32, 2.0);
    npy(&folder.path().join("x.npy"), "<f4", &[40, 3, 32, 32], &data);
    folder
}

pub(crate) fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}
