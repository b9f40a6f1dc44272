//! A recalibration in steps, and what it saw, as values that can be sent elsewhere.

use std::path::PathBuf;

use bnkit::calibrate::{self, RecalibrateJob, ValidateJob};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple, PyType};

use crate::data;
use crate::errors::raise;
use crate::jobs::{json, named, observing};
use crate::model::{Input, Output};
use crate::options::{self, Drift, Estimate};
use crate::watch::Watch;

/// What batches showed of the BatchNorms of a model.
///
/// Moments add up with ``+``: in whatever order, the sum is the same, and a batch that is in both counts once. They know which model,
/// which options and which batches they are of; what does not belong together is refused with :class:`InputError`. They can be pickled.
#[pyclass(frozen, module = "bnkit")]
pub(crate) struct Moments(calibrate::Moments);

#[pymethods]
impl Moments {
    /// How many batches they are of.
    #[getter]
    fn batches(&self) -> u64 {
        self.0.batches()
    }

    /// How many samples those batches have.
    #[getter]
    fn samples(&self) -> u64 {
        self.0.samples()
    }

    /// The SHA-256 of the model, in hexadecimal.
    #[getter]
    fn model(&self) -> &str {
        self.0.model()
    }

    /// The method that they are for.
    #[getter]
    fn method(&self) -> &'static str {
        self.0.method().name()
    }

    /// The numbers of batches below the largest one that are not there, as ranges (first, one past the last).
    #[getter]
    fn missing(&self) -> Vec<(u64, u64)> {
        let gaps = self.0.missing().into_iter();
        gaps.map(|gap| (gap.start, gap.end)).collect()
    }

    fn __add__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let Ok(other) = other.cast::<Self>() else {
            return Ok(py.NotImplemented());
        };
        let other = other.get();
        let sum = py.detach(|| {
            let mut sum = self.0.clone();
            sum.merge(&other.0).map(|()| sum)
        });
        let sum = Self(sum.map_err(|error| raise(py, &error))?);
        Ok(sum.into_pyobject(py)?.into_any().unbind())
    }

    /// So that :func:`sum` works.
    fn __radd__(slf: Bound<'_, Self>, other: &Bound<'_, PyAny>) -> Py<PyAny> {
        match other.extract::<i64>() {
            Ok(0) => slf.into_any().unbind(),
            _ => slf.py().NotImplemented(),
        }
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other
            .cast::<Self>()
            .is_ok_and(|other| self.0 == other.get().0)
    }

    fn __repr__(&self) -> String {
        format!(
            "Moments(method={:?}, batches={}, samples={}, model={:.12}…)",
            self.0.method().name(),
            self.0.batches(),
            self.0.samples(),
            self.0.model()
        )
    }

    /// As bytes: JSON of the schema ``bnkit.moments/1``.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| self.0.to_bytes());
        let bytes = bytes.map_err(|error| raise(py, &error))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// From what :meth:`to_bytes` gave.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        let moments = py.detach(|| calibrate::Moments::from_bytes(bytes));
        moments.map(Self).map_err(|error| raise(py, &error))
    }

    fn __reduce__<'py>(
        slf: &Bound<'py, Self>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let class: Bound<'py, PyType> = slf.get_type();
        let bytes = slf.get().to_bytes(py)?;
        Ok((class.getattr("from_bytes")?, PyTuple::new(py, [bytes])?))
    }
}

impl Recalibrator {
    fn named(&self, text: String) -> String {
        named(&self.input, self.graph.as_ref(), text)
    }
}

/// The native half of ``bnkit.Recalibrator``.
#[pyclass(module = "bnkit._bnkit")]
pub(crate) struct Recalibrator {
    inner: calibrate::Recalibrator,
    input: Input,
    graph: Option<Input>,
    watch: Watch,
}

#[pymethods]
impl Recalibrator {
    #[new]
    fn new(
        py: Python<'_>,
        model: &Bound<'_, PyAny>,
        estimate: Estimate,
        fold: bool,
        hash: bool,
    ) -> PyResult<Self> {
        let input = Input::new(model)?;
        let graph = options::graph(py, estimate.graph.as_ref())?;
        let watch = Watch::new(None);
        let job = RecalibrateJob {
            hash,
            fold: fold.then(|| estimate.fold()),
            interrupt: watch.interrupt.clone(),
            ..observing(py, &input, graph.as_ref(), &estimate)?
        };
        let name = |text| named(&input, graph.as_ref(), text);
        let inner = watch.run(py, || calibrate::Recalibrator::new(job), name)?;
        Ok(Self {
            inner,
            input,
            graph,
            watch,
        })
    }

    fn observe(
        &mut self,
        py: Python<'_>,
        batch: &Bound<'_, PyAny>,
        index: Option<u64>,
    ) -> PyResult<u64> {
        let batch = data::batch(batch)?;
        let Self {
            inner,
            input,
            graph,
            watch,
        } = self;
        let name = |text| named(input, graph.as_ref(), text);
        watch.run(py, || inner.observe(&batch, index), name)
    }

    fn moments(&self, py: Python<'_>) -> PyResult<Moments> {
        let run = || self.inner.moments();
        let moments = self.watch.run(py, run, |text| self.named(text))?;
        Ok(Moments(moments))
    }

    fn take(&mut self, py: Python<'_>) -> PyResult<Moments> {
        let moments = self.inner.take();
        moments.map(Moments).map_err(|error| raise(py, &error))
    }

    fn absorb(&mut self, py: Python<'_>, moments: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(moments) = moments.cast::<Moments>() else {
            return Err(PyTypeError::new_err("expected bnkit.Moments"));
        };
        let moments = moments.get();
        let absorbed = py.detach(|| self.inner.absorb(&moments.0));
        absorbed.map_err(|error| raise(py, &error))
    }

    #[getter]
    fn batches(&self) -> u64 {
        self.inner.batches()
    }

    #[getter]
    fn samples(&self) -> u64 {
        self.inner.samples()
    }

    fn is_stable(&self, py: Python<'_>) -> PyResult<bool> {
        let stable = py.detach(|| self.inner.is_stable());
        stable.map_err(|error| raise(py, &error))
    }

    fn result(&self, py: Python<'_>) -> PyResult<String> {
        let name = |text| self.named(text);
        let report = self.watch.run(py, || self.inner.report(), name)?;
        Ok(name(json(py, &report)?))
    }

    fn write<'py>(
        &self,
        py: Python<'py>,
        out: Option<PathBuf>,
        force: bool,
    ) -> PyResult<(String, Option<Bound<'py, PyBytes>>)> {
        let output = Output::new(py, out)?;
        let name = |text| output.named(self.named(text));
        let run = || self.inner.write(&output.path, force, &self.watch);
        let report = self.watch.run(py, run, name)?;
        Ok((name(json(py, &report)?), output.bytes(py)?))
    }

    fn validate(&self, py: Python<'_>, drift: Drift) -> PyResult<String> {
        let job = ValidateJob {
            limits: drift.limits(),
            worst: drift.worst,
            ..ValidateJob::new("", "")
        };
        let name = |text| self.named(text);
        let report = self.watch.run(py, || self.inner.validate(&job), name)?;
        Ok(name(json(py, &report)?))
    }
}
