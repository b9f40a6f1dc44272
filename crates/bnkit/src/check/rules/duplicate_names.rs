//! Nodes of one name.

use std::collections::HashMap;

use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::Found;
use crate::check::subject::Subject;
use crate::explain::{Explanation, Kind};

pub(super) const RULE: Rule = Rule {
    code: "duplicate-node-names",
    level: Level::Warning,
    needs: Needs::Graph,
    action: "give every node a name of its own",
    explanation: Some(Explanation {
        code: "duplicate-node-names",
        kind: Kind::Check,
        title: "several nodes of a graph have the same name",
        text: "\
ONNX wants names of nodes to be unique in a graph (nodes without a name are fine). Engines load such a model all the same, but whatever goes
by node name means several: `--only` and `--skip`, suppressions, profiles, quantisation settings.",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let Some(graph) = &subject.graph else {
        return Ok(Vec::new());
    };
    let mut places = HashMap::new();
    let mut repeated: Vec<(&str, Vec<&str>)> = Vec::new();
    for (_, node) in graph
        .model
        .nodes()
        .filter(|(_, node)| !node.name.is_empty())
    {
        let next = repeated.len();
        let place = *places
            .entry((node.scope, node.name.as_str()))
            .or_insert(next);
        if place == next {
            repeated.push((&node.name, Vec::new()));
        }
        repeated[place].1.push(&node.op_type);
    }
    let repeated = repeated.into_iter().filter(|(_, nodes)| nodes.len() > 1);
    let found = repeated.map(|(name, nodes)| {
        let count = nodes.len();
        let mut operators: Vec<&str> = nodes;
        operators.sort_unstable();
        operators.dedup();
        let message = format!("{count} nodes have this name ({})", operators.join(", "));
        Found::at(name, message).with("nodes", count)
    });
    Ok(found.collect())
}
