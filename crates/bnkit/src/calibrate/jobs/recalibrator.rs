//! A recalibration in steps: somebody else brings the batches, asks for the moments, puts them together, and ends it when they like.

use std::path::Path;
use std::sync::OnceLock;

use bnkit_engine::{InputSpec, Statistics as Normalise};
use bnkit_model::onnx::Precision;

use super::conclude::{begun, conclude, deliver};
use super::deliver::Delivery;
use super::recalibrate::{check, check_state_dict, in_model, never_ran, note, nothing_to_do};
use super::validate::{self, compare};
use super::{RecalibrateJob, Source, ValidateJob};
use crate::calibrate::batches::Batches;
use crate::calibrate::modules::{Module, survey};
use crate::calibrate::moments::{About, Collected, Moments, Target};
use crate::calibrate::network::Network;
use crate::calibrate::observe::{Seen, State, observe};
use crate::calibrate::options::{DataOptions, Method, Shard};
use crate::calibrate::partial;
use crate::calibrate::report::{DataUsed, RecalibrateReport, ValidateReport};
use crate::data::DataSet;
use crate::pipeline::Progress;
use crate::state::recalibrate::Opened;
use crate::{Error, Result, hash};

/// Observes batches one by one and makes running statistics of them.
///
/// The statistics are those of [`recalibrate`](super::recalibrate()) on the same batches, bit for bit, whether one recalibrator saw all
/// of them or several saw some each and their [`Moments`] were put together.
///
/// ```no_run
/// # use bnkit::calibrate::{DataOptions, RecalibrateJob, Recalibrator};
/// # use bnkit::pipeline::Quiet;
/// # fn batches() -> Vec<bnkit::data::DataSet> { Vec::new() }
/// # fn main() -> bnkit::Result<()> {
/// let mut recalibrator = Recalibrator::new(RecalibrateJob::of_batches("net.onnx"))?;
/// for batch in batches() {
///     recalibrator.observe(&batch, None)?;
/// }
/// recalibrator.write("new.onnx".as_ref(), false, &Quiet)?;
/// # Ok(())
/// # }
/// ```
pub struct Recalibrator {
    job: RecalibrateJob,
    opened: Opened,
    modules: Vec<Module>,
    inputs: Vec<InputSpec>,
    empty: Seen,
    /// Loaded for the shapes of the first batch.
    network: Option<Network>,
    identity: OnceLock<String>,
    collected: Collected,
    /// The number of the next batch that comes without one.
    next: u64,
}

impl Recalibrator {
    /// Opens the model of a job whose source is [`Source::Batches`].
    ///
    /// # Errors
    /// If the model cannot be read or nothing in it can be estimated, or if the job asks for what needs all data at hand: the method
    /// `sequential`, shards, labels.
    pub fn new(job: RecalibrateJob) -> Result<Self> {
        let refuse = |message: &str| Err(Error::Request(message.to_owned()));
        check(&job)?;
        if !matches!(job.source, Source::Batches) {
            return refuse("a recalibrator is given its batches one by one, and no other data");
        }
        if job.method.method == Method::Sequential {
            return refuse(
                "the method sequential needs all data in each pass: give it as arrays or files",
            );
        }
        if job.partial.is_some() {
            return refuse("a recalibrator has moments to hand over, and writes no partial file");
        }
        let opened = Opened::open(&job.input, job.graph.as_deref())?;
        check_state_dict(&job, &opened)?;
        let model = &opened.model;
        let modules = survey(model, &job.selection).map_err(|error| error.in_file(&job.input))?;
        if modules.iter().all(|module| module.target().is_none()) {
            return Err(nothing_to_do(&job.input, &modules));
        }
        let empty = Seen::nothing(&modules, &job.method)?;
        let inputs = bnkit_engine::inputs(&model.to_bytes(Precision::Stored)?)
            .map_err(|error| in_model(Error::Request(error.to_string()), &job.input))?;
        Ok(Self {
            collected: Collected::nothing(&empty, job.method.convention),
            job,
            opened,
            modules,
            inputs,
            empty,
            network: None,
            identity: OnceLock::new(),
            next: 0,
        })
    }

    /// Runs a batch: tensors with samples along their leading axis, named as in [`DataOptions::of_tensors`]. Gives its number.
    ///
    /// `index` is the number of the batch among all batches of the job, from 0: it says in which order batches are taken up, and one
    /// that is observed again counts once. Without it a batch comes after all that were observed or absorbed so far.
    ///
    /// # Errors
    /// If the batch does not fit the model, has a NaN or an infinity, or another batch has its number; then nothing of it counts.
    /// [`Error::Interrupted`] if the job was interrupted before.
    pub fn observe(&mut self, batch: &DataSet, index: Option<u64>) -> Result<u64> {
        if self.job.interrupt.requested() {
            return Err(Error::Interrupted);
        }
        let index = index.unwrap_or(self.next);
        let number = usize::try_from(index)
            .ok()
            .filter(|&number| number < usize::MAX)
            .ok_or_else(|| Error::Request(format!("batch {index}: the number is too large")))?;
        let whole = DataOptions {
            tensors: Some(batch.clone()),
            batch_size: usize::MAX,
            ..DataOptions::new("(memory)")
        };
        let batches = Batches::open(&self.inputs, &whole, Shard::WHOLE)?;
        let samples = batches
            .whole_batch()
            .map_err(|error| in_batch(index, error))?;
        if self.network.is_none() {
            let loaded = Network::load(
                &self.opened.model,
                &self.modules,
                &batches.sample_dims(),
                self.job.dropout,
                self.job.threads,
            );
            self.network = Some(loaded.map_err(|error| in_model(error, &self.job.input))?);
        }
        let network = self.network.as_ref().ok_or(Error::Interrupted)?;
        let calls = observe(network, &self.modules, number, &samples, &Normalise::Batch)
            .map_err(|error| in_model(in_batch(index, error), &self.job.input))?;
        self.collected.push(index, samples.len() as u64, calls)?;
        self.next = self.next.max(index + 1);
        Ok(index)
    }

    /// What was seen so far.
    ///
    /// # Errors
    /// If the model's file cannot be read for its hash.
    pub fn moments(&self) -> Result<Moments> {
        Ok(Moments::new(self.about()?, self.collected.clone()))
    }

    /// What was seen so far, which this recalibrator then forgets: for workers that hand it over bit by bit. Numbers go on.
    ///
    /// # Errors
    /// If the model's file cannot be read for its hash.
    pub fn take(&mut self) -> Result<Moments> {
        let about = self.about()?;
        let nothing = Collected::nothing(&self.empty, self.job.method.convention);
        let collected = std::mem::replace(&mut self.collected, nothing);
        Ok(Moments::new(about, collected))
    }

    /// Adds what others have seen of the same model, with the same options.
    ///
    /// # Errors
    /// As [`Moments::merge`]; then nothing changed.
    pub fn absorb(&mut self, moments: &Moments) -> Result<()> {
        self.about()?.check(moments.about())?;
        self.collected.merge(moments.collected())?;
        self.next = self.next.max(self.collected.end());
        Ok(())
    }

    /// How many batches were seen.
    pub fn batches(&self) -> u64 {
        self.collected.batches()
    }

    /// How many samples were seen.
    pub fn samples(&self) -> u64 {
        self.collected.samples()
    }

    /// Whether enough was seen, by the job's stability. A moving average never has.
    ///
    /// # Errors
    /// If what was absorbed does not fit.
    pub fn is_stable(&self) -> Result<bool> {
        let seen = self.collected.seen()?;
        Ok(self.job.method.method != Method::Ema
            && seen.stable(&self.modules, &self.job.method, &self.job.stability))
    }

    /// What a recalibration with the batches so far would be: all of the report, and nothing written.
    ///
    /// # Errors
    /// If no batch was seen.
    pub fn report(&self) -> Result<RecalibrateReport> {
        self.deliver(None, false, &crate::pipeline::Quiet)
    }

    /// Writes a copy of the model with the new statistics, folded if the job says so.
    ///
    /// # Errors
    /// If no batch was seen, or the file cannot be written or exists already (without `force`). A fold that fails its proof is no
    /// error: the report's `failure` says it, and nothing was written.
    pub fn write(
        &self,
        output: &Path,
        force: bool,
        progress: &dyn Progress,
    ) -> Result<RecalibrateReport> {
        self.deliver(Some(output), force, progress)
    }

    /// Compares the stored statistics with what was seen, by the limits of `job`, of which nothing else is looked at.
    ///
    /// # Errors
    /// If fewer than two batches were seen, or the method is `ema`.
    pub fn validate(&self, job: &ValidateJob) -> Result<ValidateReport> {
        validate::check(&self.job.method)?;
        let seen = self.collected.seen()?;
        validate::check_seen(&seen)?;
        let job = ValidateJob {
            method: self.job.method,
            stability: self.job.stability,
            ..job.clone()
        };
        let mut report = compare(&job, &self.modules, &seen);
        report.input = self.opened.describe(&self.job.input);
        report.input.sha256 = self.hash()?;
        report.data = self.used();
        Ok(report)
    }

    /// Refuses an output that is in the way, before any work is done.
    pub(super) fn check_output(&self, output: Option<&Path>, force: bool) -> Result<()> {
        self.delivery(output, force).check()
    }

    fn delivery<'a>(&'a self, output: Option<&'a Path>, force: bool) -> Delivery<'a> {
        Delivery {
            input: &self.job.input,
            output,
            force,
            hash: self.job.hash,
            fold: self.job.fold.as_ref().filter(|_| output.is_some()),
            note: note(&self.job),
            interrupt: self.job.interrupt.clone(),
        }
    }

    fn deliver(
        &self,
        output: Option<&Path>,
        force: bool,
        progress: &dyn Progress,
    ) -> Result<RecalibrateReport> {
        let job = &self.job;
        if self.batches() == 0 {
            return Err(Error::Request(
                "no batch was observed: there is nothing to make statistics of".to_owned(),
            ));
        }
        let delivery = self.delivery(output, force);
        delivery.check()?;
        let seen = self.collected.seen()?;
        let mut report = begun(&self.opened, &job.input, &self.modules);
        let new = conclude(job, &self.modules, &seen, &mut report);
        report.data = Some(self.used());
        report.summary = crate::calibrate::outcome::count(&report.layers);
        report.warnings.extend(never_ran(&report.layers));
        deliver(
            job,
            &delivery,
            &self.opened,
            &self.modules,
            &new,
            &mut report,
            progress,
        )?;
        report.input.sha256 = self.hash()?;
        Ok(report)
    }

    fn hash(&self) -> Result<Option<String>> {
        let wanted = self.job.hash.then_some(&self.job.input);
        wanted.map(|path| hash::of_file(path)).transpose()
    }

    fn used(&self) -> DataUsed {
        DataUsed {
            path: "(memory)".to_owned(),
            samples: self.samples(),
            batches: self.batches(),
            batch_size: usize::try_from(self.collected.largest()).unwrap_or(usize::MAX),
            shard: None,
            stopped_early: false,
        }
    }

    fn about(&self) -> Result<About> {
        let model = match self.identity.get() {
            Some(known) => known.clone(),
            None => {
                let input = partial::identity(&self.opened.model, &self.job.input)?;
                let all = match &self.job.graph {
                    Some(graph) => format!("{input}+{}", hash::of_file(graph)?),
                    None => input,
                };
                self.identity.get_or_init(|| all).clone()
            }
        };
        let states = self.empty.states.iter();
        let target = |state: &Option<State>| {
            let history = state.as_ref()?.history;
            Some(Target { history })
        };
        Ok(About {
            model,
            layers: partial::layers(&self.modules),
            targets: states.map(target).collect(),
            method: self.job.method.method,
            convention: self.job.method.convention,
            dropout: self.job.dropout,
        })
    }
}

fn in_batch(index: u64, error: Error) -> Error {
    match error {
        Error::Request(message) => Error::Request(format!("batch {index}: {message}")),
        other => other,
    }
}
