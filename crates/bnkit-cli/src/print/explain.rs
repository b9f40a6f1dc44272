//! Explanations of codes: schema `bnkit.explain/1`.

use std::io::{self, Write};

use bnkit::explain::{Explanation, Kind};
use bnkit::report::Tool;
use serde::Serialize;

use super::github::Annotation;
use super::style::{FAINT, STRONG, paint};
use super::table::Table;
use super::{Detail, Document};

/// All codes.
#[derive(Debug, Serialize)]
pub(crate) struct Explanations {
    schema: &'static str,
    tool: Tool,
    explanations: Vec<Entry>,
}

/// One code.
#[derive(Debug, Serialize)]
pub(crate) struct OneExplanation {
    schema: &'static str,
    tool: Tool,
    explanations: [Entry; 1],
}

#[derive(Debug, Serialize)]
struct Entry {
    code: &'static str,
    kind: &'static str,
    title: &'static str,
    text: &'static str,
}

const SCHEMA: &str = "bnkit.explain/1";

/// The kinds in the order in which they are listed, and what each is.
const KINDS: [(&str, &str); 5] = [
    ("rule", "Rules: how a BatchNorm is folded"),
    ("refusal", "Refusals: why a BatchNorm stays"),
    ("warning", "Warnings: worth knowing, changing nothing"),
    ("error", "Errors: bad statistics, exit code 1"),
    ("check", "Checks: what bnkit check looks for besides"),
];

impl Explanations {
    pub(crate) fn new(all: &[Explanation]) -> Self {
        let explanations = all.iter().map(Entry::new).collect();
        Self {
            schema: SCHEMA,
            tool: Tool::default(),
            explanations,
        }
    }
}

impl OneExplanation {
    pub(crate) fn new(explanation: &Explanation) -> Self {
        Self {
            schema: SCHEMA,
            tool: Tool::default(),
            explanations: [Entry::new(explanation)],
        }
    }
}

impl Entry {
    fn new(explanation: &Explanation) -> Self {
        let Explanation {
            code,
            kind,
            title,
            text,
        } = *explanation;
        let kind = match kind {
            Kind::Rule => "rule",
            Kind::Refusal => "refusal",
            Kind::Warning => "warning",
            Kind::Error => "error",
            Kind::Check => "check",
        };
        Self {
            code,
            kind,
            title,
            text,
        }
    }

    fn markdown(&self, level: &str, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{level} {}: {}\n\n*{}*\n\n{}",
            self.code,
            self.title,
            self.kind,
            self.text.trim()
        )
    }
}

impl Document for Explanations {
    fn text(&self, out: &mut dyn Write, _: Detail) -> io::Result<()> {
        for (number, (kind, heading)) in KINDS.iter().enumerate() {
            let mut table = Table::new(&["", ""]);
            for entry in self.explanations.iter().filter(|entry| entry.kind == *kind) {
                table.row([entry.code.to_owned(), entry.title.to_owned()]);
            }
            if table.len() > 0 {
                writeln!(
                    out,
                    "{}{}",
                    if number > 0 { "\n" } else { "" },
                    paint(STRONG, heading)
                )?;
                table.text(out, "  ", usize::MAX)?;
            }
        }
        Ok(())
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "# Codes")?;
        for entry in &self.explanations {
            writeln!(out)?;
            entry.markdown("##", out)?;
        }
        Ok(())
    }

    fn annotations(&self) -> Vec<Annotation> {
        Vec::new()
    }
}

impl Document for OneExplanation {
    fn text(&self, out: &mut dyn Write, _: Detail) -> io::Result<()> {
        let [entry] = &self.explanations;
        writeln!(
            out,
            "{}  {}\n",
            paint(STRONG, entry.code),
            paint(FAINT, format!("({})", entry.kind))
        )?;
        writeln!(out, "{}\n", entry.title)?;
        writeln!(out, "{}", entry.text.trim())
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        self.explanations[0].markdown("#", out)
    }

    fn annotations(&self) -> Vec<Annotation> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Explanation = Explanation {
        code: "into-conv",
        kind: Kind::Rule,
        title: "Conv takes it",
        text: "W' = W·s\n",
    };
    const REFUSAL: Explanation = Explanation {
        code: "shared-output",
        kind: Kind::Refusal,
        title: "read twice",
        text: "x",
    };

    #[test]
    fn the_list_is_grouped_by_kind() {
        let mut out = Vec::new();
        Explanations::new(&[RULE, REFUSAL])
            .text(&mut out, Detail::Short)
            .unwrap();
        let text = anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string();
        let expected = "\
Rules: how a BatchNorm is folded
  into-conv  Conv takes it

Refusals: why a BatchNorm stays
  shared-output  read twice
";
        assert_eq!(text, expected);
    }

    #[test]
    fn one_code_is_its_text() {
        let mut out = Vec::new();
        OneExplanation::new(&RULE)
            .text(&mut out, Detail::Short)
            .unwrap();
        let text = anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string();
        assert_eq!(text, "into-conv  (rule)\n\nConv takes it\n\nW' = W·s\n");
        let json = serde_json::to_value(OneExplanation::new(&RULE)).unwrap();
        assert_eq!(json["schema"], "bnkit.explain/1");
        assert_eq!(json["explanations"][0]["kind"], "rule");
    }
}
