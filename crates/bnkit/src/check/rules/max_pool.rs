//! Negative scales before a MaxPool.

use bnkit_model::onnx::{Model, NodeId, Use};

use super::{Needs, Rule};
use crate::Result;
use crate::check::found::Found;
use crate::check::subject::Subject;
use crate::check::{Channels, Level};
use crate::explain::{Explanation, Kind};

/// Operators between a BatchNorm and a MaxPool that keep the order of numbers, and so may stand between.
const PASSED: [&str; 3] = ["Relu", "LeakyRelu", "Identity"];

pub(super) const RULE: Rule = Rule {
    code: "negative-scale-max-pool",
    level: Level::Note,
    needs: Needs::GraphValues,
    action: "let no engine or compiler swap the BatchNorm and the MaxPool",
    explanation: Some(Explanation {
        code: "negative-scale-max-pool",
        kind: Kind::Check,
        title: "γ < 0 in front of a MaxPool",
        text: "\
max(s·x) is s·max(x) only where s is not negative. Compilers for binary and integer networks, and hand-written kernels, like to pool first and
normalise afterwards, because there is less to normalise then. With a negative γ that is wrong. bnkit knows it (`negative-scale`); a fold
into the Conv before is right.",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let Some(graph) = &subject.graph else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for (norm, parameters) in subject.known() {
        let negative = |channel: usize| parameters.gamma[channel] < 0.0;
        let pool = norm.node.and_then(|node| pool_behind(&graph.model, node));
        let channels = Channels::that(parameters.channels(), negative);
        let (Some(pool), Some(channels)) = (pool, channels) else {
            continue;
        };
        let pool = graph.model.label(pool);
        let message = format!("scale is negative in {channels}, before the MaxPool \"{pool}\"");
        found.push(
            Found::at(&norm.name, message)
                .tensor(norm.tensor(1))
                .channels(channels)
                .with("max_pool", pool),
        );
    }
    Ok(found)
}

/// The first MaxPool that reads a node's output, directly or behind operators that keep the order.
fn pool_behind(model: &Model, node: NodeId) -> Option<NodeId> {
    /// A chain longer than this is no pattern.
    const MOST: usize = 4;
    let mut node = node;
    for _ in 0..MOST {
        let value = model.node(node).output(0)?;
        let readers: Vec<NodeId> = model
            .value(value)
            .uses
            .iter()
            .filter_map(|user| match *user {
                Use::Node(reader, 0) => Some(reader),
                _ => None,
            })
            .collect();
        let is_pool = |reader: &&NodeId| {
            let reader = model.node(**reader);
            reader.is("MaxPool") || reader.is("GlobalMaxPool")
        };
        if let Some(&pool) = readers.iter().find(is_pool) {
            return Some(pool);
        }
        let passes = |reader: &&NodeId| PASSED.iter().any(|op| model.node(**reader).is(op));
        node = *readers.iter().find(passes)?;
    }
    None
}
