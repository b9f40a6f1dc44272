//! JUnit XML: a suite for the command, a case for each thing that was looked at.
//!
//! A case fails only if that is why the exit code is 1, and the case "answer" fails whenever the exit code is 1: a server that shows red
//! and a script that reads the exit code never disagree. No times and no dates: the same run gives the same bytes.

use std::collections::HashMap;
use std::io::{self, Write};

use super::escape::markup;
use super::facts::Facts;
use super::finding::{Case, CaseOutcome};

/// The form that servers read: Jenkins, GitLab, GitHub's test reporters.
pub(super) fn write(
    facts: &Facts,
    summary: &str,
    cases: &[Case],
    out: &mut dyn Write,
) -> io::Result<()> {
    let no = facts.failure.is_some();
    let answer = Case::new(
        "verdict",
        "answer",
        match &facts.failure {
            Some(why) => CaseOutcome::Failed(why.clone()),
            None => CaseOutcome::Passed(summary.to_owned()),
        },
    );
    let mut cases: Vec<Case> = cases.iter().chain([&answer]).cloned().collect();
    for case in &mut cases {
        if let (CaseOutcome::Failed(why), false) = (&case.outcome, no) {
            case.outcome = CaseOutcome::Skipped(why.clone());
        }
    }
    make_unique(&mut cases);
    let count =
        |what: fn(&CaseOutcome) -> bool| cases.iter().filter(|case| what(&case.outcome)).count();
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"0\"",
        cases.len(),
        count(|outcome| matches!(outcome, CaseOutcome::Failed(_))),
    );
    let skipped = count(|outcome| matches!(outcome, CaseOutcome::Skipped(_)));
    let command = markup(&facts.command);
    let subject = facts
        .subject()
        .map_or_else(String::new, |file| format!(" {}", markup(&file.path)));
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(out, "<testsuites name=\"bnkit {command}\" {counts}>")?;
    writeln!(
        out,
        "  <testsuite name=\"bnkit {command}{subject}\" {counts} skipped=\"{skipped}\">"
    )?;
    properties(facts, out)?;
    for case in &cases {
        write!(
            out,
            "    <testcase classname=\"bnkit.{command}.{}\" name=\"{}\"",
            case.group,
            markup(&case.name)
        )?;
        match &case.outcome {
            CaseOutcome::Passed(text) if text.is_empty() => writeln!(out, "/>")?,
            CaseOutcome::Passed(text) => {
                writeln!(
                    out,
                    ">\n      <system-out>{}</system-out>\n    </testcase>",
                    markup(text)
                )?;
            }
            CaseOutcome::Skipped(why) => {
                writeln!(
                    out,
                    ">\n      <skipped message=\"{}\"/>\n    </testcase>",
                    markup(why)
                )?;
            }
            CaseOutcome::Failed(why) => {
                let why = markup(why);
                writeln!(
                    out,
                    ">\n      <failure type=\"{}\" message=\"{why}\">{why}</failure>\n    </testcase>",
                    case.group
                )?;
            }
        }
    }
    writeln!(out, "  </testsuite>\n</testsuites>")
}

fn properties(facts: &Facts, out: &mut dyn Write) -> io::Result<()> {
    let mut all = vec![
        ("bnkit.version".to_owned(), facts.version.clone()),
        ("bnkit.verdict".to_owned(), facts.verdict.clone()),
    ];
    for file in &facts.files {
        all.push((file.role.to_owned(), file.path.clone()));
        if let Some(hash) = &file.sha256 {
            all.push((format!("{}.sha256", file.role), hash.clone()));
        }
    }
    writeln!(out, "    <properties>")?;
    for (name, value) in all {
        writeln!(
            out,
            "      <property name=\"{}\" value=\"{}\"/>",
            markup(&name),
            markup(&value)
        )?;
    }
    writeln!(out, "    </properties>")
}

/// Servers tell cases apart by class and name; nodes of one name are numbered.
fn make_unique(cases: &mut [Case]) {
    let mut seen: HashMap<(&'static str, String), usize> = HashMap::new();
    for case in cases {
        let times = seen.entry((case.group, case.name.clone())).or_default();
        *times += 1;
        if *times > 1 {
            case.name = format!("{} ({times})", case.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xml(failure: Option<&str>) -> String {
        let facts = Facts {
            command: "fold".to_owned(),
            version: "0.1.0".to_owned(),
            verdict: "equivalent".to_owned(),
            failure: failure.map(str::to_owned),
            ..Facts::default()
        };
        let case = |name: &str, outcome| Case::new("BatchNorm", name, outcome);
        let cases = [
            case("<a>", CaseOutcome::Passed("into b".to_owned())),
            case("b", CaseOutcome::Skipped("shared-output: x".to_owned())),
            case("c\u{1}", CaseOutcome::Failed("wrong".to_owned())),
            case("b", CaseOutcome::Passed(String::new())),
        ];
        let mut out = Vec::new();
        write(&facts, "Folded 2", &cases, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_fails_unless_the_answer_is_no() {
        let text = xml(None);
        assert!(
            text.contains("tests=\"5\" failures=\"0\" errors=\"0\" skipped=\"2\""),
            "{text}"
        );
        assert!(!text.contains("<failure"), "{text}");
        let text = xml(Some("it differs"));
        assert!(
            text.contains("tests=\"5\" failures=\"2\" errors=\"0\" skipped=\"1\""),
            "{text}"
        );
        assert!(
            text.contains("name=\"answer\">\n      <failure type=\"verdict\" message=\"it differs\">it differs</failure>"),
            "{text}"
        );
    }

    #[test]
    fn names_are_escaped_and_unique() {
        let text = xml(None);
        for part in [
            "name=\"&lt;a&gt;\"",
            "name=\"c\\u{1}\"",
            "name=\"b\"",
            "name=\"b (2)\"/>",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
