//! Profiles of BatchNorms, for pages that draw them: read from the files as they are, beside the job and only if somebody asks.
//!
//! Nothing is decided here and nothing is proved: a weight that is not found again in the written model has no "after".

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bnkit_model::onnx::{Constants, Model, NodeId, TensorDef, Types};

use crate::Result;
use crate::fold::Context;
use crate::inspect::batch_norms;
use crate::report::{AbsorbingWeight, Profile, Site, Spread, WeightRange};
use crate::site::Parameters;

/// Profiles of the BatchNorms of `input` (`sites`: what [`crate::pipeline::fold`] or [`crate::inspect::inspect`] says of it, in
/// their order), and of the weights they went into, compared with `output`. A BatchNorm whose parameters are no constants has none.
///
/// # Errors
/// If a model cannot be read.
pub fn profiles(input: &Path, output: Option<&Path>, sites: &[Site]) -> Result<Vec<Profile>> {
    let before = Weights::open(input)?;
    let after = output.map(Weights::open).transpose()?;
    let model = &before.model;
    let context = Context::new(model, &before.types, true);
    let mut profiles = Vec::new();
    for (node, site) in batch_norms(model)?.into_iter().zip(sites) {
        // Another model than the one that the sites are of says nothing about them.
        let own = *model.label(node) == site.node;
        let (true, Ok(parameters)) = (own, Parameters::read(&context, node)) else {
            continue;
        };
        let deviation: Vec<f64> = parameters
            .variance
            .iter()
            .map(|variance| (variance + parameters.epsilon).sqrt())
            .collect();
        let scale = parameters.gamma.iter().zip(&deviation);
        profiles.push(Profile {
            node: site.node.to_string(),
            scope: site.scope.to_string(),
            mean: Spread::of(parameters.mean.iter().copied()),
            effective_scale: Spread::of(scale.map(|(gamma, deviation)| gamma.abs() / deviation)),
            deviation: Spread::of(deviation.iter().copied()),
            weights: weights(&before, after.as_ref(), site)?,
        });
    }
    Ok(profiles)
}

fn weights(before: &Weights, after: Option<&Weights>, site: &Site) -> Result<Vec<AbsorbingWeight>> {
    let mut weights = Vec::new();
    for name in &site.into {
        let Some((op, old)) = before.of(name) else {
            continue;
        };
        // An operator without a name goes by its output, and after the fold it writes the BatchNorm's.
        let same = |found: &(String, Arc<TensorDef>)| found.0 == op && found.1.dims == old.dims;
        let new = after.and_then(|after| {
            let found = after.of(name).or_else(|| after.of(&site.output));
            found.filter(same).map(|(_, tensor)| (after, tensor))
        });
        weights.push(AbsorbingWeight {
            node: name.to_string(),
            before: before.range(&old)?,
            after: new
                .map(|(after, tensor)| after.range(&tensor))
                .transpose()?,
        });
    }
    Ok(weights)
}

/// A model whose operators are found by name.
struct Weights {
    model: Model,
    types: Types,
    /// `None` for a name that several nodes have.
    nodes: HashMap<String, Option<NodeId>>,
}

impl Weights {
    fn open(path: &Path) -> Result<Self> {
        let model = Model::open(path)?;
        let types = Types::derive(&model);
        let mut nodes = HashMap::new();
        for (id, _) in model.nodes() {
            let unique = nodes.entry(model.label(id).to_string());
            unique.and_modify(|one| *one = None).or_insert(Some(id));
        }
        Ok(Self {
            model,
            types,
            nodes,
        })
    }

    /// The operator of that name and its largest constant: its weight.
    fn of(&self, name: &str) -> Option<(String, Arc<TensorDef>)> {
        let node = self.model.node((*self.nodes.get(name)?)?);
        let constants = Constants::new(&self.model, &self.types, true);
        let tensors = (0..node.inputs.len())
            .filter_map(|slot| node.input(slot))
            .filter_map(|value| constants.tensor(value).ok());
        let largest = tensors.max_by_key(|tensor| tensor.len())?;
        Some((node.op_type.to_string(), largest))
    }

    fn range(&self, tensor: &TensorDef) -> Result<WeightRange> {
        let mut range = WeightRange {
            min: f64::NAN,
            max: f64::NAN,
        };
        self.model.for_each_chunk(tensor, |_, values| {
            for &value in values {
                // f64::min and max pass over NaN.
                range.min = range.min.min(value);
                range.max = range.max.max(value);
            }
            Ok(())
        })?;
        Ok(range)
    }
}

impl Spread {
    /// Of these values. Quantiles between two values lie on the line between them, as NumPy's default has it.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut finite = Vec::new();
        let mut not_finite = 0;
        for value in values {
            match value.is_finite() {
                true => finite.push(value),
                false => not_finite += 1,
            }
        }
        finite.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let Some(last) = finite.len().checked_sub(1) else {
                return f64::NAN;
            };
            let place = share * last as f64;
            let (below, part) = (place.floor() as usize, place.fract());
            let (low, high) = (finite[below], finite[(below + 1).min(last)]);
            low + part * (high - low)
        };
        Self {
            min: at(0.0),
            q05: at(0.05),
            q25: at(0.25),
            median: at(0.5),
            q75: at(0.75),
            q95: at(0.95),
            max: at(1.0),
            not_finite,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.quantile([3, 1, 4, 1.5, 9, 2.6], [0, .05, .25, .5, .75, .95, 1])`.
    #[test]
    fn quantiles_are_those_of_numpy() {
        let spread = Spread::of([3.0, 1.0, 4.0, f64::NAN, 1.5, 9.0, 2.6]);
        let found = [
            spread.min,
            spread.q05,
            spread.q25,
            spread.median,
            spread.q75,
            spread.q95,
            spread.max,
        ];
        let numpy = [1.0, 1.125, 1.775, 2.8, 3.75, 7.75, 9.0];
        for (found, expected) in found.into_iter().zip(numpy) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(spread.not_finite, 1);
        assert!(Spread::of([]).median.is_nan());
        assert_eq!(Spread::of([2.0]).q05, 2.0);
    }
}
