//! `check` in findings, cases and the table of its page.

use bnkit::check::{CheckReport, Finding, Level};

use super::{loudness, place};
use crate::print::finding::{self, Case, CaseOutcome};
use crate::print::page::{Card, Cell, Grid, Look, Page};
use crate::print::units::grouped;

/// Accepted findings are findings, too: who reads the report learns why they do not count.
pub(super) fn findings(report: &CheckReport) -> Vec<finding::Finding> {
    let accepted = report.suppressed.iter();
    let accepted = accepted.map(|it| one(&it.finding).accepted(it.reason.clone()));
    report.findings.iter().map(one).chain(accepted).collect()
}

fn one(found: &Finding) -> finding::Finding {
    let level = loudness(found.level);
    match place(found) {
        // A check knows nodes by name only.
        Some(node) => finding::Finding::of_node(level, found.code, node, "", &found.message),
        None => finding::Finding::of_model(level, found.code, found.message.clone()),
    }
}

/// A case per rule: what a test report counts is "how many of the things looked for are in order".
pub(super) fn cases(report: &CheckReport) -> Vec<Case> {
    let rules = report.rules.iter().map(|rule| {
        let found = report.findings.iter().filter(|it| it.code == rule.code);
        let told: Vec<String> = found.map(super::sentence).collect();
        let accepted = report.suppressed.iter();
        let accepted = accepted.filter(|it| it.finding.code == rule.code).count();
        let outcome = match (rule.level, told.as_slice()) {
            (Level::Allow, _) => CaseOutcome::Skipped("as asked".to_owned()),
            _ if !rule.checked => CaseOutcome::Skipped("not asked of this checkpoint".to_owned()),
            (Level::Error, [_, ..]) => CaseOutcome::Failed(told.join("\n")),
            (_, []) if accepted > 0 => CaseOutcome::Passed(format!("{accepted} suppressed")),
            (_, told) => CaseOutcome::Passed(told.join("\n")),
        };
        Case::new("rule", rule.code, outcome)
    });
    // Exceptions that match nothing are found when all rules were asked.
    let ruled = |code: &str| report.rules.iter().any(|rule| rule.code == code);
    let unruled = report.findings.iter().filter(|it| !ruled(it.code));
    let unruled = unruled.map(|it| {
        let outcome = match it.level {
            Level::Error => CaseOutcome::Failed(it.message.clone()),
            _ => CaseOutcome::Passed(it.message.clone()),
        };
        Case::new("rule", it.code, outcome)
    });
    rules.chain(unruled).collect()
}

pub(super) fn page(report: &CheckReport) -> Page {
    let summary = report.summary;
    let accepted = match summary.suppressed {
        0 => String::new(),
        number => format!("{} suppressed", grouped(number as u64)),
    };
    let card = |title, number: usize, note: &str| Card::new(title, grouped(number as u64), note);
    let channels = format!("{} channels", grouped(report.channels as u64));
    let rows = report.findings.iter().map(row).collect::<Vec<_>>();
    Page {
        cards: vec![
            card("Errors", summary.errors, ""),
            card("Warnings", summary.warnings, ""),
            card("Notes", summary.notes, &accepted),
            card("BatchNorms", report.batch_norms, &channels),
        ],
        grid: (!rows.is_empty()).then(|| Grid {
            title: "Findings",
            header: vec!["level", "code", "where", "what"],
            rows,
        }),
        replaced: &["Findings"],
        ..Page::default()
    }
}

fn row(found: &Finding) -> Vec<Cell> {
    let look = match found.level {
        Level::Error => Look::Bad,
        Level::Warning => Look::Doubtful,
        Level::Note | Level::Allow => Look::Plain,
    };
    vec![
        Cell::text(found.level.name()).look(look),
        Cell::code(found.code),
        Cell::code(place(found).unwrap_or_default()),
        Cell::text(found.message.clone()),
    ]
}
