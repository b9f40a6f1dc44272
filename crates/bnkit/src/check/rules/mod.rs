//! The rules: one file each, one line each in the table, the explanation beside the code that looks.

mod bad_statistics;
mod batches_not_counted;
mod dead_channel;
mod dropout_at_run_time;
mod duplicate_names;
mod exploding_scale;
mod external_data;
mod f16_overflow;
mod incomplete_group;
mod left_in_training;
mod max_pool;
mod mixed_epsilon;
mod negative_variance;
mod never_updated;
mod not_folded;
mod odd_epsilon;
mod odd_momentum;
mod old_opset;
mod overridable;
mod range_growth;
mod shared_statistics;
mod tiny_variance;

use serde::Serialize;

use super::found::Found;
use super::subject::Subject;
use super::{Level, suppress};
use crate::Result;
use crate::explain::{self, Explanation};

/// Something that is looked for.
pub(super) struct Rule {
    /// The stable code.
    pub(super) code: &'static str,
    /// How serious it is, unless somebody says otherwise.
    pub(super) level: Level,
    /// What it needs.
    pub(super) needs: Needs,
    /// One sentence about what to do.
    pub(super) action: &'static str,
    /// What the code means, unless other commands have the code too.
    pub(super) explanation: Option<Explanation>,
    /// Looks for it.
    pub(super) look: fn(&Subject) -> Result<Vec<Found>>,
}

/// What a rule needs to be asked at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// The values of the BatchNorms.
    Values,
    /// A graph.
    Graph,
    /// A graph, and the values of its tensors.
    GraphValues,
    /// A state dict.
    StateDict,
}

impl Needs {
    pub(super) fn are_met(self, subject: &Subject) -> bool {
        let readable = subject
            .graph
            .as_ref()
            .is_none_or(|graph| graph.folded.is_some());
        match self {
            Self::Values => readable,
            Self::Graph => subject.graph.is_some(),
            Self::GraphValues => subject.graph.is_some() && readable,
            Self::StateDict => subject.graph.is_none(),
        }
    }
}

/// All rules, in the order in which they are asked: what makes a model useless first.
pub(super) static RULES: [Rule; 22] = [
    external_data::RULE,
    incomplete_group::RULE,
    bad_statistics::RULE,
    negative_variance::RULE,
    never_updated::RULE,
    tiny_variance::RULE,
    exploding_scale::RULE,
    dead_channel::RULE,
    batches_not_counted::RULE,
    left_in_training::RULE,
    dropout_at_run_time::RULE,
    overridable::RULE,
    shared_statistics::RULE,
    odd_epsilon::RULE,
    mixed_epsilon::RULE,
    odd_momentum::RULE,
    old_opset::RULE,
    duplicate_names::RULE,
    f16_overflow::RULE,
    range_growth::RULE,
    max_pool::RULE,
    not_folded::RULE,
];

/// A rule, for lists of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RuleInfo {
    /// The stable code.
    pub code: &'static str,
    /// Its own level.
    pub level: Level,
    /// What it finds, in a line.
    pub title: &'static str,
    /// What to do about it, in a sentence.
    pub action: &'static str,
}

/// Every rule, in the order in which they are asked.
pub fn rules() -> Vec<RuleInfo> {
    let info = |code, level, action| RuleInfo {
        code,
        level,
        title: explain::find(code).map_or("", |explanation| explanation.title),
        action,
    };
    let of_table = RULES
        .iter()
        .map(|rule| info(rule.code, rule.level, rule.action));
    of_table
        .chain([info(suppress::CODE, suppress::LEVEL, suppress::ACTION)])
        .collect()
}
