//! BatchNorms that stay.

use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::Found;
use crate::check::subject::Subject;
use crate::explain::{Explanation, Kind};
use crate::report::Decision;

/// Refusals that are findings of their own.
const SAID_ELSEWHERE: [&str; 2] = ["bad-statistics", "range"];

pub(super) const RULE: Rule = Rule {
    code: "not-folded",
    level: Level::Note,
    needs: Needs::GraphValues,
    action: "`bnkit explain` says more about each reason; --aggressive and --lower may help",
    explanation: Some(Explanation {
        code: "not-folded",
        kind: Kind::Check,
        title: "a BatchNorm stays when the model is folded",
        text: "\
What folding cannot prove right it leaves alone, and the reason is a code of its own, shown in brackets. The model is right with it, and a
little slower. A team that wants every BatchNorm gone denies this code (`--deny not-folded`), or uses `fold --require-all-folded`.",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let Some(folded) = subject.graph.as_ref().and_then(|it| it.folded.as_ref()) else {
        return Ok(Vec::new());
    };
    let kept = folded
        .plan
        .sites
        .iter()
        .filter(|site| site.decision == Decision::Kept);
    let found = kept.filter_map(|site| {
        let refusal = site.refusal.as_ref()?;
        if SAID_ELSEWHERE.contains(&refusal.code) {
            return None;
        }
        let message = format!("{} ({})", refusal.message, refusal.code);
        Some(Found::at(&site.node, message).with("refusal", refusal.code))
    });
    Ok(found.collect())
}
