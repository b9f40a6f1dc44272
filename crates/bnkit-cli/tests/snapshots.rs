//! Whole commands, word by word: exit code, stdout, stderr and new files, for each command and each way that it can end, and
//! `--help` of each. `BNKIT_BLESS=1 cargo test --workspace --test snapshots` writes `snapshots/*.txt` anew; read the diff.
//!
//! What other processors, versions and machines may say otherwise is replaced: measured numbers (`#`), hashes, the version.
//! The other tests say what must be true; these show what a user sees, so that no change of it goes unseen.

#[path = "snapshots/cases.rs"]
mod cases;
mod common;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use cases::{CASES, Case, Numbers};
use common::{bnkit, names};

fn snapshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots")
}

/// Names of all commands, as the short help lists them.
fn commands() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let help = bnkit(folder.path(), &["-h"]).is_done().stdout.clone();
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// What is in a word beside brackets and commas.
fn inner(word: &str) -> &str {
    word.trim_matches(|c: char| "(),;:%\"[]".contains(c))
}

fn is_number(word: &str) -> bool {
    let word = inner(word);
    word.contains(|c: char| c.is_ascii_digit()) && word.parse::<f64>().is_ok()
}

/// A number that was computed: counts are whole.
fn is_measured(word: &str) -> bool {
    is_number(word) && inner(word).contains(['.', 'e'])
}

/// A word that is a number becomes `#`, whatever stands around it: `(3.5e-7,` is `(#,`; bars of any height are alike.
fn without_number(word: &str) -> String {
    let inner = inner(word);
    let bars = !inner.is_empty() && inner.chars().all(|c| ('▁'..='█').contains(&c));
    match (bars, is_number(word)) {
        (true, _) => word.replace(inner, "▁"),
        (_, true) => word.replace(inner, "#"),
        _ => word.to_owned(),
    }
}

/// A line without measured numbers, and without counts among them, as 0 may be either; the blanks between columns follow
/// from their widths.
fn without_numbers(line: &str) -> String {
    let measured = line.split(' ').any(is_measured);
    let indent = line.len() - line.trim_start().len();
    let mut text = " ".repeat(indent);
    let mut blanks = 0;
    for word in line.trim_start().split(' ') {
        if word.is_empty() {
            blanks += 1;
            continue;
        }
        if text.len() > indent {
            text.push_str(if blanks > 0 { "  " } else { " " });
        }
        match measured {
            true => text.push_str(&without_number(word)),
            false => text.push_str(word),
        }
        blanks = 0;
    }
    text
}

/// Whether a line reports what a proof measured.
fn is_proof(line: &str) -> bool {
    ["  in f64 ", "  as shipped "]
        .iter()
        .any(|start| line.starts_with(start))
        || line.contains("max |Δ|")
        || line.contains("noise floor")
}

fn without_hashes(line: &str) -> String {
    let hex = |c: char| c.is_ascii_hexdigit();
    let words = line.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    words
        .map(|word| {
            let hash = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            match hash.len() == 64 && hash.chars().all(hex) {
                true => word.replace(hash, "<sha256>"),
                false => word.to_owned(),
            }
        })
        .collect()
}

/// What was said, without what may differ.
fn normal(text: &str, folder: &Path, numbers: Numbers) -> String {
    let text = text.replace(&folder.display().to_string(), "<folder>");
    let text = text.replace(env!("CARGO_PKG_VERSION"), "<version>");
    text.lines()
        .map(without_hashes)
        .map(
            |line| match numbers == Numbers::Measured || is_proof(&line) {
                true => without_numbers(&line),
                false => line,
            },
        )
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// One command, as it is written down.
fn transcript(folder: &Path, line: &str, numbers: Numbers) -> String {
    let before = names(folder);
    let args: Vec<&str> = line.split_whitespace().collect();
    let run = bnkit(folder, &args);
    let mut text = format!("$ bnkit {line}\n").replace(" \n", "\n");
    writeln!(text, "exit code: {}", run.code).unwrap();
    for (name, said) in [("stdout", &run.stdout), ("stderr", &run.stderr)] {
        if !said.is_empty() {
            write!(text, "--- {name}\n{}", normal(said, folder, numbers)).unwrap();
        }
    }
    let after = names(folder);
    let new: Vec<&str> = after
        .iter()
        .filter(|name| !before.contains(name))
        .map(String::as_str)
        .collect();
    if !new.is_empty() {
        writeln!(text, "--- new files\n{}", new.join("\n")).unwrap();
    }
    text
}

fn play(case: &Case) -> String {
    let folder = tempfile::tempdir().unwrap();
    (case.given)(folder.path());
    let lines = case.commands.iter();
    let parts: Vec<String> = lines
        .map(|line| transcript(folder.path(), line, case.numbers))
        .collect();
    parts.join("\n")
}

/// What is wrong with a snapshot; nothing while they are written.
fn judge(name: &str, found: &str) -> Option<String> {
    let path = snapshots().join(format!("{name}.txt"));
    if std::env::var_os("BNKIT_BLESS").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == found {
        return None;
    }
    let mut lines = expected.lines().zip(found.lines()).enumerate();
    Some(match lines.find(|(_, (a, b))| a != b) {
        Some((at, (a, b))) => format!("{name}.txt:{}:\n  was  {a}\n  is   {b}", at + 1),
        None => format!("{name}.txt: one is longer than the other; now it is\n{found}"),
    })
}

#[track_caller]
fn fail_if_any(wrong: &[String]) {
    assert!(
        wrong.is_empty(),
        "{}\nBNKIT_BLESS=1 cargo test --workspace --test snapshots writes them anew",
        wrong.join("\n")
    );
}

#[test]
fn what_a_user_sees() {
    let plays: Vec<String> = CASES.iter().map(play).collect();
    let names = CASES.iter().map(|case| case.name);
    let wrong: Vec<String> = names
        .zip(&plays)
        .filter_map(|(name, found)| judge(name, found))
        .collect();
    fail_if_any(&wrong);
    each_command_ends_in_every_way_that_it_can(&plays.join("\n"));
}

fn each_command_ends_in_every_way_that_it_can(plays: &str) {
    let ends = |command: &str, code: i32| {
        let mut runs = plays
            .split("$ bnkit ")
            .filter_map(|run| run.split_once('\n'));
        runs.any(|(line, rest)| {
            line.split(' ').next() == Some(command)
                && rest.starts_with(&format!("exit code: {code}\n"))
        })
    };
    for command in commands() {
        // Their answer to a good question is a file for other programs, and tests/ship.rs reads it.
        let writes = ["completions", "man"].contains(&command.as_str());
        assert!(
            writes || ends(&command, 0),
            "{command}: no case ends with 0"
        );
        assert!(ends(&command, 2), "{command}: no case ends with 2");
    }
    for command in [
        "fold",
        "recalibrate",
        "validate",
        "merge",
        "verify",
        "convert",
    ] {
        assert!(ends(command, 1), "{command}: no case ends with 1");
    }
}

#[test]
fn each_help() {
    let folder = tempfile::tempdir().unwrap();
    let helps = commands().into_iter();
    let helps = helps.map(|name| (format!("help-{name}"), format!("{name} --help")));
    let helps = helps.chain([("help".to_owned(), "--help".to_owned())]);
    let wrong: Vec<String> = helps
        .filter_map(|(name, line)| judge(&name, &transcript(folder.path(), &line, Numbers::Exact)))
        .collect();
    fail_if_any(&wrong);
}

#[test]
fn no_snapshot_is_left_over() {
    let commands = commands();
    let known = |name: &str| {
        let command = name.strip_prefix("help-");
        name == "help"
            || command.is_some_and(|command| commands.iter().any(|known| known == command))
            || CASES.iter().any(|case| case.name == name)
    };
    let mut left: Vec<String> = names(&snapshots())
        .into_iter()
        .filter(|file| file != "cases.rs")
        .filter(|file| !file.strip_suffix(".txt").is_some_and(known))
        .collect();
    if std::env::var_os("BNKIT_BLESS").is_some() {
        for file in left.drain(..) {
            fs::remove_file(snapshots().join(file)).unwrap();
        }
    }
    assert_eq!(left, [""; 0], "no case makes these");
}

#[test]
fn numbers_are_told_from_names() {
    let line = r#"  /layer1/0/bn1   0.0151  -3.6e-7,  (99.5%)  "max": 4  x2  ▁▄█  1.0x  NaN"#;
    assert_eq!(
        without_numbers(line),
        r##"  /layer1/0/bn1  #  #,  (#%)  "max": #  x2  ▁  1.0x  NaN"##
    );
    let counts = "Drifted: 33 of    320 channels";
    assert_eq!(without_numbers(counts), "Drifted: 33 of  320 channels");
    let hash = "0123456789abcdef".repeat(4);
    assert_eq!(
        without_hashes(&format!("\"{hash}\", {hash}0")),
        format!("\"<sha256>\", {hash}0")
    );
}
