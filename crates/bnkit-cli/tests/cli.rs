//! Arguments, exit codes and messages: everything that is decided before or without a model.

mod common;

use std::fs;
use std::process::Stdio;

use common::{Run, bnkit, command, names};

fn here(args: &[&str]) -> Run {
    bnkit(tempfile::tempdir().unwrap().path(), args)
}

#[test]
fn help_and_version_are_results() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["fold", "--help"],
        &["explain", "-h"],
    ] {
        let run = here(args);
        run.is_done();
        assert!(run.stdout.contains("Usage: bnkit"), "{}", run.stdout);
        assert!(run.stdout.contains("Exit codes:"), "{}", run.stdout);
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn the_version_says_what_was_built_but_not_when_or_where() {
    let short = concat!("bnkit ", env!("CARGO_PKG_VERSION"));
    assert_eq!(here(&["-V"]).is_done().stdout, format!("{short}\n"));
    let long = here(&["--version"]).is_done().stdout.clone();
    let lines: Vec<&str> = long.lines().collect();
    let [first, commit, target, compiler] = lines[..] else {
        panic!("{long}");
    };
    assert_eq!(first, short);
    let commit = commit.strip_prefix("commit: ").expect("a commit");
    let is_hash = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_hash || commit == "not recorded", "{commit}");
    assert!(target.starts_with("target: ") && target.contains(std::env::consts::ARCH));
    assert!(compiler.starts_with("rustc: 1."), "{compiler}");
    assert!(!long.contains(env!("CARGO_MANIFEST_DIR")), "{long}");
}

#[test]
fn wrong_arguments_are_errors() {
    for (args, part) in [
        (&["melt"][..], "unrecognized subcommand 'melt'"),
        (&["fold"], "<MODEL>"),
        (&["fold", "x.onnx", "--samples", "0"], "0 is not in 1.."),
        (&["fold", "x.onnx", "--atol", "nan"], "not negative"),
        (&["fold", "x.onnx", "--tolerance-factor", "0"], "above 0"),
        (&["fold", "x.onnx", "--shape", "x=1,3"], "name=1x3x224x224"),
        (&["fold", "x.onnx", "--threads", "0"], "--threads"),
        (
            &["fold", "x.onnx", "--report", "r.pdf"],
            "a report ends in .json, .yaml, .yml, .md, .html, .xml (JUnit) or .sarif",
        ),
        (&["fold", "x.onnx", "--require", "luck"], "end-to-end"),
        (
            &["inspect", "x.onnx", "--format", "toml"],
            "[possible values: text, json, yaml, github]",
        ),
        (&["verify", "a.onnx"], "<B>"),
    ] {
        here(args).is_error(&[part]);
    }
}

#[test]
fn no_arguments_show_the_help_as_an_error() {
    let run = here(&[]);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    assert!(run.stderr.contains("Usage: bnkit"), "{}", run.stderr);
}

#[test]
fn a_model_that_is_not_there_is_named() {
    for args in [
        &["fold", "no.onnx"][..],
        &["inspect", "no.onnx"],
        &["verify", "no.onnx", "no.onnx"],
    ] {
        for format in ["text", "json", "github"] {
            here(&[args, &["--format", format]].concat()).is_error(&["no.onnx"]);
        }
    }
}

#[test]
fn an_existing_output_is_left_alone_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name);
    // The input does not even have to be a model: the output is looked at first.
    fs::write(path("net.onnx"), "input").unwrap();
    fs::write(path("net.folded.onnx"), "output").unwrap();
    bnkit(folder.path(), &["fold", "net.onnx"]).is_error(&[
        "net.folded.onnx",
        "exists already",
        "--force",
        "-o",
    ]);
    bnkit(folder.path(), &["fold", "net.onnx", "-o", "./net.onnx"])
        .is_error(&["the input itself", "--force"]);
    bnkit(folder.path(), &["fold", "net.onnx", "-o", "."]).is_error(&["this is a folder"]);
    bnkit(folder.path(), &["fold", "net.onnx", "-o", "no/net.onnx"])
        .is_error(&["no: there is no such folder"]);
    assert_eq!(fs::read(path("net.onnx")).unwrap(), b"input");
    assert_eq!(fs::read(path("net.folded.onnx")).unwrap(), b"output");
    assert_eq!(names(folder.path()), ["net.folded.onnx", "net.onnx"]);
}

#[test]
fn a_report_never_replaces_a_model() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("net.json"), "model").unwrap();
    for args in [
        &["fold", "net.json", "--dry-run"][..],
        &["inspect", "net.json"],
        &["verify", "other.onnx", "net.json"],
    ] {
        let run = bnkit(folder.path(), &[args, &["--report", "./net.json"]].concat());
        run.is_error(&["the report would replace a model"]);
    }
    bnkit(
        folder.path(),
        &["inspect", "net.json", "--report", "no/r.md"],
    )
    .is_error(&["no: there is no such folder"]);
    assert_eq!(fs::read(folder.path().join("net.json")).unwrap(), b"model");
}

#[test]
fn a_proof_cannot_be_both_demanded_and_forbidden() {
    here(&["fold", "x.onnx", "--no-verify", "--require", "end-to-end"])
        .is_error(&["--no-verify forbids"]);
}

#[test]
fn the_configuration_file_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let with = |yaml: &str| {
        fs::write(folder.path().join("c.yaml"), yaml).unwrap();
        bnkit(folder.path(), &["fold", "x.onnx", "--config", "c.yaml"])
    };
    with("fold:\n  samples: 8\n  onyl: [a]\n").is_error(&[
        "c.yaml:3:3: section \"fold\": unknown option \"onyl\" (did you mean \"only\"?)",
    ]);
    with("verify:\n  atol: -1\n").is_error(&["c.yaml:2:3: section \"verify\":", "not negative"]);
    with("fold: {no-verify: true, require: end-to-end}\n").is_error(&["--no-verify forbids"]);
    with("fold:\n  report: r.pdf\n").is_error(&["c.yaml:2:", "a report ends in"]);
    with("fold: [\n").is_error(&["c.yaml: "]);
    here(&["fold", "x.onnx", "--config", "no.yaml"]).is_error(&["no.yaml: cannot open"]);
}

#[test]
fn explain_lists_explains_and_suggests() {
    let list = here(&["explain"]);
    assert!(
        list.is_done().stdout.contains("\n  shared-output "),
        "{}",
        list.stdout
    );
    let one = here(&["explain", "Shared-Output"]);
    assert!(
        one.is_done()
            .stdout
            .starts_with("shared-output  (refusal)\n"),
        "{}",
        one.stdout
    );
    here(&["explain", "shard-output"])
        .is_error(&["no code \"shard-output\"; did you mean shared-output"]);
    here(&["explain", "%%%"]).is_error(&["bnkit explain lists all codes"]);
}

#[test]
fn explain_speaks_every_format() {
    let json = here(&["explain", "shared-output", "--format", "json"])
        .is_done()
        .json();
    assert_eq!(json["schema"], "bnkit.explain/1");
    assert_eq!(json["explanations"][0]["code"], "shared-output");
    let yaml = here(&["explain", "--format", "yaml"]);
    assert!(
        yaml.is_done()
            .stdout
            .starts_with("schema: bnkit.explain/1\n"),
        "{}",
        yaml.stdout
    );
    let folder = tempfile::tempdir().unwrap();
    bnkit(
        folder.path(),
        &["explain", "--report", "codes.md", "--report", "codes.json"],
    )
    .is_done();
    let page = fs::read_to_string(folder.path().join("codes.md")).unwrap();
    assert!(page.contains("\n## shared-output: "), "{page}");
    let all: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("codes.json")).unwrap()).unwrap();
    assert!(!all["explanations"].as_array().unwrap().is_empty());
}

#[test]
fn colour_comes_only_when_it_is_wanted() {
    let coloured = |args: &[&str]| here(args).stdout.contains('\u{1b}');
    assert!(!coloured(&["explain"]));
    assert!(!coloured(&["explain", "--color", "never"]));
    assert!(coloured(&["explain", "--color", "always"]));
}

#[test]
fn a_reader_that_leaves_ends_the_output_quietly() {
    let mut child = command()
        .args(["explain"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}
