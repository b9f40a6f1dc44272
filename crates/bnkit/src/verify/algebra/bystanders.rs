//! Nodes that no route names: their constants are what they were. A weight that several nodes share must have been
//! copied before one of them changed it.

use std::collections::{HashMap, HashSet};

use bnkit_model::onnx::{Attribute, AttributeValue, NodeId, ValueId};

use super::Algebra;
use super::book::{Book, Trouble};
use super::compare::Owner;
use crate::{Error, Result};

/// Expressions are followed this deep; deeper ones count as changed, and are read.
const MAX_DEPTH: usize = 64;
/// Expressions are compared up to this many operators; longer ones are evaluated.
const MAX_COMPARED: usize = 256;

/// Checks the nodes that stand in both models and are not `named`.
pub(super) fn check(
    (original, folded): (&Book<'_>, &Book<'_>),
    standing: &HashSet<NodeId>,
    named: impl Fn(NodeId) -> bool,
    route: usize,
    result: &mut Algebra,
) -> Result<()> {
    let mut seen = HashMap::new();
    for (id, node) in folded.model.nodes() {
        // A Dropout may have been brought to eval mode.
        if named(id) || !standing.contains(&id) || node.is("Dropout") {
            continue;
        }
        let before = original.model.node(id);
        // What computes a constant has an effect only where the constant is read.
        let outputs = before.outputs.iter().flatten();
        if outputs.clone().count() > 0 && outputs.clone().all(|&value| original.is_constant(value))
        {
            continue;
        }
        for slot in 0..before.inputs.len() {
            let Some(old) = before.input(slot) else {
                continue;
            };
            let new = node.input(slot);
            let unchanged = new == Some(old) && !changed((original, folded), old, 0, &mut seen);
            if unchanged || !original.is_constant(old) {
                continue;
            }
            let owner = Owner { route, node: id };
            let name = &original.model.value(old).name;
            let Some(new) = new else {
                result.reject(owner, name, "the constant is no longer read".to_owned());
                continue;
            };
            // What cannot be evaluated is the same if it is said in the same words.
            if same_words((original, folded), old, new) {
                continue;
            }
            match original
                .stored(old)
                .and_then(|old| Ok((old, folded.stored(new)?)))
            {
                Ok((old, new)) if old == new => {}
                Ok(_) => {
                    let why = "the constant has changed, though no route names its reader";
                    result.reject(owner, name, why.to_owned());
                }
                Err(Trouble::Wrong(why)) => result.reject(owner, name, why),
                Err(Trouble::Unknown(why)) => result.doubt(owner, name, why),
                // An expression of things that do not fit together.
                Err(Trouble::Unreadable(error)) if original.model.value(old).tensor.is_none() => {
                    result.doubt(owner, name, error.to_string());
                }
                Err(Trouble::Unreadable(error)) => return Err(Error::Model(error)),
            }
        }
    }
    Ok(())
}

/// Whether two expressions, one of each model, are the same operators on the same stored bytes; Identity says nothing.
pub(super) fn same_words(books: (&Book<'_>, &Book<'_>), old: ValueId, new: ValueId) -> bool {
    same_within(books, old, new, &mut MAX_COMPARED.to_owned())
}

fn same_within(
    books: (&Book<'_>, &Book<'_>),
    old: ValueId,
    new: ValueId,
    budget: &mut usize,
) -> bool {
    // Of depth and of width: what is read twice is compared twice.
    let Some(left) = budget.checked_sub(1) else {
        return false;
    };
    *budget = left;
    if !books.0.is_constant(old) {
        return old == new;
    }
    let (old, new) = (books.0.behind_dropout(old), books.1.behind_dropout(new));
    let (original, folded) = (books.0.model, books.1.model);
    let (before, after) = (original.value(old), folded.value(new));
    let producers = (original.producer(old), folded.producer(new));
    match (&before.tensor, &after.tensor, producers) {
        (Some(before), Some(after), (None, None)) => before.is_same(after),
        (None, None, (None, None)) => old == new,
        (None, None, (Some((a, slot)), Some((b, other)))) if slot == other => {
            let (was, is) = (original.node(a), folded.node(b));
            let same_attribute = |attribute: &Attribute| {
                use AttributeValue::{Graph, Graphs, Other, Tensor};
                let found = is.attribute(&attribute.name).map(|found| &found.value);
                match (&attribute.value, found) {
                    (Tensor(a), Some(Tensor(b))) => a.is_same(b),
                    // No edit changes these.
                    (Other, Some(Other)) => a == b,
                    (Graph(_) | Graphs(_) | Other, _) | (_, None) => false,
                    (value, Some(found)) => value.is_same(found),
                }
            };
            was.op_type == is.op_type
                && was.domain == is.domain
                && was.inputs.len() == is.inputs.len()
                && was.attributes.len() == is.attributes.len()
                && was.attributes.iter().all(same_attribute)
                && was.inputs.iter().zip(&is.inputs).all(|pair| match pair {
                    (Some(a), Some(b)) => same_within(books, *a, *b, budget),
                    (None, None) => true,
                    _ => false,
                })
        }
        _ => false,
    }
}

/// Whether a constant of both models may have another content in the second.
fn changed(
    books: (&Book<'_>, &Book<'_>),
    value: ValueId,
    depth: usize,
    seen: &mut HashMap<ValueId, bool>,
) -> bool {
    if let Some(&known) = seen.get(&value) {
        return known;
    }
    let (original, folded) = (books.0.model, books.1.model);
    let (before, after) = (original.value(value), folded.value(value));
    let answer = match (&before.tensor, &after.tensor, folded.producer(value)) {
        (Some(before), Some(after), _) => !before.is_same(after),
        (None, None, Some((id, _))) if original.producer(value).map(|(id, _)| id) == Some(id) => {
            let (was, is) = (original.node(id), folded.node(id));
            depth >= MAX_DEPTH
                || was.inputs != is.inputs
                || was.inputs.iter().flatten().any(|&input| {
                    books.0.is_constant(input) && changed(books, input, depth + 1, seen)
                })
                || is.attributes.iter().zip(&was.attributes).any(|(a, b)| {
                    use bnkit_model::onnx::AttributeValue::Tensor;
                    matches!((&a.value, &b.value), (Tensor(a), Tensor(b)) if !a.is_same(b))
                })
        }
        (None, None, None) => before.origin != after.origin,
        _ => true,
    };
    seen.insert(value, answer);
    answer
}
