//! Every package that is built into bnkit may be shipped under its own licence, and under ours.

// What was skipped is for the reader of the test's output.
#![allow(clippy::print_stderr)]

use std::process::Command;

/// What we accept. A new name here is a decision: it belongs into docs/dependencies.md, too.
const ACCEPTED: [&str; 8] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// What we accept of packages that only a feature asks for, beside those: licence and package.
const ACCEPTED_IN_FEATURES: [(&str, &str); 1] = [("ISC", "libloading")];

/// Whether an SPDX expression can be satisfied by accepted licences: OR needs one side, AND both.
fn satisfied(expression: &str) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (verdict, rest) = alternatives(&words);
    verdict && rest.is_empty()
}

fn alternatives<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut verdict, mut rest) = conjunction(words);
    while let ["OR", tail @ ..] = rest {
        let (other, after) = conjunction(tail);
        (verdict, rest) = (verdict | other, after);
    }
    (verdict, rest)
}

fn conjunction<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut verdict, mut rest) = licence(words);
    while let ["AND", tail @ ..] = rest {
        let (other, after) = licence(tail);
        (verdict, rest) = (verdict & other, after);
    }
    (verdict, rest)
}

fn licence<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inner @ ..] => match alternatives(inner) {
            (verdict, [")", rest @ ..]) => (verdict, rest),
            (_, rest) => (false, rest),
        },
        [name, "WITH", exception, rest @ ..] => (
            ACCEPTED.contains(&format!("{name} WITH {exception}").as_str()),
            rest,
        ),
        [name, rest @ ..] => (ACCEPTED.contains(name), rest),
        [] => (false, &["nothing"]),
    }
}

/// Packages for other systems may never have been downloaded here; they are looked at where they are built.
fn host() -> String {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .expect("rustc starts");
    let text = String::from_utf8(output.stdout).unwrap();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc names its host").to_owned()
}

/// The packages that are built with these options, each as name, version and licence; or why cargo does not know.
fn packages(options: &[&str]) -> Result<Vec<[String; 3]>, String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--offline",
            "--filter-platform",
            &host(),
        ])
        .args(options)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo starts");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(
        packages.len() > 50,
        "only {} packages: is the list complete?",
        packages.len()
    );
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let packages = packages
        .iter()
        .map(|package| ["name", "version", "license"].map(|field| text(&package[field])));
    Ok(packages.collect())
}

#[test]
fn every_dependency_has_an_accepted_licence() {
    let mut objections = packages(&[]).unwrap();
    objections.retain(|[_, _, licence]| !satisfied(licence));
    assert!(objections.is_empty(), "not accepted: {objections:#?}");
}

#[test]
fn so_has_every_dependency_of_a_feature() {
    let mut objections = match packages(&["--features", "ort"]) {
        Ok(packages) => packages,
        Err(why) if cfg!(feature = "ort") => panic!("{why}"),
        // A default build downloads nothing for the feature.
        Err(why) => {
            eprintln!("skipped: the packages of the feature are not there: {why}");
            return;
        }
    };
    let of_the_feature = |wanted: &str| objections.iter().any(|[name, ..]| name == wanted);
    assert!(of_the_feature("ort") && of_the_feature("libloading"));
    objections.retain(|[name, _, licence]| {
        !satisfied(licence) && !ACCEPTED_IN_FEATURES.contains(&(licence, name))
    });
    assert!(objections.is_empty(), "not accepted: {objections:#?}");
    let default: Vec<_> = packages(&[]).unwrap();
    let optional = |[name, ..]: &&[String; 3]| ["ort", "ort-sys", "libloading"].contains(&&**name);
    assert_eq!(default.iter().find(optional), None, "in the default build");
}

#[test]
fn expressions_are_understood() {
    for good in [
        "MIT",
        "MIT OR Apache-2.0",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-2.0-only",
    ] {
        assert!(satisfied(good), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR GPL-3.0) AND GPL-3.0",
        "MIT OR",
        "(MIT",
        "MIT)",
    ] {
        assert!(!satisfied(bad), "{bad}");
    }
}
