//! `action.yml` and `docs/ci.md`: valid YAML, options that exist, and a script that does what it says.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{bnkit, folder_with, names};
use serde_yaml::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn action() -> Value {
    serde_yaml::from_str(&text("action.yml")).expect("valid YAML")
}

fn steps() -> Vec<Value> {
    let action = action();
    assert_eq!(action["runs"]["using"], "composite");
    action["runs"]["steps"].as_sequence().unwrap().clone()
}

/// The script of the step that runs bnkit.
fn script() -> String {
    let run = steps()
        .into_iter()
        .find(|step| step["id"] == "run")
        .unwrap();
    run["run"].as_str().unwrap().to_owned()
}

/// All `--options` in a text.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .map(str::to_owned)
        .collect()
}

fn help(command: &str) -> BTreeSet<String> {
    let folder = tempfile::tempdir().unwrap();
    options(&bnkit(folder.path(), &[command, "--help"]).is_done().stdout)
}

#[track_caller]
fn exist(command: &str, used: &BTreeSet<String>) {
    let known = help(command);
    for option in used {
        assert!(known.contains(option), "bnkit {command} has no {option}");
    }
}

#[test]
fn inputs_are_documented_and_used() {
    let action = action();
    let page = text("docs/ci.md");
    let all = text("action.yml");
    for (name, input) in action["inputs"].as_mapping().unwrap() {
        let name = name.as_str().unwrap();
        assert!(
            input["description"]
                .as_str()
                .is_some_and(|text| text.len() > 10),
            "{name}"
        );
        assert!(
            page.contains(&format!("\n| `{name}` | ")),
            "docs/ci.md: {name}"
        );
        assert!(
            all.contains(&format!("inputs.{name}")),
            "{name} is not used"
        );
        // A required input has no default, any other has one.
        assert_ne!(
            input["required"] == true,
            input.get("default").is_some(),
            "{name}"
        );
    }
    // Every input that is used is declared.
    for (at, _) in all.match_indices("inputs.") {
        let rest = &all[at + "inputs.".len()..];
        let end = rest
            .find(|c: char| !(c.is_ascii_lowercase() || c == '-'))
            .unwrap();
        assert!(
            action["inputs"].get(&rest[..end]).is_some(),
            "{}",
            &rest[..end]
        );
    }
    // Inputs reach scripts through the environment: what stands in one is data, never a command.
    for step in steps() {
        let script = step["run"].as_str().unwrap_or_default();
        assert!(!script.contains("${{"), "{script}");
    }
}

#[test]
fn its_options_exist() {
    let used = options(&script());
    assert_eq!(used.len(), 5, "{used:?}");
    for command in ["fold", "recalibrate"] {
        exist(command, &used);
    }
    let always: BTreeSet<String> = ["--format", "--report", "--config"]
        .map(str::to_owned)
        .into();
    for command in ["validate", "inspect", "verify", "diff", "convert"] {
        exist(command, &always);
    }
    exist("validate", &["--data".to_owned()].into());
}

/// Runs the action's script as a runner does; the folder then has its output and its summary.
fn act(folder: &Path, inputs: &[(&str, &str)]) -> (i32, String) {
    let mut shell = Command::new("bash");
    shell.args([
        "--noprofile",
        "--norc",
        "-e",
        "-o",
        "pipefail",
        "-c",
        &script(),
    ]);
    shell
        .current_dir(folder)
        .env("BNKIT", env!("CARGO_BIN_EXE_bnkit"));
    for name in [
        "COMMAND", "MODEL", "OUTPUT", "DATA", "CONFIG", "REPORT", "ARGS",
    ] {
        let given = inputs.iter().find(|(input, _)| *input == name);
        let default = if name == "COMMAND" { "fold" } else { "" };
        shell.env(name, given.map_or(default, |(_, value)| value));
    }
    for file in ["GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"] {
        shell.env(file, folder.join(file));
    }
    let output = shell.output().expect("bash");
    (
        output.status.code().expect("an exit code"),
        String::from_utf8(output.stdout).expect("text"),
    )
}

#[test]
fn its_script_folds_and_reports() {
    let folder = folder_with("tiny_resnet.onnx");
    let (code, said) = act(
        folder.path(),
        &[
            ("MODEL", "net.onnx"),
            ("OUTPUT", "out put.onnx"),
            ("REPORT", "a b.json\nc.md\n"),
            ("ARGS", "--skip\n/bn1/*"),
        ],
    );
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("::notice "), "{said}");
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("GITHUB_OUTPUT"), "exit-code=0\n");
    assert!(read("GITHUB_STEP_SUMMARY").contains("BatchNorm"));
    let report: serde_json::Value = serde_json::from_str(&read("a b.json")).unwrap();
    assert_eq!(report["summary"]["skipped"], 1);
    assert_eq!(
        names(folder.path()),
        [
            "GITHUB_OUTPUT",
            "GITHUB_STEP_SUMMARY",
            "a b.json",
            "c.md",
            "net.onnx",
            "out put.onnx"
        ]
    );
}

#[test]
fn its_script_fails_as_the_command_does() {
    let folder = folder_with("../golden/bn_conv_padded_shift.onnx");
    let all = [("MODEL", "net.onnx"), ("ARGS", "--require-all-folded")];
    assert_eq!(act(folder.path(), &all).0, 1);
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    assert_eq!(read("GITHUB_OUTPUT"), "exit-code=1\n");
    assert!(read("GITHUB_STEP_SUMMARY").contains("padded-shift"));
    let folder = tempfile::tempdir().unwrap();
    // What looks like a command is a name.
    assert_eq!(act(folder.path(), &[("MODEL", "$(touch x); touch y")]).0, 2);
    assert_eq!(names(folder.path()), ["GITHUB_OUTPUT"]);
}

#[test]
fn examples_of_the_page_are_yaml_with_options_that_exist() {
    let page = text("docs/ci.md");
    let mut blocks = 0;
    for block in page.split("```yaml\n").skip(1) {
        let (block, _) = block.split_once("```").expect("an end");
        let value: Value =
            serde_yaml::from_str(block).unwrap_or_else(|error| panic!("{error} in\n{block}"));
        blocks += 1;
        for step in value.as_sequence().into_iter().flatten() {
            for (input, _) in step["with"].as_mapping().into_iter().flatten() {
                if step["uses"]
                    .as_str()
                    .is_some_and(|uses| uses.starts_with("bnkit/"))
                {
                    let name = input.as_str().unwrap();
                    assert!(action()["inputs"].get(name).is_some(), "no input {name}");
                }
            }
        }
    }
    assert_eq!(blocks, 5);
    let mut commands = 0;
    for line in page.lines() {
        for command in ["fold", "release"] {
            let Some((_, call)) = line.split_once(&format!("bnkit {command} ")) else {
                continue;
            };
            exist(command, &options(call.split("||").next().unwrap()));
            commands += 1;
        }
    }
    assert!(commands >= 3, "{commands}");
    exist("validate", &["--max-mean-drift".to_owned()].into());
    assert!(
        page.contains("            --max-mean-drift\n"),
        "another option in the page: check that one"
    );
}
