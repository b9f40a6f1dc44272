//! Reports that other programs read: the structure that these programs expect. `testdata/check_reports.py` holds the same reports against
//! the schemas: validators of JSON schemas in Rust bring dozens of packages, one under a licence that we have not accepted.

mod common;

use common::{BATCHED, bnkit, calibration_folder};
use serde_json::Value;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/golden");

/// Reports of commands that pass, fail, find much and find nothing.
fn each_report(ending: &str, mut look: impl FnMut(&str, &str)) {
    let folder = calibration_folder();
    let golden = |name: &str| format!("{GOLDEN}/{name}.onnx");
    let (kept, bad, plain) = (
        golden("shared_output"),
        golden("bad_nan_variance"),
        golden("conv2d_bias"),
    );
    let validate = [&["validate", "net.onnx"], &BATCHED[..]].concat();
    let recalibrate = [&["recalibrate", "net.onnx", "-o", "r.onnx"], &BATCHED[..]].concat();
    let run = [&["run", "net.onnx"], &BATCHED[..]].concat();
    let commands: [(i32, Vec<&str>); 15] = [
        (0, vec!["fold", "net.onnx", "-o", "f.onnx"]),
        (0, vec!["fold", &kept, "-o", "k.onnx"]),
        (
            1,
            vec!["fold", &kept, "-o", "k2.onnx", "--require-all-folded"],
        ),
        (1, vec!["fold", &bad, "-o", "b.onnx"]),
        (0, vec!["inspect", &bad]),
        (0, vec!["check", "net.onnx"]),
        (1, vec!["check", &bad]),
        (
            0,
            vec![
                "check",
                &bad,
                "--suppress",
                "bad-statistics:*=known](x) {0}",
            ],
        ),
        (0, vec!["verify", "net.onnx", "f.onnx"]),
        (1, vec!["verify", &kept, &plain, "--atol", "1e-9"]),
        (0, vec!["diff", "net.onnx", "f.onnx"]),
        (0, vec!["diff", "net.onnx", "net.onnx"]),
        (1, validate),
        (0, recalibrate),
        (0, run),
    ];
    for (code, mut command) in commands {
        let told = command.join(" ");
        let report = format!("report.{ending}");
        command.extend(["--report", &report]);
        let run = bnkit(folder.path(), &command);
        let path = folder.path().join(&report);
        // Models with other inputs cannot be compared at all, and leave no report.
        if run.code == 2 && told.starts_with("verify") {
            continue;
        }
        assert_eq!(run.code, code, "{told}: {}", run.stderr);
        look(&told, &std::fs::read_to_string(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn sarif_has_a_rule_and_a_place_for_each_result() {
    let mut results = 0;
    each_report("sarif", |told, text| {
        let log: Value = serde_json::from_str(text).unwrap();
        assert_eq!(log["version"], "2.1.0");
        let files = log["runs"][0]["artifacts"].as_array().unwrap();
        assert!(files.windows(2).all(|pair| pair[0] != pair[1]), "{told}");
        let run = &log["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        for result in run["results"].as_array().unwrap() {
            results += 1;
            let rule = &rules[result["ruleIndex"].as_u64().unwrap() as usize];
            assert_eq!(rule["id"], result["ruleId"], "{told}");
            let place = &result["locations"][0]["physicalLocation"];
            assert!(
                place["artifactLocation"]["uri"].is_string(),
                "{told}: {result}"
            );
        }
        // What failed has an error that counts, and nothing else has.
        let counts = |it: &&Value| it["level"] == "error" && it["suppressions"].is_null();
        let errors = run["results"]
            .as_array()
            .unwrap()
            .iter()
            .filter(counts)
            .count();
        let failed = run["invocations"][0]["exitCode"] == 1;
        if !told.starts_with("inspect") {
            assert_eq!(errors > 0, failed, "{told}");
        }
    });
    assert!(results > 8, "{results}");
}

/// The structure that Jenkins, GitLab and GitHub's actions agree on (junit-10.xsd of the Jenkins plugin).
#[test]
fn junit_is_xml_that_servers_read() {
    each_report("xml", |told, text| {
        let tree = roxmltree::Document::parse(text).unwrap();
        let root = tree.root_element();
        assert_eq!(root.tag_name().name(), "testsuites", "{told}");
        only(root, &["name", "tests", "failures", "errors", "time"]);
        let suites: Vec<_> = root
            .children()
            .filter(roxmltree::Node::is_element)
            .collect();
        assert_eq!(suites.len(), 1);
        let suite = suites[0];
        only(suite, &["name", "tests", "failures", "errors", "skipped"]);
        let cases: Vec<_> = suite
            .children()
            .filter(|it| it.has_tag_name("testcase"))
            .collect();
        let with = |tag: &str| {
            cases
                .iter()
                .filter(|it| it.children().any(|part| part.has_tag_name(tag)))
                .count()
        };
        let says = |name: &str| suite.attribute(name).unwrap().parse::<usize>().unwrap();
        assert_eq!(
            (says("tests"), says("failures")),
            (cases.len(), with("failure")),
            "{told}"
        );
        assert_eq!(
            (says("skipped"), says("errors")),
            (with("skipped"), 0),
            "{told}"
        );
        let mut seen = std::collections::HashSet::new();
        for case in &cases {
            only(*case, &["classname", "name"]);
            assert!(
                seen.insert((case.attribute("classname"), case.attribute("name"))),
                "{told}"
            );
            for part in case.children().filter(roxmltree::Node::is_element) {
                let tag = part.tag_name().name();
                assert!(
                    ["failure", "skipped", "system-out"].contains(&tag),
                    "{told}: {tag}"
                );
            }
        }
        let fails = told.contains("bad_nan")
            && !told.contains("--suppress")
            && !told.starts_with("inspect");
        if fails || told.starts_with("validate") {
            assert!(says("failures") > 0, "{told}");
        }
    });
}

fn only(node: roxmltree::Node<'_, '_>, known: &[&str]) {
    for attribute in node.attributes() {
        assert!(known.contains(&attribute.name()), "{}", attribute.name());
    }
}

#[test]
fn pages_stand_alone() {
    each_report("html", |told, page| {
        for part in ["http://", "https://", " src=", " href=", "@import", "url("] {
            assert!(!page.contains(part), "{told}: {part}");
        }
        assert!(
            page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"),
            "{told}"
        );
        assert!(page.contains("<p class=\"verdict "), "{told}");
    });
}
