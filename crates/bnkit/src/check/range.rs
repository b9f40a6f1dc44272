//! How folding changes the weights: their largest magnitude, and how far apart the features of a weight are before and after.

use std::collections::HashSet;

use bnkit_model::onnx::{Base, Model, Payload, Recipe, TensorDef};

use crate::Result;
use crate::fold::{Before, Plan};

/// Operators whose constants are weights that a quantiser would quantise.
const WEIGHED: [&str; 4] = ["Conv", "ConvTranspose", "Gemm", "MatMul"];

/// A constant that folding changes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// The operator that reads it.
    pub(super) node: String,
    /// Its name, in the folded model.
    pub(super) tensor: String,
    /// Its largest magnitude after folding, not rounded.
    pub(super) max_abs: f64,
    /// How its features change, if it is a weight with several features.
    pub(super) features: Option<Features>,
}

/// How the features of a weight (its output channels, if a BatchNorm behind it was folded) change. The features that are 0 do not count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Features {
    /// The largest magnitude before.
    pub(super) max_before: f64,
    /// The largest magnitude by that of the median feature, before.
    pub(super) spread_before: f64,
    /// The same after.
    pub(super) spread_after: f64,
}

/// The constants that a plan changes, in the order of its folds.
///
/// # Errors
/// If a tensor cannot be read.
pub(super) fn changes(original: &Model, plan: &Plan) -> Result<Vec<Change>> {
    let (before, folded) = (Before::of(original), plan.apply());
    let absorbed = plan.routes.iter().flat_map(|route| &route.absorbed);
    let mut seen = HashSet::new();
    let mut changes = Vec::new();
    for node in absorbed.map(|absorbed| absorbed.node) {
        if !folded.node(node).alive || !seen.insert(node) {
            continue;
        }
        for (slot, value) in folded.node(node).inputs.iter().enumerate() {
            let value = value.map(|value| folded.value(value));
            let Some((name, tensor)) =
                value.and_then(|value| Some((&value.name, value.tensor.as_ref()?)))
            else {
                continue;
            };
            let Payload::Computed(recipe) = &tensor.payload else {
                continue;
            };
            changes.push(Change {
                node: before.label(folded, node).to_string(),
                tensor: name.to_string(),
                max_abs: folded.magnitude(tensor)?.max_abs,
                features: match slot <= 1 && WEIGHED.iter().any(|op| folded.node(node).is(op)) {
                    true => features(folded, tensor, recipe)?,
                    false => None,
                },
            });
        }
    }
    Ok(changes)
}

/// How the features along the last axis that was scaled change.
fn features(model: &Model, after: &TensorDef, recipe: &Recipe) -> Result<Option<Features>> {
    let Base::Stored(before) = &recipe.base else {
        return Ok(None);
    };
    let scaled = recipe.scales.iter().rev();
    let Some(scale) = scaled.into_iter().find(|scale| scale.factors.len() > 1) else {
        return Ok(None);
    };
    let (inner, count) = (scale.inner.max(1), scale.factors.len());
    let before = largest(model, before, inner, count)?;
    let after = largest(model, after, inner, count)?;
    let max_before = before.iter().copied().fold(0.0, f64::max);
    Ok(spread(before)
        .zip(spread(after))
        .map(|(before, after)| Features {
            max_before,
            spread_before: before,
            spread_after: after,
        }))
}

/// The largest magnitude in each feature: element e is of feature `(e / inner) % count`.
fn largest(model: &Model, tensor: &TensorDef, inner: usize, count: usize) -> Result<Vec<f64>> {
    let mut largest = vec![0.0_f64; count];
    model.for_each_chunk(tensor, |start, values| {
        for (element, value) in (start..).zip(values) {
            let feature = &mut largest[element / inner % count];
            *feature = feature.max(value.abs());
        }
        Ok(())
    })?;
    Ok(largest)
}

/// The largest one by the median one, of those that are not 0; `None` if there are fewer than two.
fn spread(mut features: Vec<f64>) -> Option<f64> {
    features.retain(|&feature| feature > 0.0 && feature.is_finite());
    if features.len() < 2 {
        return None;
    }
    features.sort_unstable_by(f64::total_cmp);
    let middle = features.len() / 2;
    let median = match features.len() % 2 {
        0 => 0.5 * (features[middle - 1] + features[middle]),
        _ => features[middle],
    };
    features.last().map(|max| max / median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_the_largest_by_the_median() {
        assert_eq!(spread(vec![1.0, 8.0, 2.0]), Some(4.0));
        assert_eq!(spread(vec![1.0, 3.0, 0.0]), Some(1.5));
        assert_eq!(spread(vec![0.0, 3.0]), None);
    }
}
