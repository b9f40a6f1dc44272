//! `recalibrate`: run the data (or read statistics), put the new statistics into the model, write it.

use std::path::Path;

use bnkit_engine::Statistics as Normalise;
use bnkit_model::onnx::{Model, Precision};

use super::conclude::{begun, conclude, deliver};
use super::deliver::Delivery;
use super::{RecalibrateJob, Source};
use crate::accuracy::{AccuracyReport, measure};
use crate::calibrate::apply::{self, Statistics};
use crate::calibrate::batches::Batches;
use crate::calibrate::exports;
use crate::calibrate::modules::{Module, survey};
use crate::calibrate::network::Network;
use crate::calibrate::observe::{Pass, Seen};
use crate::calibrate::options::{DataOptions, Method, MethodOptions, Shard};
use crate::calibrate::report::{DataUsed, LayerChange, Outcome, RecalibrateReport};
use crate::calibrate::{files, outcome, partial, sequential};
use crate::pipeline::{Phase, Progress};
use crate::report::Warning;
use crate::state::recalibrate::Opened;
use crate::{Error, Result, hash};

/// Re-estimates the running statistics of a model and writes it.
///
/// # Errors
/// If something cannot be read, run or written, or nothing may be estimated this way; [`Error::Interrupted`] if the job was
/// interrupted and leaves no partial file.
pub fn recalibrate(job: &RecalibrateJob, progress: &dyn Progress) -> Result<RecalibrateReport> {
    check(job)?;
    let delivery = Delivery {
        input: &job.input,
        output: job.output.as_deref().filter(|_| job.partial.is_none()),
        force: job.force,
        hash: job.hash,
        fold: job.fold.as_ref(),
        note: note(job),
        interrupt: job.interrupt.clone(),
    };
    delivery.check()?;
    progress.begin(Phase::Reading, None);
    let opened = Opened::open(&job.input, job.graph.as_deref())?;
    check_state_dict(job, &opened)?;
    let model = &opened.model;
    let hashing = job.hash.then(|| hash::in_background(&job.input));
    let modules = survey(model, &job.selection).map_err(|error| error.in_file(&job.input))?;
    if modules.iter().all(|module| module.target().is_none()) {
        return Err(nothing_to_do(&job.input, &modules));
    }
    let mut report = begun(&opened, &job.input, &modules);
    let new = match &job.source {
        Source::Stats(path) => from_file(path, model, &modules, &mut report)?,
        Source::Data(data) => from_data(job, data, model, &modules, &mut report, progress)?,
        Source::Batches => return refuse_batches(),
    };
    report.summary = outcome::count(&report.layers);
    report.warnings.extend(never_ran(&report.layers));
    if report.partial.is_none() {
        if job.interrupt.requested() {
            return Err(Error::Interrupted);
        }
        report.accuracy = accuracy(job, model, &modules, &new, progress)?;
        if let Some(failure) = report.accuracy.as_ref().and_then(AccuracyReport::failure) {
            report.failure = Some(failure);
            report.input.sha256 = hashing.map(hash::Hashing::finish).transpose()?;
            return Ok(report);
        }
        deliver(
            job,
            &delivery,
            &opened,
            &modules,
            &new,
            &mut report,
            progress,
        )?;
        if let (Source::Data(data), Some(accuracy), Some(_), Some(output)) =
            (&job.source, &mut report.accuracy, &job.fold, &report.output)
        {
            let path = Path::new(&output.path);
            let folded = Model::open(path)?;
            if let Some(found) = measure(&folded, path, data, &job.interrupt, progress)? {
                accuracy.add("folded", found);
            }
        }
    }
    report.input.sha256 = hashing.map(hash::Hashing::finish).transpose()?;
    Ok(report)
}

/// How often the network is right before and after, if the data has labels.
fn accuracy(
    job: &RecalibrateJob,
    model: &Model,
    modules: &[Module],
    new: &[Option<Statistics>],
    progress: &dyn Progress,
) -> Result<Option<AccuracyReport>> {
    let Source::Data(data) = &job.source else {
        return Ok(None);
    };
    let Some(before) = measure(model, &job.input, data, &job.interrupt, progress)? else {
        return Ok(None);
    };
    let mut report = AccuracyReport::new(before, job.max_accuracy_drop);
    let changed = apply::apply(model, modules, new)?;
    if let Some(after) = measure(&changed, &job.input, data, &job.interrupt, progress)? {
        report.add("recalibrated", after);
    }
    Ok(Some(report))
}

/// Refuses what cannot be done with a state dict.
pub(super) fn check_state_dict(job: &RecalibrateJob, opened: &Opened) -> Result<()> {
    let refuse = |message: &str| Err(Error::Request(message.to_owned()));
    if !opened.is_state_dict() {
        return Ok(());
    }
    if job.partial.is_some() {
        return refuse(
            "a state dict is recalibrated in one run: for shards, put its weights into the graph (bnkit convert --weights)",
        );
    }
    if job.fold.is_some() {
        return refuse("--fold: recalibrate the state dict first, then fold what was written");
    }
    Ok(())
}

fn refuse_batches<T>() -> Result<T> {
    Err(Error::Request(
        "batches that come one after the other are for recalibrate_batches and Recalibrator"
            .to_owned(),
    ))
}

/// Refuses what does not go together.
pub(super) fn check(job: &RecalibrateJob) -> Result<()> {
    let refuse = |message: &str| Err(Error::Request(message.to_owned()));
    check_method(&job.method)?;
    let labelled = matches!(&job.source, Source::Data(data) if data.labels.is_some());
    if job.max_accuracy_drop.is_some() && !labelled {
        return refuse("a limit of the accuracy needs labels");
    }
    let sharded = job.shard != Shard::WHOLE || job.partial.is_some();
    if job.shard != Shard::WHOLE && job.partial.is_none() {
        return refuse(
            "a shard is only a part: write it with --partial FILE and put the parts together with bnkit merge",
        );
    }
    if sharded && matches!(job.source, Source::Stats(_)) {
        return refuse("statistics from a file have no shards");
    }
    if sharded && job.method.method == Method::Sequential {
        return refuse("the method sequential needs all data in each pass: it has no shards");
    }
    if sharded && job.fold.is_some() {
        return refuse("a partial file is no model to fold: fold when the parts are put together");
    }
    if job.until_stable && sharded {
        return refuse("a shard cannot know whether all of them are stable");
    }
    if job.until_stable && job.method.method == Method::Ema {
        return refuse(
            "an exponential average never settles: its error depends on the momentum, not on the number of batches",
        );
    }
    match &job.partial {
        Some(partial) => files::check_free(partial, job.force),
        None => Ok(()),
    }
}

/// Refuses numbers that a method cannot work with.
pub(super) fn check_method(options: &MethodOptions) -> Result<()> {
    if options.momentum.is_some() && options.method != Method::Ema {
        return Err(Error::Request(format!(
            "the method {} has no momentum: it is for ema",
            options.method.name()
        )));
    }
    if options.method == Method::Sequential
        && (options.passes == 0 || options.tolerance.is_nan() || options.tolerance < 0.0)
    {
        return Err(Error::Request(
            "sequential needs at least one pass, and a tolerance of 0 or more".to_owned(),
        ));
    }
    Ok(())
}

pub(super) fn note(job: &RecalibrateJob) -> String {
    match job.source {
        Source::Stats(_) => "from statistics".to_owned(),
        Source::Data(_) | Source::Batches => describe(&job.method),
    }
}

/// How statistics were made, in the words of the options.
pub(super) fn describe(options: &MethodOptions) -> String {
    format!("{} {}", options.method.name(), options.convention.name())
}

/// Why no layer can get new statistics.
pub(super) fn nothing_to_do(path: &Path, modules: &[Module]) -> Error {
    let refused = modules
        .iter()
        .filter(|module| module.chosen)
        .find_map(|module| Some((module, module.stored.as_ref().err()?)));
    let message = match (modules, refused) {
        ([], _) => "it has no BatchNormalization nodes".to_owned(),
        (_, Some((module, refusal))) => format!(
            "no BatchNormalization has running statistics to work with; node \"{}\": {}",
            module.name.node, refusal.message
        ),
        _ => "no BatchNormalization is left by --only and --skip".to_owned(),
    };
    bnkit_model::Error::invalid(message).in_file(path).into()
}

fn from_file(
    path: &Path,
    model: &Model,
    modules: &[Module],
    report: &mut RecalibrateReport,
) -> Result<Vec<Option<Statistics>>> {
    let new = exports::read(path, model, modules)?;
    let seen = Seen {
        states: vec![None; modules.len()],
        samples: 0,
        batches: 0,
        stopped_early: false,
        interrupted: false,
    };
    let errors = vec![None; modules.len()];
    report.layers = outcome::layers(modules, &new, &seen, &errors);
    for layer in &mut report.layers {
        if layer.outcome == Outcome::NeverRan {
            layer.outcome = Outcome::Kept;
            report.warnings.push(Warning {
                code: "no-statistics-in-file",
                message: format!(
                    "{}: it has no statistics for \"{}\", which keeps its own",
                    path.display(),
                    layer.layer.node
                ),
            });
        }
    }
    Ok(new)
}

fn from_data(
    job: &RecalibrateJob,
    data: &DataOptions,
    model: &Model,
    modules: &[Module],
    report: &mut RecalibrateReport,
    progress: &dyn Progress,
) -> Result<Vec<Option<Statistics>>> {
    // A momentum that cannot be is better known before the data is read.
    Seen::nothing(modules, &job.method)?;
    let batches = open(model, &job.input, data, job.shard)?;
    report.warnings.extend(batches.warnings.iter().cloned());
    let dims = batches.sample_dims();
    let network = Network::load(model, modules, &dims, job.dropout, job.threads)
        .map_err(|error| in_model(error, &job.input))?;
    let pass = Pass {
        network: &network,
        modules,
        batches: &batches,
        options: &job.method,
        until_stable: job.until_stable.then_some(job.stability),
        at_most: None,
        interrupt: &job.interrupt,
        progress,
    };
    let seen = if job.method.method == Method::Sequential {
        let (seen, passes) = sequential::run(&pass).map_err(|error| in_model(error, &job.input))?;
        report.passes = passes;
        seen
    } else {
        pass.run(&Normalise::Batch)
            .map_err(|error| in_model(error, &job.input))?
    };
    if seen.interrupted && job.partial.is_none() {
        return Err(Error::Interrupted);
    }
    let new = conclude(job, modules, &seen, report);
    if job.partial.is_none() {
        report.warnings.extend(unsettled(&job.method, report));
    }
    report.data = Some(used(data, &batches, job.shard, &seen));
    if let Some(path) = &job.partial {
        let common = partial::Job {
            model: partial::identity(model, &job.input)?,
            layers: partial::layers(modules),
            method: job.method.method,
            convention: job.method.convention,
            momentum: job.method.momentum,
            assume_constant: job.selection.assume_constant,
            dropout: job.dropout,
            batch_size: batches.batch_size,
            total_batches: batches.total,
            shuffle: data.shuffle,
        };
        report.partial = Some(partial::write(path, job.force, common, job.shard, seen)?);
    }
    Ok(new)
}

/// The data as batches for the inputs of a model.
pub(crate) fn open(
    model: &Model,
    path: &Path,
    data: &DataOptions,
    shard: Shard,
) -> Result<Batches> {
    let bytes = model.to_bytes(Precision::Stored)?;
    let specs = bnkit_engine::inputs(&bytes)
        .map_err(|error| in_model(Error::Request(error.to_string()), path))?;
    Batches::open(&specs, data, shard)
}

/// An error of the engine as one about the model's file.
pub(crate) fn in_model(error: Error, path: &Path) -> Error {
    match error {
        Error::Request(message) => bnkit_model::Error::invalid(message).in_file(path).into(),
        other => other,
    }
}

/// The data that was used.
pub(super) fn used(data: &DataOptions, batches: &Batches, shard: Shard, seen: &Seen) -> DataUsed {
    DataUsed {
        path: data.path.display().to_string(),
        samples: seen.samples,
        batches: seen.batches,
        batch_size: batches.batch_size,
        shard: (shard != Shard::WHOLE).then_some(shard),
        stopped_early: seen.stopped_early,
    }
}

fn unsettled(options: &MethodOptions, report: &RecalibrateReport) -> Option<Warning> {
    let last = report.passes.last()?;
    let change = last.mean_change.max(last.variance_change);
    (change >= options.tolerance).then(|| Warning {
        code: "not-settled",
        message: format!(
            "after {} passes the statistics still change by {change:.2e}, and {:e} was wanted: allow more passes",
            last.pass, options.tolerance
        ),
    })
}

/// A word on layers that no batch reached.
pub(super) fn never_ran(layers: &[LayerChange]) -> Option<Warning> {
    let names: Vec<&str> = layers
        .iter()
        .filter(|layer| layer.outcome == Outcome::NeverRan)
        .map(|layer| layer.layer.node.as_str())
        .collect();
    (!names.is_empty()).then(|| Warning {
        code: "never-ran",
        message: format!(
            "these BatchNorms never ran on the data (a branch was not taken, or nothing reads them) and keep their statistics: {}",
            names.join(", ")
        ),
    })
}
