//! `release`: check, validate or recalibrate, fold, prove, measure, and write only if there is nothing to object to.
//!
//! Each stage is a job of its own command. A stage that fails does not keep the others from running, as far as they make sense: somebody
//! whose release is blocked wants to know all reasons at once. What they write lies in a temporary folder until all have passed.
//!
//! ```
//! use bnkit::pipeline::Quiet;
//! use bnkit::release::{ReleaseJob, release};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let output = folder.path().join("model.onnx");
//! let job = ReleaseJob::new("../../testdata/models/tiny_resnet.onnx", &output);
//! let report = release(&job, &Quiet)?;
//! assert_eq!(report.failure, None);
//! assert!(output.exists());
//! # Ok(())
//! # }
//! ```

mod report;

use std::path::{Path, PathBuf};

use bnkit_model::format::Format;
use bnkit_model::onnx::{Model, SaveOptions};
use bnkit_model::temporary::Folder;

use crate::accuracy::{AccuracyReport, measure};
use crate::calibrate::{
    DataOptions, Interrupt, RecalibrateJob, RecalibrateReport, ValidateJob, ValidateReport, files,
    recalibrate, validate,
};
use crate::check::{CheckJob, check};
use crate::pipeline::{self, FoldJob, Phase, Progress, describe_input};
use crate::report::{FoldReport, OutputFile, Tool};
use crate::{Error, Result, checkpoint, hash, profile};

pub use report::{ReleaseReport, Stage, StageReport, Status};

/// A release to do. The inputs and outputs of the jobs in it are those of the release.
#[derive(Debug, Clone)]
pub struct ReleaseJob {
    /// The ONNX model to read.
    pub input: PathBuf,
    /// The model to write.
    pub output: PathBuf,
    /// Whether an existing output may be replaced.
    pub force: bool,
    /// Whether hashes are wanted in the report.
    pub hash: bool,
    /// Whether profiles of the BatchNorms are wanted in the report of the fold.
    pub profiles: bool,
    /// How the model is checked.
    pub check: CheckJob,
    /// What is done about its statistics.
    pub calibration: Calibration,
    /// How it is folded and proved.
    pub fold: FoldJob,
    /// Labelled data, to measure the accuracy at each stage.
    pub labelled: Option<DataOptions>,
    /// The largest drop of top-1 from the model as it was read that is accepted, as a share; needs `labelled`.
    pub max_accuracy_drop: Option<f64>,
    /// What reproduces the stages, for the report.
    pub commands: Commands,
    /// Ends the job between two batches.
    pub interrupt: Interrupt,
}

/// What is done about running statistics before the fold.
#[derive(Debug, Clone, Default)]
pub enum Calibration {
    /// Nothing.
    #[default]
    None,
    /// They are compared with data.
    Validate(Box<ValidateJob>),
    /// They are replaced.
    Recalibrate(Box<RecalibrateJob>),
}

/// The commands that do the stages alone.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    /// Of the check.
    pub check: Option<String>,
    /// Of validation or recalibration.
    pub calibration: Option<String>,
    /// Of the fold and its proof.
    pub fold: Option<String>,
    /// Of the accuracy.
    pub accuracy: Option<String>,
}

impl ReleaseJob {
    /// Checks and folds `input` into `output`, with all defaults.
    pub fn new(input: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        let (input, output) = (input.into(), output.into());
        Self {
            check: CheckJob::new(&input),
            fold: FoldJob::new(&input, &output),
            input,
            output,
            force: false,
            hash: false,
            profiles: false,
            calibration: Calibration::None,
            labelled: None,
            max_accuracy_drop: None,
            commands: Commands::default(),
            interrupt: Interrupt::default(),
        }
    }
}

/// Takes a model through all stages. The report says everything; its `failure` tells whether the answer is "no": then nothing was
/// written, and what was there is as it was.
///
/// # Errors
/// If something cannot be read, run or written, with the stage; [`Error::Interrupted`] if it was interrupted.
pub fn release(job: &ReleaseJob, progress: &dyn Progress) -> Result<ReleaseReport> {
    files::check_free(&job.output, job.force)?;
    if checkpoint::format(&job.input)? != Format::Onnx {
        return Err(Error::Request(format!(
            "{}: a release starts from an ONNX model; put a state dict into its graph with bnkit convert --weights first",
            job.input.display()
        )));
    }
    if job.max_accuracy_drop.is_some() && job.labelled.is_none() {
        return Err(Error::Request(
            "a limit of the accuracy needs labels".to_owned(),
        ));
    }
    progress.begin(Phase::Reading, None);
    let model = Model::open(&job.input)?;
    let hashing = job.hash.then(|| hash::in_background(&job.input));
    let folder = Folder::beside(&job.output)?;
    let mut run = Run {
        job,
        progress,
        folder: &folder,
        stages: Vec::new(),
        statistics: job.input.clone(),
        folded: None,
    };
    run.check().map_err(in_stage("check"))?;
    run.calibrate()?;
    run.fold().map_err(in_stage("fold"))?;
    run.accuracy(&model).map_err(in_stage("accuracy"))?;
    let (stages, folded) = (run.stages, run.folded);
    let mut report = ReleaseReport {
        schema: "bnkit.release/1",
        tool: Tool::default(),
        input: describe_input(&model, &job.input),
        stages,
        output: None,
        failure: None,
    };
    report.conclude();
    report.input.sha256 = hashing.map(hash::Hashing::finish).transpose()?;
    if job.interrupt.requested() {
        return Err(Error::Interrupted);
    }
    if let (None, Some(folded)) = (&report.failure, folded) {
        report.output = Some(deliver(job, &folded, progress)?);
    }
    Ok(report)
}

fn in_stage(stage: &'static str) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Interrupted => Error::Interrupted,
        error => Error::Stage {
            stage,
            source: Box::new(error),
        },
    }
}

/// Puts the folded model in its place.
fn deliver(job: &ReleaseJob, folded: &Path, progress: &dyn Progress) -> Result<OutputFile> {
    let model = Model::open(folded)?;
    progress.begin(Phase::Writing, Some(model.source().len()));
    let told = |done: u64, _: u64| progress.advance(done);
    let options = SaveOptions {
        force: job.force,
        progress: Some(&told),
    };
    let saved = model.save(&job.output, options)?;
    Ok(OutputFile {
        path: job.output.display().to_string(),
        sha256: job.hash.then(|| hash::of_file(&job.output)).transpose()?,
        bytes: saved.bytes,
        data: saved.data_file.map(|path| path.display().to_string()),
    })
}

/// A release under way.
struct Run<'a> {
    job: &'a ReleaseJob,
    progress: &'a dyn Progress,
    folder: &'a Folder,
    stages: Vec<Stage>,
    /// The model with the statistics that are folded.
    statistics: PathBuf,
    /// The folded model.
    folded: Option<PathBuf>,
}

impl Run<'_> {
    fn failed(&self, stage: &str) -> bool {
        let failed = |it: &Stage| it.name == stage && it.status == Status::Failed;
        self.stages.iter().any(failed)
    }

    fn check(&mut self) -> Result<()> {
        let job = CheckJob {
            input: self.job.input.clone(),
            hash: false,
            ..self.job.check.clone()
        };
        let report = check(&job, self.progress)?;
        let failure = report.failure.clone();
        let command = self.job.commands.check.as_ref();
        let report = Some(StageReport::Check(Box::new(report)));
        self.stages
            .push(Stage::ran("check", failure, command, report));
        Ok(())
    }

    fn calibrate(&mut self) -> Result<()> {
        let command = self.job.commands.calibration.as_ref();
        match &self.job.calibration {
            Calibration::None => {
                let note = "no calibration data";
                self.stages.push(Stage::skipped("validate", note));
            }
            Calibration::Validate(job) => {
                let report = self.validate(job).map_err(in_stage("validate"))?;
                let failure = report.failure.clone();
                let report = Some(StageReport::Validate(Box::new(report)));
                self.stages
                    .push(Stage::ran("validate", failure, command, report));
            }
            Calibration::Recalibrate(job) => {
                let report = self.recalibrate(job).map_err(in_stage("recalibrate"))?;
                let failure = report.failure.clone();
                let report = Some(StageReport::Recalibrate(Box::new(report)));
                self.stages
                    .push(Stage::ran("recalibrate", failure, command, report));
            }
        }
        Ok(())
    }

    fn validate(&self, job: &ValidateJob) -> Result<ValidateReport> {
        let job = ValidateJob {
            input: self.job.input.clone(),
            hash: false,
            interrupt: self.job.interrupt.clone(),
            ..job.clone()
        };
        validate(&job, self.progress)
    }

    fn recalibrate(&mut self, job: &RecalibrateJob) -> Result<RecalibrateReport> {
        let output = self.folder.path().join("recalibrated.onnx");
        let job = RecalibrateJob {
            input: self.job.input.clone(),
            output: Some(output.clone()),
            partial: None,
            fold: None,
            hash: false,
            interrupt: self.job.interrupt.clone(),
            ..job.clone()
        };
        let mut report = recalibrate(&job, self.progress)?;
        if report.output.take().is_some() {
            self.statistics = output;
        }
        Ok(report)
    }

    fn fold(&mut self) -> Result<()> {
        if self.failed("recalibrate") {
            let note = "there are no new statistics to fold";
            self.stages.push(Stage::skipped("fold", note));
            self.stages.push(Stage::skipped("verify", note));
            return Ok(());
        }
        // Its own name, because the names of data files follow from it.
        let name = self.job.output.file_name().unwrap_or_default();
        let folded = self.folder.path().join("folded").join(name);
        std::fs::create_dir_all(self.folder.path().join("folded")).map_err(|error| {
            bnkit_model::Error::io(self.folder.path(), "cannot create a folder in it", error)
        })?;
        let job = FoldJob {
            input: self.statistics.clone(),
            output: Some(folded.clone()),
            hash: false,
            interrupt: self.job.interrupt.clone(),
            ..self.job.fold.clone()
        };
        let mut report = pipeline::fold(&job, self.progress)?;
        let written = report.output.take().is_some();
        if self.job.profiles {
            let after = written.then_some(folded.as_path());
            report.profiles = profile::profiles(&job.input, after, &report.sites)?;
        }
        report.input.path = self.job.input.display().to_string();
        self.folded = written.then_some(folded);
        self.judge_fold(&job, report);
        Ok(())
    }

    /// A fold and its proof are two stages.
    fn judge_fold(&mut self, job: &FoldJob, report: FoldReport) {
        let command = self.job.commands.fold.as_ref();
        let (of_fold, of_proof) = (job.gates().of_fold(&report), job.gates().of_proof(&report));
        let proved = report.verification.is_some() && job.verify.is_some();
        let report = Some(StageReport::Fold(Box::new(report)));
        self.stages
            .push(Stage::ran("fold", of_fold, command, report));
        self.stages.push(match (proved, &of_proof, &job.verify) {
            (true, ..) | (_, Some(_), _) => Stage::ran("verify", of_proof, command, None),
            (false, None, None) => Stage::skipped("verify", "not asked for"),
            (false, None, Some(_)) => Stage::skipped("verify", "there is nothing to prove"),
        });
    }

    fn accuracy(&mut self, model: &Model) -> Result<()> {
        let job = self.job;
        let Some(data) = &job.labelled else {
            self.stages.push(Stage::skipped("accuracy", "no labels"));
            return Ok(());
        };
        let of = |model: &Model, path: &Path| {
            let found = measure(model, path, data, &job.interrupt, self.progress)?;
            found.ok_or_else(|| Error::Request("the data has no labels".to_owned()))
        };
        let mut report = AccuracyReport::new(of(model, &job.input)?, job.max_accuracy_drop);
        if self.statistics != job.input {
            let accuracy = of(&Model::open(&self.statistics)?, &job.input)?;
            report.add("recalibrated", accuracy);
        }
        if let Some(folded) = &self.folded {
            report.add("folded", of(&Model::open(folded)?, &job.input)?);
        }
        let failure = report.failure();
        let command = job.commands.accuracy.as_ref();
        let report = Some(StageReport::Accuracy(report));
        self.stages
            .push(Stage::ran("accuracy", failure, command, report));
        Ok(())
    }
}
