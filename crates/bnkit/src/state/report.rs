//! What a report says of a fold of a state dict.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use bnkit_model::onnx::{Name, NodeId};
use bnkit_model::safetensors::StateDict;
use serde::Serialize;

use super::bind::Binding;
use super::carry::{Changes, group_of};
use super::entries;
use super::fold::{PairingSource, StateFoldJob};
use super::folding::{Carried, Folding};
use super::groups::{self, BatchNormGroup};
use super::pairing::Pair;
use crate::fold::Plan;
use crate::report::{Decision, FoldReport, InputFile, Refusal, Site, Tool, Verification, Warning};

/// What a fold did to a state dict, in its report.
#[derive(Debug, Clone, Serialize)]
pub struct StateReport {
    /// What said which layer feeds which BatchNorm: "graph", "pairs" or "preset".
    pub pairing: &'static str,
    /// The graph or the pairing file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairing_file: Option<String>,
    /// The naming scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<&'static str>,
    /// How the graph and the checkpoint were brought together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// The pairs, without a graph.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<PairReport>,
    /// What was recognised, by what.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Tensors with another content.
    pub replaced: Vec<String>,
    /// Biases that did not exist.
    pub added: Vec<String>,
    /// Tensors that are gone.
    pub dropped: Vec<String>,
}

/// A pair, in a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairReport {
    /// The module of the layer.
    pub layer: String,
    /// The module of the BatchNorm.
    pub batch_norm: String,
    /// ε.
    pub epsilon: Option<f64>,
    /// What a person should know about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Folding<'_> {
    pub(super) fn report(
        &self,
        job: &StateFoldJob,
        carried: &Carried,
        verification: Option<Verification>,
    ) -> FoldReport {
        let Carried {
            plan,
            changes,
            refusals,
        } = carried;
        let mut sites = self.sites(plan, refusals);
        sites.extend(self.without_node(&sites));
        let count = |decision| {
            sites
                .iter()
                .filter(|site| site.decision == decision)
                .count()
        };
        let mut summary = plan.summary.clone();
        summary.batch_norms = sites.len();
        summary.folded = count(Decision::Folded);
        summary.kept = count(Decision::Kept);
        summary.skipped = count(Decision::Skipped);
        summary.affines_folded = 0;
        summary.to_eval = 0;
        // A checkpoint has no nodes.
        (summary.nodes_before, summary.nodes_after) = (0, 0);
        FoldReport {
            schema: "bnkit.fold/1",
            tool: Tool::default(),
            input: describe_input(self.dict, &job.input),
            summary,
            sites,
            merges: Vec::new(),
            merges_refused: Vec::new(),
            chains: Vec::new(),
            data_norms: Vec::new(),
            cleanup: Vec::new(),
            warnings: self.warnings(),
            errors: plan.errors.clone(),
            failure: None,
            verification,
            kept_stats: None,
            profiles: Vec::new(),
            state: Some(self.state(job, changes)),
            output: None,
        }
    }

    /// The decisions of the plan, with the modules of the checkpoint.
    fn sites(&self, plan: &Plan, refusals: &BTreeMap<NodeId, Refusal>) -> Vec<Site> {
        let order = crate::inspect::batch_norms(&self.bound.model).unwrap_or_default();
        let mut sites = plan.sites.clone();
        for (site, node) in sites.iter_mut().zip(order) {
            let group = group_of(&self.bound, self.dict, self.groups, node);
            site.module = group.map(|group| self.groups[group].module.clone());
            if let Some(refusal) = refusals.get(&node) {
                site.decision = Decision::Kept;
                site.refusal = Some(refusal.clone());
            }
        }
        sites
    }

    /// BatchNorms of the checkpoint that the graph or the pairing does not have.
    fn without_node(&self, sites: &[Site]) -> Vec<Site> {
        let known: HashSet<&str> = sites
            .iter()
            .filter_map(|site| site.module.as_deref())
            .collect();
        let reason = |group: &BatchNormGroup| match &self.pairing {
            None => Refusal::new(
                "not-in-graph",
                "the graph has no BatchNormalization with these parameters (an exporter may have folded it, or given it constants of its own)",
            ),
            Some(pairing) => {
                let left = pairing
                    .left
                    .iter()
                    .find(|left| left.batch_norm.module == group.module);
                let message = left.map_or("no pair names it", |left| &left.reason);
                Refusal::new("no-pair", message)
            }
        };
        let rest = self
            .groups
            .iter()
            .filter(|group| !known.contains(group.module.as_str()));
        rest.map(|group| Site {
            node: group.module.as_str().into(),
            module: Some(group.module.clone()),
            output: Name::default(),
            scope: Name::default(),
            channels: group.channels,
            training_mode: false,
            decision: Decision::Kept,
            into: Vec::new(),
            via: Vec::new(),
            rule: None,
            refusal: Some(reason(group)),
            warnings: Vec::new(),
        })
        .collect()
    }

    fn warnings(&self) -> Vec<Warning> {
        let problems = groups::find(&entries(self.dict)).problems;
        let one = |problem: groups::GroupProblem| Warning {
            code: "incomplete-group",
            message: format!("\"{}\": {}", problem.module, problem.message),
        };
        problems.into_iter().map(one).collect()
    }

    fn state(&self, job: &StateFoldJob, changes: &Changes) -> StateReport {
        let names = |places: &mut dyn Iterator<Item = usize>| -> Vec<String> {
            let name = |place: usize| self.dict.tensors()[place].name.clone();
            places.map(name).collect()
        };
        let (pairing, file) = match &job.source {
            PairingSource::Graph(path) => ("graph", Some(path)),
            PairingSource::Pairs(path) => ("pairs", Some(path)),
            PairingSource::Preset { .. } => ("preset", None),
        };
        let own = self.pairing.as_ref();
        StateReport {
            pairing,
            pairing_file: file.map(|path| path.display().to_string()),
            preset: own.and_then(|pairing| pairing.preset),
            binding: own.is_none().then(|| self.bound.report.clone()),
            pairs: own.map_or_else(Vec::new, |own| own.pairs.iter().map(report_pair).collect()),
            notes: own.map_or_else(Vec::new, |own| own.notes.clone()),
            replaced: names(&mut changes.replaced.keys().copied()),
            added: changes
                .added
                .values()
                .map(|(name, _)| name.clone())
                .collect(),
            dropped: names(&mut changes.dropped.iter().copied()),
        }
    }
}

/// A pair as reports say it.
pub(super) fn report_pair(pair: &Pair) -> PairReport {
    PairReport {
        layer: pair.layer.module.clone(),
        batch_norm: pair.batch_norm.module.clone(),
        epsilon: pair.epsilon,
        note: pair.note.clone(),
    }
}

/// What a report says of a checkpoint that was read.
pub(crate) fn describe_input(dict: &StateDict, path: &Path) -> InputFile {
    InputFile {
        path: path.display().to_string(),
        bytes: dict.bytes(),
        ..InputFile::default()
    }
}
