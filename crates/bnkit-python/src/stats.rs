//! The parameters of BatchNorms as arrays.

use bnkit::calibrate::{LayerParameters, Selection, parameters};
use numpy::PyArray1;
use pyo3::prelude::*;

use crate::model::Input;
use crate::watch::Watch;

/// The parameters of one BatchNorm.
///
/// ``mean``, ``var``, ``gamma`` and ``beta`` are arrays of float64 with one element per channel: the stored values, exactly. ``eps`` and
/// ``momentum`` (the weight of the history, as ONNX has it) are ``None`` where a state dict does not say them.
#[pyclass(frozen, get_all, module = "bnkit")]
pub(crate) struct BatchNorm {
    /// The node's name; of a state dict the module's.
    name: String,
    /// The scope it stands in; "" is the main graph.
    scope: String,
    /// How many channels it has.
    channels: usize,
    /// The tensor that the running mean is in.
    mean_name: String,
    /// The tensor that the running variance is in.
    var_name: String,
    /// The running mean, shape (channels,).
    mean: Py<PyArray1<f64>>,
    /// The running variance, shape (channels,).
    var: Py<PyArray1<f64>>,
    /// The scale, shape (channels,).
    gamma: Py<PyArray1<f64>>,
    /// The shift, shape (channels,).
    beta: Py<PyArray1<f64>>,
    /// What is added to the variance.
    eps: Option<f64>,
    /// The weight of the history.
    momentum: Option<f64>,
}

impl BatchNorm {
    /// NumPy takes the vectors over; nothing is copied.
    fn new(py: Python<'_>, found: LayerParameters) -> Self {
        let array = |values: Vec<f64>| PyArray1::from_vec(py, values).unbind();
        Self {
            name: found.layer.node,
            scope: found.layer.scope,
            channels: found.layer.channels,
            mean_name: found.mean_name,
            var_name: found.variance_name,
            mean: array(found.mean),
            var: array(found.variance),
            gamma: array(found.gamma),
            beta: array(found.beta),
            eps: found.epsilon,
            momentum: found.momentum,
        }
    }
}

#[pymethods]
impl BatchNorm {
    fn __repr__(&self) -> String {
        let number =
            |value: Option<f64>| value.map_or("None".to_owned(), |value| value.to_string());
        format!(
            "BatchNorm({:?}, channels={}, eps={}, momentum={})",
            self.name,
            self.channels,
            number(self.eps),
            number(self.momentum)
        )
    }
}

/// The parameters of all BatchNorms that have running statistics.
#[pyfunction]
pub(crate) fn stats(
    py: Python<'_>,
    model: &Bound<'_, PyAny>,
    only: Vec<String>,
    skip: Vec<String>,
    assume_constant: bool,
) -> PyResult<Vec<BatchNorm>> {
    let input = Input::new(model)?;
    let selection = Selection {
        only,
        skip,
        assume_constant,
    };
    let run = || parameters(&input.path, &selection);
    let found = Watch::new(None).run(py, run, |text| input.named(text))?;
    Ok(found
        .into_iter()
        .map(|one| BatchNorm::new(py, one))
        .collect())
}
