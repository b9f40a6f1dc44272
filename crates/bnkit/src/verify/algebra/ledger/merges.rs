//! What the ledger knows of merges: the operators before, and whether what they became is right.

use std::collections::HashSet;

use bnkit_model::onnx::NodeId;

use super::{Entry, Ledger};
use crate::Result;
use crate::route::{Merge, Merged};
use crate::verify::algebra::Algebra;
use crate::verify::algebra::book::{Answer, Trouble};
use crate::verify::algebra::compare::Owner;
use crate::verify::algebra::merged::{Known, Merges};
use crate::verify::algebra::step::{Scaling, Step};
use crate::verify::algebra::vector::Vector;

/// The operators that merges changed or took away. A sum keeps its constants.
pub(super) fn nodes(merges: &[Merge]) -> HashSet<NodeId> {
    let mut nodes = HashSet::new();
    for merge in merges {
        nodes.insert(merge.into);
        nodes.extend(merge.merged.nodes());
        if let Merged::Branches { sums, .. } = &merge.merged {
            sums.iter().for_each(|sum| _ = nodes.remove(sum));
        }
    }
    nodes
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
