//! Layers that share their statistics.

use std::collections::HashMap;

use super::never_updated::as_made;
use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::Found;
use crate::check::subject::Subject;
use crate::explain::{Explanation, Kind};
use crate::site::Parameters;

/// Below this many channels, equal numbers may be chance or a constant.
const FEWEST: usize = 2;

pub(super) const RULE: Rule = Rule {
    code: "shared-statistics",
    level: Level::Warning,
    needs: Needs::Values,
    action: "if it is one module called twice, its statistics mix both; give each call its own",
    explanation: Some(Explanation {
        code: "shared-statistics",
        kind: Kind::Check,
        title: "several BatchNorms have the same running statistics",
        text: "\
These BatchNorms have the same mean and variance in every channel: they read the same tensors, or tensors with equal numbers. Two different
layers never see the same data, so either one module is called in several places, and its statistics are an average over all of them that
describes none, or a checkpoint was put together from copies.

A module that is called on data of one kind (a Siamese network) is fine: suppress it. Statistics that were never updated are not meant.",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let mut groups: HashMap<Vec<u64>, Vec<usize>> = HashMap::new();
    let known: Vec<_> = subject.known().collect();
    for (place, (_, parameters)) in known.iter().enumerate() {
        if parameters.channels() >= FEWEST && !as_made(parameters) {
            groups.entry(key(parameters)).or_default().push(place);
        }
    }
    let mut groups: Vec<Vec<usize>> = groups.into_values().filter(|it| it.len() > 1).collect();
    groups.sort_unstable();
    let found = groups.iter().map(|group| {
        let (first, parameters) = known[group[0]];
        let others: Vec<String> = group[1..]
            .iter()
            .map(|&place| known[place].0.name.clone())
            .collect();
        let message = format!(
            "mean and variance of its {} channels are also those of {}",
            parameters.channels(),
            others.join(", ")
        );
        Found::at(&first.name, message)
            .tensor(first.tensor(3))
            .with("others", others)
    });
    Ok(found.collect())
}

fn key(parameters: &Parameters) -> Vec<u64> {
    let values = parameters.mean.iter().chain(&parameters.variance);
    values.map(|value| value.to_bits()).collect()
}
