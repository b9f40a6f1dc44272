//! SARIF 2.1.0: findings for code scanning. Every code is a rule with the text of `bnkit explain`.
//!
//! A model has no lines. Its nodes are logical locations; the line 1 that stands beside the file is there because code scanning shows no
//! result without one. Ids of nodes and codes are fingerprints: a finding stays the same finding when the wording changes.

use std::io::{self, Write};
use std::path::Path;

use bnkit::explain;
use serde_json::{Value, json};

use super::facts::Facts;
use super::finding::Finding;
use super::github::Level;
use super::plain::plain_json;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

pub(super) fn write(facts: &Facts, findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    let folder = std::env::current_dir().unwrap_or_default();
    let text = serde_json::to_string_pretty(&log(facts, findings, &folder))?;
    writeln!(out, "{}", plain_json(text))
}

fn log(facts: &Facts, findings: &[Finding], folder: &Path) -> Value {
    let mut findings = findings.to_vec();
    let failed = findings
        .iter()
        .any(|finding| finding.level == Level::Error && finding.accepted.is_none());
    if let (Some(why), false) = (&facts.failure, failed) {
        findings.push(Finding::of_model(Level::Error, "failed", why.clone()));
    }
    let mut codes: Vec<&'static str> = findings.iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let uri = facts.subject().map(|file| uri(&file.path, folder));
    let results: Vec<Value> = findings
        .iter()
        .map(|finding| result(finding, uri.as_deref(), &codes))
        .collect();
    let mut artifacts: Vec<Value> = facts
        .files
        .iter()
        .map(|file| {
            let uri = self::uri(&file.path, folder);
            let mut artifact = json!({"location": location(&uri)});
            if file.role != "output" {
                artifact["roles"] = json!(["analysisTarget"]);
            }
            if let Some(bytes) = file.bytes {
                artifact["length"] = json!(bytes);
            }
            if let Some(hash) = &file.sha256 {
                artifact["hashes"] = json!({"sha-256": hash});
            }
            artifact
        })
        .collect();
    // A file that is compared with itself is one.
    artifacts.dedup();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "bnkit",
                "version": facts.version,
                "semanticVersion": facts.version,
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": codes.iter().map(|code| rule(code)).collect::<Vec<_>>(),
            }},
            "automationDetails": {"id": format!("bnkit/{}/", facts.command)},
            "invocations": [{
                "executionSuccessful": true,
                "exitCode": i32::from(facts.failure.is_some()),
            }],
            "artifacts": artifacts,
            "results": results,
            "properties": {"command": facts.command, "verdict": facts.verdict},
            "columnKind": "unicodeCodePoints",
        }],
    })
}

fn rule(code: &str) -> Value {
    let explanation = explain::find(code);
    let (title, text) = match &explanation {
        Some(it) => (it.title, it.text.trim()),
        None => own(code),
    };
    json!({
        "id": code,
        "shortDescription": {"text": message(title)},
        "fullDescription": {"text": message(title)},
        "help": {"text": message(text), "markdown": message(text)},
    })
}

/// Codes of reports that no model is the cause of.
fn own(code: &str) -> (&'static str, &'static str) {
    match code {
        "drift" => (
            "the stored statistics do not describe the data",
            "The mean or variance that the data has differs from the stored one by more than the limits and than chance.\n\n\
             What to do: `bnkit recalibrate` with data like that of production, or look at the preprocessing of this data.",
        ),
        "not-equivalent" => (
            "two models compute different things",
            "The outputs differ by more than the rounding of the arithmetic explains.\n\n\
             What to do: `bnkit verify A B --verbose` shows all outputs.",
        ),
        _ => (
            "the answer is no",
            "The command ended with exit code 1: it worked, and there is something to object to. The message says what.",
        ),
    }
}

fn result(finding: &Finding, uri: Option<&str>, codes: &[&str]) -> Value {
    let level = match finding.level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Notice => "note",
    };
    let mut place = json!({});
    if let Some(uri) = uri {
        place["physicalLocation"] =
            json!({"artifactLocation": location(uri), "region": {"startLine": 1}});
    }
    let mut text = finding.message.clone();
    let mut fingerprint = finding.code.to_owned();
    if let Some(at) = &finding.place {
        let full = match at.scope.as_str() {
            "" => at.node.clone(),
            scope => format!("{scope}/{}", at.node),
        };
        text = format!("{}: {text}", at.node);
        fingerprint = format!("{fingerprint}:{full}");
        place["logicalLocations"] =
            json!([{"name": at.node, "fullyQualifiedName": full, "kind": "node"}]);
    }
    let mut result = json!({
        "ruleId": finding.code,
        "ruleIndex": codes.iter().position(|code| *code == finding.code),
        "level": level,
        "message": {"text": message(&text)},
        "locations": [place],
        "partialFingerprints": {"codeAndNode/v1": fingerprint},
    });
    if let Some(reason) = &finding.accepted {
        result["suppressions"] = json!([{"kind": "external", "justification": message(reason)}]);
    }
    result
}

fn location(uri: &str) -> Value {
    match uri.starts_with("file:") {
        true => json!({"uri": uri}),
        false => json!({"uri": uri, "uriBaseId": "%SRCROOT%"}),
    }
}

/// In a message, braces are placeholders and `](` makes a link; a name has neither.
fn message(text: &str) -> String {
    let text = text.replace('{', "{{").replace('}', "}}");
    match text.contains("](") {
        true => text.replace('[', "\\["),
        false => text,
    }
}

/// A path as a reference: relative to the folder where that is possible, with `/`, all else percent-encoded.
fn uri(path: &str, folder: &Path) -> String {
    let relative = Path::new(path).strip_prefix(folder);
    let path = relative.unwrap_or(Path::new(path)).to_string_lossy();
    let path = match std::path::MAIN_SEPARATOR {
        '/' => path.into_owned(),
        other => path.replace(other, "/"),
    };
    let mut out = match () {
        () if path.starts_with('/') => "file://".to_owned(),
        () if Path::new(&path).is_absolute() => "file:///".to_owned(),
        () => String::new(),
    };
    let path = path.strip_prefix("./").unwrap_or(&path);
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::facts::File;

    fn facts() -> Facts {
        Facts {
            command: "fold".to_owned(),
            version: "0.1.0".to_owned(),
            files: vec![File {
                role: "input",
                path: "models/a b.onnx".to_owned(),
                sha256: Some("00".repeat(32)),
                bytes: Some(5),
            }],
            verdict: "equivalent".to_owned(),
            failure: None,
        }
    }

    #[test]
    fn rules_are_explained_and_results_point_to_them() {
        let findings = [
            Finding::of_node(Level::Notice, "shared-output", "/n", "body", "read {2}×"),
            Finding::of_model(Level::Warning, "few-samples", "too few"),
        ];
        let log = log(&facts(), &findings, Path::new("/w"));
        let run = &log["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        let result = &run["results"][0];
        assert_eq!(
            rules[result["ruleIndex"].as_u64().unwrap() as usize]["id"],
            "shared-output"
        );
        assert_eq!(result["level"], "note");
        assert_eq!(result["message"]["text"], "/n: read {{2}}×");
        let place = &result["locations"][0];
        assert_eq!(
            place["physicalLocation"]["artifactLocation"]["uri"],
            "models/a%20b.onnx"
        );
        assert_eq!(
            place["logicalLocations"][0]["fullyQualifiedName"],
            "body//n"
        );
        assert_eq!(run["invocations"][0]["exitCode"], 0);
    }

    #[test]
    fn a_no_is_always_an_error() {
        let mut facts = facts();
        facts.failure = Some("2 of 3 are kept".to_owned());
        let log = log(&facts, &[], Path::new("/w"));
        assert_eq!(log["runs"][0]["results"][0]["level"], "error");
        assert_eq!(log["runs"][0]["invocations"][0]["exitCode"], 1);
    }

    #[test]
    fn paths_become_references() {
        let folder = Path::new("/w/x");
        assert_eq!(uri("/w/x/m/ü%.onnx", folder), "m/%C3%BC%25.onnx");
        assert_eq!(uri("./m.onnx", folder), "m.onnx");
        assert_eq!(uri("/else/m.onnx", folder), "file:///else/m.onnx");
        assert_eq!(uri("a:b", folder), "a%3Ab");
    }

    #[test]
    fn names_make_no_links() {
        assert_eq!(message("see [x](http://e)"), "see \\[x](http://e)");
        assert_eq!(message("a[0]"), "a[0]");
    }
}
