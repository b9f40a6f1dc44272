//! The pairs of a checkpoint, before and after, for the proof.

use bnkit_model::onnx::{Model, TensorDef};
use bnkit_model::safetensors::{StateDict, Tensor};
use bnkit_model::{DType, Error as ModelError};

use super::carry::{Changes, New};
use super::groups::BatchNormGroup;
use super::pairing::{Layout, Pair};
use crate::report::{F64Summary, Verdict, Verification};
use crate::verify::layer::{self, Channels, Elements, Layer, Norm, Visit};
use crate::{Error, Result};

/// A checkpoint and its changes.
pub(crate) struct Layers<'l> {
    pub(crate) dict: &'l StateDict,
    pub(crate) changes: &'l Changes,
    pub(crate) folded: &'l Model,
}

impl Layers<'_> {
    /// Compares each layer and its BatchNorm with what replaces them, beside level 1.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub(crate) fn prove(
        &self,
        pairs: &[Pair],
        seed: u64,
        algebra: impl FnOnce() -> Result<Verification> + Send,
    ) -> Result<Verification> {
        let mut weights = Vec::new();
        for pair in pairs {
            let tensor = self.tensor(&pair.layer.weight)?;
            weights.push((self.before(tensor)?, self.after(tensor)?));
        }
        let mut layers = Vec::new();
        for (pair, (before, after)) in pairs.iter().zip(&weights) {
            layers.push(layer::Pair {
                name: pair.batch_norm.module.clone(),
                channels: self.channels(pair)?,
                before: Layer {
                    weight: before,
                    bias: self.bias(pair, false)?,
                    norm: Some(self.norm(pair, false)?),
                },
                after: Layer {
                    weight: after,
                    bias: self.bias(pair, true)?,
                    norm: match self.is_gone(&pair.batch_norm) {
                        true => None,
                        false => Some(self.norm(pair, true)?),
                    },
                },
            });
        }
        let (algebra, distances) = rayon::join(algebra, || layer::compare(&layers, seed));
        let (mut verification, distances) = (algebra?, distances?);
        if !verification.notes.is_empty() {
            return Ok(verification);
        }
        verification.engine = "scalar products in f64".into();
        verification.samples = 1;
        let worst = distances
            .iter()
            .map(|distance| distance.exact)
            .fold(0.0, f64::max);
        verification.f64 = Some(F64Summary { max_rel: worst });
        let broken = distances.iter().position(|distance| !distance.is_small());
        if let Some(broken) = broken {
            verification.verdict = Verdict::NotEquivalent;
            verification.culprit = Some(layers[broken].name.clone());
            verification.notes.push(format!(
                "\"{}\" and its layer are not what the folded layer computes: {:?}",
                layers[broken].name, distances[broken]
            ));
            return Ok(verification);
        }
        verification.verdict = Verdict::EquivalentLocal;
        let rounding = distances
            .iter()
            .map(|distance| distance.stored)
            .fold(0.0, f64::max);
        verification.notes.push(format!(
            "without a graph there is no network to run: each of {} layers and its BatchNorm was compared with the folded layer on random inputs; \
             at most {:.0} % of what rounding explains",
            layers.len(),
            100.0 * rounding
        ));
        Ok(verification)
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        let tensor = self.dict.tensor(name);
        tensor.ok_or_else(|| {
            Error::Request(format!("tensor \"{name}\": it is not in the checkpoint"))
        })
    }

    fn is_gone(&self, group: &BatchNormGroup) -> bool {
        let mean = self.dict.position(&group.mean);
        mean.is_some_and(|place| self.changes.dropped.contains(&place))
    }

    fn channels(&self, pair: &Pair) -> Result<Channels> {
        let shape = &self.tensor(&pair.layer.weight)?.shape;
        let behind = |axis: usize| shape[axis..].iter().product::<usize>();
        Ok(match pair.layer.layout {
            Layout::OutFirst => Channels::First { inner: behind(1) },
            Layout::Transposed => Channels::Grouped {
                rows: shape[0] / pair.layer.groups.max(1),
                columns: shape[1],
                inner: behind(2),
            },
            Layout::OutLast | Layout::OutLastTwo => Channels::Last {
                count: pair.batch_norm.channels,
            },
        })
    }

    /// A tensor of the checkpoint as it was.
    fn before(&self, tensor: &Tensor) -> Result<Content<'_>> {
        let wrong = || {
            let message = format!("nothing is computed with {}", tensor.dtype);
            Error::from(self.dict.in_tensor(tensor, ModelError::invalid(message)))
        };
        Ok(Content {
            model: self.folded,
            tensor: self.dict.as_onnx(tensor).ok_or_else(wrong)?,
        })
    }

    /// The same as it will be.
    fn after(&self, tensor: &Tensor) -> Result<Content<'_>> {
        let place = self.dict.position(&tensor.name).unwrap_or(usize::MAX);
        match self.changes.replaced.get(&place) {
            Some(new) => self.content(new, tensor),
            None => self.before(tensor),
        }
    }

    fn content(&self, new: &New, tensor: &Tensor) -> Result<Content<'_>> {
        match new {
            New::Folded {
                tensor,
                transposed: false,
            } => Ok(Content {
                model: self.folded,
                tensor: tensor.clone(),
            }),
            New::Folded { .. } => Err(Error::Request(format!(
                "internal error: \"{}\" of a pair is transposed",
                tensor.name
            ))),
            New::Values(values) => {
                let dtype = values.dtype();
                let recipe = bnkit_model::onnx::Recipe::values(values.to_f64()?);
                Ok(Content {
                    model: self.folded,
                    tensor: TensorDef::computed(dtype, values.dims().into(), recipe.into()),
                })
            }
        }
    }

    /// The bias of a layer, zeros if it has none.
    fn bias(&self, pair: &Pair, after: bool) -> Result<Vec<f64>> {
        let weight = self.tensor(&pair.layer.weight)?;
        let place = self.dict.position(&weight.name).unwrap_or(usize::MAX);
        let content = match (&pair.layer.bias, self.changes.added.get(&place)) {
            (Some(bias), _) if after => self.after(self.tensor(bias)?)?,
            (Some(bias), _) => self.before(self.tensor(bias)?)?,
            (None, Some((_, new))) if after => self.content(new, weight)?,
            (None, _) => return Ok(vec![0.0; pair.batch_norm.channels]),
        };
        content.all()
    }

    fn norm(&self, pair: &Pair, after: bool) -> Result<Norm> {
        let group = &pair.batch_norm;
        let read = |name: &str| {
            let tensor = self.tensor(name)?;
            let content = if after {
                self.after(tensor)?
            } else {
                self.before(tensor)?
            };
            content.all()
        };
        let or = |name: &Option<String>, filling: f64| match name {
            Some(name) => read(name),
            None => Ok(vec![filling; group.channels]),
        };
        Ok(Norm {
            gamma: or(&group.gamma, 1.0)?,
            beta: or(&group.beta, 0.0)?,
            mean: read(&group.mean)?,
            variance: read(&group.variance)?,
            // As the operator has it: an attribute in f32.
            epsilon: f64::from(pair.epsilon.unwrap_or(f64::NAN) as f32),
        })
    }
}

/// A tensor that is read in chunks.
struct Content<'c> {
    model: &'c Model,
    tensor: TensorDef,
}

impl Content<'_> {
    fn all(&self) -> Result<Vec<f64>> {
        Ok(self.model.read_f64(&self.tensor)?)
    }
}

impl Elements for Content<'_> {
    fn for_each(&self, visit: Visit<'_>) -> bnkit_model::Result<()> {
        self.model.for_each_chunk(&self.tensor, visit)
    }

    fn dtype(&self) -> DType {
        self.tensor.dtype
    }
}
