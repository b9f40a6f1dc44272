//! Hostile files (`testdata/hostile`, made by `testdata/generate_hostile.py`): every command that reads such a file is given each of
//! them, with one gigabyte of memory. It must end with the code that `expected.json` names beside the file, say which file it was,
//! print nothing that a terminal obeys, and leave no output behind if it failed. What is odd but right must be folded right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use bnkit_model::onnx::{Constants, Model, Types};
use serde::Deserialize;
use tempfile::TempDir;

#[derive(Deserialize)]
struct Case {
    file: String,
    about: String,
    r#as: String,
    code: i32,
    codes: BTreeMap<String, i32>,
    /// What an error must contain besides the file.
    words: Vec<String>,
    folded: Option<Folded>,
}

/// The only Conv once the BatchNorm is in it.
#[derive(Deserialize)]
struct Folded {
    weight: Vec<f64>,
    bias: Vec<f64>,
}

fn testdata(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata")
        .join(path)
}

/// Eight samples that fit `fine.onnx`, as `.npy`.
fn data() -> Vec<u8> {
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (8, 2, 2, 2), }\n";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    (0..64).for_each(|at| bytes.extend(((at * 7 % 13) as f32 - 6.0).to_le_bytes()));
    bytes
}

/// What is run: the command's name in `expected.json`, its words, and the code if the file is fine but does not fit.
type Run = (&'static str, Vec<String>, Option<i32>);

/// All commands that read the file of a case; `{f}` is the file, `{o}` a folder for outputs.
fn runs(case: &Case, file: &Path, out: &Path) -> Vec<Run> {
    let fine = testdata("hostile/fine.onnx");
    let state = testdata("convert/net.safetensors");
    let folder = file.parent().expect("it is in a folder");
    let run = |name, words: &str, code| -> Run {
        let word = |word: &str| {
            word.replace("{f}", &file.display().to_string())
                .replace("{folder}", &folder.display().to_string())
                .replace("{o}", &out.join("out").display().to_string())
                .replace("{fine}", &fine.display().to_string())
                .replace("{state}", &state.display().to_string())
                .replace(
                    "{data}",
                    &out.with_file_name("data.npy").display().to_string(),
                )
        };
        (name, words.split(' ').map(word).collect(), code)
    };
    match case.r#as.as_str() {
        "model" => vec![
            run("fold", "fold {f} -o {o}.onnx", None),
            run("inspect", "inspect {f}", None),
            run("tree", "inspect {f} --tree", None),
            run("check", "check {f}", None),
            run("stats", "stats {f}", None),
            run("verify", "verify {f} {f}", None),
            run("diff", "diff {f} {f}", None),
            run("convert", "convert {f} -o {o}.safetensors", None),
            run("run", "run {f} --data {data}", None),
            run(
                "validate",
                "validate {f} --data {data} --batch-size 2",
                None,
            ),
            run(
                "recalibrate",
                "recalibrate {f} --data {data} -o {o}.onnx",
                None,
            ),
        ],
        "state" => vec![
            run("inspect", "inspect {f}", None),
            run("tree", "inspect {f} --tree", None),
            run("check", "check {f}", None),
            run("stats", "stats {f}", None),
            run("diff", "diff {f} {f}", None),
            run("convert", "convert {f} -o {o}.safetensors", None),
            run("pair", "pair {f} -o {o}.yaml", None),
            run(
                "fold",
                "fold {f} --graph {fine} -o {o}.safetensors",
                Some(2),
            ),
            run(
                "weights",
                "convert {fine} --weights {f} -o {o}.onnx",
                Some(2),
            ),
            run("unfold", "unfold {fine} --stats {f} -o {o}.onnx", Some(2)),
            run("merge", "merge {f} --model {fine} -o {o}.onnx", Some(2)),
        ],
        "data" => {
            let mut runs = vec![
                run("run", "run {fine} --data {f}", None),
                run("validate", "validate {fine} --data {f}", None),
                run(
                    "recalibrate",
                    "recalibrate {fine} --data {f} -o {o}.onnx",
                    None,
                ),
                run("verify", "verify {fine} {fine} --data {f}", None),
            ];
            if case.file.ends_with(".npy") {
                let words = "validate {fine} --data {data} --batch-size 2 --labels {f}";
                runs.push(run("labels", words, None));
            }
            runs
        }
        "images" => vec![
            run("run", "run {fine} --data {folder}", None),
            run(
                "recalibrate",
                "recalibrate {fine} --data {folder} --preprocess imagenet -o {o}.onnx",
                None,
            ),
        ],
        "config" => vec![run("fold", "fold {fine} --config {f} -o {o}.onnx", None)],
        "pairs" => vec![run(
            "fold",
            "fold {state} --pairs {f} -o {o}.safetensors",
            None,
        )],
        other => panic!("{}: nothing reads {other:?}", case.file),
    }
}

/// In a child with one gigabyte of address space and a minute of processor time: both only guards.
fn limited(words: &[String]) -> Output {
    Command::new("sh")
        .args(["-c", "ulimit -v 1048576; ulimit -t 60; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_bnkit"))
        .args(words)
        // The C library reserves address space for each thread.
        .env("MALLOC_ARENA_MAX", "2")
        .env("RAYON_NUM_THREADS", "2")
        .output()
        .expect("bnkit runs")
}

/// What a terminal, or a log of GitHub's, would obey.
fn obeyed(text: &str) -> Option<char> {
    text.chars().find(|&letter| {
        letter.is_control() && letter != '\n' && letter != '\t'
            || ('\u{202a}'..='\u{202e}').contains(&letter)
    })
}

fn check(case: &Case) -> Vec<String> {
    let folder = TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("data.npy"), data()).expect("written");
    let file = testdata("hostile").join(&case.file);
    let name = case.file.rsplit('/').next().unwrap_or_default();
    let mut wrong = Vec::new();
    for (number, (command, words, misfit)) in runs(case, &file, &folder.path().join("out"))
        .into_iter()
        .enumerate()
    {
        let out = folder.path().join("out");
        std::fs::create_dir(&out).expect("a folder");
        let done = limited(&words);
        let code = case
            .codes
            .get(command)
            .copied()
            .or(misfit)
            .unwrap_or(case.code);
        let (stdout, stderr) = (
            String::from_utf8(done.stdout),
            String::from_utf8(done.stderr),
        );
        let mut object = |what: &str| {
            let text = stderr.as_deref().unwrap_or("no UTF-8");
            wrong.push(format!(
                "{} ({}), {command}: {what}: {text}",
                case.file, case.about
            ));
        };
        if done.status.code() != Some(code) {
            object(&format!(
                "expected exit code {code}, found {:?}",
                done.status
            ));
        }
        for text in [&stdout, &stderr] {
            match text {
                Ok(text) if obeyed(text).is_none() && !text.contains("\n::error::owned") => {}
                _ => object("it prints what a terminal obeys"),
            }
        }
        let text = stderr.as_deref().unwrap_or_default();
        if code == 2 {
            // Data that does not fit a model is the data's fault; a folder stands for its files.
            let named = [name, "data.npy: input", "images/"]
                .iter()
                .any(|name| text.contains(name));
            if !text.starts_with("error: ") || !named {
                object("the error does not name the file");
            }
            // The path may hold any word; and to these commands, a state dict is a broken file of another kind.
            let said = text.replace(&file.display().to_string(), "");
            let missing = case.words.iter().find(|word| !said.contains(*word));
            let meant = !["merge", "unfold"].contains(&command);
            if let (Some(word), true) = (missing, meant) {
                object(&format!("expected {word:?} in the error"));
            }
        }
        let left = out.read_dir().expect("a folder").count();
        if code != 0 && left > 0 {
            object("it left an output behind");
        }
        if let (0, "fold", Some(folded)) = (code, command, &case.folded)
            && let Err(what) = is_folded(&out.join("out.onnx"), folded)
        {
            object(&what);
        }
        std::fs::rename(&out, folder.path().join(number.to_string())).expect("moved away");
    }
    wrong
}

/// Whether the Conv of a folded model is what NumPy computes, to one unit of f32.
fn is_folded(path: &Path, expected: &Folded) -> Result<(), String> {
    let model = Model::open(path).map_err(|error| error.to_string())?;
    if model.nodes().any(|(_, node)| node.is("BatchNormalization")) {
        return Err("the BatchNorm is still there".to_owned());
    }
    let types = Types::derive(&model);
    let constants = Constants::new(&model, &types, false);
    let convs: Vec<_> = model.nodes().filter(|(_, node)| node.is("Conv")).collect();
    let [(_, conv)] = convs[..] else {
        return Err(format!("there are {} Convs", convs.len()));
    };
    for (slot, expected) in [(1, &expected.weight), (2, &expected.bias)] {
        let value = conv.input(slot).ok_or("an input is missing")?;
        let found = constants.f64(value).map_err(|why| why.explain(&model))?;
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= b.abs() * f64::from(f32::EPSILON);
        if found.values.len() != expected.len() || !found.values.iter().zip(expected).all(close) {
            return Err(format!(
                "input {slot} is {:?}, expected {expected:?}",
                found.values
            ));
        }
    }
    Ok(())
}

#[test]
fn hostile_files_do_no_harm() {
    let text = std::fs::read_to_string(testdata("hostile/expected.json")).expect("it is there");
    let cases: Vec<Case> = serde_json::from_str(&text).expect("it is JSON");
    assert!(cases.len() > 100 && cases.iter().filter(|case| case.folded.is_some()).count() > 10);
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().min(8));
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let mut wrong = Vec::new();
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                wrong.extend(check(case));
            }
            wrong
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("no panic"))
            .collect()
    });
    assert!(
        wrong.is_empty(),
        "{} findings:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_hostile_file_is_listed() {
    let text = std::fs::read_to_string(testdata("hostile/expected.json")).expect("it is there");
    let cases: Vec<Case> = serde_json::from_str(&text).expect("it is JSON");
    // What cases refer to, and what is no case of its own.
    let helpers = [
        "expected.json",
        "images",
        "weights.bin",
        "shard.safetensors",
        "link.bin",
        "link_folder",
        "link_loop",
        "link.safetensors",
    ];
    for entry in testdata("hostile").read_dir().expect("it is there") {
        let name = entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned();
        let listed = helpers.contains(&name.as_str()) || cases.iter().any(|case| case.file == name);
        assert!(listed, "{name} is in no case");
    }
}
