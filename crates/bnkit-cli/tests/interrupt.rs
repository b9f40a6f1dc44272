//! Ctrl-C in the middle of a job: nothing half done stays behind.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Run, bnkit, command, floats, folder_with, names, npy};
use tempfile::TempDir;

/// More batches than any machine runs before it has read a signal.
fn folder() -> TempDir {
    let folder = folder_with("tiny_resnet.onnx");
    let path = folder.path().join("x.npy");
    npy(
        &path,
        "<f4",
        &[4000, 3, 32, 32],
        &floats(4000 * 3 * 1024, 0.0),
    );
    folder
}

/// Starts a job and sends it SIGINT once it listens: the kernel tells when.
fn interrupted(folder: &Path, args: &[&str]) -> Run {
    let child = command()
        .current_dir(folder)
        .args(args)
        .args(["--data", "x.npy", "--batch-size", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !listens(&child) {
        std::thread::yield_now();
    }
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    Run::from(child.wait_with_output().unwrap())
}

/// Whether SIGINT (the second bit) is caught; a process that has ended fails the test here.
fn listens(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.expect("the job is still there").trim();
    u64::from_str_radix(mask, 16).unwrap() & 0b10 != 0
}

#[test]
fn nothing_is_written() {
    let folder = folder();
    let path = folder.path();
    for args in [
        &["recalibrate", "net.onnx"][..],
        &["recalibrate", "net.onnx", "--fold"],
        &["validate", "net.onnx"],
        &["run", "net.onnx", "-o", "y.npz"],
    ] {
        let run = interrupted(path, args);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{}", run.stderr);
        assert!(
            run.stderr
                .contains("\nerror: interrupted: nothing was written\n"),
            "{}",
            run.stderr
        );
        assert_eq!(names(path), ["net.onnx", "x.npy"]);
    }
}

#[test]
fn a_partial_holds_what_had_run() {
    let folder = folder();
    let path = folder.path();
    let run = interrupted(path, &["recalibrate", "net.onnx", "--partial", "p.json"]);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{}", run.stderr);
    assert!(
        run.stderr.contains("error: interrupted: p.json holds the "),
        "{}",
        run.stderr
    );
    assert_eq!(names(path), ["net.onnx", "p.json", "x.npy"]);
    let partial: serde_json::Value =
        serde_json::from_slice(&fs::read(path.join("p.json")).unwrap()).unwrap();
    assert_eq!(partial["schema"], "bnkit.partial/1");
    assert_eq!(partial["complete"], false);
    let batches = partial["batches"].as_u64().unwrap();
    assert!(
        batches < 4000 && partial["samples"].as_u64() == Some(batches),
        "{batches}"
    );
    // It can be read back, with a warning.
    let run = bnkit(path, &["merge", "p.json", "--model", "net.onnx"]);
    assert!(
        run.is_done().stderr.contains("[interrupted-shard]"),
        "{}",
        run.stderr
    );
}
