//! The running statistics of a state dict: its groups of tensors, by their names. ε and momentum are not in the file.

use bnkit_model::Tensor;
use bnkit_model::safetensors::StateDict;

use crate::calibrate::Selection;
use crate::calibrate::report::{Extremes, LayerName, LayerStats};
use crate::glob::Choice;
use crate::inspect::state::{find, vector};
use crate::report::Refusal;
use crate::state::groups::{BatchNormGroup, Groups};
use crate::{Error, Result};

/// The chosen BatchNorms in the order of the file; those that are not complete come last, with the reason.
///
/// # Errors
/// If a tensor cannot be read, or a glob is malformed.
pub(super) fn layers(dict: &StateDict, selection: &Selection) -> Result<Vec<LayerStats>> {
    let choice = Choice::new(&selection.only, &selection.skip)?;
    let Groups { groups, problems } = find(dict);
    let mut layers = Vec::with_capacity(groups.len());
    for group in groups.iter().filter(|group| choice.takes(&group.module)) {
        layers.push(layer(dict, group)?);
    }
    for problem in problems.iter().filter(|it| choice.takes(&it.module)) {
        let refusal = Refusal::new("incomplete-group", problem.message.clone());
        layers.push(LayerStats {
            refusal: Some(refusal),
            ..empty(&problem.module, 0)
        });
    }
    Ok(layers)
}

fn layer(dict: &StateDict, group: &BatchNormGroup) -> Result<LayerStats> {
    let (dtype, mean) = vector(dict, &group.mean)?;
    let (_, variance) = vector(dict, &group.variance)?;
    Ok(LayerStats {
        mean_name: group.mean.clone(),
        variance_name: group.variance.clone(),
        dtype,
        mean_summary: Extremes::of(mean.iter().copied()),
        variance_summary: Extremes::of(variance.iter().copied()),
        mean,
        variance,
        ..empty(&group.module, group.channels)
    })
}

fn empty(module: &str, channels: usize) -> LayerStats {
    LayerStats {
        layer: LayerName {
            node: module.to_owned(),
            calls: Vec::new(),
            scope: String::new(),
            channels,
        },
        mean_name: String::new(),
        variance_name: String::new(),
        dtype: String::new(),
        epsilon: f64::NAN,
        momentum: f64::NAN,
        mean: Vec::new(),
        variance: Vec::new(),
        mean_summary: Extremes::default(),
        variance_summary: Extremes::default(),
        refusal: None,
    }
}

/// Mean and variance of the layers that have them, as they are stored.
///
/// # Errors
/// If one cannot be read.
pub(super) fn tensors(dict: &StateDict, layers: &[LayerStats]) -> Result<Vec<(String, Tensor)>> {
    let whole = layers.iter().filter(|layer| layer.refusal.is_none());
    let names = whole.flat_map(|layer| [&layer.mean_name, &layer.variance_name]);
    names
        .map(|name| {
            let tensor = dict.tensor(name).ok_or_else(|| {
                Error::Request(format!("tensor \"{name}\": it is not in the checkpoint"))
            })?;
            Ok((name.clone(), dict.read(tensor)?))
        })
        .collect()
}
