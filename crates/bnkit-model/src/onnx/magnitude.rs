//! How large the elements of a tensor are: what decides whether they still fit a type after scaling.
//!
//! This looks at every weight of a model, so the common case (f32, with or without factors) has loops of its own that
//! the compiler vectorises: the magnitude of a float is its bits without the sign, compared as an integer.

use rayon::prelude::*;

use super::model::*;
use super::recipe::{Base, Recipe};
use crate::stored::{CHUNK, Stored};
use crate::{DType, Result};

/// The size of the elements of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Magnitude {
    /// The largest magnitude among those that are numbers; 0 if there are none.
    pub max_abs: f64,
    /// Whether all elements are finite.
    pub finite: bool,
}

/// The bytes that a thread takes at a time.
const PIECE: u64 = 1 << 20;

/// Infinity as bits; those of NaN without the sign are larger.
pub(super) const INFINITY: u32 = 0x7f80_0000;

impl Magnitude {
    const NONE: Self = Self {
        max_abs: 0.0,
        finite: true,
    };

    fn and(self, other: Self) -> Self {
        Self {
            max_abs: self.max_abs.max(other.max_abs),
            finite: self.finite && other.finite,
        }
    }

    fn of(values: &[f64]) -> Self {
        values.iter().fold(Self::NONE, |so_far, value| Self {
            max_abs: so_far.max_abs.max(value.abs()),
            finite: so_far.finite & value.is_finite(),
        })
    }

    /// Of f32 elements times one factor.
    fn of_run(bytes: &[u8], factor: f64) -> Self {
        let max = bytes
            .chunks_exact(4)
            .fold(0, |max: u32, part| max.max(bits(part) & 0x7fff_ffff));
        let max_abs = f64::from(f32::from_bits(max)) * factor.abs();
        if max < INFINITY && max_abs.is_finite() {
            return Self {
                max_abs,
                finite: true,
            };
        }
        let values: Vec<f64> = bytes
            .chunks_exact(4)
            .map(|part| f64::from(f32::from_bits(bits(part))) * factor)
            .collect();
        Self::of(&values)
    }

    /// Of f32 elements times a factor each.
    fn of_products(bytes: &[u8], factors: &[f64]) -> Self {
        let (mut max_abs, mut wrong) = (0.0, 0u64);
        for (part, factor) in bytes.chunks_exact(4).zip(factors) {
            let value = (f64::from(f32::from_bits(bits(part))) * factor).abs();
            max_abs = if value > max_abs { value } else { max_abs };
            wrong |= u64::from(value.is_nan() | value.is_infinite());
        }
        Self {
            max_abs,
            finite: wrong == 0,
        }
    }
}

fn bits(part: &[u8]) -> u32 {
    u32::from_le_bytes([part[0], part[1], part[2], part[3]])
}

impl Model {
    /// The size of the elements of a tensor; computed ones are not rounded.
    ///
    /// # Errors
    /// As [`Model::read_f64`].
    pub fn magnitude(&self, tensor: &TensorDef) -> Result<Magnitude> {
        match &tensor.payload {
            Payload::Computed(recipe) => match &recipe.base {
                Base::Stored(base) if base.dtype == DType::F32 => {
                    self.check_recipe(tensor, recipe)?;
                    self.magnitude_f32(base, recipe)
                }
                _ => self.magnitude_of_any(tensor),
            },
            _ if tensor.dtype == DType::F32 => {
                self.magnitude_f32(tensor, &Recipe::values(Vec::new()))
            }
            _ => self.magnitude_of_any(tensor),
        }
    }

    fn magnitude_of_any(&self, tensor: &TensorDef) -> Result<Magnitude> {
        let mut all = Magnitude::NONE;
        self.for_each_chunk(tensor, |_, values| {
            all = all.and(Magnitude::of(values));
            Ok(())
        })?;
        Ok(all)
    }

    /// In pieces that several threads take; the largest of all is the same in any order.
    fn magnitude_f32(&self, base: &TensorDef, recipe: &Recipe) -> Result<Magnitude> {
        let stored = self.stored(base)?;
        let pieces = stored.len().div_ceil(PIECE);
        (0..pieces)
            .into_par_iter()
            .map(|piece| {
                let start = piece * PIECE;
                let stop = stored.len().min(start + PIECE);
                magnitude_of_piece(&stored.part(start..stop), start as usize / 4, recipe)
            })
            .try_reduce(|| Magnitude::NONE, |one, other| Ok(one.and(other)))
    }
}

/// Of the f32 elements from `first` on.
fn magnitude_of_piece(stored: &Stored, first: usize, recipe: &Recipe) -> Result<Magnitude> {
    let mut all = Magnitude::NONE;
    let mut factors = Vec::new();
    stored.for_each_part(CHUNK * 4, |start, bytes| {
        let (start, length) = (first + start / 4, bytes.len() / 4);
        if recipe.has_long_runs() {
            recipe.for_each_run(start, length, |run, factor| {
                let run = &bytes[4 * run.start..4 * run.end];
                all = all.and(Magnitude::of_run(run, factor));
            });
        } else {
            factors.resize(length, 0.0);
            recipe.factors(start, &mut factors);
            all = all.and(Magnitude::of_products(bytes, &factors));
        }
        Ok(())
    })?;
    Ok(all)
}
