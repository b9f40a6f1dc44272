//! Constants that need not be stored, because dividing the folded ones gives them back.

use std::collections::BTreeSet;

use bnkit_model::onnx::{Base, Payload, TensorDef, ValueId};
use bnkit_model::{DType, Tensor};

use super::keep::Keeper;
use super::record::{Content, Kept};
use crate::Result;

impl Keeper<'_> {
    /// The way back to a constant by division, if there is one that is shorter than storing it.
    pub(super) fn scaled(
        &mut self,
        value: ValueId,
        was: &TensorDef,
        original: &Tensor,
        key: &str,
    ) -> Result<Option<Content>> {
        let Some(&(reader, slot)) = self.readers.get(&value) else {
            return Ok(None);
        };
        let folded = self.after.node(reader).input(slot);
        let Some(is) = folded.and_then(|folded| self.new.tensor(folded).ok()) else {
            return Ok(None);
        };
        let Payload::Computed(recipe) = &is.payload else {
            return Ok(None);
        };
        let Base::Stored(base) = &recipe.base else {
            return Ok(None);
        };
        let Some(epsilon) = epsilon(is.dtype) else {
            return Ok(None);
        };
        let factors: usize = recipe.scales.iter().map(|scale| scale.factors.len()).sum();
        let longer = factors * 8 >= original.data().len();
        if !base.is_same(was) || is.dims != was.dims || recipe.scales.is_empty() || longer {
            return Ok(None);
        }
        let (was, stored) = (original.to_f64()?, self.after.read_tensor(&is)?.to_f64()?);
        let first = &recipe.scales[0];
        let channel = |element: usize| element / first.inner.max(1) % first.factors.len();
        let mut lost = BTreeSet::new();
        for (element, (was, stored)) in was.iter().zip(&stored).enumerate() {
            let factor = recipe.scales.iter().fold(1.0, |factor, scale| {
                factor * scale.factors[element / scale.inner.max(1) % scale.factors.len()]
            });
            let back = is.dtype.round(stored / factor);
            // Two roundings; a NaN is a loss.
            let restored = (back - was).abs() <= 2.0 * epsilon * was.abs();
            if !restored {
                lost.insert(channel(element));
            }
        }
        if lost.len() * 2 > first.factors.len() {
            return Ok(None);
        }
        let mut scales = Vec::new();
        for (index, scale) in recipe.scales.iter().enumerate() {
            let name = format!("{key}.factors.{index}");
            let dims = vec![scale.factors.len()];
            let factors = Tensor::from_f64(DType::F64, dims, &scale.factors)?;
            self.tensors.insert(name.clone(), factors);
            scales.push((scale.inner, name));
        }
        let mut kept = None;
        if !lost.is_empty() {
            let elements = was.iter().enumerate();
            let elements = elements.filter(|(element, _)| lost.contains(&channel(*element)));
            let elements: Vec<f64> = elements.map(|(_, &value)| value).collect();
            let name = format!("{key}.kept");
            let tensor = Tensor::from_f64(is.dtype, vec![elements.len()], &elements)?;
            self.tensors.insert(name.clone(), tensor);
            kept = Some(Kept {
                channels: lost.into_iter().collect(),
                tensor: name,
            });
        }
        Ok(Some(Content::Scaled {
            reader: self.node_ref(reader),
            slot,
            scales,
            kept,
        }))
    }
}

/// The distance of 1 and the next number.
fn epsilon(dtype: DType) -> Option<f64> {
    Some(match dtype {
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        DType::F32 => f64::from(f32::EPSILON),
        DType::F64 => f64::EPSILON,
        _ => return None,
    })
}
