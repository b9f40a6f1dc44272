//! Merging: operators that are linear together become one Conv, once their BatchNorms are gone (`--merge-branches`).
//!
//! Networks like RepVGG and MobileOne are trained with several branches where one Conv could stand, and shipped with
//! that one. A merge is no move of an affine, so it is neither an absorber nor a carrier: it reads what the branches
//! compute by then, in f64, and writes the sum into the largest of them, rounded once.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `tree` | a sum of many terms: which there are, and what is left when some go |
//! | `window` | where a Conv looks, and whether two windows can be one |
//! | `kernel` | what a branch computes, as a convolution |
//! | `parallel` | branches of one input that are added |
//! | `sequence` | a 1×1 Conv before another Conv |
//!
//! Left out on purpose: branches of different groups or dilations (one kernel for both would cost more than they do), and
//! a k×k Conv before a 1×1 one.

use std::collections::{HashMap, HashSet};

use bnkit_model::onnx::{AttributeValue, Dim, Edit, Model, NodeId, Types};

use super::before::Before;
use super::context::Context;
use super::plan::Options;
use crate::Result;
use crate::explain::{Explanation, Kind};
use crate::refusal::{Answer, refuse};
use crate::report::{self, Decision, MergeRefusal, Refusal, Site};
use crate::route::{self, Branch, Merged};
use kernel::Kernel;
use tree::Tree;

mod kernel;
mod parallel;
mod sequence;
#[cfg(test)]
mod tests;
mod tree;
mod window;

/// How often merges may follow one another into the same Conv.
const MAX_DEPTH: usize = 16;

/// The rules, as `bnkit explain` tells them.
pub(crate) const BRANCHES: Explanation = Explanation {
    code: "merge-branches",
    kind: Kind::Rule,
    title: "parallel branches that are added become one Conv (--merge-branches)",
    text: "\
Before: `Conv k×k + Conv 1×1 + BatchNorm + x`, all of the same input x. After: one `Conv k×k`.

`W'[o,i,k] = Σ W[o,i,k]`, each smaller kernel where its padding puts it within the largest; a BatchNorm adds its scale
(an identity 1) at `i = o`, in its group, at the tap that sees the position itself. `B' = Σ B`, a BatchNorm adds its shift.

Conditions: the branches end in one Add or Sum, or a tree of them, whose inner values and branches nobody else reads; same
groups, channels, strides and dilations; paddings that give the same output size; the one kernel has no more taps than the
branches together.",
};

/// See [`BRANCHES`].
pub(crate) const SEQUENCE: Explanation = Explanation {
    code: "merge-sequence",
    kind: Kind::Rule,
    title: "a 1×1 Conv goes into the Conv behind it (--merge-branches)",
    text: "\
Before: `Conv 1×1 → Conv k×k` with nothing between. After: one `Conv k×k`.

`W'[o,i,k] = Σₘ W₂[o,m,k]·W₁[m,i]`, `B'[o] = B₂[o] + Σ W₂[o,m,k]·B₁[m]`.

Conditions: nobody else reads the value between; same groups; no padding in either, no stride in the first; the one weight
has fewer elements than the two (a bottleneck stays a bottleneck).",
};

/// What a merge may look at.
pub(super) struct Ground<'g> {
    context: Context<'g>,
    sites: &'g [(NodeId, Site)],
    site_of: &'g HashMap<NodeId, usize>,
    left_out: &'g HashSet<NodeId>,
    depth: &'g HashMap<NodeId, usize>,
}

impl Ground<'_> {
    /// Whether a BatchNorm still stands, and may go.
    fn may_merge(&self, node: NodeId) -> bool {
        let site = self.site_of.get(&node).map(|&index| &self.sites[index]);
        site.is_some_and(|(_, site)| site.decision == Decision::Kept)
            && !self.left_out.contains(&node)
    }

    /// Refuses a Conv that is the result of too many merges already: each is proved from the ones before.
    fn require_shallow(&self, node: NodeId) -> Answer<()> {
        match self
            .depth
            .get(&node)
            .is_some_and(|&depth| depth >= MAX_DEPTH)
        {
            true => refuse(
                "merge-cost",
                format!("it was merged {MAX_DEPTH} times already"),
            ),
            false => Ok(()),
        }
    }
}

/// One merge that can be done.
struct Merging {
    rule: &'static str,
    into: NodeId,
    edits: Vec<Edit>,
    record: Merged,
    /// Before and after.
    parameters: (u64, u64),
    macs: Option<(u64, u64)>,
}

type Outcome = Result<Option<Merging>>;

/// The model to merge in, and what the plan knows of it.
pub(crate) struct Setting<'s> {
    /// What the user knows.
    pub before: &'s Before,
    /// The model that changes.
    pub model: &'s mut Model,
    pub types: &'s Types,
    pub options: &'s Options,
    pub left_out: &'s HashSet<NodeId>,
    /// Every BatchNorm; those that are merged get their decision.
    pub sites: &'s mut [(NodeId, Site)],
    /// Where a BatchNorm is in `sites`.
    pub site_of: &'s HashMap<NodeId, usize>,
    /// How many routes there are so far.
    pub routes: usize,
}

/// Merges, and keeps the record.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    /// What was merged, for the report.
    pub done: Vec<report::Merge>,
    /// What was not, though it looked like it; of the last round.
    pub refused: Vec<MergeRefusal>,
    /// What was merged, for the proof.
    pub record: Vec<route::Merge>,
    depth: HashMap<NodeId, usize>,
}

impl Merger {
    /// Merges whatever can be merged, if that is asked for. Whether anything was.
    pub(crate) fn run(&mut self, setting: Setting<'_>) -> Result<bool> {
        if !setting.options.merge_branches {
            return Ok(false);
        }
        self.refused.clear();
        let mut setting = setting;
        let mut order = Vec::new();
        let scopes: Vec<_> = setting.model.scopes().map(|(id, _)| id).collect();
        for scope in scopes {
            order.extend(setting.model.topological_order(scope)?);
        }
        let before = self.record.len();
        // What nobody needs may be dropped, terms of a sum and all: then nothing shows what became of them.
        let needed = setting.model.needed_nodes();
        for &node in order.iter().filter(|node| needed.contains(node)) {
            self.exhaust(&mut setting, node, |ground, refusals| {
                match Tree::at(ground.context.model, node) {
                    Some(tree) => parallel::merge(ground, &tree, refusals),
                    None => Ok(None),
                }
            })?;
        }
        for &node in &order {
            self.exhaust(&mut setting, node, |ground, refusals| {
                sequence::merge(ground, node, refusals)
            })?;
        }
        self.tell(&mut setting);
        Ok(self.record.len() > before)
    }

    /// Merges at `node` until nothing is left to merge there. What the last look refused is noted.
    fn exhaust(
        &mut self,
        setting: &mut Setting<'_>,
        node: NodeId,
        look: impl Fn(&Ground<'_>, &mut Vec<Refusal>) -> Outcome,
    ) -> Result<()> {
        if setting.left_out.contains(&node) {
            return Ok(());
        }
        loop {
            let mut refusals = Vec::new();
            let ground = Ground {
                context: Context::new(
                    setting.model,
                    setting.types,
                    setting.options.assume_constant,
                ),
                sites: setting.sites,
                site_of: setting.site_of,
                left_out: setting.left_out,
                depth: &self.depth,
            };
            let Some(merging) = look(&ground, &mut refusals)? else {
                let label = setting.before.label(setting.model, node);
                self.refused
                    .extend(refusals.into_iter().map(|refusal| MergeRefusal {
                        node: label.clone(),
                        refusal,
                    }));
                return Ok(());
            };
            setting.model.apply(&merging.edits)?;
            self.note(setting, node, merging);
        }
    }

    fn note(&mut self, setting: &mut Setting<'_>, at: NodeId, merging: Merging) {
        let label = |node: NodeId| setting.before.label(setting.model, node);
        let into = label(merging.into).clone();
        let mut nodes = merging.record.nodes();
        nodes.retain(|&node| !setting.model.node(node).alive);
        let depth = |node: &NodeId| self.depth.get(node).copied().unwrap_or(0);
        let deepest = nodes.iter().chain([&merging.into]).map(depth).max();
        self.depth.insert(merging.into, deepest.unwrap_or(0) + 1);
        self.done.push(report::Merge {
            rule: merging.rule,
            into: into.clone(),
            merged: nodes.iter().map(|&node| label(node).clone()).collect(),
            parameters_before: merging.parameters.0,
            parameters_after: merging.parameters.1,
            macs_before: merging.macs.map(|macs| macs.0),
            macs_after: merging.macs.map(|macs| macs.1),
        });
        if let Merged::Branches { branches, .. } = &merging.record {
            for branch in branches {
                let Branch::BatchNorm(node) = branch else {
                    continue;
                };
                if let Some(&index) = setting.site_of.get(node) {
                    let site = &mut setting.sites[index].1;
                    site.decision = Decision::Merged;
                    site.refusal = None;
                    site.rule = Some(merging.rule);
                    site.into = vec![into.clone()];
                }
            }
        }
        self.record.push(route::Merge {
            at,
            after: setting.routes,
            into: merging.into,
            merged: merging.record,
        });
    }

    /// Tells the BatchNorms that stay why they were not merged.
    fn tell(&self, setting: &mut Setting<'_>) {
        let mut reasons: HashMap<&str, &MergeRefusal> = HashMap::new();
        for refused in &self.refused {
            if let Some(report::Evidence::Text(name)) = refused.refusal.evidence.get("branch") {
                reasons.entry(name).or_insert(refused); // the first counts
            }
        }
        for (node, site) in setting.sites.iter_mut() {
            let label = setting.before.label(setting.model, *node);
            let why = reasons.get(label.as_str());
            if let (Some(why), Some(refusal)) = (why, &mut site.refusal) {
                let text = format!("{}: {}", why.refusal.code, why.refusal.message);
                refusal.evidence.insert("merge", text.into());
            }
        }
    }
}

/// How many positions (without batch and channels) the output of a node has, if that is known.
fn positions(context: &Context<'_>, node: NodeId) -> Option<u64> {
    let output = context.model.node(node).output(0)?;
    let dims = context.types.dims(output)?;
    let mut sizes = dims.get(2..)?.iter().map(Dim::known);
    sizes.try_fold(1u64, |product, size| product.checked_mul(size?))
}

/// The edits that make a Conv, which computes `now`, compute `then`.
fn into_conv(
    context: &Context<'_>,
    node: NodeId,
    now: &Kernel,
    then: &Kernel,
) -> Answer<Vec<Edit>> {
    let weight = context.dense(then.dtype, then.dims(), then.weight.clone())?;
    let mut edits = context.put(node, 1, weight, "");
    if then.has_bias {
        let bias = context.dense(then.dtype, vec![then.outputs], then.bias.clone())?;
        edits.extend(context.put(node, 2, bias, &context.bias_name(node, 1)));
    }
    if now.windows == then.windows {
        return Ok(edits);
    }
    let list = |name: &str, values: Vec<i64>| Edit::SetAttribute {
        node,
        name: name.to_owned(),
        value: AttributeValue::Ints(values),
    };
    let begins = then.windows.iter().map(|window| window.begin);
    let ends = then.windows.iter().map(|window| window.end);
    edits.extend([
        list(
            "kernel_shape",
            then.windows.iter().map(|w| w.kernel).collect(),
        ),
        list(
            "dilations",
            then.windows.iter().map(|w| w.dilation).collect(),
        ),
        list("pads", begins.chain(ends).collect()),
        Edit::RemoveAttribute {
            node,
            name: "auto_pad".to_owned(),
        },
    ]);
    Ok(edits)
}
