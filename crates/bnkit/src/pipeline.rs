//! The jobs of the command line as functions: open, plan, prove, write, report, in this order.

use std::path::{Path, PathBuf};

use bnkit_model::Error as ModelError;
use bnkit_model::onnx::{Model, Payload, SaveOptions};

use crate::calibrate::{Interrupt, files};
use crate::fold::{self, Options, Plan};
use crate::report::{
    Decision, FoldReport, InputFile, OutputFile, Tool, Verdict, Verification, VerifyReport,
};
use crate::verify::{self, VerifyOptions};
use crate::{Error, Result, hash};

/// A stage of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading the structure of the model.
    Reading,
    /// Planning the folds (reads the tensors that change).
    Planning,
    /// Running the network on calibration data; the units are samples. Begins anew with each pass.
    Running,
    /// Proving that the result is equal.
    Proving,
    /// Writing the output.
    Writing,
}

/// Told how far a job is. Called from one thread at a time.
pub trait Progress: Sync {
    /// A stage begins; `total` units (bytes or steps) are to be done, if known.
    fn begin(&self, phase: Phase, total: Option<u64>);
    /// `done` units of the current stage are done.
    fn advance(&self, done: u64);
}

/// No progress is shown.
#[derive(Debug, Default, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _: Phase, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
}

/// A `fold` to do.
#[derive(Debug, Clone)]
pub struct FoldJob {
    /// The model to read.
    pub input: PathBuf,
    /// The model to write; `None` plans only.
    pub output: Option<PathBuf>,
    /// Whether an existing output may be replaced.
    pub force: bool,
    /// Whether hashes are wanted in the report.
    pub hash: bool,
    /// Put the input's SHA-256 and the verdict into the output's metadata.
    pub provenance: bool,
    /// What may be folded.
    pub fold: Options,
    /// Where the parameters of the removed BatchNorms are kept, for [`unfold`](crate::unfold).
    pub keep_stats: Option<PathBuf>,
    /// How equality is proved; `None` skips the proof.
    pub verify: Option<VerifyOptions>,
    /// Only the verdict `equivalent` is good enough; `equivalent-local` writes nothing.
    pub require_end_to_end: bool,
    /// A kept (not skipped) BatchNorm is a failure: nothing is written.
    pub require_all_folded: bool,
    /// The share of the BatchNorms (those that are skipped do not count) that must not be kept, from 0 to 1: if fewer fold, nothing
    /// is written.
    pub min_folded: Option<f64>,
    /// Ends the job before its next stage or in the middle of its proof, so that nothing is written. It takes the place of the one in
    /// `verify`.
    pub interrupt: Interrupt,
}

impl FoldJob {
    /// Folds `input` into `output`, with the proof and all defaults.
    pub fn new(input: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            input: input.into(),
            output: Some(output.into()),
            force: false,
            hash: false,
            provenance: false,
            fold: Options::default(),
            keep_stats: None,
            verify: Some(VerifyOptions::default()),
            require_end_to_end: false,
            require_all_folded: false,
            min_folded: None,
            interrupt: Interrupt::default(),
        }
    }
}

impl FoldJob {
    pub(crate) fn gates(&self) -> Gates {
        Gates {
            end_to_end: self.require_end_to_end,
            all_folded: self.require_all_folded,
            min_folded: self.min_folded,
        }
    }
}

/// Folds a model. The report says everything; its `failure` tells whether the answer is "no" (exit code 1 of the
/// command): then nothing was written.
///
/// # Errors
/// If the model cannot be read or the output cannot be written; [`Error::Interrupted`] if the job was interrupted.
pub fn fold(job: &FoldJob, progress: &dyn Progress) -> Result<FoldReport> {
    if let Some(output) = &job.output
        && !job.force
        && output.exists()
    {
        return Err(Error::Request(format!(
            "{}: exists already; --force replaces it",
            output.display()
        )));
    }
    if let Some(stats) = &job.keep_stats {
        files::check_free(stats, job.force)?;
    }
    // Where nobody else wants to know the weights before they are written, the writer is the first to read them.
    if job.output.is_some()
        && job.verify.is_none()
        && job.keep_stats.is_none()
        && let Some(report) = fold_unseen(job, progress)?
    {
        return Ok(report);
    }
    let model = open(job, progress)?;
    let plan = fold::plan(&model, &job.fold).map_err(|error| error.in_file(&job.input))?;
    let input = describe_input(&model, &job.input);
    carry_out(job, input, Some(model), plan, progress)
}

/// Folds without looking at weights before they are written. `None` if one is bad, or if there is anything else to say than what
/// was written: then a plan that looks must decide.
fn fold_unseen(job: &FoldJob, progress: &dyn Progress) -> Result<Option<FoldReport>> {
    let model = open(job, progress)?;
    let input = describe_input(&model, &job.input);
    // Of very many nodes, a copy of the model is as large as all that is needed besides, so the plan gets the only one.
    let Ok(Some(plan)) = fold::plan_unseen(model, &job.fold) else {
        return Ok(None);
    };
    match carry_out(job, input, None, plan, progress) {
        Err(Error::Model(ModelError::NotFinite)) => Ok(None),
        done => done.map(|report| Some(report).filter(|report| report.output.is_some())),
    }
}

/// The model, about to be planned.
fn open(job: &FoldJob, progress: &dyn Progress) -> Result<Model> {
    progress.begin(Phase::Reading, None);
    let model = Model::open(&job.input)?;
    progress.begin(Phase::Planning, None);
    Ok(model)
}

/// What follows the plan: the proof, the output, the report. The proof and the kept statistics need the model as it was.
fn carry_out(
    job: &FoldJob,
    input: InputFile,
    original: Option<Model>,
    mut plan: Plan,
    progress: &dyn Progress,
) -> Result<FoldReport> {
    let hashing = (job.hash || job.provenance).then(|| hash::in_background(&job.input));
    let needed = || {
        let gone = || Error::Request("internal error: the original is gone".to_owned());
        original.as_ref().ok_or_else(gone)
    };
    let verification = match &job.verify {
        _ if job.output.is_none() || !plan.errors.is_empty() => None,
        None => Some(Verification::skipped()),
        Some(options) => {
            progress.begin(Phase::Proving, None);
            let options = options.ended_by(&job.interrupt);
            let proof = verify::prove(needed()?, &plan, &job.fold, &options);
            Some(proof.map_err(|error| error.in_file(&job.input))?)
        }
    };
    // The plan's lists are the report's from here on, and nobody asks for the proof's any more: of very many nodes they are large.
    (plan.routes, plan.merges) = (Vec::new(), Vec::new());
    let mut report = FoldReport {
        schema: "bnkit.fold/1",
        tool: Tool::default(),
        input,
        summary: plan.summary.clone(),
        sites: std::mem::take(&mut plan.sites),
        merges: std::mem::take(&mut plan.merged),
        merges_refused: std::mem::take(&mut plan.merges_refused),
        chains: std::mem::take(&mut plan.chains),
        data_norms: std::mem::take(&mut plan.data_norms),
        cleanup: std::mem::take(&mut plan.cleanup),
        warnings: std::mem::take(&mut plan.warnings),
        errors: plan.errors.clone(),
        failure: None,
        verification,
        kept_stats: None,
        profiles: Vec::new(),
        state: None,
        output: None,
    };
    report.input.sha256 = hashing.map(hash::Hashing::finish).transpose()?;
    report.failure = job.gates().failure(&report);
    if let (Some(output), None) = (&job.output, &report.failure) {
        progress.begin(Phase::Writing, Some(report.input.bytes));
        job.interrupt.go_on()?;
        record(&mut plan, job, &report)?;
        // Before the model, as all that belongs to it: a folded model without its statistics cannot be undone.
        if let Some(stats) = &job.keep_stats {
            plan.sites.clone_from(&report.sites);
            files::write(stats, job.force, &plan.kept_stats(needed()?)?)?;
            report.kept_stats = Some(stats.display().to_string());
        }
        drop(original);
        report.output = Some(write(&plan, output, job, progress)?);
    }
    if !job.hash {
        report.input.sha256 = None;
    }
    Ok(report)
}

/// What a fold must reach before anything is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gates {
    /// The proof must be end to end.
    pub(crate) end_to_end: bool,
    /// No BatchNorm may be kept.
    pub(crate) all_folded: bool,
    /// The share of BatchNorms that must fold.
    pub(crate) min_folded: Option<f64>,
}

impl Gates {
    /// Why the answer is "no", in one sentence.
    pub(crate) fn failure(self, report: &FoldReport) -> Option<String> {
        self.of_fold(report).or_else(|| self.of_proof(report))
    }

    /// What is wrong with the fold.
    pub(crate) fn of_fold(self, report: &FoldReport) -> Option<String> {
        if let Some(finding) = report.errors.first() {
            let more = match report.errors.len() {
                1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            return Some(format!(
                "bad statistics: {}: {}{more}",
                finding.node, finding.message
            ));
        }
        let kept = report
            .sites
            .iter()
            .filter(|site| site.decision == Decision::Kept)
            .count();
        if self.all_folded && kept > 0 {
            return Some(format!(
                "{kept} of {} BatchNorms are kept, and all were required to fold",
                report.sites.len()
            ));
        }
        let (share, required) = (report.summary.folded_share(), self.min_folded?);
        (share < required).then(|| {
            format!(
                "{:.1} % of the BatchNorms fold, and {:.1} % are required",
                share * 100.0,
                required * 100.0
            )
        })
    }

    /// What is wrong with the proof.
    pub(crate) fn of_proof(self, report: &FoldReport) -> Option<String> {
        let verification = report.verification.as_ref()?;
        match verification.verdict {
            Verdict::NotEquivalent => Some(match &verification.culprit {
                Some(culprit) => {
                    format!("the folded model is not equivalent: \"{culprit}\" breaks it")
                }
                None => "the folded model is not equivalent".to_owned(),
            }),
            Verdict::EquivalentLocal | Verdict::Skipped if self.end_to_end => Some(format!(
                "the proof is not end to end{}",
                verification
                    .notes
                    .first()
                    .map_or(String::new(), |note| format!(": {note}"))
            )),
            _ => None,
        }
    }
}

/// The record in the output's `metadata_props`.
fn record(plan: &mut Plan, job: &FoldJob, report: &FoldReport) -> Result<()> {
    let before = plan
        .apply()
        .metadata()
        .iter()
        .find(|(key, _)| key == "bnkit.folded");
    let before: usize = before
        .and_then(|(_, count)| count.parse().ok())
        .unwrap_or(0);
    let folded = before + report.summary.folded;
    plan.set_metadata("bnkit.version", env!("CARGO_PKG_VERSION"))?;
    plan.set_metadata("bnkit.folded", &folded.to_string())?;
    if job.provenance {
        plan.set_metadata(
            "bnkit.input.sha256",
            report.input.sha256.as_deref().unwrap_or(""),
        )?;
        let verdict = report
            .verification
            .as_ref()
            .map_or(Verdict::Skipped, |proof| proof.verdict);
        plan.set_metadata("bnkit.verdict", verdict.name())?;
    }
    Ok(())
}

fn write(plan: &Plan, output: &Path, job: &FoldJob, progress: &dyn Progress) -> Result<OutputFile> {
    let told = |done: u64, _: u64| progress.advance(done);
    let saved = plan.apply().save(
        output,
        SaveOptions {
            force: job.force,
            progress: Some(&told),
        },
    )?;
    Ok(OutputFile {
        path: output.display().to_string(),
        sha256: job.hash.then(|| hash::of_file(output)).transpose()?,
        bytes: saved.bytes,
        data: saved.data_file.map(|path| path.display().to_string()),
    })
}

/// What a report says of a model that was read.
pub(crate) fn describe_input(model: &Model, path: &Path) -> InputFile {
    InputFile {
        path: path.display().to_string(),
        sha256: None,
        bytes: model.source().len() + external_bytes(model),
        opset: model.scope(model.main()).onnx_opset(),
        ir_version: model.ir_version,
        producer: model.producer.clone(),
    }
}

/// The size of the external data files that the model refers to; those that are missing show themselves elsewhere.
fn external_bytes(model: &Model) -> u64 {
    let Some(dir) = model.dir() else { return 0 };
    let mut locations: Vec<&str> = model
        .constants()
        .filter_map(|tensor| match &tensor.payload {
            Payload::External(external) => Some(external.location.as_str()),
            _ => None,
        })
        .collect();
    locations.sort_unstable();
    locations.dedup();
    let size =
        |location: &str| std::fs::metadata(dir.join(location)).map_or(0, |metadata| metadata.len());
    locations.into_iter().map(size).sum()
}

/// Compares two models by running both.
///
/// # Errors
/// If a model cannot be read, or the engine cannot run one of them.
pub fn verify(
    a: &Path,
    b: &Path,
    options: &VerifyOptions,
    hash: bool,
    progress: &dyn Progress,
) -> Result<VerifyReport> {
    progress.begin(Phase::Reading, None);
    let (first, second) = (Model::open(a)?, Model::open(b)?);
    let hashing = hash.then(|| (hash::in_background(a), hash::in_background(b)));
    progress.begin(Phase::Proving, None);
    let verification = verify::compare(&first, &second, options).map_err(|error| match error {
        Error::Request(why) => {
            Error::Request(format!("{} and {}: {why}", a.display(), b.display()))
        }
        other => other,
    })?;
    let (mut a, mut b) = (describe_input(&first, a), describe_input(&second, b));
    if let Some((of_a, of_b)) = hashing {
        a.sha256 = Some(of_a.finish()?);
        b.sha256 = Some(of_b.finish()?);
    }
    Ok(VerifyReport {
        schema: "bnkit.verify/1",
        tool: Tool::default(),
        a,
        b,
        verification,
        failure: None,
    })
}
