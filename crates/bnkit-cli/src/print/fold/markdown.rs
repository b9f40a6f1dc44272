//! `fold` as a page: for a pull request, a release, an archive.

use std::io::{self, Write};

use bnkit::model::onnx::Name;
use bnkit::report::{Decision, FoldReport};

use super::{NOTHING_TO_FOLD, headline, kept, merges, place, rules, state, tidied, to_eval};
use crate::print::proof;
use crate::print::table::Table;
use crate::print::units::bytes;

pub(super) fn write(report: &FoldReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "# {}\n", headline(report))?;
    files(report, out)?;
    if let Some(told) = &report.state {
        writeln!(out, "\n{}; {}.", state::told(told), state::tensors(told))?;
    }
    body(report, out)
}

/// What was folded and how it was proved, as a part of another page too.
pub(crate) fn body(report: &FoldReport, out: &mut dyn Write) -> io::Result<()> {
    if let Some(failure) = &report.failure {
        writeln!(out, "\n**Failed:** {failure}")?;
    }
    if report.summary.batch_norms == 0 && report.summary.affines_folded == 0 {
        writeln!(out)?;
        NOTHING_TO_FOLD
            .iter()
            .try_for_each(|line| writeln!(out, "- {line}"))?;
    }
    section(out, "Rules", rule_table(report))?;
    section(out, "Bad statistics", errors(report))?;
    section(out, "Kept", kept_table(report))?;
    section(out, "Skipped, as asked", skipped(report))?;
    section(out, "Folded", folded(report))?;
    section(out, "Merged", merges::table(report))?;
    section(out, "Not merged", merges::refused(report))?;
    section(out, "Cleaned up", cleaned(report))?;
    section(out, "Warnings", warnings(report))?;
    if let Some(verification) = &report.verification {
        writeln!(out, "\n## Proof\n")?;
        proof::markdown(verification, out)?;
    }
    Ok(())
}

fn section(out: &mut dyn Write, title: &str, table: Table) -> io::Result<()> {
    if table.len() == 0 {
        return Ok(());
    }
    writeln!(out, "\n## {title}\n")?;
    table.markdown(out)
}

fn files(report: &FoldReport, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&["", "file", "size", "nodes", "SHA-256"]);
    let hash = |hash: &Option<String>| {
        hash.as_deref()
            .map(|hash| format!("`{hash}`"))
            .unwrap_or_default()
    };
    let (input, summary) = (&report.input, &report.summary);
    table.row([
        "input".to_owned(),
        format!("`{}`", input.path),
        bytes(input.bytes),
        summary.nodes_before.to_string(),
        hash(&input.sha256),
    ]);
    if let Some(output) = &report.output {
        table.row([
            "output".to_owned(),
            format!("`{}`", output.path),
            bytes(output.bytes),
            summary.nodes_after.to_string(),
            hash(&output.sha256),
        ]);
    }
    table.markdown(out)
}

fn rule_table(report: &FoldReport) -> Table {
    let mut table = Table::new(&["rule", "BatchNorms", "what it does"]);
    for (rule, times, title) in rules(report) {
        table.row([format!("`{rule}`"), times.to_string(), title.to_owned()]);
    }
    table
}

fn errors(report: &FoldReport) -> Table {
    let mut table = Table::new(&["BatchNorm", "code", "what is wrong"]);
    for error in &report.errors {
        table.row([
            format!("`{}`", error.node),
            format!("`{}`", error.code),
            error.message.clone(),
        ]);
    }
    table
}

fn kept_table(report: &FoldReport) -> Table {
    let mut table = Table::new(&["BatchNorm", "code", "why"]);
    for (site, code, why) in kept(report) {
        table.row([
            format!("`{}`", place(site)),
            format!("`{code}`"),
            why.to_owned(),
        ]);
    }
    table
}

fn skipped(report: &FoldReport) -> Table {
    let mut table = Table::new(&["BatchNorm", "channels"]);
    for site in report
        .sites
        .iter()
        .filter(|site| site.decision == Decision::Skipped)
    {
        table.row([format!("`{}`", place(site)), site.channels.to_string()]);
    }
    table
}

fn folded(report: &FoldReport) -> Table {
    let mut table = Table::new(&["BatchNorm", "channels", "into", "through"]);
    let code = |names: &[Name]| {
        names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let gone = |decision| !matches!(decision, Decision::Kept | Decision::Skipped);
    for site in report.sites.iter().filter(|site| gone(site.decision)) {
        table.row([
            format!("`{}`", place(site)),
            site.channels.to_string(),
            code(&site.into),
            code(&site.via),
        ]);
    }
    table
}

fn cleaned(report: &FoldReport) -> Table {
    let mut table = Table::new(&["what", "where"]);
    let code = |names: &[&str]| {
        names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let training = to_eval(report);
    if !training.is_empty() {
        table.row(["training mode became eval mode".to_owned(), code(&training)]);
    }
    for (phrase, names) in tidied(report) {
        table.row([phrase, code(&names)]);
    }
    table
}

fn warnings(report: &FoldReport) -> Table {
    let mut table = Table::new(&["where", "code", "warning"]);
    for warning in &report.warnings {
        table.row([
            String::new(),
            format!("`{}`", warning.code),
            warning.message.clone(),
        ]);
    }
    for site in &report.sites {
        for warning in &site.warnings {
            table.row([
                format!("`{}`", place(site)),
                format!("`{}`", warning.code),
                warning.message.clone(),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::samples;

    #[test]
    fn sections_without_content_are_left_out() {
        let mut out = Vec::new();
        write(&samples::fold(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let headings: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
        assert_eq!(
            headings,
            [
                "# Folded 3 of 4 BatchNorms",
                "## Rules",
                "## Kept",
                "## Folded",
                "## Cleaned up",
                "## Proof"
            ]
        );
        assert!(text.contains(
            "| `/norm/BatchNormalization` | `shared-output` | the value \"x\" is read by 2 nodes |"
        ));
        assert!(
            text.contains("| output | `net.folded.onnx` | 102.3 MB | 8 |  |"),
            "{text}"
        );
    }
}
