//! `fold` of a state dict: find out which layer feeds which BatchNorm, fold the graph that says it, carry the result back to
//! the checkpoint, prove, write.

use std::path::PathBuf;

use bnkit_model::safetensors::StateDict;

use super::entries;
use super::folding::Folding;
use super::groups;
use super::write::{self, Target};
use crate::calibrate::Interrupt;
use crate::fold::Options;
use crate::pipeline::{Gates, Phase, Progress};
use crate::report::{FoldReport, OutputFile, Verdict, Verification};
use crate::verify::VerifyOptions;
use crate::{Error, Result, hash};

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
