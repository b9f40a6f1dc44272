//! Chains of Mul, Add, Sub and Div by constants: how TensorFlow, Keras and converters write an inference BatchNorm out.
//!
//! Each node of a chain is an affine of its own, and the plan moves each on its own; so nothing here decides a fold. It
//! recognises what a chain stands for and keeps one decision for each of its nodes, for reports. Left out on purpose:
//! chains that are neither per channel nor folded (a gate's `x + 3`, a softmax's temperature).

use std::collections::HashMap;

use bnkit_model::onnx::{Model, Name, NodeId, Use, ValueId};

use crate::fold::{Before, Context, constant_affine};
use crate::report::{AffineNode, Chain, ChainKind, Decision, Refusal};

/// How far the expression of a constant is searched.
const MAX_SEARCHED: usize = 64;

/// The chains of a model, and what became of their nodes.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    chains: Vec<Vec<Link>>,
    places: HashMap<NodeId, (usize, usize)>,
}

/// A node of a chain.
#[derive(Debug)]
struct Link {
    id: NodeId,
    /// How many channels it tells apart.
    channels: usize,
    multiplies: bool,
    /// Whether its constant is made of a root: of a variance.
    has_root: bool,
    node: AffineNode,
}

impl Chains {
    /// Finds the chains among `order`, a topological order.
    pub(crate) fn survey(context: &Context<'_>, before: &Before, order: &[NodeId]) -> Self {
        let mut found = Self::default();
        for &id in order {
            let node = context.model.node(id);
            let kinds = ["Add", "Sub", "Mul", "Div"];
            if !node.alive || !kinds.iter().any(|kind| node.is(kind)) {
                continue;
            }
            // A broken model is the plan's to report.
            let Ok((data_slot, affine)) = constant_affine(context, id) else {
                continue;
            };
            let constant = node.input(1 - data_slot);
            let link = Link {
                id,
                channels: if affine.axis.is_some() {
                    affine.len()
                } else {
                    1
                },
                multiplies: matches!(node.op_type.as_str(), "Mul" | "Div"),
                has_root: constant.is_some_and(|value| has_root(context.model, value)),
                node: AffineNode {
                    node: before.label(context.model, id).clone(),
                    decision: Decision::Kept,
                    into: Vec::new(),
                    via: Vec::new(),
                    rule: None,
                    refusal: None,
                },
            };
            let before = node.input(data_slot);
            let chain = before.and_then(|value| found.chain_before(context.model, value));
            let chain = chain.unwrap_or_else(|| {
                found.chains.push(Vec::new());
                found.chains.len() - 1
            });
            found.places.insert(id, (chain, found.chains[chain].len()));
            found.chains[chain].push(link);
        }
        found
    }

    /// The chain that ends with what computes `value`, if the next node is its only reader.
    fn chain_before(&self, model: &Model, value: ValueId) -> Option<usize> {
        let (id, _) = model.producer(value)?;
        let &(chain, _) = self.places.get(&id)?;
        let alone = matches!(model.value(value).only_use(), Some(Use::Node(..)));
        let is_last = self.chains[chain].last().is_some_and(|last| last.id == id);
        (alone && is_last).then_some(chain)
    }

    fn link(&mut self, id: NodeId) -> Option<&mut AffineNode> {
        let &(chain, place) = self.places.get(&id)?;
        Some(&mut self.chains[chain][place].node)
    }

    /// A node was absorbed by others.
    pub(crate) fn folded(
        &mut self,
        id: NodeId,
        (into, via): (Vec<Name>, Vec<Name>),
        rule: Option<&'static str>,
    ) {
        if let Some(node) = self.link(id) {
            node.decision = Decision::Folded;
            (node.into, node.via) = (into, via);
            (node.rule, node.refusal) = (rule, None);
        }
    }

    /// A node stays, for now.
    pub(crate) fn refused(&mut self, id: NodeId, refusal: Refusal) {
        if let Some(node) = self.link(id) {
            node.refusal = Some(refusal);
        }
    }

    /// The chains that deserve a word.
    pub(crate) fn into_report(self) -> Vec<Chain> {
        let worth = |links: &Vec<Link>| {
            links
                .iter()
                .any(|link| link.channels > 1 || link.node.decision == Decision::Folded)
        };
        let chains = self.chains.into_iter().filter(worth);
        chains
            .map(|links| Chain {
                kind: kind(&links),
                channels: links.iter().map(|link| link.channels).max().unwrap_or(1),
                nodes: links.into_iter().map(|link| link.node).collect(),
            })
            .collect()
    }
}

/// What a chain stands for.
fn kind(links: &[Link]) -> ChainKind {
    let wide = || links.iter().filter(|link| link.channels > 1);
    let scales = wide().any(|link| link.multiplies);
    let shifts = wide().any(|link| !link.multiplies);
    // (x − μ)·… or (x − μ)/…: nothing else begins so.
    let centres = wide().next().is_some_and(|first| !first.multiplies);
    match scales && shifts {
        true if centres || wide().any(|link| link.multiplies && link.has_root) => {
            ChainKind::BatchNorm
        }
        true => ChainKind::ScaleAndShift,
        false => ChainKind::Affine,
    }
}

/// Whether a constant is computed with a root: Sqrt, or a power.
fn has_root(model: &Model, start: ValueId) -> bool {
    let mut open = vec![start];
    for _ in 0..MAX_SEARCHED {
        let Some((id, _)) = open.pop().and_then(|value| model.producer(value)) else {
            if open.is_empty() {
                return false;
            }
            continue;
        };
        let node = model.node(id);
        if node.is("Sqrt") || node.is("Pow") {
            return true;
        }
        open.extend(node.inputs.iter().flatten());
    }
    false
}
