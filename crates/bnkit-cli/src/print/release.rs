//! `release`: a line for each stage, what failed and how to see it alone, what was written; and the reports of the stages.

use std::io::{self, Write};

use bnkit::release::{ReleaseReport, Stage, StageReport, Status};
use bnkit::report::Verdict;

use super::finding::{Case, CaseOutcome, Finding};
use super::github::Level;
use super::page::{Card, Page};
use super::plain::plain;
use super::style::{BAD, FAINT, GOOD, STRONG, paint};
use super::table::Table;
use super::units::{bytes, count};
use super::{Detail, Document, accuracy, fold};

/// The longest report of a stage in a Markdown page: a comment on a pull request ends at 65,536 characters.
const LONGEST: usize = 12_000;

/// Does the same with the report of a stage, whatever it is; `$none` for accuracies, which have no report of their own.
macro_rules! of_stage {
    ($report:expr, $it:ident => $what:expr, $none:expr) => {
        match $report {
            StageReport::Check($it) => $what,
            StageReport::Validate($it) => $what,
            StageReport::Recalibrate($it) => $what,
            StageReport::Fold($it) => $what,
            StageReport::Accuracy(_) => $none,
        }
    };
}

impl Document for ReleaseReport {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        fold::text::header(&self.input, out)?;
        writeln!(out)?;
        for stage in &self.stages {
            let (sign, style) = match stage.status {
                Status::Passed => ("✓", GOOD),
                Status::Failed => ("✗", BAD),
                Status::Skipped => ("·", FAINT),
            };
            let name = format!("{:<11}", stage.name);
            let name = if stage.status == Status::Skipped {
                paint(FAINT, name)
            } else {
                paint(STRONG, name)
            };
            writeln!(out, "{} {name} {}", paint(style, sign), said(stage, self))?;
            if let (Some(_), Some(command)) = (&stage.failure, &stage.command) {
                writeln!(out, "  {}", paint(FAINT, format!("alone: {command}")))?;
            }
        }
        if detail == Detail::Full {
            for stage in &self.stages {
                let Some(report) = &stage.report else {
                    continue;
                };
                if matches!(report, StageReport::Accuracy(_)) {
                    continue;
                }
                writeln!(
                    out,
                    "\n{}\n",
                    paint(STRONG, format!("── {} ──", stage.name))
                )?;
                of_stage!(report, it => it.text(out, detail)?, ());
            }
        }
        writeln!(out)?;
        match &self.output {
            Some(output) => writeln!(
                out,
                "{} {}  {}",
                paint(GOOD, "Released"),
                paint(STRONG, plain(&output.path)),
                paint(
                    FAINT,
                    format!("{} → {}", bytes(self.input.bytes), bytes(output.bytes))
                )
            ),
            None => writeln!(out, "{}", paint(BAD, "Not released: nothing was written.")),
        }
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "# {}\n", headline(self))?;
        let mut stages = Table::new(&["", "stage", "result"]);
        for stage in &self.stages {
            let sign = match stage.status {
                Status::Passed => "✓",
                Status::Failed => "✗",
                Status::Skipped => "·",
            };
            stages.row([sign.to_owned(), stage.name.to_owned(), said(stage, self)]);
        }
        stages.markdown(out)?;
        for stage in &self.stages {
            if let (Some(failure), Some(command)) = (&stage.failure, &stage.command) {
                writeln!(out, "\n**{}:** {failure}. To see it alone:\n", stage.name)?;
                writeln!(out, "```\n{command}\n```")?;
            }
        }
        if let Some(output) = &self.output {
            writeln!(
                out,
                "\nWritten to `{}` ({} → {}).",
                output.path,
                bytes(self.input.bytes),
                bytes(output.bytes)
            )?;
        }
        for stage in &self.stages {
            let Some(report) = &stage.report else {
                continue;
            };
            writeln!(out, "\n<details><summary>{}</summary>\n", stage.name)?;
            let mut page = Vec::new();
            of_stage!(report, it => it.markdown(&mut page)?, ());
            if let StageReport::Accuracy(report) = report {
                accuracy::table(&report.stages).markdown(&mut page)?;
            }
            out.write_all(below(&String::from_utf8_lossy(&page)).as_bytes())?;
            writeln!(out, "\n</details>")?;
        }
        Ok(())
    }

    fn summary(&self) -> Option<(Level, String)> {
        let level = match self.failure {
            Some(_) => Level::Error,
            None => Level::Notice,
        };
        let text = match (&self.failure, &self.output) {
            (Some(failure), _) => format!("Not released: {failure}"),
            (None, Some(output)) => format!("Released {}", output.path),
            (None, None) => "Nothing was written".to_owned(),
        };
        Some((level, text))
    }

    fn findings(&self) -> Vec<Finding> {
        let mut all = Vec::new();
        for report in reports(self) {
            all.extend(of_stage!(report, it => it.findings(), Vec::new()));
        }
        all
    }

    fn cases(&self) -> Vec<Case> {
        let mut all = Vec::new();
        for stage in &self.stages {
            let outcome = match (stage.status, &stage.failure, &stage.note) {
                (Status::Failed, Some(failure), _) => CaseOutcome::Failed(match &stage.command {
                    Some(command) => format!("{failure}\nalone: {command}"),
                    None => failure.clone(),
                }),
                (Status::Skipped, _, note) => {
                    CaseOutcome::Skipped(note.clone().unwrap_or_default())
                }
                _ => CaseOutcome::Passed(said(stage, self)),
            };
            all.push(Case::new("stage", stage.name, outcome));
        }
        for report in reports(self) {
            all.extend(of_stage!(report, it => it.cases(), Vec::new()));
        }
        all
    }

    fn page(&self) -> Page {
        let mut page = Page::default();
        let failed = self.stages.iter().filter(|it| it.status == Status::Failed);
        let ran = self.stages.iter().filter(|it| it.status != Status::Skipped);
        let (failed, ran) = (failed.count(), ran.count());
        page.cards.push(Card::new(
            "Stages passed",
            format!("{} of {ran}", ran - failed),
            match failed {
                0 => String::new(),
                failed => format!("{failed} failed"),
            },
        ));
        for report in reports(self) {
            if let StageReport::Accuracy(report) = report {
                page.cards.extend(accuracy::card(report));
            }
            let of_stage = of_stage!(report, it => it.page(), Page::default());
            page.cards.extend(of_stage.cards);
            page.charts.extend(of_stage.charts);
            page.grid = of_stage.grid.or(page.grid.take());
        }
        page
    }

    fn warnings(&self, detail: Detail) -> Vec<String> {
        let mut all = Vec::new();
        for report in reports(self) {
            all.extend(of_stage!(report, it => it.warnings(detail), Vec::new()));
        }
        all
    }
}

/// The reports of the stages that ran.
fn reports(report: &ReleaseReport) -> impl Iterator<Item = &StageReport> {
    report
        .stages
        .iter()
        .filter_map(|stage| stage.report.as_ref())
}

fn headline(report: &ReleaseReport) -> String {
    let failed: Vec<&str> = report
        .stages
        .iter()
        .filter(|stage| stage.status == Status::Failed)
        .map(|stage| stage.name)
        .collect();
    match failed.as_slice() {
        [] => format!("✓ {} is released", report.input.path),
        names => format!(
            "✗ {} is not released: {} failed",
            report.input.path,
            names.join(", ")
        ),
    }
}

/// What a stage has to say, in a line.
fn said(stage: &Stage, report: &ReleaseReport) -> String {
    if let Some(text) = stage.failure.as_ref().or(stage.note.as_ref()) {
        return text.clone();
    }
    match &stage.report {
        Some(StageReport::Check(report)) => {
            let summary = report.summary;
            format!(
                "{}, {}",
                count(summary.warnings, "warning"),
                count(summary.notes, "note")
            )
        }
        Some(StageReport::Validate(report)) => format!(
            "the statistics of {} describe {}",
            count(report.channels, "channel"),
            report.data.path
        ),
        Some(StageReport::Recalibrate(report)) => format!(
            "new statistics for {} of {}",
            report.summary.updated,
            count(report.summary.layers, "BatchNorm")
        ),
        Some(StageReport::Fold(report)) => {
            let summary = &report.summary;
            let gone = summary.batch_norms - summary.kept - summary.skipped;
            format!("{gone} of {} gone", count(summary.batch_norms, "BatchNorm"))
        }
        Some(StageReport::Accuracy(report)) => accuracy::stages(&report.stages),
        None => match report.verdict() {
            Some(Verdict::Equivalent) => "proved equivalent".to_owned(),
            Some(Verdict::EquivalentLocal) => "proved equivalent locally".to_owned(),
            Some(Verdict::NotEquivalent) => "not equivalent".to_owned(),
            Some(Verdict::Skipped) | None => "not proved".to_owned(),
        },
    }
}

/// A page within a page: its headings two levels below, its end cut off where it is too long.
fn below(page: &str) -> String {
    let mut out = String::new();
    for line in page.lines() {
        if out.len() + line.len() > LONGEST {
            out += "\n… and more: a report of this command alone, or .json, has it all\n";
            break;
        }
        if line.starts_with("# ") || line.starts_with("## ") {
            out += "##";
        }
        out += line;
        out.push('\n');
    }
    out
}
