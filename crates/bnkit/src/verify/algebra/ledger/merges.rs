//! What the ledger knows of merges: the operators before, and whether what they became is right.

use std::collections::{BTreeSet, HashSet};

use bnkit_model::onnx::{Node, NodeId};

use super::{Entry, Ledger};
use crate::Result;
use crate::route::{Merge, Merged};
use crate::verify::algebra::Algebra;
use crate::verify::algebra::book::{Answer, Trouble};
use crate::verify::algebra::compare::Owner;
use crate::verify::algebra::merged::{Known, Merges};
use crate::verify::algebra::step::{Scaling, Step};
use crate::verify::algebra::terms::Tree;
use crate::verify::algebra::vector::Vector;

/// The operators that merges changed or took away.
pub(super) fn nodes(merges: &[Merge]) -> HashSet<NodeId> {
    let mut nodes = HashSet::new();
    for merge in merges {
        nodes.insert(merge.into);
        nodes.extend(merge.merged.nodes());
    }
    nodes
}

/// The sums that merges shortened, those of one tree together.
pub(super) fn trees(merges: &[Merge]) -> Vec<Tree> {
    let mut trees: Vec<BTreeSet<NodeId>> = Vec::new();
    for merge in merges {
        let Merged::Branches { sums, .. } = &merge.merged else {
            continue;
        };
        let mut tree: BTreeSet<NodeId> = sums.iter().copied().collect();
        // A tree that was too large to be seen at once may be in several.
        trees.retain(|other| {
            let apart = other.is_disjoint(&tree);
            if !apart {
                tree.extend(other);
            }
            apart
        });
        trees.push(tree);
    }
    trees.into_iter().map(Tree::new).collect()
}

impl Ledger<'_> {
    /// Compares what became of a merge.
    pub(super) fn settle_merge(
        &mut self,
        index: usize,
        routes: usize,
        list: &[Merge],
    ) -> Result<()> {
        let owner = Owner {
            route: routes + index,
            node: list[index].into,
        };
        let mut result = Algebra::default();
        let merges = Merges {
            original: &self.original,
            folded: &self.folded,
            list,
            known: &*self,
        };
        let answer = merges.check(index, owner, &mut result);
        self.result.append(result);
        self.note(owner, answer)?;
        Ok(())
    }

    /// Compares the constants among what the sums still add.
    pub(super) fn settle_sums(&mut self, routes: usize) -> Result<()> {
        for tree in std::mem::take(&mut self.trees) {
            let entries = || tree.nodes.iter().filter_map(|id| self.entries.get(id));
            let Some(&node) = tree.nodes.first() else {
                continue;
            };
            let is_needed = tree.nodes.iter().any(|id| self.needed.contains(id));
            if !is_needed || entries().any(|entry| entry.failed) {
                continue;
            }
            let vectors: Vec<&Vector> = entries()
                .filter_map(|entry| entry.vector.as_ref())
                .collect();
            let owner = Owner {
                route: routes,
                node,
            };
            let books = (&self.original, &self.folded);
            let mut result = Algebra::default();
            let answer = tree.check(books, &vectors, owner, &mut result);
            self.result.append(result);
            self.note(owner, answer)?;
        }
        Ok(())
    }

    /// What an operator with a vector computes: by its constant in `slot`, or by what moved there when the sums before it
    /// gave their other terms away.
    pub(super) fn read_vector(&mut self, id: NodeId, node: &Node, slot: usize) -> Answer<Vector> {
        let Some(tree) = self.trees.iter_mut().find(|tree| tree.nodes.contains(&id)) else {
            return Vector::read(&self.original, node, slot);
        };
        let value = self.original.input(node, slot)?;
        if self.original.is_constant(value) {
            tree.take(id, slot);
            return Vector::read(&self.original, node, slot);
        }
        let constants = tree.take_missing((&self.original, &self.folded))?;
        Vector::sum(constants, slot)
    }
}

impl Known for Ledger<'_> {
    fn steps(&self, id: NodeId) -> Answer<&[Step]> {
        if !self.standing.contains(&id) {
            return Err(Trouble::wrong("the node is not in the original"));
        }
        match self.entries.get(&id) {
            None => Ok(&[]),
            Some(entry) if entry.failed || entry.moved || entry.vector.is_some() => {
                Err(Trouble::wrong("it absorbed something unknown before"))
            }
            Some(entry) => Ok(&entry.steps),
        }
    }

    fn scaling(&self, id: NodeId) -> Answer<Scaling> {
        if !self.standing.contains(&id) {
            return Err(Trouble::wrong("the node is not in the original"));
        }
        match self.entries.get(&id) {
            Some(entry) if entry.failed || entry.moved => {
                Err(Trouble::wrong("it absorbed something unknown before"))
            }
            Some(Entry {
                vector: Some(vector),
                ..
            }) => Ok(vector.scaling()),
            _ => {
                let node = self.original.model.node(id);
                if !node.is("BatchNormalization") {
                    return Err(Trouble::wrong("it is no BatchNorm"));
                }
                Ok(Vector::read(&self.original, node, 0)?.scaling())
            }
        }
    }
}
