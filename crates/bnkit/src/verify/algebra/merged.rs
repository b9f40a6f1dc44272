//! Merges: what a Conv computes that several operators became, recomputed from what each of these was in the original.

use bnkit_model::onnx::NodeId;

use super::Algebra;
use super::book::{Answer, Book, Trouble};
use super::compare::Owner;
use super::response::Response;
use super::step::{Scaling, Step};
use crate::route::{Branch, Merge, Merged};

/// What the ledger knows of the operators before they were merged.
pub(super) trait Known {
    /// The affines that a Conv absorbed, in order; an error if one of them is not known.
    fn steps(&self, node: NodeId) -> Answer<&[Step]>;
    /// The affine that a BatchNorm was in the end.
    fn scaling(&self, node: NodeId) -> Answer<Scaling>;
}

/// The merges as they followed one another.
pub(super) struct Merges<'m> {
    pub(super) original: &'m Book<'m>,
    pub(super) folded: &'m Book<'m>,
    pub(super) list: &'m [Merge],
    pub(super) known: &'m dyn Known,
}

impl Merges<'_> {
    /// Compares what is left of a merge, unless a later one took it further.
    pub(super) fn check(&self, index: usize, owner: Owner, result: &mut Algebra) -> Answer<()> {
        let merge = &self.list[index];
        let model = self.folded.model;
        let mut gone: Vec<NodeId> = merge.merged.nodes();
        gone.retain(|&node| node != merge.into);
        if let Merged::Branches { sums, .. } = &merge.merged {
            // Those that still have other terms may stay.
            gone.retain(|node| !sums.contains(node));
            self.expect_sums(sums)?;
        }
        if gone.iter().any(|&node| model.node(node).alive) {
            return Err(Trouble::wrong("a branch was merged, but is still there"));
        }
        let later = self.list[index + 1..]
            .iter()
            .any(|later| later.into == merge.into || later.merged.nodes().contains(&merge.into));
        if later {
            return Ok(());
        }
        let node = model.node(merge.into);
        if !node.alive {
            return Err(Trouble::wrong("what the branches became is gone"));
        }
        let response = self.response(merge.into, self.list.len(), usize::MAX)?;
        response.compare(self.folded, node, owner, result)
    }

    /// Checks that the branches are added.
    fn expect_sums(&self, sums: &[NodeId]) -> Answer<()> {
        let model = self.original.model;
        let adds = |&node: &NodeId| model.node(node).is("Add") || model.node(node).is("Sum");
        match !sums.is_empty() && sums.iter().all(adds) {
            true => Ok(()),
            false => Err(Trouble::wrong("the branches do not end in a sum")),
        }
    }

    /// What a Conv answers after the first `merges` merges and before route `routes`.
    fn response(&self, id: NodeId, merges: usize, routes: usize) -> Answer<Response> {
        let last = self.list[..merges]
            .iter()
            .rposition(|merge| merge.into == id);
        let (mut response, since) = match last {
            None => {
                let node = self.original.model.node(id);
                (Response::of_conv(self.original, node)?, 0)
            }
            Some(index) => (self.merged(index)?, self.list[index].after),
        };
        for step in self.known.steps(id)? {
            if (since..routes).contains(&step.route) {
                response.absorb(step)?;
            }
        }
        Ok(response)
    }

    fn merged(&self, index: usize) -> Answer<Response> {
        let merge = &self.list[index];
        let before = |id| self.response(id, index, merge.after);
        let mut sum = before(merge.into)?;
        let branches = match &merge.merged {
            Merged::Sequence { first } => return sum.behind(&before(*first)?),
            Merged::Branches { branches, .. } => branches,
        };
        let own = branches
            .iter()
            .filter(|&&branch| branch == Branch::Conv(merge.into));
        if own.count() != 1 {
            return Err(Trouble::wrong(
                "the Conv that stays is not one of the branches",
            ));
        }
        for branch in branches {
            let other = match *branch {
                Branch::Conv(id) if id == merge.into => continue,
                Branch::Conv(id) => before(id)?,
                Branch::BatchNorm(id) => Response::of_affine(Some(&self.known.scaling(id)?), &sum)?,
                Branch::Input => Response::of_affine(None, &sum)?,
            };
            let node = self.original.model.node(merge.into);
            sum.add(&other, self.original, node)?;
        }
        Ok(sum)
    }
}
