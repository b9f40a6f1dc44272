//! The elements of tensors: stored ones as they are, computed ones as their recipe says, whole or in chunks.
//!
//! Everything ends in a range of bytes of some source: elements in typed fields are first brought into the form that
//! `raw_data` has (floats already are, when packed), so that there is one loop to read them all.

use super::model::*;
use super::recipe::{Base, Recipe};
use super::typed;
use crate::source::Source;
use crate::stored::{CHUNK, Stored};
use crate::tensor::{decode_f64, element_count, encode_f64};
use crate::{DType, Error, Result, Tensor};

impl Model {
    /// The elements of a tensor. Computed ones are rounded once, to the type of the tensor.
    ///
    /// # Errors
    /// If they cannot be read, are not as many as the shape says, or (strings) have no fixed size.
    pub fn read_tensor(&self, tensor: &TensorDef) -> Result<Tensor> {
        let data = match &tensor.payload {
            Payload::Computed(_) => {
                let mut data = Vec::new();
                self.write_elements(tensor, tensor.dtype, &mut |part| {
                    data.extend_from_slice(part);
                    Ok(())
                })?;
                data.into()
            }
            _ => {
                let stored = self.stored(tensor)?;
                stored.source.read(stored.range)?
            }
        };
        Tensor::new(tensor.dtype, tensor.dims.to_vec(), data)
            .map_err(|error| self.in_tensor(tensor, error))
    }

    /// The elements of a tensor, widened to f64. Computed ones are not rounded.
    ///
    /// # Errors
    /// As [`Model::read_tensor`]; also if the type is not numeric.
    pub fn read_f64(&self, tensor: &TensorDef) -> Result<Vec<f64>> {
        let mut all = Vec::new();
        self.for_each_chunk(tensor, |_, values| {
            all.extend_from_slice(values);
            Ok(())
        })?;
        Ok(all)
    }

    /// Calls `visit` with the elements of a tensor in chunks, in order: the index of the first one and the elements,
    /// widened to f64. Computed ones are not rounded.
    ///
    /// # Errors
    /// As [`Model::read_f64`], and whatever `visit` returns.
    pub fn for_each_chunk(
        &self,
        tensor: &TensorDef,
        mut visit: impl FnMut(usize, &[f64]) -> Result<()>,
    ) -> Result<()> {
        match &tensor.payload {
            Payload::Computed(recipe) => {
                self.check_recipe(tensor, recipe)?;
                match &recipe.base {
                    Base::Values(values) => {
                        let mut buffer = Vec::new();
                        for (index, part) in values.chunks(CHUNK).enumerate() {
                            buffer.clear();
                            buffer.extend_from_slice(part);
                            recipe.scale(index * CHUNK, &mut buffer);
                            visit(index * CHUNK, &buffer)?;
                        }
                        Ok(())
                    }
                    Base::Stored(base) => self.for_each_stored(base, |start, values| {
                        recipe.scale(start, values);
                        visit(start, values)
                    }),
                }
            }
            _ => self.for_each_stored(tensor, |start, values| visit(start, values)),
        }
    }

    fn for_each_stored(
        &self,
        tensor: &TensorDef,
        mut visit: impl FnMut(usize, &mut [f64]) -> Result<()>,
    ) -> Result<()> {
        let size = tensor
            .dtype
            .size()
            .filter(|_| is_number(tensor.dtype))
            .ok_or_else(|| {
                let message = format!("expected numbers, found {}", tensor.dtype);
                self.in_tensor(tensor, Error::invalid(message))
            })?;
        let stored = self.stored(tensor)?;
        stored.for_each_part(CHUNK * size, |start, bytes| {
            visit(start / size, &mut decode_f64(tensor.dtype, bytes)?)
        })
    }

    /// The elements of a tensor as bytes in the form of `raw_data`: where they are, or, of computed ones, in memory.
    ///
    /// # Errors
    /// As [`Model::read_tensor`].
    pub fn elements(&self, tensor: &TensorDef) -> Result<Stored> {
        let Payload::Computed(_) = &tensor.payload else {
            return self.stored(tensor);
        };
        let data = self.read_tensor(tensor)?.data().clone();
        Ok(Stored {
            range: 0..data.len() as u64,
            source: Source::memory(data).into(),
        })
    }

    /// Where the elements of a tensor that is not computed are, in the form of `raw_data`.
    pub(crate) fn stored(&self, tensor: &TensorDef) -> Result<Stored> {
        self.locate(tensor)
            .map_err(|error| self.in_tensor(tensor, error))
    }

    fn locate(&self, tensor: &TensorDef) -> Result<Stored> {
        let bytes = element_count(&tensor.dims).and_then(|count| tensor.dtype.byte_len(count));
        let (source, range) = match &tensor.payload {
            Payload::Raw(range) => (self.source.clone(), range.clone()),
            Payload::External(external) => self.external(external, bytes)?,
            Payload::Typed => typed::locate(&self.source, tensor)?,
            Payload::Elsewhere(stored) => (stored.source.clone(), stored.range.clone()),
            Payload::Computed(_) => {
                return Err(Error::invalid("a computed tensor is stored nowhere"));
            }
        };
        let found = range.end - range.start;
        match bytes {
            Some(expected) if expected != found => Err(Error::invalid(format!(
                "a {} tensor of shape {:?} takes {expected} bytes, found {found}",
                tensor.dtype, tensor.dims
            ))),
            _ => Ok(Stored { source, range }),
        }
    }

    pub(super) fn check_recipe(&self, tensor: &TensorDef, recipe: &Recipe) -> Result<()> {
        let count = element_count(&tensor.dims)
            .ok_or_else(|| Error::invalid("the shape of a tensor overflows"));
        count
            .and_then(|count| recipe.check(count))
            .map_err(|error| self.in_tensor(tensor, error))
    }

    /// `error`, with the name of the tensor and of the file it is about.
    pub(crate) fn in_tensor(&self, tensor: &TensorDef, error: Error) -> Error {
        let name = tensor
            .span
            .clone()
            .and_then(|span| typed::name(&self.source, span));
        let error = match name.filter(|name| !name.is_empty()) {
            Some(name) => error.at(format!("tensor \"{name}\"")),
            None => error,
        };
        match self.source.path() {
            Some(path) => error.in_file(path),
            None => error,
        }
    }
}

/// As [`encode_f64`], but integers are rounded to the nearest, as floats are.
pub(super) fn encode_rounded(dtype: DType, values: &[f64], out: &mut Vec<u8>) -> Result<()> {
    if !dtype.is_integer() {
        return encode_f64(dtype, values, out);
    }
    let rounded: Vec<f64> = values.iter().map(|&value| dtype.round(value)).collect();
    encode_f64(dtype, &rounded, out)
}

fn is_number(dtype: DType) -> bool {
    dtype.is_float() || dtype.is_integer() || dtype == DType::Bool
}
