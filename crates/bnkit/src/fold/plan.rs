//! The plan: which BatchNorm goes where, and why the others stay. It works on a copy of the model's structure, on
//! which every decision is carried out at once, so that the next one sees it; nothing large is read or computed twice.

use std::collections::HashSet;

use bnkit_model::onnx::{Edit, Model, NodeId, Types, Use, ValueId};

use super::absorb::{Absorption, absorber, constant_affine};
use super::context::Context;
use super::walk::{Journey, pull, push};
use crate::affine::Affine;
use crate::chain::Chains;
use crate::clean::Cleaner;
use crate::refusal::{Answer, Stop};
use crate::report::{Chain, Cleanup, Decision, Finding, Refusal, Site, Summary, Warning};
use crate::route::{Absorbed, Route, Side};
use crate::site::{Parameters, is_batch_norm, is_training};
use crate::{Error, Result, glob::Choice};

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
    /// Give a quantised weight one scale for each channel where it has one for all of them (opset 13 and later).
    pub per_channel_scales: bool,
}

/// What is to be done, and why not more.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The model with everything done; computed tensors are recipes until they are written.
    folded: Model,
    /// Every BatchNorm, in graph order.
    pub sites: Vec<Site>,
    /// Chains of Mul, Add, Sub and Div by constants that are per channel or folded, in graph order.
    pub chains: Vec<Chain>,
    /// What else is tidied up.
    pub cleanup: Vec<Cleanup>,
    /// Where the affines went, in order: for the proof.
    pub routes: Vec<Route>,
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
    let choice = Choice::new(&options.only, &options.skip)?;
    let types = Types::derive(model);
    let mut planner = Planner {
        original: model,
        model: model.clone(),
        types,
        options,
        left_out,
        sites: Vec::new(),
        routes: Vec::new(),
        errors: Vec::new(),
        affines_folded: 0,
        chains: Chains::default(),
    };
    let nodes_before = model.nodes().count();
    let mut order = Vec::new();
    for (scope, _) in model.scopes() {
        order.extend(model.topological_order(scope)?);
    }
    let batch_norms: Vec<NodeId> = order
        .iter()
        .copied()
        .filter(|&node| is_batch_norm(model, node))
        .collect();
    for &node in &batch_norms {
        let skipped = !choice.takes(model.label(node)) || left_out.contains(&node);
        let site = planner.survey(node, skipped)?;
        planner.sites.push((node, site));
    }
    let mut cleaner = Cleaner::default();
    cleaner.set_eval_mode(
        &mut planner.model,
        &planner.types,
        options.assume_constant,
        &mut planner.sites,
    )?;
    cleaner.bypass_identities(&mut planner.model, &planner.types)?;
    planner.chains = Chains::survey(&planner.context(false), model, &order);
    // A fold can open the way for one before it (a BatchNorm whose Add it absorbed, say), so go on while any succeeds.
    while planner.pass(&order)? {}
    planner.finish_errors(options);
    cleaner.drop_unread(&mut planner.model, model)?;
    if let Some(value) = planner.model.dangling() {
        // Never seen; but a file that no engine can load must not be written.
        let name = &planner.model.value(value).name;
        return Err(Error::Request(format!(
            "internal error: the folded model would read \"{name}\", which nothing computes"
        )));
    }
    let Planner {
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
        nodes_before,
        nodes_after: folded.nodes().count(),
    };
    Ok(Plan {
        folded,
        sites,
        chains: chains.into_report(),
        cleanup: cleaner.done,
        routes,
        summary,
        errors,
        warnings: cleaner.warnings,
    })
}

struct Planner<'p> {
    original: &'p Model,
    model: Model,
    types: Types,
    options: &'p Options,
    left_out: &'p HashSet<NodeId>,
    sites: Vec<(NodeId, Site)>,
    routes: Vec<Route>,
    errors: Vec<Finding>,
    affines_folded: usize,
    chains: Chains,
}

impl Planner<'_> {
    fn context(&self, may_add_nodes: bool) -> Context<'_> {
        Context {
            model: &self.model,
            types: &self.types,
            assume_constant: self.options.assume_constant,
            may_add_nodes,
            through_branches: self.options.through_branches,
            per_channel_scales: self.options.per_channel_scales,
        }
    }

    /// The first look at a BatchNorm: what it is, and whether its parameters can move at all.
    fn survey(&mut self, node: NodeId, skipped: bool) -> Result<Site> {
        let info = self.model.node(node);
        let output = info
            .output(0)
            .map(|value| self.model.value(value).name.clone());
        let mut site = Site {
            node: self.model.label(node).to_owned(),
            output: output.unwrap_or_default(),
            scope: self.model.scope_path(info.scope),
            channels: 0,
            training_mode: is_training(&self.model, node),
            decision: if skipped {
                Decision::Skipped
            } else {
                Decision::Kept
            },
            into: Vec::new(),
            via: Vec::new(),
            rule: None,
            refusal: None,
            warnings: Vec::new(),
        };
        match Parameters::read(&self.context(true), node) {
            Ok(parameters) => {
                site.channels = parameters.channels();
                site.warnings = parameters.warnings;
                if let Some(finding) = parameters.findings.first() {
                    site.refusal = Some(Refusal::new("bad-statistics", finding.message.clone()));
                    if !skipped {
                        self.errors.extend(parameters.findings);
                    }
                }
            }
            Err(Stop::Refused(refusal)) => site.refusal = Some(*refusal),
            Err(Stop::Broken(error)) => return Err(error.into()),
        }
        if skipped {
            site.refusal = None;
        }
        Ok(site)
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

    fn batch_norm(&mut self, node: NodeId) -> Result<bool> {
        let index = self.sites.iter().position(|(site, _)| *site == node);
        let Some(index) = index else { return Ok(false) };
        let site = &self.sites[index].1;
        // A reason that lies in the node itself does not go away.
        if site.decision != Decision::Kept
            || site
                .refusal
                .as_ref()
                .is_some_and(|refusal| !is_about_the_way(refusal))
        {
            return Ok(false);
        }
        let affine = match Parameters::read(&self.context(true), node) {
            Ok(parameters) => parameters.affine(),
            Err(Stop::Refused(refusal)) => {
                self.sites[index].1.refusal = Some(*refusal);
                return Ok(false);
            }
            Err(Stop::Broken(error)) => return Err(error.into()),
        };
        let backward = match self.try_pull(node, 0, &affine, true) {
            Ok((journey, route)) => {
                self.record(index, &journey);
                self.routes.push(route);
                return Ok(true);
            }
            Err(Stop::Refused(refusal)) => *refusal,
            Err(Stop::Broken(error)) => return Err(error.into()),
        };
        match self.try_push(node, 0, &affine, true) {
            Ok((journey, route)) => {
                self.record(index, &journey);
                self.routes.push(route);
                Ok(true)
            }
            Err(Stop::Refused(forward)) => {
                self.sites[index].1.refusal = Some(more_telling(backward, *forward));
                Ok(false)
            }
            Err(Stop::Broken(error)) => Err(error.into()),
        }
    }

    /// What absorbed and what was passed, as the report names it.
    fn names(&self, journey: &Journey) -> (Vec<String>, Vec<String>) {
        // As the input calls them: an edit may have renamed what an unnamed node writes.
        let label = |&node: &NodeId| {
            let model = if node.index() < self.original.node_count() {
                self.original
            } else {
                &self.model
            };
            model.label(node).to_owned()
        };
        let into = journey
            .arrivals
            .iter()
            .map(|arrival| label(&arrival.node))
            .collect();
        (into, journey.via.iter().map(label).collect())
    }

    fn record(&mut self, index: usize, journey: &Journey) {
        let (into, via) = self.names(journey);
        let site = &mut self.sites[index].1;
        site.decision = Decision::Folded;
        site.refusal = None;
        site.rule = journey.arrivals.last().map(|arrival| arrival.rule);
        site.into = into;
        site.via = via;
    }

    /// A Mul, Add, Sub or Div by a constant: the same affine, but not worth a new node.
    fn constant_operator(&mut self, node: NodeId) -> Result<bool> {
        let (data_slot, affine) = match constant_affine(&self.context(false), node) {
            Ok(found) => found,
            Err(Stop::Refused(_)) => return Ok(false),
            Err(Stop::Broken(error)) => return Err(error.into()),
        };
        let outcome = match self.try_pull(node, data_slot, &affine, false) {
            Err(Stop::Refused(backward)) => match self.try_push(node, data_slot, &affine, false) {
                Err(Stop::Refused(forward)) => Err(Stop::from(more_telling(*backward, *forward))),
                other => other,
            },
            other => other,
        };
        match outcome {
            Ok((journey, mut route)) => {
                let rule = journey.arrivals.last().map(|arrival| arrival.rule);
                self.chains.folded(node, self.names(&journey), rule);
                route.constant_slot = Some(1 - data_slot);
                self.routes.push(route);
                self.affines_folded += 1;
                Ok(true)
            }
            Err(Stop::Refused(refusal)) => {
                self.chains.refused(node, *refusal);
                Ok(false)
            }
            Err(Stop::Broken(error)) => Err(error.into()),
        }
    }

    /// Moves the affine of `site` backwards, out of the graph.
    fn try_pull(
        &mut self,
        site: NodeId,
        data_slot: usize,
        affine: &Affine,
        may_add: bool,
    ) -> Answer<(Journey, Route)> {
        let context = self.context(may_add);
        let input = context.input(site, data_slot)?;
        let output = sole_output(&context, site)?;
        let journey = pull(&context, site, data_slot, affine)?;
        let takes_over = takes_over(&self.model, input, output)?;
        let absorbed = self.carry_out(&journey, may_add)?;
        let remove = Edit::RemoveNode { node: site };
        if takes_over {
            // The producer of what the site read now computes what the site wrote, and takes over its name; what read
            // only the type or shape of the old value reads that of the new one.
            let (producer, slot) = self.model.producer(input).expect("a pull ends at a node");
            let set_output = Edit::SetOutput {
                node: producer,
                slot,
                value: output.into(),
            };
            let replace = Edit::ReplaceUses {
                value: input,
                by: output,
            };
            self.model.apply(&[remove, set_output, replace])?;
        } else {
            let replace = Edit::ReplaceUses {
                value: output,
                by: input,
            };
            self.model.apply(&[replace, remove])?;
        }
        let via = journey.via.clone();
        Ok((
            journey,
            Route {
                site,
                constant_slot: None,
                absorbed,
                via,
            },
        ))
    }

    /// Moves the affine of `site` forwards, into everything that reads it.
    fn try_push(
        &mut self,
        site: NodeId,
        data_slot: usize,
        affine: &Affine,
        may_add: bool,
    ) -> Answer<(Journey, Route)> {
        let context = self.context(may_add);
        let input = context.input(site, data_slot)?;
        let output = sole_output(&context, site)?;
        let journey = push(&context, output, affine)?;
        let absorbed = self.carry_out(&journey, may_add)?;
        let edits = [
            Edit::ReplaceUses {
                value: output,
                by: input,
            },
            Edit::RemoveNode { node: site },
        ];
        self.model.apply(&edits)?;
        let via = journey.via.clone();
        Ok((
            journey,
            Route {
                site,
                constant_slot: None,
                absorbed,
                via,
            },
        ))
    }

    /// Applies the absorptions of a journey. If one depends on another, it is asked again on the way; should it then
    /// refuse, nothing has happened.
    fn carry_out(&mut self, journey: &Journey, may_add: bool) -> Answer<Vec<Absorbed>> {
        let mut touched: HashSet<String> = HashSet::new();
        let mut names = |absorption: &Absorption, model: &Model| {
            let keys: Vec<String> = absorption
                .edits
                .iter()
                .filter_map(|edit| key(edit, model))
                .collect();
            keys.into_iter().all(|key| touched.insert(key))
        };
        let independent = journey
            .arrivals
            .iter()
            .all(|arrival| names(&arrival.absorption, &self.model));
        let mut absorbed = Vec::with_capacity(journey.arrivals.len());
        let snapshot = (!independent).then(|| self.model.clone());
        for arrival in &journey.arrivals {
            let fresh;
            let absorption = if independent {
                &arrival.absorption
            } else {
                let context = self.context(may_add);
                let absorber = absorber(&context, arrival.node).expect("it absorbed before");
                let asked = match arrival.side {
                    Side::Output => (absorber.output)(&context, arrival.node, &arrival.affine),
                    Side::Input => {
                        (absorber.input)(&context, arrival.node, arrival.slot, &arrival.affine)
                    }
                };
                match asked {
                    Ok(absorption) => fresh = absorption,
                    Err(stop) => {
                        self.model = snapshot.expect("taken above");
                        return Err(stop);
                    }
                }
                &fresh
            };
            self.model.apply(&absorption.edits)?;
            absorbed.push(Absorbed {
                node: arrival.node,
                side: arrival.side,
                part: absorption.part,
                data_slot: absorption.data_slot,
                channels: absorption.channels.clone(),
                share: arrival.affine.share,
            });
        }
        Ok(absorbed)
    }

    /// Bad statistics are errors only where the BatchNorm stays because of them and the user did not allow it.
    fn finish_errors(&mut self, options: &Options) {
        if options.allow_bad_statistics {
            self.errors.clear();
        }
    }
}

/// What an edit claims for itself: two edits with the same key depend on each other.
fn key(edit: &Edit, model: &Model) -> Option<String> {
    match edit {
        Edit::SetConstant { value, .. } => Some(model.value(*value).name.clone()),
        Edit::AddConstant { name, .. } => Some(name.clone()),
        Edit::SetInput { node, slot, .. } => model
            .node(*node)
            .input(*slot)
            .map(|value| model.value(value).name.clone()),
        _ => None,
    }
}

/// Whether what computes `input` can take over the name of `output`, which appears earlier in the graph then: no body
/// may have a name of its own like that. Otherwise the readers of `output` can read `input`, if they all see it.
fn takes_over(model: &Model, input: ValueId, output: ValueId) -> Answer<bool> {
    if model.is_unique_name(output) {
        return Ok(true);
    }
    let only_nodes = |value: ValueId| {
        model
            .value(value)
            .uses
            .iter()
            .all(|user| matches!(user, Use::Node(..)))
    };
    if only_nodes(output) && model.is_unique_name(input) {
        return Ok(false);
    }
    let name = &model.value(output).name;
    Err(Refusal::new(
        "name-conflict",
        format!("\"{name}\" is also the name of another value, in a body"),
    )
    .with("value", name.as_str())
    .into())
}

/// The output of a site; its other outputs must be gone.
fn sole_output(context: &Context<'_>, site: NodeId) -> Answer<bnkit_model::onnx::ValueId> {
    let outputs = &context.model.node(site).outputs;
    match *outputs.as_slice() {
        [Some(output)] => Ok(output),
        _ => Err(Refusal::new(
            "training-output-read",
            format!(
                "{} has outputs of training mode that are read",
                context.model.describe(site)
            ),
        )
        .into()),
    }
}

/// Whether a refusal is about the way to an absorber; one about the node itself stands for good.
fn is_about_the_way(refusal: &Refusal) -> bool {
    !matches!(
        refusal.code,
        "bad-statistics"
            | "per-activation"
            | "rank"
            | "no-running-statistics"
            | "parameter-not-constant"
            | "overridable-parameter"
            | "attribute-reference"
            | "training-output-read"
            | "training-mode"
            | "annotated"
    )
}

/// Of the two reasons, the one that a person can do something about.
fn more_telling(backward: Refusal, forward: Refusal) -> Refusal {
    let dull = |refusal: &Refusal| match refusal.code {
        "graph-input" => 2,
        "no-absorber" => 1,
        _ => 0,
    };
    let (told, other) = if dull(&forward) < dull(&backward) && forward.code != "graph-output" {
        (forward, backward)
    } else {
        (backward, forward)
    };
    let also = format!("{}: {}", other.code, other.message);
    told.with("also", also)
}
