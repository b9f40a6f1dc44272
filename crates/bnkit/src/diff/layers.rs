//! The drift of BatchNorms: running statistics of one checkpoint against those of the other.
//!
//! A layer is found again by the tensors of its mean and variance, else by its own name: exporters rename either.

use super::DEFAULT_EPSILON;
use super::report::{EpsilonFrom, LayerChange, LayerInfo};
use crate::Result;
use crate::calibrate::drift::Distance;
use crate::calibrate::{Extremes, LayerStats, stats_layers};
use crate::checkpoint::Checkpoint;

/// The BatchNorms of two checkpoints.
pub(super) struct Layers {
    pub(super) changed: Vec<LayerChange>,
    pub(super) added: Vec<LayerInfo>,
    pub(super) removed: Vec<LayerInfo>,
    pub(super) unchanged: usize,
}

/// Compares all BatchNorms.
///
/// # Errors
/// If statistics cannot be read.
pub(super) fn compare(a: &Checkpoint, b: &Checkpoint, epsilon: Option<f64>) -> Result<Layers> {
    let (first, second) = (stats_layers(a)?, stats_layers(b)?);
    let mut partners: Vec<Option<usize>> = vec![None; first.len()];
    let mut taken = vec![false; second.len()];
    for is_same in [same_tensors, same_name] {
        for (layer, partner) in first.iter().zip(&mut partners) {
            if partner.is_some() {
                continue;
            }
            let found = (0..second.len()).find(|&at| !taken[at] && is_same(layer, &second[at]));
            if let Some(at) = found {
                taken[at] = true;
                *partner = Some(at);
            }
        }
    }
    let mut layers = Layers {
        changed: Vec::new(),
        added: Vec::new(),
        removed: Vec::new(),
        unchanged: 0,
    };
    for (layer, partner) in first.iter().zip(partners) {
        match partner {
            None => layers.removed.push(info(layer)),
            // What is none in either file is inspect's business.
            Some(at) if layer.refusal.is_some() && second[at].refusal.is_some() => {}
            Some(at) => match change(layer, &second[at], epsilon) {
                None => layers.unchanged += 1,
                Some(change) => layers.changed.push(change),
            },
        }
    }
    let new = second.iter().zip(&taken).filter(|(_, taken)| !**taken);
    layers.added = new.map(|(layer, _)| info(layer)).collect();
    // What has no number comes first; stable otherwise.
    let size = |change: &LayerChange| change.kl.map_or(f64::INFINITY, |kl| kl.max);
    let rank = |change: &LayerChange| (change.problem.is_some(), change.bad_channels > 0);
    layers.changed.sort_by(|a, b| {
        rank(b)
            .cmp(&rank(a))
            .then_with(|| size(b).total_cmp(&size(a)))
    });
    Ok(layers)
}

fn same_tensors(a: &LayerStats, b: &LayerStats) -> bool {
    !a.mean_name.is_empty() && a.mean_name == b.mean_name && a.variance_name == b.variance_name
}

fn same_name(a: &LayerStats, b: &LayerStats) -> bool {
    a.layer.node == b.layer.node && a.layer.scope == b.layer.scope
}

fn name(layer: &LayerStats) -> String {
    match layer.layer.scope.as_str() {
        "" => layer.layer.node.clone(),
        scope => format!("{scope}/{}", layer.layer.node),
    }
}

fn info(layer: &LayerStats) -> LayerInfo {
    LayerInfo {
        name: name(layer),
        mean_name: layer.mean_name.clone(),
        channels: layer.layer.channels,
    }
}

/// How the statistics of a layer changed; `None` if they are the same numbers, and ε is the same.
fn change(a: &LayerStats, b: &LayerStats, given: Option<f64>) -> Option<LayerChange> {
    let said = |layer: &LayerStats| Some(layer.epsilon).filter(|epsilon| !epsilon.is_nan());
    let (epsilon, epsilon_from) = match (said(a), said(b), given) {
        (Some(epsilon), ..) => (epsilon, EpsilonFrom::A),
        (None, Some(epsilon), _) => (epsilon, EpsilonFrom::B),
        (None, None, Some(epsilon)) => (epsilon, EpsilonFrom::Given),
        (None, None, None) => (DEFAULT_EPSILON, EpsilonFrom::Default),
    };
    let epsilon_of_b = match (said(a), said(b)) {
        (Some(ours), Some(theirs)) if ours != theirs => Some(theirs),
        _ => None,
    };
    let problem = match (&a.refusal, &b.refusal) {
        (Some(refusal), _) | (None, Some(refusal)) => Some(refusal.message.clone()),
        (None, None) if a.mean.len() != b.mean.len() => {
            Some("the numbers of channels differ".to_owned())
        }
        (None, None) => None,
    };
    let mut change = LayerChange {
        name: name(a),
        mean_name: a.mean_name.clone(),
        channels: [a.layer.channels, b.layer.channels],
        epsilon,
        epsilon_from,
        epsilon_of_b,
        mean_shift: None,
        log_variance_ratio: None,
        kl: None,
        changed_channels: 0,
        bad_channels: 0,
        problem,
    };
    if change.problem.is_some() {
        return Some(change);
    }
    let mut distances = Vec::with_capacity(a.mean.len());
    for channel in 0..a.mean.len() {
        let before = (a.mean[channel], a.variance[channel]);
        let after = (b.mean[channel], b.variance[channel]);
        let same =
            before.0.to_bits() == after.0.to_bits() && before.1.to_bits() == after.1.to_bits();
        change.changed_channels += usize::from(!same);
        let distance = Distance::between(before, after, epsilon);
        let real = |variance: f64| variance + epsilon > 0.0;
        if distance.kl.is_finite() && real(before.1) && real(after.1) {
            distances.push(distance);
        } else {
            change.bad_channels += 1;
        }
    }
    if change.changed_channels == 0 && epsilon_of_b.is_none() {
        return None;
    }
    let over = |value: fn(&Distance) -> f64| {
        (!distances.is_empty()).then(|| Extremes::of(distances.iter().map(value)))
    };
    change.mean_shift = over(|distance| distance.mean);
    change.log_variance_ratio = over(|distance| distance.variance);
    change.kl = over(|distance| distance.kl);
    Some(change)
}
