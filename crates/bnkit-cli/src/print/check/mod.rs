//! The report of `check`.

mod page;

use std::io::{self, Write};

use anstyle::Style;
use bnkit::check::{CheckFormat, CheckReport, CheckedRule, Finding, Level};
use bnkit::explain;
use bnkit::report::Evidence;

use super::calibrate::parts::{facts, section};
use super::calibrate::wrapped;
use super::finding::{self, Case};
use super::github::{self, Annotation, by_code};
use super::page::Page;
use super::plain::plain;
use super::style::{BAD, DOUBTFUL, FAINT, GOOD, STRONG, paint};
use super::table::Table;
use super::units::{count, grouped, short};
use super::{Detail, Document, more};

/// The width of a text.
const WIDTH: usize = 80;
/// How many warnings or notes of a code a short text shows.
const FEW: usize = 3;

impl Document for CheckReport {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        let path = paint(STRONG, plain(&self.input.path));
        writeln!(out, "{path}  {}", paint(FAINT, about(self)))?;
        for group in groups(&self.findings) {
            writeln!(out)?;
            one_code(group, out, detail)?;
        }
        if !self.suppressed.is_empty() {
            writeln!(out, "\n{}", paint(STRONG, "Suppressed"))?;
            let shown = self.suppressed.iter().take(detail.limit());
            for accepted in shown {
                let finding = &accepted.finding;
                let place = place(finding).map_or_else(String::new, |name| format!("{name}: "));
                paragraph(out, &format!("{} {place}{}", finding.code, accepted.reason))?;
            }
            let hidden = self.suppressed.len().saturating_sub(detail.limit());
            if let Some(line) = more(hidden) {
                writeln!(out, "  {line}")?;
            }
        }
        let unchecked = unchecked(self);
        if !unchecked.is_empty() {
            writeln!(out)?;
            let text = format!("Not checked, for want of readable data: {unchecked}");
            for line in wrapped(&text, WIDTH) {
                writeln!(out, "{line}")?;
            }
        }
        let style = match self.summary {
            summary if summary.errors > 0 => BAD,
            summary if summary.warnings > 0 => DOUBTFUL,
            _ => GOOD,
        };
        writeln!(out, "\n{}", paint(style, totals(self)))
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "# Check of {}\n", plain(&self.input.path))?;
        facts(
            out,
            &[
                ("model", about(self)),
                ("findings", totals(self)),
                ("not checked", unchecked(self)),
            ],
        )?;
        let mut to_do = Table::new(&["code", "findings", "what it is", "what to do"]);
        for group in groups(&self.findings) {
            let first = &group[0];
            to_do.row([
                format!("`{}`", first.code),
                group.len().to_string(),
                title(first.code).to_owned(),
                first.action.to_owned(),
            ]);
        }
        section(out, "What to do", &to_do)?;
        let mut found = Table::new(&["level", "code", "where", "what"]);
        for finding in &self.findings {
            found.row([
                finding.level.name().to_owned(),
                format!("`{}`", finding.code),
                code_span(finding),
                finding.message.clone(),
            ]);
        }
        section(out, "Findings", &found)?;
        let mut accepted = Table::new(&["code", "where", "what", "reason"]);
        for one in &self.suppressed {
            accepted.row([
                format!("`{}`", one.finding.code),
                code_span(&one.finding),
                one.finding.message.clone(),
                one.reason.clone(),
            ]);
        }
        section(out, "Suppressed", &accepted)
    }

    fn summary(&self) -> Option<(github::Level, String)> {
        // The annotations are the findings alone; elsewhere the totals are the summary.
        Some((github::Level::Notice, totals(self)))
    }

    fn findings(&self) -> Vec<finding::Finding> {
        page::findings(self)
    }

    fn cases(&self) -> Vec<Case> {
        page::cases(self)
    }

    fn page(&self) -> Page {
        page::page(self)
    }

    fn annotations(&self) -> Vec<Annotation> {
        let of = |level: Level, loudness| {
            let found = groups(&self.findings).into_iter();
            let of_level = found.filter(move |group| group[0].level == level);
            let texts = of_level.flat_map(|group| {
                let sentences = group.iter().map(|it| (it.code, sentence(it)));
                sentences.chain([(group[0].code, format!("What to do: {}", group[0].action))])
            });
            by_code(loudness, &self.input.path, texts)
        };
        [Level::Error, Level::Warning, Level::Note]
            .into_iter()
            .flat_map(|level| of(level, loudness(level)))
            .collect()
    }
}

fn loudness(level: Level) -> github::Level {
    match level {
        Level::Error => github::Level::Error,
        Level::Warning => github::Level::Warning,
        Level::Note | Level::Allow => github::Level::Notice,
    }
}

/// "ONNX opset 17, 53 BatchNorms, 26,560 channels".
fn about(report: &CheckReport) -> String {
    let format = match (report.format, report.input.opset) {
        (CheckFormat::Onnx, Some(opset)) => format!("ONNX opset {opset}"),
        (CheckFormat::Onnx, None) => "ONNX".to_owned(),
        _ => "safetensors".to_owned(),
    };
    let epsilon = match report.assumed_epsilon {
        Some(epsilon) => format!(", taking {} for epsilon", short(epsilon)),
        None => String::new(),
    };
    format!(
        "{format}, {}, {} channels{epsilon}",
        count(report.batch_norms, "BatchNorm"),
        grouped(report.channels as u64)
    )
}

/// "1 error, 2 warnings, 0 notes (1 suppressed)".
fn totals(report: &CheckReport) -> String {
    let summary = report.summary;
    let suppressed = match summary.suppressed {
        0 => String::new(),
        suppressed => format!(" ({suppressed} suppressed)"),
    };
    format!(
        "{}, {}, {}{suppressed}",
        count(summary.errors, "error"),
        count(summary.warnings, "warning"),
        count(summary.notes, "note")
    )
}

/// Rules that could not be asked because data cannot be read. Those that make no sense for the format are not missed.
fn unchecked(report: &CheckReport) -> String {
    let unreadable = report.findings.iter().any(|it| it.code == "external-data")
        || report
            .suppressed
            .iter()
            .any(|it| it.finding.code == "external-data");
    let missing = |rule: &&CheckedRule| {
        unreadable && !rule.checked && rule.level != Level::Allow && !of_state_dicts(rule.code)
    };
    let missing = report.rules.iter().filter(missing);
    missing.map(|rule| rule.code).collect::<Vec<_>>().join(", ")
}

/// Whether a rule is about state dicts only.
fn of_state_dicts(code: &str) -> bool {
    matches!(code, "incomplete-group" | "batches-not-counted")
}

/// Findings of one code stand together, whatever else is of their level.
fn groups(findings: &[Finding]) -> Vec<&[Finding]> {
    let same = |a: &Finding, b: &Finding| a.code == b.code && a.level == b.level;
    findings.chunk_by(same).collect()
}

/// What a code means, in a line.
fn title(code: &str) -> &'static str {
    explain::find(code).map_or("", |explanation| explanation.title)
}

fn one_code(group: &[Finding], out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    let first = &group[0];
    let number = match group.len() {
        1 => String::new(),
        number => format!(" ({number})"),
    };
    let level = paint(style(first.level), first.level.name());
    writeln!(out, "{level} {}{number}", paint(STRONG, first.code))?;
    for line in wrapped(title(first.code), WIDTH - 2) {
        writeln!(out, "  {}", paint(FAINT, line))?;
    }
    let limit = match (detail, first.level) {
        (Detail::Short, Level::Note | Level::Warning) => FEW,
        _ => detail.limit(),
    };
    let reasons = reasons(group);
    if group.len() > limit && !reasons.is_empty() {
        paragraph(out, &reasons)?;
    }
    for finding in group.iter().take(limit) {
        paragraph(out, &sentence(finding))?;
    }
    if let Some(line) = more(group.len().saturating_sub(limit)) {
        writeln!(out, "  {line}")?;
    }
    paragraph(out, &format!("→ {}", first.action))
}

/// Why BatchNorms are not folded, counted: "shared-output 40, no-absorber 22".
fn reasons(group: &[Finding]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for finding in group {
        let Some(Evidence::Text(code)) = finding.numbers.get("refusal") else {
            continue;
        };
        match counts.iter_mut().find(|(known, _)| known == code) {
            Some((_, count)) => *count += 1,
            None => counts.push((code, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counts: Vec<String> = counts
        .iter()
        .map(|(code, count)| format!("{code} {count}"))
        .collect();
    counts.join(", ")
}

/// Lines of at most the width, the first one less indented than the others.
fn paragraph(out: &mut dyn Write, text: &str) -> io::Result<()> {
    for (number, line) in wrapped(&plain(text), WIDTH - 4).iter().enumerate() {
        let indent = if number == 0 { "  " } else { "    " };
        writeln!(out, "{indent}{line}")?;
    }
    Ok(())
}

fn style(level: Level) -> Style {
    match level {
        Level::Error => BAD,
        Level::Warning => DOUBTFUL,
        Level::Note | Level::Allow => FAINT,
    }
}

/// The node or module; `None` if it is about the model as a whole.
fn place(finding: &Finding) -> Option<&str> {
    (!finding.node.is_empty()).then_some(finding.node.as_str())
}

fn sentence(finding: &Finding) -> String {
    match place(finding) {
        Some(name) => format!("{name}: {}", finding.message),
        None => finding.message.clone(),
    }
}

fn code_span(finding: &Finding) -> String {
    place(finding).map_or_else(String::new, |name| format!("`{name}`"))
}
