//! Weights whose features drift apart when they are folded.

use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::{Found, number};
use crate::check::subject::Subject;
use crate::explain::{Explanation, Kind};

/// The median channel keeps 4 of 8 bits.
const SPREAD: f64 = 16.0;
/// Folding, not the training, must be what drives the channels apart.
const GROWTH: f64 = 2.0;

pub(super) const RULE: Rule = Rule {
    code: "range-growth",
    level: Level::Note,
    needs: Needs::GraphValues,
    action: "if it is to be quantised, use one scale for each channel",
    explanation: Some(Explanation {
        code: "range-growth",
        kind: Kind::Check,
        title: "folding drives the channels of a weight apart: a risk for quantisation",
        text: "\
A quantiser with one scale for a tensor spends its steps on the largest channel. Folding multiplies each channel with its own scale, so the
channels drift apart. Reported where, once it is folded, the largest channel of a weight reaches at least 16 times as far as the median one
(of 8 bits, 4 are left for the median channel), and folding has at least doubled that. Depthwise layers are usual cases (Nagel et al. 2019,
Data-free quantization, section 3).

In float it changes nothing. With one scale for each channel neither, which all current quantisers offer; else equalise the channels
across layers first.",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let Some(folded) = subject.graph.as_ref().and_then(|it| it.folded.as_ref()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for change in &folded.changes {
        let Some(features) = change.features else {
            continue;
        };
        let (before, after) = (features.spread_before, features.spread_after);
        if after < SPREAD || after < GROWTH * before {
            continue;
        }
        let message = format!(
            "largest by median channel of \"{}\": {} before folding, {} after (max {} → {})",
            change.tensor,
            number(before),
            number(after),
            number(features.max_before),
            number(change.max_abs)
        );
        found.push(
            Found::at(&change.node, message)
                .tensor(&change.tensor)
                .with("spread_before", before)
                .with("spread_after", after)
                .with("max_before", features.max_before)
                .with("max_after", change.max_abs),
        );
    }
    Ok(found)
}
