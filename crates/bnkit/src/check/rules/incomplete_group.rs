//! Tensors that look like a BatchNorm's and do not fit together.

use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::Found;
use crate::check::subject::Subject;

pub(super) const RULE: Rule = Rule {
    code: "incomplete-group",
    level: Level::Error,
    needs: Needs::StateDict,
    action: "compare with the code that wrote the file: a shard or a tensor may be missing",
    explanation: None,
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let problems = subject.problems.iter();
    Ok(problems
        .map(|problem| Found::at(&problem.module, problem.message.as_str()))
        .collect())
}
