//! The report of `fold`.

pub(super) mod markdown;
mod merges;
pub(super) mod page;
pub(super) mod places;
mod state;
pub(super) mod text;

use std::io::{self, Write};

use bnkit::explain;
use bnkit::report::{Decision, FoldReport, Site, Verdict};

use super::finding::{Case, Finding};
use super::github::Level;
use super::page::Page;
use super::units::count;
use super::{Detail, Document, warnings};

impl Document for FoldReport {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        text::write(self, out, detail)
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        markdown::write(self, out)
    }

    fn summary(&self) -> Option<(Level, String)> {
        Some((Level::Notice, outcome(self)))
    }

    fn findings(&self) -> Vec<Finding> {
        places::findings(self)
    }

    fn cases(&self) -> Vec<Case> {
        places::cases(self)
    }

    fn page(&self) -> Page {
        page::page(self)
    }

    fn warnings(&self, detail: Detail) -> Vec<String> {
        warnings::lines(&self.warnings, &self.sites, detail)
    }
}

/// The whole report in one line.
fn outcome(report: &FoldReport) -> String {
    let verdict = match report.verification.as_ref().map(|proof| proof.verdict) {
        None => "not proved",
        Some(Verdict::Equivalent) => "proved equivalent",
        Some(Verdict::EquivalentLocal) => "proved equivalent locally",
        Some(Verdict::NotEquivalent) => "not equivalent",
        Some(Verdict::Skipped) => "not proved, as asked",
    };
    let written = match &report.output {
        Some(output) => format!("written to {}", output.path),
        None => "nothing written".to_owned(),
    };
    format!("{}; {verdict}; {written}", headline(report))
}

/// "Folded 53 of 54 BatchNorms".
fn headline(report: &FoldReport) -> String {
    let summary = &report.summary;
    let gone = summary.folded + summary.half_folded + summary.merged + summary.lowered;
    let verb = if report.output.is_some() {
        "Folded"
    } else {
        "Would fold"
    };
    match summary.batch_norms {
        0 if summary.affines_folded > 0 => {
            "No BatchNorm node: what is written out as constants folds".to_owned()
        }
        0 => "No BatchNorm: nothing to fold".to_owned(),
        all if all == gone && all > 1 => format!("{verb} all {all} BatchNorms"),
        all => format!("{verb} {gone} of {}", count(all, "BatchNorm")),
    }
}

/// The rules that were used: code, how often, what the rule does.
fn rules(report: &FoldReport) -> Vec<(&'static str, usize, &'static str)> {
    let mut rules: Vec<(&'static str, usize, &'static str)> = Vec::new();
    for rule in report
        .sites
        .iter()
        .filter(|site| site.refusal.is_none())
        .filter_map(|site| site.rule)
    {
        match rules.iter_mut().find(|(code, ..)| *code == rule) {
            Some((_, times, _)) => *times += 1,
            None => rules.push((rule, 1, title(rule))),
        }
    }
    rules.sort_by_key(|&(_, times, _)| std::cmp::Reverse(times));
    rules
}

/// Every BatchNorm that stays although nobody asked for it, with code and sentence.
fn kept(report: &FoldReport) -> impl Iterator<Item = (&Site, &'static str, &str)> {
    report
        .sites
        .iter()
        .filter(|site| site.decision == Decision::Kept)
        .map(|site| match &site.refusal {
            Some(refusal) => (site, refusal.code, refusal.message.as_str()),
            None => (site, "kept", ""),
        })
}

/// The BatchNorms and Dropouts that were in training mode.
fn to_eval(report: &FoldReport) -> Vec<&str> {
    let sites = report
        .sites
        .iter()
        .filter(|site| site.training_mode && site.decision != Decision::Skipped);
    let others = report
        .cleanup
        .iter()
        .filter(|step| step.action == "to-eval");
    let mut names: Vec<&str> = sites.map(|site| site.node.as_str()).collect();
    for step in others {
        if !names.contains(&step.node.as_str()) {
            names.push(&step.node);
        }
    }
    names
}

/// What was tidied up, besides training mode: a phrase per action, and the names behind it.
fn tidied(report: &FoldReport) -> Vec<(String, Vec<&str>)> {
    let mut actions: Vec<(&'static str, Vec<&str>)> = Vec::new();
    for step in report
        .cleanup
        .iter()
        .filter(|step| step.action != "to-eval")
    {
        match actions
            .iter_mut()
            .find(|(action, _)| *action == step.action)
        {
            Some((_, names)) => names.push(&step.node),
            None => actions.push((step.action, vec![&step.node])),
        }
    }
    let phrase = |action: &str, number: usize| match action {
        "removed" => format!("{} removed", count(number, "node")),
        "constant-dropped" => format!(
            "{} dropped that nobody reads any more",
            count(number, "constant")
        ),
        "outputs-dropped" => format!("training outputs of {} dropped", count(number, "node")),
        other => format!("{}: {}", other.replace('-', " "), count(number, "node")),
    };
    actions
        .into_iter()
        .map(|(action, names)| (phrase(action, names.len()), names))
        .collect()
}

/// What a code means, in a few words.
fn title(code: &str) -> &'static str {
    explain::find(code).map_or("", |explanation| explanation.title)
}

/// A node's name, with its scope if it is not in the main graph.
pub(super) fn place(site: &Site) -> String {
    match site.scope.as_str() {
        "" => site.node.to_string(),
        scope => format!("{} (in {scope})", site.node),
    }
}

/// Why a model may have no BatchNorm.
const NOTHING_TO_FOLD: [&str; 4] = [
    "The exporter may have folded them already: torch.onnx.export and tf2onnx do so unless told otherwise.",
    "The model may normalise in another way: LayerNorm, GroupNorm and InstanceNorm depend on their input and cannot be folded.",
    "Its normalisation may be written out as Mul, Add, Sub and Div nodes: bnkit inspect lists the operators.",
    "The README, section \"Exporting so that BatchNorm survives\", says how to keep them.",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::samples;

    #[test]
    fn annotations_have_one_entry_per_code() {
        let report = samples::fold();
        let all = report.annotations();
        let titles: Vec<_> = all
            .iter()
            .map(|annotation| (annotation.level, annotation.title.as_str()))
            .collect();
        assert_eq!(
            titles,
            [(Level::Notice, "shared-output"), (Level::Notice, "fold")]
        );
        assert_eq!(
            all[1].text,
            "Folded 3 of 4 BatchNorms; proved equivalent; written to net.folded.onnx"
        );
    }

    #[test]
    fn a_failure_is_an_error_annotation() {
        let mut report = samples::fold();
        report.failure = Some("it differs".to_owned());
        report.output = None;
        let all = report.annotations();
        assert_eq!(
            (all[0].level, all[0].text.as_str()),
            (Level::Error, "it differs")
        );
        assert!(all.last().unwrap().text.starts_with("Would fold 3 of 4"));
    }
}
