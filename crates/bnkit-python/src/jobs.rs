//! One function for each job. Each gives the report as JSON, and the model if that goes back to Python.

use std::path::PathBuf;

use bnkit::calibrate::{
    self, DataOptions, FoldAfter, MergeJob, RecalibrateJob, Source, ValidateJob,
};
use bnkit::fold::Options;
use bnkit::pipeline::{self, FoldJob};
use bnkit::state::fold_checkpoint;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::Serialize;

use crate::data::Data;
use crate::errors::input_error;
use crate::model::{Input, Output};
use crate::options::{self, Cut, Drift, Estimate, Fold, Proof};
use crate::watch::Watch;

/// A report as JSON, and the model that goes back to Python.
type Answer<'py> = (String, Option<Bound<'py, PyBytes>>);

pub(crate) fn json(py: Python<'_>, report: &impl Serialize) -> PyResult<String> {
    serde_json::to_string_pretty(report).map_err(|error| input_error(py, error.to_string()))
}

/// What `bnkit inspect` does.
#[pyfunction]
pub(crate) fn inspect(py: Python<'_>, model: &Bound<'_, PyAny>, hash: bool) -> PyResult<String> {
    let input = Input::new(model)?;
    let path = &input.path;
    let name = |text| input.named(text);
    let watch = Watch::new(None);
    let of_state = watch.run(py, || bnkit::inspect::is_state_dict(path), name)?;
    let text = if of_state {
        json(py, &watch.run(py, || bnkit::inspect::state(path), name)?)?
    } else {
        let job = || bnkit::inspect::inspect(path, &Options::default(), hash);
        json(py, &watch.run(py, job, name)?)?
    };
    Ok(input.named(text))
}

/// What `bnkit fold` does.
#[pyfunction]
pub(crate) fn fold<'py>(
    py: Python<'py>,
    model: &Bound<'py, PyAny>,
    out: Option<PathBuf>,
    options: Fold,
    proof: Proof,
    data: Option<&Bound<'py, PyAny>>,
    hash: bool,
) -> PyResult<Answer<'py>> {
    let (input, output) = (Input::new(model)?, Output::new(py, out)?);
    let graph = options::graph(py, options.graph.as_ref())?;
    let watch = Watch::new(None);
    let job = FoldJob {
        output: (!options.dry_run).then(|| output.path.clone()),
        force: options.force,
        hash,
        provenance: options.provenance,
        fold: options.options(),
        keep_stats: options.keep_stats.clone(),
        verify: match options.verify {
            true => Some(proof.options(py, data)?),
            false => None,
        },
        require_end_to_end: options.require_end_to_end,
        require_all_folded: options.require_all_folded,
        min_folded: options.min_folded,
        interrupt: watch.interrupt.clone(),
        ..FoldJob::new(&input.path, &output.path)
    };
    let pairing = options.pairing(graph.as_ref());
    let name = |text| output.named(named(&input, graph.as_ref(), text));
    let report = watch.run(py, || fold_checkpoint(&job, &pairing, &watch), name)?;
    Ok((name(json(py, &report)?), output.bytes(py)?))
}

/// `text` with the names that a user knows a model and its graph by.
pub(crate) fn named(input: &Input, graph: Option<&Input>, text: String) -> String {
    let text = input.named(text);
    match graph {
        Some(graph) => graph.named(text),
        None => text,
    }
}

/// What `bnkit recalibrate` does.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "Python gives them names")]
pub(crate) fn recalibrate<'py>(
    py: Python<'py>,
    model: &Bound<'py, PyAny>,
    data: &Bound<'py, PyAny>,
    out: Option<PathBuf>,
    estimate: Estimate,
    cut: Cut,
    fold: bool,
    force: bool,
    hash: bool,
    callback: Option<Py<PyAny>>,
) -> PyResult<Answer<'py>> {
    let (input, output) = (Input::new(model)?, Output::new(py, out)?);
    let graph = options::graph(py, estimate.graph.as_ref())?;
    let watch = Watch::new(callback);
    let mut job = RecalibrateJob {
        output: Some(output.path.clone()),
        force,
        hash,
        fold: fold.then(|| estimate.fold()),
        interrupt: watch.interrupt.clone(),
        ..observing(py, &input, graph.as_ref(), &estimate)?
    };
    let name = |text| output.named(named(&input, graph.as_ref(), text));
    let report = match Data::new(data)? {
        Data::Batches(iterator) => {
            let most = cut.of_batches(py)?.unwrap_or(usize::MAX);
            let mut batches = watch.batches(iterator).take(most);
            let run = || calibrate::recalibrate_batches(&job, &mut batches, &watch);
            watch.run(py, run, name)?
        }
        at_hand => {
            job.max_accuracy_drop = cut.max_accuracy_drop;
            let data = cut.options(py, data_options(at_hand))?;
            if let Some(proof) = job.fold.as_mut().and_then(|fold| fold.verify.as_mut()) {
                data.prove_on(proof);
            }
            job.source = Source::Data(data);
            watch.run(py, || calibrate::recalibrate(&job, &watch), name)?
        }
    };
    Ok((name(json(py, &report)?), output.bytes(py)?))
}

/// A recalibration of batches, without an output.
pub(crate) fn observing(
    py: Python<'_>,
    input: &Input,
    graph: Option<&Input>,
    estimate: &Estimate,
) -> PyResult<RecalibrateJob> {
    Ok(RecalibrateJob {
        graph: graph.map(|graph| graph.path.clone()),
        method: estimate.method(py)?,
        selection: estimate.selection(),
        until_stable: estimate.until_stable,
        dropout: estimate.dropout,
        threads: estimate.threads,
        ..RecalibrateJob::of_batches(&input.path)
    })
}

fn data_options(data: Data) -> DataOptions {
    match data {
        Data::Path(path) => DataOptions::new(path),
        Data::Samples(tensors) => DataOptions {
            tensors: Some(tensors),
            ..DataOptions::new("(memory)")
        },
        Data::Batches(_) => DataOptions::new("(memory)"),
    }
}

/// What `bnkit validate` does.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "Python gives them names")]
pub(crate) fn validate(
    py: Python<'_>,
    model: &Bound<'_, PyAny>,
    data: &Bound<'_, PyAny>,
    estimate: Estimate,
    cut: Cut,
    drift: Drift,
    hash: bool,
    callback: Option<Py<PyAny>>,
) -> PyResult<String> {
    let input = Input::new(model)?;
    let graph = options::graph(py, estimate.graph.as_ref())?;
    let watch = Watch::new(callback);
    let mut job = ValidateJob {
        graph: graph.as_ref().map(|graph| graph.path.clone()),
        hash,
        method: estimate.method(py)?,
        selection: estimate.selection(),
        limits: drift.limits(),
        worst: drift.worst,
        until_stable: estimate.until_stable,
        dropout: estimate.dropout,
        threads: estimate.threads,
        interrupt: watch.interrupt.clone(),
        ..ValidateJob::new(&input.path, "(memory)")
    };
    let name = |text| named(&input, graph.as_ref(), text);
    let report = match Data::new(data)? {
        Data::Batches(iterator) => {
            let most = cut.of_batches(py)?.unwrap_or(usize::MAX);
            let mut batches = watch.batches(iterator).take(most);
            let run = || calibrate::validate_batches(&job, &mut batches, &watch);
            watch.run(py, run, name)?
        }
        at_hand => {
            job.data = cut.options(py, data_options(at_hand))?;
            watch.run(py, || calibrate::validate(&job, &watch), name)?
        }
    };
    Ok(name(json(py, &report)?))
}

/// What `bnkit verify` does.
#[pyfunction]
pub(crate) fn verify(
    py: Python<'_>,
    a: &Bound<'_, PyAny>,
    b: &Bound<'_, PyAny>,
    proof: Proof,
    data: Option<&Bound<'_, PyAny>>,
    end_to_end: bool,
    hash: bool,
) -> PyResult<String> {
    let (first, second) = (Input::new(a)?, Input::new(b)?);
    let mut options = proof.options(py, data)?;
    let watch = Watch::new(None);
    options.interrupt = watch.interrupt.clone();
    let name = |text| second.named(first.named(text));
    let run = || pipeline::verify(&first.path, &second.path, &options, hash, &watch);
    let mut report = watch.run(py, run, name)?;
    report.failure = report.objection(end_to_end);
    Ok(name(json(py, &report)?))
}

/// What `bnkit diff` does.
#[pyfunction]
pub(crate) fn diff(
    py: Python<'_>,
    a: &Bound<'_, PyAny>,
    b: &Bound<'_, PyAny>,
    eps: Option<f64>,
) -> PyResult<String> {
    let (first, second) = (Input::new(a)?, Input::new(b)?);
    let name = |text| second.named(first.named(text));
    let run = || bnkit::diff::diff(&first.path, &second.path, eps);
    let report = Watch::new(None).run(py, run, name)?;
    Ok(name(json(py, &report)?))
}

/// What `bnkit merge` does.
#[pyfunction]
pub(crate) fn merge<'py>(
    py: Python<'py>,
    partials: Vec<PathBuf>,
    model: &Bound<'py, PyAny>,
    out: Option<PathBuf>,
    fold: bool,
    force: bool,
    hash: bool,
) -> PyResult<Answer<'py>> {
    let (input, output) = (Input::new(model)?, Output::new(py, out)?);
    let watch = Watch::new(None);
    let job = MergeJob {
        force,
        hash,
        fold: fold.then(FoldAfter::default),
        interrupt: watch.interrupt.clone(),
        ..MergeJob::new(partials, &input.path, &output.path)
    };
    let name = |text| output.named(input.named(text));
    let report = watch.run(py, || calibrate::merge(&job, &watch), name)?;
    Ok((name(json(py, &report)?), output.bytes(py)?))
}
