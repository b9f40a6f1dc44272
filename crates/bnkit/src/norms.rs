//! Normalisations that are not ours: their mean and variance come from the data at run time, so there is no affine to
//! fold. Named for a person who looks for a BatchNorm and finds none.
//!
//! They come as operators, or written out: `x − ReduceMean(x)`, divided by a root of the mean of its square.

use std::collections::HashSet;

use bnkit_model::onnx::{AttributeValue, Constants, Model, Node, NodeId, Types, Use, ValueId};

use crate::explain::{Explanation, Kind};
use crate::report::DataNorm;

/// The code of these.
pub(crate) const CODE: &str = "data-statistics";

/// What it means.
pub(crate) const EXPLANATION: Explanation = Explanation {
    code: CODE,
    kind: Kind::Refusal,
    title: "mean and variance come from the data at run time",
    text: "\
InstanceNorm, GroupNorm, LayerNorm, RMSNorm, and BatchNorm with the statistics of the batch, compute mean and variance of what they
are given, as operators or written out with ReduceMean. Such a layer is no fixed affine, so there is nothing to fold. Its own scale
and shift, where they stand behind it as Mul and Add, may go into what follows.

What to do: nothing is wrong with the model. A BatchNorm that was exported with the batch's statistics (training mode) should be
exported in eval mode.",
};

/// The operators, of whatever domain.
const OPERATORS: [(&str, &str); 9] = [
    ("InstanceNormalization", "InstanceNorm"),
    ("GroupNormalization", "GroupNorm"),
    ("GroupNorm", "GroupNorm"),
    ("LayerNormalization", "LayerNorm"),
    ("SkipLayerNormalization", "LayerNorm"),
    ("RMSNormalization", "RMSNorm"),
    ("SimplifiedLayerNormalization", "RMSNorm"),
    ("SkipSimplifiedLayerNormalization", "RMSNorm"),
    ("MeanVarianceNormalization", "MeanVarianceNorm"),
];

/// How many values behind a divisor are looked at.
const MAX_SEARCHED: usize = 24;

/// All normalisations of a model that depend on the data, in the order of the file.
pub(crate) fn find(model: &Model, types: &Types) -> Vec<DataNorm> {
    let look = Look {
        model,
        types,
        constants: Constants::new(model, types, true),
    };
    let each = model.nodes().filter_map(|(id, node)| {
        let operator = OPERATORS.iter().find(|(op, _)| node.op_type == *op);
        let (kind, written_out) = match operator {
            Some((_, kind)) => (*kind, false),
            None => (look.written_out(node)?, true),
        };
        Some(DataNorm {
            node: model.label(id).clone(),
            kind,
            written_out,
            code: CODE,
            message: format!(
                "{} {} {kind}: its mean and variance come from the data at run time",
                model.describe(id),
                if written_out { "begins a" } else { "is a" },
            ),
        })
    });
    each.collect()
}

struct Look<'m> {
    model: &'m Model,
    types: &'m Types,
    constants: Constants<'m>,
}

impl<'m> Look<'m> {
    /// What a Sub (or the Div or Mul of an RMSNorm) begins.
    fn written_out(&self, node: &Node) -> Option<&'static str> {
        let (x, other) = (self.behind(node.input(0)?), node.input(1)?);
        if node.is("Sub") {
            let mean = self
                .node(self.behind(other))
                .filter(|mean| mean.is("ReduceMean"))?;
            let same = self.behind(mean.input(0)?) == x;
            let centred = node.output(0)?;
            let divided = || {
                self.readers(centred)
                    .any(|reader| self.divides(reader, centred))
            };
            return (same && divided()).then(|| self.kind(mean, x));
        }
        if !node.is("Div") && !node.is("Mul") {
            return None;
        }
        // x / √(mean(x²) + ε), and not the second half of x − mean(x).
        let sources = self.sources(other);
        let rooted = self.has(&sources, &["Sqrt", "Pow"]);
        let mean = (sources.iter())
            .find_map(|&id| Some(self.model.node(id)).filter(|node| node.is("ReduceMean")))?;
        let square = self.node(self.behind(mean.input(0)?))?;
        let of_x = square.is("Pow") || square.is("Mul");
        let centred = self.node(x).is_some_and(|node| node.is("Sub"));
        let squares = of_x && self.behind(square.input(0)?) == x;
        (rooted && squares && !centred).then_some("RMSNorm")
    }

    /// Whether `reader` divides `centred` by a root of what a mean was taken of.
    fn divides(&self, reader: NodeId, centred: ValueId) -> bool {
        let node = self.model.node(reader);
        if node.is("Cast") || node.is("Identity") {
            let output = node.output(0);
            return output.is_some_and(|output| {
                self.readers(output).any(|reader| {
                    let next = self.model.node(reader);
                    (next.is("Div") || next.is("Mul")) && self.divides(reader, output)
                })
            });
        }
        let by = match (node.op_type.as_str(), node.input(0), node.input(1)) {
            ("Div", Some(a), Some(b)) if a == centred => b,
            ("Mul", Some(a), Some(b)) if a == centred => b,
            ("Mul", Some(a), Some(b)) if b == centred => a,
            _ => return false,
        };
        let sources = self.sources(by);
        self.has(&sources, &["Sqrt", "Pow"])
            && self.has(&sources, &["ReduceMean", "ReduceSum", "ReduceSumSquare"])
    }

    fn has(&self, nodes: &[NodeId], operators: &[&str]) -> bool {
        let is = |&id: &NodeId| operators.iter().any(|op| self.model.node(id).is(op));
        nodes.iter().any(is)
    }

    /// The nodes that compute a value, back to those that take means, as far as they are near.
    fn sources(&self, value: ValueId) -> Vec<NodeId> {
        let (mut open, mut seen, mut found) = (vec![value], HashSet::new(), Vec::new());
        while let Some(value) = open.pop() {
            let Some((id, _)) = self.model.producer(value) else {
                continue;
            };
            if found.len() >= MAX_SEARCHED || !seen.insert(id) {
                continue;
            }
            found.push(id);
            let node = self.model.node(id);
            if !node.op_type.starts_with("Reduce") {
                open.extend(node.inputs.iter().flatten());
            }
        }
        found
    }

    fn readers(&self, value: ValueId) -> impl Iterator<Item = NodeId> {
        let uses = self.model.value(value).uses.iter();
        uses.filter_map(|user| match *user {
            Use::Node(id, _) => Some(id),
            _ => None,
        })
    }

    fn node(&self, value: ValueId) -> Option<&'m Node> {
        Some(self.model.node(self.model.producer(value)?.0))
    }

    /// What a value is but for its type.
    fn behind(&self, mut value: ValueId) -> ValueId {
        for _ in 0..8 {
            match self.node(value) {
                Some(node) if node.is("Cast") || node.is("Identity") => match node.input(0) {
                    Some(input) => value = input,
                    None => break,
                },
                _ => break,
            }
        }
        value
    }

    /// By the axes that the mean goes over.
    fn kind(&self, mean: &Node, x: ValueId) -> &'static str {
        let rank = self.types.rank(x);
        let listed = match mean.attribute("axes").map(|attribute| &attribute.value) {
            Some(AttributeValue::Ints(axes)) => Some(axes.clone()),
            _ => mean
                .input(1)
                .and_then(|value| Some(self.constants.ints(value).ok()?.values)),
        };
        let Some((axes, rank)) = listed.zip(rank) else {
            return "LayerNorm";
        };
        let from_front = |&axis: &i64| if axis < 0 { axis + rank as i64 } else { axis };
        let mut axes: Vec<i64> = axes.iter().map(from_front).collect();
        axes.sort_unstable();
        let grouped = self.node(x).is_some_and(|node| node.is("Reshape"));
        let spatial = rank > 2 && axes.iter().copied().eq(2..rank as i64);
        match axes.first() {
            Some(0) => "BatchNorm of the batch's own statistics",
            _ if spatial && grouped => "GroupNorm",
            // One axis of three is the last one of a sequence as well.
            _ if spatial && rank > 3 => "InstanceNorm",
            _ => "LayerNorm",
        }
    }
}
