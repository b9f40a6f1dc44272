//! What goes along with the program: completions that their shells accept, and a manual page for each command.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::{bnkit, names};

/// The commands, as `--help` lists them.
fn commands() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let help = bnkit(folder.path(), &["-h"]).is_done().stdout.clone();
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // A description that goes on is indented deeper.
    lines
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Whether a shell can read a script; none if it is not installed.
fn accepts(shell: &[&str], script: &str) -> Option<bool> {
    let mut shell = Command::new(shell[0])
        .args(&shell[1..])
        .stdin(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = shell.stdin.take().expect("a pipe");
    stdin.write_all(script.as_bytes()).expect("it reads");
    drop(stdin);
    Some(shell.wait().expect("it ends").success())
}

#[test]
fn completions_know_all_commands_and_their_shells_read_them() {
    let folder = tempfile::tempdir().unwrap();
    let commands = commands();
    assert!(commands.len() >= 14, "{commands:?}");
    for (shell, check) in [
        ("bash", &["bash", "-n"][..]),
        ("zsh", &["zsh", "-n"]),
        ("fish", &["fish", "--no-execute"]),
        ("powershell", &[]),
        ("elvish", &[]),
    ] {
        let run = bnkit(folder.path(), &["completions", shell]);
        let script = &run.is_done().stdout;
        assert_eq!(run.stderr, "");
        for command in &commands {
            assert!(script.contains(command.as_str()), "{shell}: {command}");
        }
        assert!(script.contains("merge-branches"), "{shell}");
        if !check.is_empty() {
            assert_ne!(accepts(check, script), Some(false), "{shell}");
        }
    }
    bnkit(folder.path(), &["completions", "dos"]).is_error(&["'dos'", "bash"]);
}

#[test]
fn each_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let run = bnkit(folder.path(), &["man", "-o", "share/man1"]);
    assert_eq!(run.is_done().stdout, "");
    let pages = folder.path().join("share/man1");
    let mut expected: Vec<String> = commands()
        .iter()
        .map(|command| format!("bnkit-{command}.1"))
        .collect();
    expected.push("bnkit.1".to_owned());
    expected.sort();
    assert_eq!(names(&pages), expected);
    let version = concat!("\"bnkit ", env!("CARGO_PKG_VERSION"), "\" \"bnkit manual\"");
    for name in &expected {
        let page = std::fs::read_to_string(pages.join(name)).unwrap();
        let title = format!(".TH {} 1  {version}\n", name.trim_end_matches(".1"));
        assert!(page.contains(&title), "{name}: {page}");
        assert!(page.contains(".SH \"EXIT STATUS\"\n"), "{name}");
        assert!(!page.contains("EXTRA") && !page.contains("rustc"), "{name}");
    }
    // The same page on stdout, and once more over the old ones.
    let main = std::fs::read_to_string(pages.join("bnkit.1")).unwrap();
    assert_eq!(bnkit(folder.path(), &["man"]).is_done().stdout, main);
    bnkit(folder.path(), &["man", "-o", "share/man1"]).is_done();
    bnkit(folder.path(), &["man", "-o", "share/man1/bnkit.1"])
        .is_error(&["share/man1/bnkit.1: cannot be created"]);
}
