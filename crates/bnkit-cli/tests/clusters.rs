//! `docs/clusters`: the manifests are valid, their numbers agree, and what they run gives the model that one machine gives.

// What was skipped is for the reader of the test's output.
#![allow(clippy::print_stderr)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{bnkit, floats, folder_with, names, npy, read};
use serde_yaml::Value;

/// Stands in for Slurm's: runs the tasks at once, one after the other, and gives the number of the job.
const SBATCH: &str = r#"#!/bin/bash
set -euo pipefail
echo "$*" >> "$SUBMITTED"
while [[ $1 == --* ]]; do shift; done
array=$(sed -n 's/^#SBATCH --array=//p' "$1")
export SLURM_SUBMIT_DIR=$PWD SLURM_CPUS_PER_TASK=1
if [[ -z $array ]]; then
  bash "$@" >&2
  echo 4713
  exit
fi
export SLURM_ARRAY_JOB_ID=4711
for SLURM_ARRAY_TASK_ID in $(seq "${array%-*}" "${array#*-}"); do
  export SLURM_ARRAY_TASK_ID
  (cd / && bash "$@" >&2)
done
echo "4711;here"
"#;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/clusters")
}

fn text(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn manifest(name: &str) -> Value {
    serde_yaml::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The only container of a Job.
fn container(job: &Value) -> &Value {
    let containers = &job["spec"]["template"]["spec"]["containers"];
    let [container] = containers.as_sequence().unwrap().as_slice() else {
        panic!("one container");
    };
    container
}

/// The script that a container runs by `/bin/sh -euc`.
fn script(job: &Value) -> &str {
    let command: Vec<_> = container(job)["command"].as_sequence().unwrap().to_vec();
    assert_eq!(command, ["/bin/sh", "-euc"].map(Value::from));
    let args = container(job)["args"].as_sequence().unwrap();
    assert_eq!(args.len(), 1, "a script, and no arguments to it");
    args[0].as_str().unwrap()
}

/// The lines of a script that run bnkit, each as one line.
fn commands(script: &str) -> Vec<String> {
    let joined = script.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    lines
        .filter(|line| line.starts_with("bnkit "))
        .map(str::to_owned)
        .collect()
}

/// What a line says in `--option VALUE`.
fn value<'a>(line: &'a str, option: &str) -> &'a str {
    let mut words = line.split_whitespace();
    words
        .find(|word| *word == option)
        .unwrap_or_else(|| panic!("{option} is missing in {line}"));
    words.next().unwrap().trim_matches('"')
}

/// The `#SBATCH --NAME=VALUE` of a script.
fn directive(script: &str, name: &str) -> String {
    let prefix = format!("#SBATCH --{name}=");
    let mut found = script.lines().filter_map(|line| line.strip_prefix(&prefix));
    let value = found
        .next()
        .unwrap_or_else(|| panic!("--{name} is missing"));
    assert_eq!(found.next(), None, "--{name} comes twice");
    value.to_owned()
}

/// A network as `net.onnx`, and four and a half batches that it was not made for as `calibration.npy`.
fn work() -> tempfile::TempDir {
    let folder = folder_with("tiny_resnet.onnx");
    let samples = 4 * 64 + 32;
    let data = floats(samples * 3 * 32 * 32, 2.0);
    let dims = [samples, 3, 32, 32];
    npy(&folder.path().join("calibration.npy"), "<f4", &dims, &data);
    folder
}

/// What one machine makes of that.
fn whole(work: &Path) -> Vec<u8> {
    let data = ["--data", "calibration.npy", "--batch-size", "64"];
    let command = ["recalibrate", "net.onnx", "-o", "whole.onnx"];
    bnkit(work, &[&command[..], &data].concat()).is_done();
    let whole = read(work, "whole.onnx");
    assert_ne!(whole, read(work, "net.onnx"));
    whole
}

/// A shell in a folder where `bnkit` is this one and `sbatch` the stand-in.
fn shell(work: &Path, tools: &Path) -> Command {
    let bnkit = Path::new(env!("CARGO_BIN_EXE_bnkit")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{}:{path}", tools.display(), bnkit.display());
    let mut shell = Command::new("bash");
    shell.current_dir(work).env("PATH", path);
    shell
}

#[track_caller]
fn is_done(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[test]
fn jobs_of_kubernetes_say_what_they_have_to() {
    for name in ["recalibrate.yaml", "merge.yaml"] {
        let job = manifest(name);
        assert_eq!(
            (&job["apiVersion"], &job["kind"]),
            (&"batch/v1".into(), &"Job".into())
        );
        let called = job["metadata"]["name"].as_str().unwrap();
        assert!(!called.is_empty() && called.len() <= 63);
        assert!(
            called
                .bytes()
                .all(|byte| byte == b'-' || byte.is_ascii_lowercase())
        );
        let pod = &job["spec"]["template"]["spec"];
        // A Job takes no other policies; retries by index want this one.
        assert_eq!(pod["restartPolicy"], "Never", "{name}");
        for field in ["name", "image", "workingDir"] {
            assert!(container(&job)[field].is_string(), "{name}: {field}");
        }
        for kind in ["requests", "limits"] {
            let resources = &container(&job)["resources"][kind];
            assert!(resources["cpu"].is_string() && resources["memory"].is_string());
        }
        let mounts = container(&job)["volumeMounts"].as_sequence().unwrap();
        let volumes = pod["volumes"].as_sequence().unwrap();
        assert_eq!((mounts.len(), volumes.len()), (1, 1));
        assert_eq!(mounts[0]["name"], volumes[0]["name"]);
        assert_eq!(mounts[0]["mountPath"], container(&job)["workingDir"]);
        assert!(volumes[0]["persistentVolumeClaim"]["claimName"].is_string());
    }
    let image = |name| container(&manifest(name))["image"].clone();
    assert_eq!(image("recalibrate.yaml"), image("merge.yaml"));
}

#[test]
fn an_indexed_job_has_as_many_indexes_as_shards() {
    let job = manifest("recalibrate.yaml");
    let spec = &job["spec"];
    assert_eq!(spec["completionMode"], "Indexed");
    let shards = spec["completions"].as_u64().unwrap();
    assert_eq!(spec["parallelism"].as_u64(), Some(shards));
    // maxFailedIndexes is valid beside backoffLimitPerIndex only, and that with completionMode Indexed only.
    assert!(spec["backoffLimitPerIndex"].as_u64().is_some());
    assert_eq!(spec["maxFailedIndexes"], 0);
    let script = script(&job);
    assert!(script.contains("$((JOB_COMPLETION_INDEX + 1))"));
    let [line] = commands(script).try_into().expect("one command");
    assert_eq!(value(&line, "--shard"), format!("$shard/{shards}"));
    let cpus = container(&job)["resources"]["limits"]["cpu"].as_str();
    assert_eq!(Some(value(&line, "--threads")), cpus);
    assert!(spec["completions"].as_u64() > Some(1));
}

#[test]
fn an_array_of_slurm_has_as_many_tasks_as_shards() {
    let script = text("recalibrate.sbatch");
    let array = directive(&script, "array");
    let last = array.strip_prefix("0-").expect("tasks from 0 on");
    let tasks = last.parse::<usize>().unwrap() + 1;
    assert!(script.contains(&format!("\nshards={tasks}\n")), "{tasks}");
    assert!(script.contains("$((SLURM_ARRAY_TASK_ID + 1))"));
    let [line] = commands(&script).try_into().expect("one command");
    assert_eq!(value(&line, "--shard"), "$shard/$shards");
    for name in ["recalibrate.sbatch", "merge.sbatch"] {
        let script = text(name);
        assert!(script.starts_with("#!/bin/bash\n"), "{name}");
        // Slurm does not look at directives behind the first command.
        let (head, _) = script.split_once("\nset -euo pipefail\n").unwrap();
        let all = script.matches("#SBATCH ").count();
        assert_eq!(head.matches("#SBATCH ").count(), all, "{name}");
        for needed in ["job-name", "cpus-per-task", "mem", "time"] {
            directive(&script, needed);
        }
    }
}

#[test]
fn shells_can_read_the_scripts() {
    for name in ["recalibrate.sbatch", "merge.sbatch", "submit.sh"] {
        let mut bash = Command::new("bash");
        is_done(&bash.arg("-n").arg(folder().join(name)).output().unwrap());
    }
    for name in ["recalibrate.yaml", "merge.yaml"] {
        let job = manifest(name);
        let mut sh = Command::new("sh");
        is_done(&sh.args(["-n", "-c", script(&job)]).output().unwrap());
    }
    let mode = fs::metadata(folder().join("submit.sh")).unwrap();
    assert_ne!(mode.permissions().mode() & 0o111, 0, "submit.sh is run");
}

#[test]
fn options_exist_and_all_routes_use_the_same() {
    let (shards, merge) = (manifest("recalibrate.yaml"), manifest("merge.yaml"));
    let scripts = [
        text("recalibrate.sbatch"),
        text("merge.sbatch"),
        script(&shards).to_owned(),
        script(&merge).to_owned(),
    ];
    let options = |line: &str| -> BTreeSet<String> {
        let words = line.split_whitespace();
        let options = words.filter(|word| word.starts_with('-'));
        options.map(str::to_owned).collect()
    };
    let mut used = Vec::new();
    for script in &scripts {
        let [line] = commands(script).try_into().expect("one command");
        let command = line.split_whitespace().nth(1).unwrap();
        let help = bnkit(&folder(), &[command, "--help"]);
        let known = &help.is_done().stdout;
        for option in options(&line) {
            let shown = |end: &str| known.contains(&format!("{option}{end}"));
            assert!(
                [" ", ",", "\n"].into_iter().any(shown),
                "{command} {option}"
            );
        }
        used.push(options(&line));
    }
    assert_eq!((&used[0], &used[1]), (&used[2], &used[3]));
    assert!(used[0].contains("--partial") && used[0].len() >= 6);
}

#[test]
fn slurm_gives_what_one_machine_gives() {
    let (work, tools) = (work(), tempfile::tempdir().unwrap());
    let (work, tools) = (work.path(), tools.path());
    let whole = whole(work);
    fs::write(tools.join("sbatch"), SBATCH).unwrap();
    let runs = fs::Permissions::from_mode(0o755);
    fs::set_permissions(tools.join("sbatch"), runs).unwrap();
    let submitted = tools.join("submitted");
    let mut shell = shell(work, tools);
    shell.env("SUBMITTED", &submitted);
    let output = shell.arg(folder().join("submit.sh")).output().unwrap();
    is_done(&output);
    assert_eq!(output.stdout, b"4713\n");
    let parts = names(&work.join("parts-4711"));
    assert_eq!(parts, ["1.json", "2.json", "3.json", "4.json"]);
    assert_eq!(read(work, "net.recalibrated.onnx"), whole);
    assert!(work.join("merge.json").exists());
    let submitted = fs::read_to_string(submitted).unwrap();
    let [first, second] = submitted.lines().collect::<Vec<_>>()[..] else {
        panic!("two submissions: {submitted}");
    };
    assert!(first.ends_with("/recalibrate.sbatch"), "{first}");
    assert!(second.contains("--dependency=afterok:4711 "), "{second}");
    assert!(second.ends_with("/merge.sbatch parts-4711"), "{second}");
}

#[test]
fn kubernetes_gives_what_one_machine_gives() {
    let work = work();
    let work = work.path();
    let whole = whole(work);
    let (shards, merge) = (manifest("recalibrate.yaml"), manifest("merge.yaml"));
    let run = |job: &Value, index: Option<u64>| {
        let mut shell = shell(work, work);
        shell.args(["-euc", script(job)]);
        shell.envs(index.map(|index| ("JOB_COMPLETION_INDEX", index.to_string())));
        shell.output().unwrap()
    };
    let last = shards["spec"]["completions"].as_u64().unwrap() - 1;
    for index in 0..last {
        is_done(&run(&shards, Some(index)));
    }
    // Too early: a part is missing.
    let early = run(&merge, None);
    assert_eq!(early.status.code(), Some(2));
    assert!(!work.join("net.recalibrated.onnx").exists());
    // An index that is tried again replaces its part.
    is_done(&run(&shards, Some(0)));
    is_done(&run(&shards, Some(last)));
    is_done(&run(&merge, None));
    assert_eq!(read(work, "net.recalibrated.onnx"), whole);
}

/// The first console session of a page: commands, and the lines that each is shown to print.
fn session(page: &str) -> Vec<(String, Vec<String>)> {
    let block = page.split("```console\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let mut session: Vec<(String, Vec<String>)> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            session.push((command.to_owned(), Vec::new()));
        } else if let Some(more) = line.strip_prefix("> ") {
            let (command, _) = session.last_mut().unwrap();
            *command += "\n";
            *command += more;
        } else {
            session.last_mut().unwrap().1.push(line.to_owned());
        }
    }
    session
}

/// On the collection that `BNKIT_MODELS` names, or `../shared/models` beside the workspace.
#[test]
fn the_page_shows_what_is_printed() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
    let models = std::env::var_os("BNKIT_MODELS").map_or(beside, PathBuf::from);
    if !models.join("digits").is_dir() {
        eprintln!("skipped: no collection of models (BNKIT_MODELS)");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    for name in ["digits_perturbed.onnx", "train_images.npy"] {
        fs::copy(models.join("digits").join(name), work.path().join(name)).unwrap();
    }
    let page = fs::read_to_string(folder().with_extension("md")).unwrap();
    let session = session(&page);
    assert_eq!(session.len(), 5);
    for (command, shown) in session {
        let command = format!("exec 2>&1\n{command}");
        let output = shell(work.path(), work.path())
            .args(["-c", &command])
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let mut lines = printed.lines();
        let mut left_out = false;
        for line in shown {
            match line.as_str() {
                "…" => left_out = true,
                _ if left_out => {
                    assert!(lines.any(|found| found == line), "{line:?}: {printed}");
                    left_out = false;
                }
                _ => assert_eq!(lines.next(), Some(line.as_str()), "{printed}"),
            }
        }
        assert_eq!(lines.next(), None, "{command}");
    }
}
