//! What `bnkit --version` says of the build: target, compiler and, in a release build, the commit.
//!
//! No time, no path and no name of a machine, so that the same sources and compiler give the same bytes. The commit comes
//! from git in a checkout and from `.cargo_vcs_info.json` in a published package; elsewhere it is not known, which is no
//! error. Development builds do not ask: each commit would link everything anew.

use std::path::Path;
use std::process::Command;

const NOT_KNOWN: &str = "not recorded";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let commit = match variable("PROFILE").as_str() {
        "release" => commit(Path::new(&variable("CARGO_MANIFEST_DIR"))),
        _ => None,
    };
    let compiler = answer(Command::new(variable("RUSTC")).arg("--version"));
    let compiler = compiler.map(|line| line.trim_start_matches("rustc ").to_owned());
    for (name, value) in [
        ("COMMIT", commit),
        ("TARGET", Some(variable("TARGET"))),
        ("RUSTC", compiler),
    ] {
        let value = value.unwrap_or_else(|| NOT_KNOWN.to_owned());
        println!("cargo::rustc-env=BNKIT_BUILD_{name}={value}");
    }
}

/// The commit that is built, if it can be known.
fn commit(package: &Path) -> Option<String> {
    let packed = package.join(".cargo_vcs_info.json");
    if let Ok(text) = std::fs::read_to_string(packed) {
        return published(&text);
    }
    let workspace = package.ancestors().nth(2)?;
    let git =
        |arguments: &[&str]| answer(Command::new("git").arg("-C").arg(workspace).args(arguments));
    // Someone else's repository, with bnkit unpacked somewhere in it, has commits that say nothing about bnkit.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != workspace.canonicalize().ok()? {
        return None;
    }
    git(&["ls-files", "--error-unmatch", "crates/bnkit-cli/build.rs"])?;
    // Every commit, checkout and reset is written there, in a linked worktree too.
    if let Some(log) = git(&[
        "rev-parse",
        "--path-format=absolute",
        "--git-path",
        "logs/HEAD",
    ]) {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "HEAD"]).filter(|commit| is_commit(commit))
}

/// The commit in a package's `.cargo_vcs_info.json`: `{"git": {"sha1": "…"}, …}`.
fn published(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("\"sha1\"")?;
    let commit = rest.split('"').nth(1)?;
    is_commit(commit).then(|| commit.to_owned())
}

fn is_commit(text: &str) -> bool {
    text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The one line that a program prints; none if it does not run, fails or prints nothing.
fn answer(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
