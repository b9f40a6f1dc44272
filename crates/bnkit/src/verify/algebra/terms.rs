//! Sums that gave terms away: the constants among the terms that they keep are what they were, wherever in the tree of
//! sums they are added now.

use std::collections::{BTreeSet, HashSet};

use bnkit_model::onnx::{NodeId, ValueId};

use super::Algebra;
use super::book::{Answer, Book, Numbers, Trouble};
use super::bystanders::same_words;
use super::compare::Owner;
use super::vector::Vector;

/// A tree of sums.
pub(super) struct Tree {
    /// The Adds and Sums of the original.
    pub(super) nodes: BTreeSet<NodeId>,
    /// The constants, by their places in the original, that an affine is made of by now: nobody adds them any more.
    taken: HashSet<(NodeId, usize)>,
}

impl Tree {
    pub(super) fn new(nodes: BTreeSet<NodeId>) -> Self {
        Self {
            nodes,
            taken: HashSet::new(),
        }
    }

    /// Notes that the constant at this place has become an affine.
    pub(super) fn take(&mut self, node: NodeId, slot: usize) {
        self.taken.insert((node, slot));
    }

    /// The constants that the original adds and that nothing was made of yet.
    fn open(&self, original: &Book<'_>) -> Vec<((NodeId, usize), ValueId)> {
        let mut open = Vec::new();
        for &id in &self.nodes {
            for (slot, &value) in original.model.node(id).inputs.iter().enumerate() {
                let value = value.filter(|&value| original.is_constant(value));
                if let Some(value) = value.filter(|_| !self.taken.contains(&(id, slot))) {
                    open.push(((id, slot), value));
                }
            }
        }
        open
    }

    /// The constants that the sums add that are left. What became one on the way, a BatchNorm of constants that was written
    /// out, is none of those.
    fn left(&self, original: &Book<'_>, folded: &Book<'_>) -> Vec<ValueId> {
        let nodes = self.nodes.iter().map(|&id| folded.model.node(id));
        let inputs = nodes
            .filter(|node| node.alive)
            .flat_map(|node| node.inputs.iter().flatten());
        inputs
            .copied()
            .filter(|&value| folded.is_constant(value))
            .filter(
                |&value| match original.model.value_count() > value.index() {
                    true => original.is_constant(value),
                    false => true,
                },
            )
            .collect()
    }

    /// Takes the constants that no sum adds any more: what moved up to an Add became its affine.
    pub(super) fn take_missing(
        &mut self,
        (original, folded): (&Book<'_>, &Book<'_>),
    ) -> Answer<Vec<Numbers>> {
        let mut left = self.left(original, folded);
        let mut missing = Vec::new();
        for (place, value) in self.open(original) {
            let same = |other| is_same((original, folded), value, other);
            if !take_first(&mut left, same)? {
                self.taken.insert(place);
                missing.push(original.numbers(value)?);
            }
        }
        Ok(missing)
    }

    /// Compares the constants that are added in both models. `vectors` are those that an affine went into.
    pub(super) fn check(
        &self,
        (original, folded): (&Book<'_>, &Book<'_>),
        vectors: &[&Vector],
        owner: Owner,
        result: &mut Algebra,
    ) -> Answer<()> {
        let mut left = self.left(original, folded);
        for (_, value) in self.open(original) {
            let same = |other| is_same((original, folded), value, other);
            if !take_first(&mut left, same)? {
                let name = &original.model.value(value).name;
                let why = "no sum of its tree adds this constant any more";
                result.reject(owner, name, why.to_owned());
            }
        }
        for vector in vectors {
            let mut ulp = 0.0;
            let same = |other| {
                let mut found = Algebra::default();
                vector.compare_constant(folded, other, owner, &mut found)?;
                ulp = found.max_ulp;
                Ok(found.failures.is_empty())
            };
            if take_first(&mut left, same)? {
                result.max_ulp = result.max_ulp.max(ulp);
            } else {
                let why = "no sum of its tree adds what it should be now";
                result.reject(owner, "constant", why.to_owned());
            }
        }
        for value in left {
            let name = &folded.model.value(value).name;
            result.reject(owner, name, "it was no term of the sum".to_owned());
        }
        Ok(())
    }
}

/// Removes the first value that is the `same`; whether there was one. What cannot be compared is another.
fn take_first(
    values: &mut Vec<ValueId>,
    mut same: impl FnMut(ValueId) -> Answer<bool>,
) -> Answer<bool> {
    for index in 0..values.len() {
        match same(values[index]) {
            Ok(true) => {
                values.remove(index);
                return Ok(true);
            }
            Ok(false) | Err(Trouble::Wrong(_) | Trouble::Unknown(_)) => {}
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(false)
}

/// Whether two constants, one of each model, have the same elements.
fn is_same(books: (&Book<'_>, &Book<'_>), old: ValueId, new: ValueId) -> Answer<bool> {
    Ok(same_words(books, old, new) || books.0.stored(old)? == books.1.stored(new)?)
}
