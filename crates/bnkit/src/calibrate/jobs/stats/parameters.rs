//! All parameters of the BatchNorms, for programs: `stats` reports mean and variance only.

use std::path::Path;

use bnkit_model::safetensors::StateDict;

use crate::calibrate::Selection;
use crate::calibrate::exports;
use crate::calibrate::modules::survey;
use crate::calibrate::report::LayerName;
use crate::checkpoint::{Checkpoint, Content};
use crate::glob::Choice;
use crate::inspect::state::{find, vector};
use crate::state::groups::BatchNormGroup;
use crate::{Error, Result};

/// The parameters of a BatchNorm. Every vector has one value per channel, as it is stored, widened to f64.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerParameters {
    /// Which.
    pub layer: LayerName,
    /// The tensor that the mean is in.
    pub mean_name: String,
    /// The tensor that the variance is in.
    pub variance_name: String,
    /// The running mean μ.
    pub mean: Vec<f64>,
    /// The running variance σ².
    pub variance: Vec<f64>,
    /// γ; ones where a state dict has none.
    pub gamma: Vec<f64>,
    /// β; zeros where a state dict has none.
    pub beta: Vec<f64>,
    /// ε; a state dict does not say it.
    pub epsilon: Option<f64>,
    /// The weight of the history in running updates; a state dict does not say it.
    pub momentum: Option<f64>,
}

/// The parameters of the BatchNorms of a checkpoint, in the order of its graph or file. Those without running statistics are left out.
///
/// # Errors
/// If the checkpoint cannot be read, or a glob is malformed.
pub fn parameters(path: &Path, selection: &Selection) -> Result<Vec<LayerParameters>> {
    let checkpoint = Checkpoint::open(path)?;
    match &checkpoint.content {
        Content::Onnx(model) => {
            let modules = survey(model, selection).map_err(|error| error.in_file(path))?;
            let found = modules.into_iter().filter(|module| module.chosen);
            let found = found.filter_map(|module| {
                let [mean_name, variance_name] =
                    [0, 1].map(|which| exports::name(model, &module, which));
                let stored = module.stored.ok()?;
                Some(LayerParameters {
                    layer: module.name,
                    mean_name,
                    variance_name,
                    mean: stored.mean,
                    variance: stored.variance,
                    gamma: stored.scale,
                    beta: stored.bias,
                    epsilon: Some(stored.epsilon),
                    momentum: Some(stored.momentum),
                })
            });
            Ok(found.collect())
        }
        Content::StateDict(dict) => {
            let choice = Choice::new(&selection.only, &selection.skip)?;
            let groups = find(dict).groups;
            let groups = groups.iter().filter(|group| choice.takes(&group.module));
            groups.map(|group| of_group(dict, group)).collect()
        }
    }
}

fn of_group(dict: &StateDict, group: &BatchNormGroup) -> Result<LayerParameters> {
    let read = |name: &Option<String>, otherwise: f64| -> Result<Vec<f64>, Error> {
        match name {
            Some(name) => Ok(vector(dict, name)?.1),
            None => Ok(vec![otherwise; group.channels]),
        }
    };
    Ok(LayerParameters {
        layer: LayerName {
            node: group.module.clone(),
            calls: Vec::new(),
            scope: String::new(),
            channels: group.channels,
        },
        mean_name: group.mean.clone(),
        variance_name: group.variance.clone(),
        mean: vector(dict, &group.mean)?.1,
        variance: vector(dict, &group.variance)?.1,
        gamma: read(&group.gamma, 1.0)?,
        beta: read(&group.beta, 0.0)?,
        epsilon: None,
        momentum: None,
    })
}
