//! The two passes over the routes: what every affine is, and what became of the operators.

use std::collections::{BTreeMap, HashSet};

use bnkit_model::onnx::{Model, Node, NodeId};
use rayon::prelude::*;

use super::book::{Answer, Book, Trouble};
use super::compare::Owner;
use super::step::{Scaling, Step};
use super::terms::Tree;
use super::vector::{self, Vector};
use super::{Algebra, bystanders, convolution, matrix, quantised, remainder};
use crate::route::{Merge, Route};
use crate::{Error, Result};

mod merges;

/// What is known of a node that a route names.
#[derive(Default)]
struct Entry {
    /// The last route that touched it.
    route: usize,
    /// Whether it was an affine that moved on: it is gone.
    moved: bool,
    /// Whether a failure was noted already.
    failed: bool,
    /// What it computes, if it is an operator with a vector.
    vector: Option<Vector>,
    /// What it absorbed, if it is an operator with a weight.
    steps: Vec<Step>,
}

pub(super) struct Ledger<'m> {
    original: Book<'m>,
    folded: Book<'m>,
    /// The nodes that stand in the original.
    standing: HashSet<NodeId>,
    /// Those of them that an output depends on. The others may be dropped, together with what they absorbed.
    needed: HashSet<NodeId>,
    entries: BTreeMap<NodeId, Entry>,
    /// The sums that merges took terms from.
    trees: Vec<Tree>,
    result: Algebra,
}

pub(super) fn check(
    original: &Model,
    folded: &Model,
    routes: &[Route],
    merges: &[Merge],
) -> Result<Algebra> {
    let mut ledger = Ledger {
        original: Book::new(original),
        folded: Book::new(folded),
        standing: original.nodes().map(|(id, _)| id).collect(),
        needed: original.needed_nodes(),
        entries: BTreeMap::new(),
        trees: merges::trees(merges),
        result: Algebra::default(),
    };
    for (index, route) in routes.iter().enumerate() {
        ledger.route(index, route)?;
    }
    let merged = merges::nodes(merges);
    ledger.settle(&merged)?;
    for index in 0..merges.len() {
        ledger.settle_merge(index, routes.len(), merges)?;
    }
    ledger.settle_sums(routes.len())?;
    let route = routes.len().saturating_sub(1);
    let entries = &ledger.entries;
    let named = |id| entries.contains_key(&id) || merged.contains(&id);
    let books = (&ledger.original, &ledger.folded);
    bystanders::check(books, &ledger.standing, named, route, &mut ledger.result)?;
    ledger.result.checked = routes.len() + merges.len();
    Ok(ledger.result)
}

impl Ledger<'_> {
    /// Keeps failures of the proof in the result, and lets other errors through.
    fn note(&mut self, owner: Owner, answer: Answer<()>) -> Result<bool> {
        match answer {
            Ok(()) => Ok(true),
            Err(Trouble::Unreadable(error)) => Err(Error::Model(error)),
            Err(Trouble::Wrong(reason)) => {
                self.result.reject(owner, "route", reason);
                Ok(false)
            }
            Err(Trouble::Unknown(reason)) => {
                self.result.doubt(owner, "route", reason);
                Ok(false)
            }
        }
    }

    /// The entry of a node that stands in the original and did not move on yet.
    fn entry(&mut self, id: NodeId, route: usize) -> Answer<&mut Entry> {
        if !self.standing.contains(&id) {
            return Err(Trouble::wrong("the node is not in the original"));
        }
        let entry = self.entries.entry(id).or_default();
        entry.route = route;
        match entry.moved {
            true => Err(Trouble::wrong("the node is gone already")),
            false => Ok(entry),
        }
    }

    fn route(&mut self, index: usize, route: &Route) -> Result<()> {
        let owner = |node| Owner { route: index, node };
        let scaling = match self.depart(index, route) {
            Ok(scaling) => Some(scaling),
            Err(trouble) => {
                self.note(owner(route.site), Err(trouble))?;
                self.entries.entry(route.site).or_default().failed = true;
                None
            }
        };
        for absorbed in &route.absorbed {
            // What comes from an affine that is not known is not known either.
            let answer = match &scaling {
                Some(scaling) => {
                    Step::new(index, absorbed, scaling, self.keeps_channels(&route.via))
                        .and_then(|step| self.absorb(absorbed.node, step))
                }
                None => self
                    .entry(absorbed.node, index)
                    .map(|entry| entry.failed = true),
            };
            if !self.note(owner(absorbed.node), answer)? {
                self.entries.entry(absorbed.node).or_default().failed = true;
            }
        }
        if let Some(scaling) = scaling {
            let keeps_channels = self.keeps_channels(&route.via);
            let answer = remainder::everything_arrived(route, &scaling, keeps_channels);
            self.note(owner(route.site), answer)?;
            let is_new = |id| !self.standing.contains(&id);
            let answer = remainder::check(&self.folded, route, &scaling, is_new);
            self.note(owner(route.site), answer)?;
        }
        Ok(())
    }

    /// The affine of a route, whose node is gone from then on.
    fn depart(&mut self, index: usize, route: &Route) -> Answer<Scaling> {
        let id = route.site;
        self.entry(id, index)?;
        let node = self.original.model.node(id);
        let is_norm = node.is("BatchNormalization");
        let slot = match (is_norm, route.constant_slot) {
            (true, None) => 0,
            (false, Some(slot)) if vector::is_vector(node) => slot,
            _ => return Err(Trouble::wrong("the site is no affine with constants")),
        };
        self.load(id, node, slot)?;
        let entry = self.entry(id, index)?;
        entry.moved = true;
        let failed = entry.failed;
        match entry.vector.take() {
            Some(vector) if !failed => Ok(vector.scaling()),
            _ => Err(Trouble::wrong("the site absorbed something unknown before")),
        }
    }

    /// Makes sure that the vector of an operator is known.
    fn load(&mut self, id: NodeId, node: &Node, slot: usize) -> Answer<()> {
        match &self.entries.entry(id).or_default().vector {
            None => {
                let vector = self.read_vector(id, node, slot)?;
                self.entries.entry(id).or_default().vector = Some(vector);
            }
            Some(vector) if vector.has_constant_elsewhere(slot) => {
                return Err(Trouble::wrong(
                    "two routes disagree which input is the constant",
                ));
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn absorb(&mut self, id: NodeId, step: Step) -> Answer<()> {
        let route = step.route;
        if self.entry(id, route)?.failed {
            return Ok(());
        }
        let node = self.original.model.node(id);
        if !vector::is_vector(node) {
            self.entry(id, route)?.steps.push(step);
            return Ok(());
        }
        let slot = match node.is("BatchNormalization") {
            true => 0,
            false => 1usize
                .checked_sub(step.data_slot)
                .ok_or_else(|| Trouble::wrong("the operator has two inputs"))?,
        };
        self.load(id, node, slot)?;
        match &mut self.entry(id, route)?.vector {
            Some(vector) => vector.absorb(&step),
            None => Err(Trouble::wrong("nothing is known of the node")),
        }
    }

    /// Whether all nodes on the way leave channel k at number k of the same axis.
    fn keeps_channels(&self, via: &[NodeId]) -> bool {
        const KEEPING: [&str; 18] = [
            "Add",
            "AveragePool",
            "Cast",
            "Dropout",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "Identity",
            "LeakyRelu",
            "LpPool",
            "MaxPool",
            "Mul",
            "PRelu",
            "Pad",
            "Relu",
            "Resize",
            "Sub",
            "Upsample",
            "Div",
        ];
        let model = self.original.model;
        via.iter().all(|&id| {
            self.standing.contains(&id) && KEEPING.iter().any(|op| model.node(id).is(op))
        })
    }

    /// Compares the nodes that routes name with what they should be now, several at a time.
    fn settle(&mut self, merged: &HashSet<NodeId>) -> Result<()> {
        let expected: Vec<(NodeId, &Entry)> = self
            .entries
            .iter()
            .filter(|(id, entry)| {
                !merged.contains(id) && !entry.failed && self.standing.contains(id)
            })
            .map(|(&id, entry)| (id, entry))
            .collect();
        let this = &*self;
        let compared: Vec<(Owner, Algebra, Answer<()>)> = expected
            .into_par_iter()
            .map(|(node, entry)| {
                let route = entry.route;
                let owner = Owner { route, node };
                let mut result = Algebra::default();
                let answer = this.compare(node, entry, owner, &mut result);
                (owner, result, answer)
            })
            .collect();
        // In the order of the nodes, whichever was done first.
        for (owner, result, answer) in compared {
            self.result.append(result);
            self.note(owner, answer)?;
        }
        Ok(())
    }

    fn compare(&self, id: NodeId, entry: &Entry, owner: Owner, result: &mut Algebra) -> Answer<()> {
        let (before, after) = (self.original.model.node(id), self.folded.model.node(id));
        match (entry.moved, after.alive) {
            (true, false) => return Ok(()),
            (true, true) => {
                return Err(Trouble::wrong("its affine moved on, but it is still there"));
            }
            (false, false) if !self.needed.contains(&id) => return Ok(()),
            (false, false) => return Err(Trouble::wrong("it absorbed an affine, and is gone")),
            (false, true) => {}
        }
        expect_same_operator(before, after)?;
        if let Some(vector) = &entry.vector {
            return vector.compare(&self.folded, after, owner, result);
        }
        let (original, folded) = ((&self.original, before), (&self.folded, after));
        let steps = &entry.steps;
        quantised::expect_kept(original, folded)?;
        match before.op_type.as_str() {
            _ if !before.domain.is_empty() => Err(Trouble::wrong("a foreign operator")),
            "Conv" | "ConvTranspose" => convolution::check(original, folded, steps, owner, result),
            "Gemm" => matrix::check_gemm(original, folded, steps, owner, result),
            "MatMul" => {
                let is_new = |id| !self.standing.contains(&id);
                matrix::check_mat_mul(original, folded, steps, is_new, owner, result)
            }
            op => Err(Trouble::Wrong(format!("{op} absorbs no affine"))),
        }
    }
}

/// Checks that a node has the operator and the attributes that it had. Gemm's beta is part of its addend, and compared
/// as such; a BatchNorm may have been brought to eval mode.
fn expect_same_operator(before: &Node, after: &Node) -> Answer<()> {
    if before.op_type != after.op_type || before.domain != after.domain {
        return Err(Trouble::wrong("it has become another operator"));
    }
    let free = |name: &str| match before.op_type.as_str() {
        "Gemm" => name == "beta",
        "BatchNormalization" => matches!(name, "training_mode" | "is_test" | "momentum"),
        _ => false,
    };
    for (here, there) in [(before, after), (after, before)] {
        for attribute in here
            .attributes
            .iter()
            .filter(|attribute| !free(&attribute.name))
        {
            let other = there.attribute(&attribute.name);
            if !other.is_some_and(|other| attribute.value.is_same(&other.value)) {
                let why = format!("attribute \"{}\" has changed", attribute.name);
                return Err(Trouble::Wrong(why));
            }
        }
    }
    Ok(())
}
