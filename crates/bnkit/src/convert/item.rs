//! A tensor on its way into a state dict: where its elements are, and what they become.

use std::sync::Arc;

use bnkit_model::DType;
use bnkit_model::onnx::{Model, Recipe, TensorDef};
use bnkit_model::safetensors::{self, NewTensor, StateDict, dtype_of, of_dtype};

use super::report::Rounding;
use super::rounding;
use crate::Result;

/// A tensor to write.
#[derive(Debug, Clone)]
pub(super) struct Item<'c> {
    pub(super) name: String,
    /// `None`: a type that ONNX does not have; its elements are carried.
    pub(super) dtype: Option<DType>,
    pub(super) elements: Elements<'c>,
    /// Whether it is a running mean or variance.
    pub(super) statistic: bool,
    /// The type that it is rounded to, where that is another.
    pub(super) to: Option<DType>,
}

/// Where elements are.
#[derive(Debug, Clone)]
pub(super) enum Elements<'c> {
    /// In a state dict.
    Dict(&'c StateDict, &'c safetensors::Tensor),
    /// In a model.
    Model(&'c Model, TensorDef),
}

impl<'c> Item<'c> {
    pub(super) fn of_dict(dict: &'c StateDict, tensor: &'c safetensors::Tensor) -> Self {
        Self {
            name: tensor.name.clone(),
            dtype: dtype_of(tensor.dtype),
            elements: Elements::Dict(dict, tensor),
            statistic: super::names::is_statistic(&tensor.name),
            to: None,
        }
    }

    pub(super) fn of_model(
        model: &'c Model,
        name: String,
        tensor: TensorDef,
        statistic: bool,
    ) -> Self {
        Self {
            name,
            dtype: Some(tensor.dtype),
            elements: Elements::Model(model, tensor),
            statistic,
            to: None,
        }
    }

    /// Whether arithmetic is done in its type.
    pub(super) fn is_float(&self) -> bool {
        self.dtype.is_some_and(DType::is_float)
    }

    /// The tensor as it is written.
    ///
    /// # Errors
    /// If safetensors has no such type.
    pub(super) fn into_new(self) -> Result<NewTensor<'c>> {
        Ok(match (self.elements, self.to) {
            (Elements::Dict(dict, tensor), None) => NewTensor::copy(dict, tensor),
            (Elements::Dict(dict, tensor), Some(to)) => {
                let to = of_dtype(to).unwrap_or(tensor.dtype);
                NewTensor::rounded(dict, tensor, to)?
            }
            (Elements::Model(model, tensor), None) => {
                NewTensor::of_model(self.name, model, tensor)?
            }
            (Elements::Model(model, tensor), Some(to)) => {
                NewTensor::of_model(self.name, model, rounded(tensor, to))?
            }
        })
    }

    /// What rounding changes; `None` if its type stays, or the other has all of its values.
    ///
    /// # Errors
    /// If the elements cannot be read.
    pub(super) fn rounding(&self) -> Result<Option<Rounding>> {
        let (Some(from), Some(to)) = (self.dtype, self.to) else {
            return Ok(None);
        };
        if super::matching::is_wider(from, to) {
            return Ok(None);
        }
        let mut seen = rounding::Seen::new(from, to);
        match &self.elements {
            Elements::Dict(dict, tensor) => dict.for_each_chunk(tensor, |_, values| {
                seen.add(values);
                Ok(())
            })?,
            Elements::Model(model, tensor) => model.for_each_chunk(tensor, |_, values| {
                seen.add(values);
                Ok(())
            })?,
        }
        Ok(Some(seen.into_report(self.name.clone(), self.statistic)))
    }
}

/// `tensor`, rounded once to another float type.
fn rounded(tensor: TensorDef, to: DType) -> TensorDef {
    TensorDef::computed(to, tensor.dims.clone(), recipe(tensor))
}

/// How the elements of `tensor` are computed from what is stored.
pub(super) fn recipe(tensor: TensorDef) -> Arc<Recipe> {
    Recipe::of(&tensor.into()).into()
}
