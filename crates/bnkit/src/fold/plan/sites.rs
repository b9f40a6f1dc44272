//! The two kinds of affines that a plan moves: BatchNorms, each of which ends up with a decision, and Mul, Add, Sub and
//! Div by a constant, which go if they can and are not spoken of otherwise.

use bnkit_model::onnx::{Name, NodeId};

use super::Planner;
use crate::Result;
use crate::fold::absorb::constant_affine;
use crate::fold::walk::Journey;
use crate::refusal::Stop;
use crate::report::{Decision, Refusal, Site};
use crate::site::{Parameters, is_training};

impl Planner<'_> {
    /// The first look at a BatchNorm: what it is, and whether its parameters can move at all.
    pub(super) fn survey(&mut self, node: NodeId, skipped: bool) -> Result<Site> {
        let info = self.model.node(node);
        let output = info
            .output(0)
            .map(|value| self.model.value(value).name.clone());
        let mut site = Site {
            node: self.model.label(node).clone(),
            module: None,
            output: output.unwrap_or_default(),
            scope: self.model.scope_path(info.scope).into(),
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

    pub(super) fn batch_norm(&mut self, node: NodeId) -> Result<bool> {
        let Some(&index) = self.site_of.get(&node) else {
            return Ok(false);
        };
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
                self.record(index, &journey, Decision::Folded);
                self.routes.push(route);
                return Ok(true);
            }
            Err(Stop::Refused(refusal)) => *refusal,
            Err(Stop::Broken(error)) => return Err(error.into()),
        };
        match self.try_push(node, 0, &affine, true) {
            Ok((journey, route)) => {
                self.record(index, &journey, Decision::Folded);
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
    fn names(&self, journey: &Journey) -> (Vec<Name>, Vec<Name>) {
        let label = |&node: &NodeId| self.before.label(&self.model, node).clone();
        let into = journey
            .arrivals
            .iter()
            .map(|arrival| label(&arrival.node))
            .collect();
        (into, journey.via.iter().map(label).collect())
    }

    pub(super) fn record(&mut self, index: usize, journey: &Journey, decision: Decision) {
        let (into, via) = self.names(journey);
        let site = &mut self.sites[index].1;
        site.decision = decision;
        site.refusal = None;
        site.rule = journey.arrivals.last().map(|arrival| arrival.rule);
        site.into = into;
        site.via = via;
    }

    /// A Mul, Add, Sub or Div by a constant: the same affine, but not worth a new node.
    pub(super) fn constant_operator(&mut self, node: NodeId) -> Result<bool> {
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
}

/// Whether a refusal is about the way to an absorber; one about the node itself stands for good.
pub(super) fn is_about_the_way(refusal: &Refusal) -> bool {
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
