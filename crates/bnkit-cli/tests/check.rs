//! `bnkit check` as a user runs it: levels, exceptions, exit codes, and the same findings in every form of report.

mod common;

use std::path::Path;

use common::{bnkit, folder_with};
use serde_json::Value;

/// A golden graph.
fn golden(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden");
    folder.join(name).display().to_string()
}

fn codes(report: &Value) -> Vec<(&str, &str)> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|it| (it["level"].as_str().unwrap(), it["code"].as_str().unwrap()))
        .collect()
}

#[test]
fn a_healthy_model_passes() {
    let folder = folder_with("tiny_resnet.onnx");
    let run = bnkit(folder.path(), &["check", "net.onnx", "--format", "json"]);
    assert_eq!(run.is_done().json()["summary"]["errors"], 0);
    let run = bnkit(folder.path(), &["check", "net.onnx"]);
    assert!(
        run.is_done().stdout.contains("\n0 errors, "),
        "{}",
        run.stdout
    );
}

#[test]
fn an_error_is_a_no() {
    let folder = tempfile::tempdir().unwrap();
    for (name, code) in [
        ("bad_nan_variance.onnx", "bad-statistics"),
        ("bad_inf_mean.onnx", "bad-statistics"),
        ("bad_variance_minus_epsilon.onnx", "bad-statistics"),
    ] {
        let run = bnkit(folder.path(), &["check", &golden(name), "--format", "json"]);
        assert_eq!(run.code, 1, "{name}");
        assert!(
            codes(&run.json()).contains(&("error", code)),
            "{name}: {}",
            run.stdout
        );
        assert!(
            run.stderr.contains("failed: 1 error: bad-statistics"),
            "{}",
            run.stderr
        );
    }
}

/// The last word about a code counts.
#[test]
fn levels_are_chosen_by_code() {
    let folder = tempfile::tempdir().unwrap();
    let model = golden("shared_output.onnx");
    let check = |options: &[&str]| {
        let args = [&["check", &model, "--format", "json"], options].concat();
        let run = bnkit(folder.path(), &args);
        let found = codes(&run.json())
            .iter()
            .map(|(level, _)| (*level).to_owned())
            .collect::<Vec<_>>();
        (run.code, found.join(" "))
    };
    let is = |code: i32, levels: &str| (code, levels.to_owned());
    assert_eq!(check(&[]), is(0, "note"));
    assert_eq!(check(&["--deny", "not-folded"]), is(1, "error"));
    assert_eq!(check(&["--warn", "not-folded"]), is(0, "warning"));
    assert_eq!(
        check(&["--warn", "not-folded", "--deny", "warnings"]),
        is(1, "error")
    );
    assert_eq!(
        check(&["--deny", "not-folded", "--allow", "not-folded"]),
        is(0, "")
    );
    assert_eq!(
        check(&["--allow", "not-folded", "--deny", "not-folded"]),
        is(1, "error")
    );
}

#[test]
fn exceptions_have_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let model = golden("bad_nan_variance.onnx");
    let check = |suppress: &str| {
        let args = ["check", &model, "--suppress", suppress, "--format", "json"];
        bnkit(folder.path(), &args)
    };
    let run = check("bad-statistics:b*=head is not in use");
    let report = run.is_done().json();
    assert_eq!(report["suppressed"][0]["reason"], "head is not in use");
    assert_eq!(report["summary"]["suppressed"], 1);
    // It matches nothing: what was found counts, and the exception is found, too.
    let run = check("bad-statistics:other=head is not in use");
    assert_eq!(run.code, 1);
    assert_eq!(
        run.json()["findings"].as_array().unwrap().len(),
        2,
        "{}",
        run.stdout
    );
    for bad in [
        "bad-statistics:bn",
        "bad-statistics=x",
        "bad-statistics:bn=",
    ] {
        let run = bnkit(folder.path(), &["check", &model, "--suppress", bad]);
        assert_eq!(run.code, 2, "{bad}: {}", run.stdout);
    }
}

#[test]
fn unknown_codes_are_errors_that_help() {
    let folder = tempfile::tempdir().unwrap();
    let model = golden("conv2d_bias.onnx");
    for option in ["--allow", "--warn", "--deny"] {
        let run = bnkit(folder.path(), &["check", &model, option, "tiny-varience"]);
        run.is_error(&["tiny-varience", "did you mean", "tiny-variance"]);
    }
    let run = bnkit(
        folder.path(),
        &["check", &model, "--suppress", "dead-chanel:x=y"],
    );
    run.is_error(&["dead-chanel", "dead-channel"]);
    let run = bnkit(folder.path(), &["check", "missing.onnx"]);
    run.is_error(&["missing.onnx"]);
}

/// One run in every form: what is an error in one is an error in all.
#[test]
fn every_form_has_the_findings() {
    let folder = tempfile::tempdir().unwrap();
    let model = golden("bad_nan_variance.onnx");
    let reports = ["r.sarif", "r.xml", "r.html", "r.md", "r.yaml"];
    let mut args = vec!["check", &model, "--format", "github"];
    for report in reports {
        args.extend(["--report", report]);
    }
    let run = bnkit(folder.path(), &args);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stdout.starts_with("::error file="), "{}", run.stdout);
    let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    for report in reports {
        assert!(text(report).contains("bad-statistics"), "{report}");
    }
    let sarif: Value = serde_json::from_str(&text("r.sarif")).unwrap();
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!(
        (&result["ruleId"], &result["level"]),
        (&"bad-statistics".into(), &"error".into())
    );
    assert_eq!(result["locations"][0]["logicalLocations"][0]["name"], "bn");
}
