//! The constants of the original: from the file, or from the folded ones by division.

use std::sync::Arc;

use bnkit_model::Tensor;
use bnkit_model::onnx::{NewTensor, Payload, Recipe, Scale, TensorDef};

use super::record::{Constant, Content, Kept};
use super::restore::Restorer;
use crate::{Error, Result};

impl Restorer<'_> {
    fn stored(&self, name: &str) -> Result<&Tensor> {
        let found = self.tensors.get(name);
        found.ok_or_else(|| Error::Request(format!("the statistics have no tensor \"{name}\"")))
    }

    /// A constant as it was.
    pub(super) fn tensor(&self, constant: &Constant) -> Result<NewTensor> {
        let wrong = |what: &str| {
            Error::Request(format!(
                "the statistics of \"{}\": {what}",
                constant.value.name
            ))
        };
        let count = constant
            .dims
            .iter()
            .try_fold(1, |n: usize, &dim| n.checked_mul(dim));
        let (dtype, recipe) = match &constant.content {
            Content::Stored { tensor } => {
                let tensor = self.stored(tensor)?;
                if Some(tensor.len()) != count {
                    return Err(wrong("another number of elements than its shape says"));
                }
                (tensor.dtype(), Recipe::values(tensor.to_f64()?))
            }
            Content::Scaled {
                reader,
                slot,
                scales,
                kept,
            } => {
                let folded = self.read_constant(self.node(reader)?, *slot)?;
                if *folded.dims != *constant.dims || scales.is_empty() {
                    return Err(wrong("another shape than the folded tensor's"));
                }
                let mut inverse = Vec::new();
                for (inner, name) in scales {
                    let factors = self.stored(name)?.to_f64()?;
                    if factors.is_empty() {
                        return Err(wrong("no factors"));
                    }
                    let inner = (*inner).max(1);
                    inverse.push((inner, factors));
                }
                (
                    folded.dtype,
                    self.divided(&folded, inverse, kept.as_ref(), &wrong)?,
                )
            }
        };
        Ok(NewTensor {
            dtype,
            dims: constant.dims.as_slice().into(),
            recipe: Arc::new(recipe),
        })
    }

    fn divided(
        &self,
        folded: &Arc<TensorDef>,
        scales: Vec<(usize, Vec<f64>)>,
        kept: Option<&Kept>,
        wrong: &dyn Fn(&str) -> Error,
    ) -> Result<Recipe> {
        let computed = matches!(folded.payload, Payload::Computed(_));
        let Some(kept) = kept.map_or_else(
            || computed.then(|| (&[][..], None)),
            |kept| Some((kept.channels.as_slice(), Some(kept.tensor.as_str()))),
        ) else {
            let scales = scales.into_iter().map(|(inner, factors)| Scale {
                inner,
                factors: factors.iter().map(|factor| 1.0 / factor).collect(),
            });
            return Ok(Recipe::of(folded).times(scales));
        };
        let (channels, tensor) = kept;
        let elements = match tensor {
            Some(name) => self.stored(name)?.to_f64()?,
            None => Vec::new(),
        };
        let mut elements = elements.into_iter();
        let mut values = self.model.read_f64(folded)?;
        let (inner, count) = (scales[0].0, scales[0].1.len());
        for (element, value) in values.iter_mut().enumerate() {
            if channels.binary_search(&(element / inner % count)).is_ok() {
                *value = elements.next().ok_or_else(|| wrong("too few elements"))?;
                continue;
            }
            for (inner, factors) in &scales {
                *value /= factors[element / inner % factors.len()];
            }
        }
        match elements.next() {
            None => Ok(Recipe::values(values)),
            Some(_) => Err(wrong("too many elements")),
        }
    }
}
