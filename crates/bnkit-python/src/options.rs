//! Keyword arguments as the options of jobs. The Python side hands over a dict with every key of a struct.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use bnkit::calibrate::{
    Convention, DataOptions, DriftLimits, FoldAfter, Method, MethodOptions, Selection,
};
use bnkit::fold;
use bnkit::state::PairingOptions;
use bnkit::verify::VerifyOptions;
use pyo3::prelude::*;

use crate::data::{self, Data};
use crate::errors::{input_error, raise};
use crate::model::Input;

/// What may be folded, and when the answer is "no".
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Fold {
    only: Vec<String>,
    skip: Vec<String>,
    assume_constant: bool,
    allow_bad_statistics: bool,
    through_branches: bool,
    aggressive: bool,
    lower: bool,
    merge_branches: bool,
    per_channel_scales: bool,
    pub graph: Option<Py<PyAny>>,
    pairs: Option<PathBuf>,
    preset: Option<String>,
    yes: bool,
    eps: Option<f64>,
    identity_bn: bool,
    pub verify: bool,
    pub require_end_to_end: bool,
    pub require_all_folded: bool,
    pub min_folded: Option<f64>,
    pub keep_stats: Option<PathBuf>,
    pub provenance: bool,
    pub force: bool,
    pub dry_run: bool,
}

impl Fold {
    pub(crate) fn options(&self) -> fold::Options {
        fold::Options {
            only: self.only.clone(),
            skip: self.skip.clone(),
            assume_constant: self.assume_constant,
            allow_bad_statistics: self.allow_bad_statistics,
            through_branches: self.through_branches,
            aggressive: self.aggressive,
            lower: self.lower,
            merge_branches: self.merge_branches,
            per_channel_scales: self.per_channel_scales,
            ..fold::Options::default()
        }
    }
}

impl Fold {
    /// What is said of a state dict; `graph` is where the graph is.
    pub(crate) fn pairing(&self, graph: Option<&Input>) -> PairingOptions {
        PairingOptions {
            graph: graph.map(|graph| graph.path.clone()),
            pairs: self.pairs.clone(),
            preset: self.preset.clone(),
            confirmed: self.yes,
            epsilon: self.eps,
            identity: self.identity_bn,
        }
    }
}

/// The graph of a state dict's network, if there is one.
///
/// # Errors
/// If it is no model.
pub(crate) fn graph(py: Python<'_>, given: Option<&Py<PyAny>>) -> PyResult<Option<Input>> {
    given.map(|graph| Input::graph(graph.bind(py))).transpose()
}

/// How two models are compared.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Proof {
    samples: usize,
    seed: u64,
    shapes: Vec<(String, Vec<usize>)>,
    atol: Option<f64>,
    rtol: Option<f64>,
    tolerance_factor: f64,
}

impl Proof {
    /// `data` is a path or arrays.
    ///
    /// # Errors
    /// If it is an iterable of batches: which of them would be run?
    pub(crate) fn options(
        self,
        py: Python<'_>,
        data: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<VerifyOptions> {
        let mut options = VerifyOptions {
            shapes: self.shapes,
            samples: self.samples,
            seed: self.seed,
            atol: self.atol,
            rtol: self.rtol,
            tolerance_factor: self.tolerance_factor,
            ..VerifyOptions::default()
        };
        match data.map(Data::new).transpose()? {
            None => {}
            Some(Data::Path(path)) => options.data = Some(path),
            Some(Data::Samples(tensors)) => options.tensors = Some(tensors),
            Some(Data::Batches(_)) => {
                let message = "the data of a proof is a path, an array or a dict of arrays: give one batch, not an iterable of batches";
                return Err(input_error(py, message.to_owned()));
            }
        }
        Ok(options)
    }
}

/// How statistics are made, and of which BatchNorms.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Estimate {
    method: String,
    convention: String,
    momentum: Option<f64>,
    tolerance: f64,
    passes: usize,
    only: Vec<String>,
    skip: Vec<String>,
    assume_constant: bool,
    pub until_stable: bool,
    pub dropout: Option<u64>,
    pub threads: usize,
    pub graph: Option<Py<PyAny>>,
}

impl Estimate {
    pub(crate) fn method(&self, py: Python<'_>) -> PyResult<MethodOptions> {
        Ok(MethodOptions {
            method: parse::<Method>(py, &self.method)?,
            convention: parse::<Convention>(py, &self.convention)?,
            momentum: self.momentum,
            tolerance: self.tolerance,
            passes: self.passes,
        })
    }

    /// The fold that is to follow.
    pub(crate) fn fold(&self) -> FoldAfter {
        FoldAfter {
            fold: fold::Options {
                assume_constant: self.assume_constant,
                ..fold::Options::default()
            },
            ..FoldAfter::default()
        }
    }

    pub(crate) fn selection(&self) -> Selection {
        Selection {
            only: self.only.clone(),
            skip: self.skip.clone(),
            assume_constant: self.assume_constant,
        }
    }
}

fn parse<T: FromStr<Err = bnkit::Error>>(py: Python<'_>, word: &str) -> PyResult<T> {
    word.parse().map_err(|error| raise(py, &error))
}

/// How data is cut into batches, what is done to images, and what the samples show.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Cut {
    batch_size: Option<usize>,
    drop_last: bool,
    max_batches: Option<usize>,
    max_samples: Option<usize>,
    shuffle: Option<u64>,
    shapes: Vec<(String, Vec<usize>)>,
    preprocess: Option<Py<PyAny>>,
    labels: Option<Py<PyAny>>,
    pub max_accuracy_drop: Option<f64>,
}

impl Cut {
    /// The options that stand for `data` at hand.
    ///
    /// # Errors
    /// If the labels or what is done to images cannot be read.
    pub(crate) fn options(self, py: Python<'_>, data: DataOptions) -> PyResult<DataOptions> {
        let labels = self.labels.map(|given| data::labels(given.bind(py)));
        let preprocess = self
            .preprocess
            .map(|given| data::preprocess(given.bind(py)));
        Ok(DataOptions {
            labels: labels.transpose()?.map(Arc::new),
            preprocess: preprocess.transpose()?,
            batch_size: self.batch_size.unwrap_or(data.batch_size),
            drop_last: self.drop_last,
            max_batches: self.max_batches,
            max_samples: self.max_samples,
            shuffle: self.shuffle,
            shapes: self.shapes,
            ..data
        })
    }

    /// Refuses what cuts data, where it comes in batches. `max_batches` is left.
    ///
    /// # Errors
    /// If something of it was asked for.
    pub(crate) fn of_batches(&self, py: Python<'_>) -> PyResult<Option<usize>> {
        let asked = [
            ("batch_size", self.batch_size.is_some()),
            ("drop_last", self.drop_last),
            ("max_samples", self.max_samples.is_some()),
            ("shuffle", self.shuffle.is_some()),
            ("shapes", !self.shapes.is_empty()),
            ("preprocess", self.preprocess.is_some()),
            ("labels", self.labels.is_some()),
            ("max_accuracy_drop", self.max_accuracy_drop.is_some()),
        ];
        match asked.into_iter().find(|(_, asked)| *asked) {
            Some((name, _)) => Err(input_error(
                py,
                format!(
                    "{name}: the data is an iterable of batches, and they are taken as they come; give an array or a path to have it cut"
                ),
            )),
            None => Ok(self.max_batches),
        }
    }
}

/// From where on a channel has drifted.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Drift {
    max_mean_drift: f64,
    max_var_drift: f64,
    max_kl: f64,
    pub worst: usize,
}

impl Drift {
    pub(crate) fn limits(&self) -> DriftLimits {
        DriftLimits {
            max_mean_drift: self.max_mean_drift,
            max_var_drift: self.max_var_drift,
            max_kl: self.max_kl,
            ..DriftLimits::default()
        }
    }
}
