//! The report of `verify`.

use std::io::{self, Write};

use bnkit::report::{InputFile, Verdict, VerifyReport};

use super::finding::{Case, Finding, proof_cases, proof_findings};
use super::fold::page::{errors, largest_error};
use super::github::{Annotation, Level, by_code};
use super::page::Page;
use super::proof::{self, worst};
use super::style::{FAINT, STRONG, paint};
use super::table::Table;
use super::units::{bytes, sci};
use super::{Detail, Document};

impl Document for VerifyReport {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        for (letter, file) in [("A", &self.a), ("B", &self.b)] {
            writeln!(
                out,
                "{letter}  {}  {}",
                paint(STRONG, &file.path),
                paint(FAINT, facts(file))
            )?;
        }
        writeln!(out)?;
        proof::text(&self.verification, out, detail)
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "# {} against {}\n", self.b.path, self.a.path)?;
        let mut table = Table::new(&["", "file", "size", "opset", "SHA-256"]);
        for (letter, file) in [("A", &self.a), ("B", &self.b)] {
            table.row([
                letter.to_owned(),
                format!("`{}`", file.path),
                bytes(file.bytes),
                file.opset
                    .map(|opset| opset.to_string())
                    .unwrap_or_default(),
                file.sha256
                    .as_deref()
                    .map(|hash| format!("`{hash}`"))
                    .unwrap_or_default(),
            ]);
        }
        table.markdown(out)?;
        writeln!(out)?;
        proof::markdown(&self.verification, out)
    }

    fn findings(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = proof_findings(&self.verification).collect();
        if let (Some(why), true) = (&self.failure, all.is_empty()) {
            all.push(Finding::of_model(
                Level::Error,
                "not-equivalent",
                why.clone(),
            ));
        }
        all
    }

    fn cases(&self) -> Vec<Case> {
        proof_cases(&self.verification)
    }

    fn page(&self) -> Page {
        Page {
            cards: largest_error(&self.verification).into_iter().collect(),
            charts: errors(&self.verification).into_iter().collect(),
            ..Page::default()
        }
    }

    fn summary(&self) -> Option<(Level, String)> {
        let (level, verdict) = match self.verification.verdict {
            Verdict::Equivalent => (Level::Notice, "equivalent"),
            Verdict::EquivalentLocal => (Level::Warning, "equivalent locally"),
            Verdict::Skipped => (Level::Warning, "not compared"),
            Verdict::NotEquivalent => (Level::Error, "not equivalent"),
        };
        let difference = worst(&self.verification.outputs).map_or_else(String::new, |output| {
            let (difference, accepted) = (sci(output.max_abs), sci(output.tolerance));
            format!(
                "; output {:?}: max |Δ| {difference}, accepted {accepted}",
                output.name
            )
        });
        Some((level, format!("{verdict} to {}{difference}", self.a.path)))
    }

    /// The summary says the worst of the findings.
    fn annotations(&self) -> Vec<Annotation> {
        let found = self.summary().into_iter();
        found
            .flat_map(|(level, text)| by_code(level, &self.b.path, [("verify", text)]))
            .collect()
    }
}

fn facts(file: &InputFile) -> String {
    let opset = file
        .opset
        .map(|opset| format!("opset {opset}, "))
        .unwrap_or_default();
    format!("{opset}{}", bytes(file.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::samples;

    #[test]
    fn the_verdict_is_an_annotation() {
        let mut report = samples::verify();
        assert_eq!(report.annotations()[0].level, Level::Notice);
        report.verification = samples::different();
        let annotation = report.annotations().remove(0);
        assert_eq!(
            (annotation.level, annotation.file.as_str()),
            (Level::Error, "b.onnx")
        );
        assert_eq!(
            annotation.text,
            "not equivalent to a.onnx; output \"logits\": max |Δ| 1.2e-2, accepted 1.5e-5"
        );
    }

    #[test]
    fn both_files_are_named() {
        let mut out = Vec::new();
        samples::verify().text(&mut out, Detail::Short).unwrap();
        let text = anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string();
        assert!(
            text.starts_with(
                "A  a.onnx  opset 17, 1.0 MB\nB  b.onnx  opset 17, 1.0 MB\n\nEquivalent"
            ),
            "{text}"
        );
        let mut page = Vec::new();
        samples::verify().markdown(&mut page).unwrap();
        assert!(
            String::from_utf8(page)
                .unwrap()
                .contains("| B | `b.onnx` | 1.0 MB | 17 |  |")
        );
    }
}
