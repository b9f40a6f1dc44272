//! A sum of many terms: the tree of Adds (and Sums) behind one value, whose inner values nobody else reads.

use std::collections::HashSet;

use bnkit_model::onnx::{Edit, Model, NodeId, Use, ValueId};

/// Larger trees are cut off here: what is deeper counts as a term.
const MAX_SUMS: usize = 256;

/// One Add or Sum.
#[derive(Debug)]
pub(super) struct Sum {
    pub(super) node: NodeId,
    pub(super) terms: Vec<Term>,
}

/// What an Add or Sum adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Term {
    /// A value that is computed elsewhere.
    Value(ValueId),
    /// Another sum of the tree, by its index; nobody else reads it.
    Sum(usize),
}

/// The place of a term: the sum, and the slot in it.
pub(super) type Place = (usize, usize);

/// A tree of sums. The first is the root; a sum stands behind the one that reads it.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) sums: Vec<Sum>,
}

/// What becomes of a tree whose terms become fewer.
#[derive(Debug)]
pub(super) struct Rest {
    /// Makes the sums that stay add what is left, and takes out the others.
    pub(super) edits: Vec<Edit>,
    /// Where the root goes, too: the value that is the sum now, the only one left or that of another sum.
    pub(super) instead: Option<ValueId>,
}

/// Whether a node adds its inputs element by element, as numpy broadcasts them.
fn is_sum(model: &Model, id: NodeId) -> bool {
    let node = model.node(id);
    let counts = match node.op_type.as_str() {
        "Add" => node.inputs.len() == 2,
        "Sum" => node.inputs.len() >= 2,
        _ => false,
    };
    counts
        // A new one holds the shift of a MatMul: the proof knows only the nodes of the original.
        && !node.is_new()
        && node.domain.is_empty()
        && node.inputs.iter().all(Option::is_some)
        && node.outputs.len() == 1
        // Before opset 7 these say how the second input is broadcast.
        && node.attribute("axis").is_none()
        && node.attribute("broadcast").is_none()
}

/// The only reader of `value`, if that is a node.
pub(super) fn only_reader(model: &Model, value: ValueId) -> Option<(NodeId, usize)> {
    match model.value(value).only_use() {
        Some(Use::Node(node, slot)) => Some((node, slot)),
        _ => None,
    }
}

impl Tree {
    /// The tree whose root is `node`; `None` if that is no sum, or part of a larger tree.
    pub(super) fn at(model: &Model, node: NodeId) -> Option<Self> {
        if !model.node(node).alive || !is_sum(model, node) {
            return None;
        }
        let scope = model.node(node).scope;
        let output = model.node(node).output(0)?;
        let reader = only_reader(model, output);
        if reader
            .is_some_and(|(reader, _)| is_sum(model, reader) && model.node(reader).scope == scope)
        {
            return None;
        }
        let mut sums: Vec<Sum> = Vec::new();
        let mut open = vec![(node, None)];
        let mut count = 1;
        while let Some((node, place)) = open.pop() {
            let index = sums.len();
            if let Some((sum, slot)) = place {
                let parent: &mut Sum = &mut sums[sum];
                parent.terms[slot] = Term::Sum(index);
            }
            let values: Vec<ValueId> = model.node(node).inputs.iter().flatten().copied().collect();
            for (slot, &value) in values.iter().enumerate() {
                let inner = model.producer(value).map(|(producer, _)| producer);
                let inner = inner.filter(|&producer| {
                    is_sum(model, producer)
                        && model.node(producer).scope == scope
                        && only_reader(model, value).is_some()
                });
                if let Some(producer) = inner.filter(|_| count < MAX_SUMS) {
                    open.push((producer, Some((index, slot))));
                    count += 1;
                }
            }
            sums.push(Sum {
                node,
                terms: values.into_iter().map(Term::Value).collect(),
            });
        }
        Some(Self { sums })
    }

    /// The node whose output is the sum of all.
    pub(super) fn root(&self) -> NodeId {
        self.sums[0].node
    }

    /// The terms that are no sums of the tree themselves.
    pub(super) fn leaves(&self) -> Vec<(Place, ValueId)> {
        let mut leaves = Vec::new();
        for (index, sum) in self.sums.iter().enumerate() {
            for (slot, term) in sum.terms.iter().enumerate() {
                if let Term::Value(value) = *term {
                    leaves.push(((index, slot), value));
                }
            }
        }
        leaves
    }

    /// The tree with `value` at `kept`, and without the terms at `removed`.
    pub(super) fn shrink(
        &self,
        model: &Model,
        (kept, value): (Place, ValueId),
        removed: &HashSet<Place>,
    ) -> Rest {
        // What each sum has become: nothing, another value, or still itself with its output.
        let mut now: Vec<Option<ValueId>> = vec![None; self.sums.len()];
        let (mut edits, mut gone) = (Vec::new(), Vec::new());
        for (index, sum) in self.sums.iter().enumerate().rev() {
            let place = |slot: usize| (index, slot);
            let terms = sum.terms.iter().enumerate();
            let left: Vec<ValueId> = terms
                .filter(|&(slot, _)| !removed.contains(&place(slot)))
                .filter_map(|(slot, term)| match *term {
                    _ if place(slot) == kept => Some(value),
                    Term::Value(value) => Some(value),
                    Term::Sum(inner) => now[inner],
                })
                .collect();
            let node = model.node(sum.node);
            if left.len() < 2 {
                now[index] = left.first().copied();
                gone.push(Edit::RemoveNode { node: sum.node });
                continue;
            }
            now[index] = node.output(0);
            let slots = node.inputs.len();
            for (slot, &value) in left.iter().enumerate() {
                if node.input(slot) != Some(value) {
                    edits.push(Edit::SetInput {
                        node: sum.node,
                        slot,
                        value: value.into(),
                    });
                }
            }
            edits.extend((left.len()..slots).rev().map(|slot| Edit::RemoveInput {
                node: sum.node,
                slot,
            }));
        }
        edits.extend(gone);
        Rest {
            edits,
            instead: now[0].filter(|_| now[0] != model.node(self.root()).output(0)),
        }
    }
}
