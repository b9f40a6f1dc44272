//! The plan: which BatchNorm goes where, and why the others stay. Every decision is carried out at once on the
//! model's structure, so that the next one sees it; nothing large is read or computed twice.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `sites` | the affines, and what is decided about each |
//! | `moves` | one move, carried out |
//! | `rest` | half a move: the scale goes, the shift stays |
//! | `lower` | no move: Mul and Add |

use std::collections::{HashMap, HashSet};

use bnkit_model::onnx::{Edit, Model, NodeId, Types};

use super::before::Before;
use super::context::Context;
use super::merge::{Merger, Setting};
use super::unseen::Unseen;
use crate::chain::Chains;
use crate::clean::Cleaner;
use crate::report::{
    self, Chain, Cleanup, DataNorm, Decision, Finding, MergeRefusal, Site, Summary, Warning,
};
use crate::route::{Merge, Route};
use crate::site::is_batch_norm;
use crate::{Error, Result, glob::Choice, norms, unfold};

mod lower;
mod moves;
mod rest;
mod sites;

pub(crate) use lower::RULE as LOWERING;

/// What may be folded.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only BatchNorms whose node name matches one of these globs; all if empty.
    pub only: Vec<String>,
    /// No BatchNorms whose node name matches one of these globs.
    pub skip: Vec<String>,
    /// Treat initializers that are graph inputs too (IR version 4 and later) as constants.
    pub assume_constant: bool,
    /// Keep BatchNorms with bad statistics instead of failing.
    pub allow_bad_statistics: bool,
    /// Fold backwards through an Add or Sub of two computed branches, into both.
    pub through_branches: bool,
    /// Where a BatchNorm cannot go as a whole, move its scale and leave its shift as an Add.
    pub aggressive: bool,
    /// Write a BatchNorm that cannot go as Mul and Add.
    pub lower: bool,
    /// Make one Conv of parallel branches that are added, and of a 1×1 Conv before another, once their BatchNorms are
    /// folded.
    pub merge_branches: bool,
    /// Give a quantised weight one scale for each channel where it has one for all of them (opset 13 and later).
    pub per_channel_scales: bool,
    /// Nodes that move nowhere: BatchNorms (they count as skipped), and Mul, Add, Sub, Div by a constant.
    pub left_alone: HashSet<NodeId>,
}

/// What is to be done, and why not more.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The model with everything done; computed tensors are recipes until they are written.
    folded: Model,
    /// What was asked for, with all that was left alone: what an undo goes back to is made of it once more.
    options: Options,
    /// Every BatchNorm, in graph order.
    pub sites: Vec<Site>,
    /// Chains of Mul, Add, Sub and Div by constants that are per channel or folded, in graph order.
    pub chains: Vec<Chain>,
    /// Normalisations that cannot be folded, because their statistics come from the data.
    pub data_norms: Vec<DataNorm>,
    /// What else is tidied up.
    pub cleanup: Vec<Cleanup>,
    /// Where the affines went, in order: for the proof.
    pub routes: Vec<Route>,
    /// What was merged, in order: for the proof.
    pub merges: Vec<Merge>,
    /// What was merged, in words and numbers.
    pub merged: Vec<report::Merge>,
    /// What looked like a merge and was none, and why.
    pub merges_refused: Vec<MergeRefusal>,
    /// The numbers.
    pub summary: Summary,
    /// Errors in statistics.
    pub errors: Vec<Finding>,
    /// Warnings about the model as a whole.
    pub warnings: Vec<Warning>,
}

impl Plan {
    /// The folded model. This cannot refuse: all conditions were checked in the plan.
    pub fn apply(&self) -> &Model {
        &self.folded
    }

    /// Exchanges the folded model, for tests of the proof.
    #[cfg(test)]
    pub(crate) fn replace_folded(&mut self, folded: Model) {
        self.folded = folded;
    }

    /// What [`unfold`](crate::unfold) needs to bring the BatchNorms back: the bytes of a safetensors file. `original` is the model
    /// that was planned for.
    ///
    /// # Errors
    /// If something was done that cannot be undone, naming the node, or a tensor cannot be read.
    pub fn kept_stats(&self, original: &Model) -> Result<Vec<u8>> {
        let order = graph_order(original)?;
        let options = &self.options;
        let mut planner = Planner::new(original.clone(), options, &options.left_alone, &order)?;
        planner.clean()?;
        unfold::kept(&planner.model, &self.folded, &self.sites)
    }

    /// Puts an entry into the folded model's `metadata_props`.
    ///
    /// # Errors
    /// Never for a key of UTF-8 text; the model's own error type is kept.
    pub fn set_metadata(&mut self, key: &str, value: &str) -> Result<()> {
        let edit = Edit::SetMetadata {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        Ok(self.folded.apply(&[edit])?)
    }
}

/// Plans the folds of a model.
///
/// # Errors
/// If the model is broken: shapes that do not fit together, tensors that cannot be read.
pub fn plan(model: &Model, options: &Options) -> Result<Plan> {
    plan_without(model, options, &HashSet::new())
}

/// As [`plan`], but leaves these BatchNorms and affines alone: for the search for a fold that breaks the model.
///
/// # Errors
/// As [`plan`].
pub fn plan_without(model: &Model, options: &Options, left_out: &HashSet<NodeId>) -> Result<Plan> {
    let left_out = left_out | &options.left_alone;
    plan_noting(model.clone(), options, &left_out, None)
}

/// As [`plan`], but leaves looking at scaled weights to saving, which fails with
/// [`NotFinite`](bnkit_model::Error::NotFinite) if one is bad: then [`plan`] must decide. `None` if it must anyway.
///
/// # Errors
/// As [`plan`].
pub(crate) fn plan_unseen(model: Model, options: &Options) -> Result<Option<Plan>> {
    let unseen = Unseen::default();
    let plan = plan_noting(model, options, &options.left_alone, Some(&unseen))?;
    Ok(unseen.are_good(plan.apply())?.then_some(plan))
}

fn plan_noting(
    model: Model,
    options: &Options,
    left_out: &HashSet<NodeId>,
    unseen: Option<&Unseen>,
) -> Result<Plan> {
    let order = graph_order(&model)?;
    let mut planner = Planner::new(model, options, left_out, &order)?;
    planner.unseen = unseen;
    let data_norms = norms::find(&planner.model, &planner.types);
    let mut cleaner = planner.clean()?;
    planner.chains = Chains::survey(&planner.context(false), &planner.before, &order);
    let batch_norms: Vec<NodeId> = planner.sites.iter().map(|&(node, _)| node).collect();
    // A fold can open the way for one before it (a BatchNorm whose Add it absorbed, say), so go on while any succeeds.
    let mut merger = Merger::default();
    while planner.pass(&order)? || planner.merge(&mut merger)? {}
    // What stays of these absorbs nothing more, so they come when nothing else moves.
    if options.aggressive {
        while planner.half_pass(&batch_norms)? {}
    }
    if options.lower {
        planner.lower_pass(&batch_norms)?;
    }
    planner.finish_errors(options);
    // Nobody asks any more, and of very many values they are large.
    planner.types = Types::default();
    cleaner.drop_unread(&mut planner.model, &planner.before)?;
    if let Some(value) = planner.model.dangling() {
        // Never seen; but a file that no engine can load must not be written.
        let name = &planner.model.value(value).name;
        return Err(Error::Request(format!(
            "internal error: the folded model would read \"{name}\", which nothing computes"
        )));
    }
    let Planner {
        before,
        model: folded,
        sites,
        routes,
        errors,
        affines_folded,
        chains,
        ..
    } = planner;
    let sites: Vec<Site> = sites.into_iter().map(|(_, site)| site).collect();
    let count = |decision| {
        sites
            .iter()
            .filter(|site| site.decision == decision)
            .count()
    };
    let summary = Summary {
        batch_norms: sites.len(),
        folded: count(Decision::Folded),
        half_folded: count(Decision::HalfFolded),
        merged: count(Decision::Merged),
        lowered: count(Decision::Lowered),
        kept: count(Decision::Kept),
        skipped: count(Decision::Skipped),
        affines_folded,
        to_eval: cleaner.to_eval,
        nodes_before: before.nodes,
        nodes_after: folded.nodes().count(),
    };
    Ok(Plan {
        folded,
        options: Options {
            left_alone: left_out.clone(),
            ..options.clone()
        },
        sites,
        chains: chains.into_report(),
        data_norms,
        cleanup: cleaner.done,
        routes,
        merges: merger.record,
        merged: merger.done,
        merges_refused: merger.refused,
        summary,
        errors,
        warnings: cleaner.warnings,
    })
}

/// The nodes of all scopes, each scope's in an order in which they can be computed.
fn graph_order(model: &Model) -> Result<Vec<NodeId>> {
    let mut order = Vec::new();
    for (scope, _) in model.scopes() {
        order.extend(model.topological_order(scope)?);
    }
    Ok(order)
}

struct Planner<'p> {
    before: Before,
    model: Model,
    types: Types,
    options: &'p Options,
    left_out: &'p HashSet<NodeId>,
    sites: Vec<(NodeId, Site)>,
    /// Where a BatchNorm is in `sites`.
    site_of: HashMap<NodeId, usize>,
    routes: Vec<Route>,
    errors: Vec<Finding>,
    affines_folded: usize,
    chains: Chains,
    unseen: Option<&'p Unseen>,
}

impl<'p> Planner<'p> {
    /// Looks at the BatchNorms of a model. `order`: its nodes, in an order in which they can be computed.
    fn new(
        model: Model,
        options: &'p Options,
        left_out: &'p HashSet<NodeId>,
        order: &[NodeId],
    ) -> Result<Self> {
        let choice = Choice::new(&options.only, &options.skip)?;
        let mut planner = Planner {
            before: Before::of(&model),
            types: Types::derive(&model),
            model,
            options,
            left_out,
            sites: Vec::new(),
            site_of: HashMap::new(),
            routes: Vec::new(),
            errors: Vec::new(),
            affines_folded: 0,
            chains: Chains::default(),
            unseen: None,
        };
        let is_ours = |&&node: &&NodeId| is_batch_norm(&planner.model, node);
        let batch_norms: Vec<NodeId> = order.iter().filter(is_ours).copied().collect();
        planner.sites.reserve_exact(batch_norms.len());
        for node in batch_norms {
            let skipped = !choice.takes(planner.model.label(node)) || left_out.contains(&node);
            let site = planner.survey(node, skipped)?;
            planner.site_of.insert(node, planner.sites.len());
            planner.sites.push((node, site));
        }
        Ok(planner)
    }

    /// Puts the model into eval mode, before the first affine moves. What it is then is the same each time: edits are numbered in
    /// their order, so what is made again fits what was planned from it.
    fn clean(&mut self) -> Result<Cleaner> {
        let mut cleaner = Cleaner::default();
        cleaner.set_eval_mode(
            &mut self.model,
            &self.types,
            self.options.assume_constant,
            &mut self.sites,
        )?;
        cleaner.bypass_identities(&mut self.model)?;
        Ok(cleaner)
    }

    fn context(&self, may_add_nodes: bool) -> Context<'_> {
        Context {
            may_add_nodes,
            through_branches: self.options.through_branches,
            per_channel_scales: self.options.per_channel_scales,
            unseen: self.unseen,
            ..Context::new(&self.model, &self.types, self.options.assume_constant)
        }
    }

    fn merge(&mut self, merger: &mut Merger) -> Result<bool> {
        merger.run(Setting {
            before: &self.before,
            model: &mut self.model,
            types: &self.types,
            options: self.options,
            left_out: self.left_out,
            sites: &mut self.sites,
            site_of: &self.site_of,
            routes: self.routes.len(),
        })
    }

    /// Tries every BatchNorm that still stands, and every Mul, Add, Sub and Div by a constant. Whether any moved.
    fn pass(&mut self, order: &[NodeId]) -> Result<bool> {
        let mut moved = false;
        for &node in order {
            if !self.model.node(node).alive {
                continue;
            }
            if is_batch_norm(&self.model, node) {
                moved |= self.batch_norm(node)?;
            } else if matches!(
                self.model.node(node).op_type.as_str(),
                "Add" | "Sub" | "Mul" | "Div"
            ) && self.model.node(node).domain.is_empty()
                && !self.left_out.contains(&node)
            {
                moved |= self.constant_operator(node)?;
            }
        }
        Ok(moved)
    }

    /// Bad statistics are errors only where the BatchNorm stays because of them and the user did not allow it.
    fn finish_errors(&mut self, options: &Options) {
        if options.allow_bad_statistics {
            self.errors.clear();
        }
    }
}
