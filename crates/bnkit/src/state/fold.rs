//! `fold` of a state dict: find out which layer feeds which BatchNorm, fold the graph that says it, carry the result back to
//! the checkpoint, prove, write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use bnkit_model::onnx::{Model, Name, NodeId};
use bnkit_model::safetensors::StateDict;
use serde::Serialize;

use super::bind::{Binding, Bound};
use super::carry::{Carrier, Changes, group_of};
use super::groups::{self, BatchNormGroup};
use super::pairing::{self, Pair, Pairing, PresetChoice};
use super::write::{self, Target};
use super::{entries, identity, paired, proof};
use crate::calibrate::Interrupt;
use crate::fold::{self, Options, Plan};
use crate::pipeline::{Gates, Phase, Progress};
use crate::report::{
    Decision, FoldReport, InputFile, OutputFile, Refusal, Site, Tool, Verdict, Verification,
    Warning,
};
use crate::verify::{self, VerifyOptions};
use crate::{Error, Result, hash, yaml};

/// A `fold` of a state dict to do.
#[derive(Debug, Clone)]
pub struct StateFoldJob {
    /// The checkpoint to read: a safetensors file, or the index of a sharded one.
    pub input: PathBuf,
    /// The checkpoint to write; sharded if the name ends in `.safetensors.index.json`. `None` plans only.
    pub output: Option<PathBuf>,
    /// Whether an existing output may be replaced.
    pub force: bool,
    /// Whether hashes are wanted in the report.
    pub hash: bool,
    /// Put the input's SHA-256 and the verdict into the output's metadata.
    pub provenance: bool,
    /// What says which layer feeds which BatchNorm.
    pub source: PairingSource,
    /// ε of the pairs that nobody else says it of.
    pub epsilon: Option<f64>,
    /// Keep the BatchNorms as identities, so that unmodified model code loads the output.
    pub identity: bool,
    /// Which BatchNorms may be folded, by the names of their nodes or modules.
    pub fold: Options,
    /// How equality is proved; `None` skips the proof.
    pub verify: Option<VerifyOptions>,
    /// Only the verdict `equivalent` is good enough.
    pub require_end_to_end: bool,
    /// A kept (not skipped) BatchNorm is a failure: nothing is written.
    pub require_all_folded: bool,
    /// The share of the BatchNorms that must fold, from 0 to 1; skipped ones do not count.
    pub min_folded: Option<f64>,
    /// Ends the job before its next stage or in the middle of its proof, so that nothing is written. It takes the place of the one in
    /// `verify`.
    pub interrupt: Interrupt,
}

impl StateFoldJob {
    /// Folds `input` into `output` by what `source` says, with the proof and all defaults.
    pub fn new(
        input: impl Into<PathBuf>,
        source: PairingSource,
        output: impl Into<PathBuf>,
    ) -> Self {
        Self {
            input: input.into(),
            output: Some(output.into()),
            force: false,
            hash: false,
            provenance: false,
            source,
            epsilon: None,
            identity: false,
            fold: Options::default(),
            verify: Some(VerifyOptions::default()),
            require_end_to_end: false,
            require_all_folded: false,
            min_folded: None,
            interrupt: Interrupt::default(),
        }
    }
}

/// What says which layer feeds which BatchNorm, most trustworthy first.
#[derive(Debug, Clone, PartialEq)]
pub enum PairingSource {
    /// The ONNX export of the same network.
    Graph(PathBuf),
    /// A pairing file (YAML).
    Pairs(PathBuf),
    /// The names of the tensors.
    Preset {
        /// The scheme; `None` takes the one that is recognised.
        name: Option<String>,
        /// Whether somebody looked at the pairs; without that, nothing is written.
        confirmed: bool,
    },
}

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

/// Folds a state dict. As [`pipeline::fold`](crate::pipeline::fold), the report says everything.
///
/// # Errors
/// If something cannot be read, the graph or the pairing does not fit the checkpoint, an epsilon is not known, or the output
/// cannot be written; [`Error::Interrupted`] if the job was interrupted.
pub fn fold(job: &StateFoldJob, progress: &dyn Progress) -> Result<FoldReport> {
    check(job)?;
    progress.begin(Phase::Reading, None);
    let dict = StateDict::open(&job.input)?;
    let hashing = (job.hash || job.provenance).then(|| hash::in_background(&job.input));
    let groups = groups::find(&entries(&dict)).groups;
    let folding = Folding::prepare(job, &dict, &groups)?;
    progress.begin(Phase::Planning, None);
    let carried = folding
        .plan(&job.fold, job.identity)
        .map_err(|error| error.in_file(&job.input))?;
    let verification = match (&job.output, &job.verify) {
        (None, _) => None,
        (Some(_), _) if !carried.plan.errors.is_empty() => None,
        (Some(_), None) => Some(Verification::skipped()),
        (Some(_), Some(options)) => {
            progress.begin(Phase::Proving, None);
            let proof = folding.prove(&carried, &options.ended_by(&job.interrupt));
            Some(proof.map_err(|error| error.in_file(&job.input))?)
        }
    };
    let mut report = folding.report(job, &carried, verification);
    report.input.sha256 = hashing.map(hash::Hashing::finish).transpose()?;
    report.failure = Gates {
        end_to_end: job.require_end_to_end,
        all_folded: job.require_all_folded,
        min_folded: job.min_folded,
    }
    .failure(&report)
    .or_else(|| unconfirmed(job));
    if let (Some(output), None) = (&job.output, &report.failure) {
        progress.begin(Phase::Writing, Some(dict.bytes()));
        job.interrupt.go_on()?;
        let metadata = provenance(job, &report);
        let target = Target {
            path: output,
            force: job.force,
            metadata: &metadata,
            progress: &|done, _| progress.advance(done),
        };
        let saved = write::write(&dict, &carried.changes, carried.plan.apply(), &target)?;
        report.output = Some(OutputFile {
            path: output.display().to_string(),
            sha256: job.hash.then(|| hash::of_file(output)).transpose()?,
            bytes: saved.bytes,
            data: None,
        });
    }
    if !job.hash {
        report.input.sha256 = None;
    }
    Ok(report)
}

/// Refuses what makes no sense without a graph to change.
fn check(job: &StateFoldJob) -> Result<()> {
    let refuse = |message: String| Err(Error::Request(message));
    if let Some(output) = &job.output
        && !job.force
        && output.exists()
    {
        return refuse(format!(
            "{}: exists already; --force replaces it",
            output.display()
        ));
    }
    let of_graphs = [
        ("--aggressive", job.fold.aggressive),
        ("--lower", job.fold.lower),
        ("--merge-branches", job.fold.merge_branches),
        ("--per-channel-scales", job.fold.per_channel_scales),
    ];
    if let Some((option, _)) = of_graphs.iter().find(|(_, asked)| *asked) {
        return refuse(format!(
            "{option} changes operators, and a state dict has none: fold the ONNX model"
        ));
    }
    if job
        .epsilon
        .is_some_and(|epsilon| !(epsilon.is_finite() && epsilon >= 0.0))
    {
        return refuse("--eps: epsilon is a number that is not negative".to_owned());
    }
    if job.epsilon.is_some() && matches!(job.source, PairingSource::Graph(_)) {
        return refuse("--eps: the graph says what epsilon is".to_owned());
    }
    Ok(())
}

fn unconfirmed(job: &StateFoldJob) -> Option<String> {
    let confirmed = !matches!(
        job.source,
        PairingSource::Preset {
            confirmed: false,
            ..
        }
    );
    (!confirmed && job.output.is_some()).then(|| {
        "the pairs come from names alone: look at them, then say --yes, or write them to a pairing file (bnkit pair)".to_owned()
    })
}

fn provenance(job: &StateFoldJob, report: &FoldReport) -> Vec<(String, String)> {
    if !job.provenance {
        return Vec::new();
    }
    let verdict = report
        .verification
        .as_ref()
        .map_or(Verdict::Skipped, |proof| proof.verdict);
    let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    vec![
        entry("bnkit.version", env!("CARGO_PKG_VERSION")),
        entry("bnkit.folded", &report.summary.folded.to_string()),
        entry(
            "bnkit.input.sha256",
            report.input.sha256.as_deref().unwrap_or(""),
        ),
        entry("bnkit.verdict", verdict.name()),
    ]
}

/// A checkpoint, and the graph that says what may be folded.
struct Folding<'d> {
    dict: &'d StateDict,
    groups: &'d [BatchNormGroup],
    bound: Bound,
    /// Names of biases to be, by weight.
    biases: HashMap<usize, String>,
    /// The pairing, if there is no graph.
    pairing: Option<Pairing>,
}

/// A plan, and what it does to the checkpoint.
struct Carried {
    plan: Plan,
    changes: Changes,
    /// Why BatchNorms are left alone that the graph alone would let go.
    refusals: BTreeMap<NodeId, Refusal>,
}

impl<'d> Folding<'d> {
    fn prepare(
        job: &StateFoldJob,
        dict: &'d StateDict,
        groups: &'d [BatchNormGroup],
    ) -> Result<Self> {
        let pairing = match &job.source {
            PairingSource::Graph(path) => {
                let graph = Model::open(path)?;
                return Ok(Self {
                    bound: Bound::new(&graph, dict)?,
                    biases: HashMap::new(),
                    pairing: None,
                    dict,
                    groups,
                });
            }
            PairingSource::Pairs(path) => {
                pairing::from_file(&yaml::read(path)?, path, &entries(dict))?
            }
            PairingSource::Preset { name, .. } => {
                let choice = name
                    .as_deref()
                    .map_or(PresetChoice::Auto, PresetChoice::Named);
                pairing::propose(&entries(dict), choice)?
            }
        };
        let pairing = match job.source {
            // What somebody says of this network is worth more than what is usual.
            PairingSource::Preset { .. } => overruled(pairing, job.epsilon),
            _ => with_epsilon(pairing, job.epsilon),
        };
        let paired = paired::graph(&pairing.pairs, dict)?;
        Ok(Self {
            bound: paired.bound,
            biases: paired.biases,
            pairing: Some(pairing),
            dict,
            groups,
        })
    }

    /// Plans until everything that is folded can be said in a state dict.
    fn plan(&self, options: &Options, identity: bool) -> Result<Carried> {
        let mut options = options.clone();
        // Operators that are no BatchNorm stay: to take one away would change the model's code.
        options.left_alone = constant_operators(&self.bound.model);
        let mut refusals = BTreeMap::new();
        loop {
            let plan = fold::plan(&self.bound.model, &options)?;
            let carrier = || Carrier::new(&self.bound, self.dict, self.groups, &plan, &self.biases);
            let outcome = match carrier().carry()? {
                Ok(mut changes) if identity => match identity::keep(&carrier(), &mut changes)? {
                    Ok(()) => Ok(changes),
                    Err(conflicts) => Err(conflicts),
                },
                outcome => outcome,
            };
            match outcome {
                Ok(changes) => {
                    return Ok(Carried {
                        plan,
                        changes,
                        refusals,
                    });
                }
                Err(conflicts) => {
                    let before = options.left_alone.len();
                    options.left_alone.extend(conflicts.keys().copied());
                    refusals.extend(conflicts);
                    if options.left_alone.len() == before {
                        return Err(Error::Request(
                            "internal error: a fold that cannot be carried back comes again"
                                .to_owned(),
                        ));
                    }
                }
            }
        }
    }

    fn prove(&self, carried: &Carried, options: &VerifyOptions) -> Result<Verification> {
        let plan = &carried.plan;
        let Some(pairing) = &self.pairing else {
            let mut fold_options = Options::default();
            fold_options
                .left_alone
                .extend(carried.refusals.keys().copied());
            fold_options
                .left_alone
                .extend(constant_operators(&self.bound.model));
            let mut verification = verify::prove(&self.bound.model, plan, &fold_options, options)?;
            if let (Some(place), Verdict::Equivalent) = (self.bound.widened, verification.verdict) {
                // What ran had the digits that the checkpoint has no room for.
                let stored = &self.dict.tensors()[place];
                verification.verdict = Verdict::EquivalentLocal;
                verification.notes.push(format!(
                    "the checkpoint holds {} where the graph computes in more bits (\"{}\"): the folded tensors ran before they were rounded to it",
                    stored.dtype, stored.name
                ));
            }
            return Ok(verification);
        };
        let layers = proof::Layers {
            dict: self.dict,
            changes: &carried.changes,
            folded: plan.apply(),
        };
        options.interrupt.go_on()?;
        let proof = layers.prove(&pairing.pairs, options.seed, || {
            verify::by_algebra(&self.bound.model, plan)
        });
        options.interrupt.go_on()?;
        proof
    }

    fn report(
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

/// The pairing with `epsilon` for all pairs, if there is one.
pub(super) fn overruled(mut pairing: Pairing, epsilon: Option<f64>) -> Pairing {
    for pair in &mut pairing.pairs {
        pair.epsilon = epsilon.or(pair.epsilon);
    }
    pairing
}

/// The pairing with `epsilon` where it says none.
fn with_epsilon(mut pairing: Pairing, epsilon: Option<f64>) -> Pairing {
    for pair in &mut pairing.pairs {
        pair.epsilon = pair.epsilon.or(epsilon);
    }
    pairing
}

fn constant_operators(model: &Model) -> HashSet<NodeId> {
    let operators = ["Mul", "Add", "Sub", "Div"];
    model
        .nodes()
        .filter(|(_, node)| operators.iter().any(|operator| node.is(operator)))
        .map(|(id, _)| id)
        .collect()
}

/// What a report says of a checkpoint that was read.
pub(crate) fn describe_input(dict: &StateDict, path: &Path) -> InputFile {
    InputFile {
        path: path.display().to_string(),
        bytes: dict.bytes(),
        ..InputFile::default()
    }
}
