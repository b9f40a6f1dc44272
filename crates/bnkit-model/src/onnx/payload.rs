//! The elements of tensors on the way out: copied, or computed chunk by chunk and rounded once.

use super::magnitude::INFINITY;
use super::model::*;
use super::read::encode_rounded;
use super::recipe::{Base, Recipe};
use crate::stored::CHUNK;
use crate::{DType, Error, Result};

impl Model {
    /// Gives the elements of `tensor` to `sink` in parts, little-endian. Computed ones are rounded once to `dtype`,
    /// which is the type of the tensor unless they are wanted wider; stored ones are passed on as they are.
    pub(crate) fn write_elements(
        &self,
        tensor: &TensorDef,
        dtype: DType,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Payload::Computed(recipe) = &tensor.payload else {
            return self
                .stored(tensor)?
                .for_each_part(CHUNK * 4, |_, bytes| sink(bytes));
        };
        self.check_recipe(tensor, recipe)?;
        match &recipe.base {
            Base::Stored(base) if base.dtype == DType::F32 && dtype == DType::F32 => {
                self.write_f32(base, recipe, sink)
            }
            _ => {
                let mut out = Vec::new();
                self.for_each_chunk(tensor, |_, values| {
                    let finite = |value: &f64| dtype.round(*value).is_finite();
                    if recipe.must_be_finite && !values.iter().all(finite) {
                        return Err(Error::NotFinite);
                    }
                    out.clear();
                    encode_rounded(dtype, values, &mut out)?;
                    sink(&out)
                })
            }
        }
    }

    /// The common case, in place and in loops that the compiler vectorises.
    fn write_f32(
        &self,
        base: &TensorDef,
        recipe: &Recipe,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut factors = Vec::new();
        self.stored(base)?.for_each_part(CHUNK * 4, |start, bytes| {
            let (start, length) = (start / 4, bytes.len() / 4);
            let mut largest = 0;
            if recipe.has_long_runs() {
                recipe.for_each_run(start, length, |run, factor| {
                    for part in bytes[4 * run.start..4 * run.end].chunks_exact_mut(4) {
                        largest = largest.max(multiply(part, factor));
                    }
                });
            } else {
                factors.resize(length, 0.0);
                recipe.factors(start, &mut factors);
                for (part, factor) in bytes.chunks_exact_mut(4).zip(&factors) {
                    largest = largest.max(multiply(part, *factor));
                }
            }
            if recipe.must_be_finite && largest >= INFINITY {
                return Err(Error::NotFinite);
            }
            sink(bytes)
        })
    }
}

/// The bits of the product without its sign: as integers they are in the order of the magnitudes.
fn multiply(part: &mut [u8], factor: f64) -> u32 {
    let value = f32::from_le_bytes([part[0], part[1], part[2], part[3]]);
    let product = (f64::from(value) * factor) as f32;
    part.copy_from_slice(&product.to_le_bytes());
    product.to_bits() & 0x7fff_ffff
}
