//! How a tensor that does not exist yet is computed: a stored tensor or values in f64, times factors in f64.
//!
//! Recipes compose without rounding: a second change to the same weight adds a factor, and the product is rounded to
//! the stored type once, when it is written. Evaluation goes in chunks, so that a large weight is never held whole.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::model::{Payload, TensorDef};
use crate::tensor::element_count;
use crate::{Error, Result};

/// A tensor to be computed. The result has the dimensions of the [`TensorDef`] that holds the recipe.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What the factors are applied to.
    pub base: Base,
    /// Factors, applied one after the other. A fold brings one.
    pub scales: SmallVec<[Scale; 1]>,
    /// Whether all elements must be finite once they are rounded. Nobody looks before they are written, and saving fails with
    /// [`Error::NotFinite`] if one is not.
    pub must_be_finite: bool,
}

/// The start of a recipe.
#[derive(Debug, Clone)]
pub enum Base {
    /// A tensor of the model file; never itself computed.
    Stored(Arc<TensorDef>),
    /// Values in row-major order.
    Values(Arc<[f64]>),
}

/// Factors along one axis, or along several adjacent axes: element `e` (row-major) is multiplied by
/// `factors[(e / inner) % factors.len()]`.
#[derive(Debug, Clone)]
pub struct Scale {
    /// How many adjacent elements share a factor: the product of the dimensions behind the axis.
    pub inner: usize,
    /// One factor for each index along the axis (or axes).
    pub factors: Arc<[f64]>,
}

impl Recipe {
    fn new(base: Base) -> Self {
        Self {
            base,
            scales: SmallVec::new(),
            must_be_finite: false,
        }
    }

    /// Plain values.
    pub fn values(values: Vec<f64>) -> Self {
        Self::new(Base::Values(values.into()))
    }

    /// What `tensor` holds: its own recipe if it is computed.
    pub fn of(tensor: &Arc<TensorDef>) -> Self {
        match &tensor.payload {
            Payload::Computed(recipe) => Self::clone(recipe),
            _ => Self::new(Base::Stored(tensor.clone())),
        }
    }

    /// The same, times `scales` too.
    pub fn times(mut self, scales: impl IntoIterator<Item = Scale>) -> Self {
        self.scales.extend(scales);
        self
    }

    /// Checks that the recipe makes `count` elements.
    ///
    /// # Errors
    /// If its base has another number of elements, is itself computed, or a scale has no factors.
    pub(crate) fn check(&self, count: u64) -> Result<()> {
        let found = match &self.base {
            Base::Stored(base) if matches!(base.payload, Payload::Computed(_)) => {
                return Err(Error::invalid(
                    "a computed tensor is built on a computed one",
                ));
            }
            Base::Stored(base) => element_count(&base.dims).unwrap_or(u64::MAX),
            Base::Values(values) => values.len() as u64,
        };
        if found != count {
            let message = format!("a tensor of {count} elements is computed from {found}");
            return Err(Error::invalid(message));
        }
        if count > 0 && self.scales.iter().any(|scale| scale.factors.is_empty()) {
            return Err(Error::invalid("a tensor is scaled by no factors"));
        }
        Ok(())
    }

    /// Whether runs are long enough that going run by run is the fast way; else [`Recipe::factors`] is.
    pub(crate) fn has_long_runs(&self) -> bool {
        self.scales.iter().all(|scale| scale.inner >= LONG_RUN)
    }

    /// Calls `visit` with the parts of `0..length` that share a factor, where 0 stands for element `start`.
    pub(crate) fn for_each_run(
        &self,
        start: usize,
        length: usize,
        mut visit: impl FnMut(Range<usize>, f64),
    ) {
        let mut done = 0;
        while done < length {
            let (factor, run) = self.run(start + done);
            let until = length.min(done.saturating_add(run));
            visit(done..until, factor);
            done = until;
        }
    }

    /// The factors of the elements from `start` on, one by one.
    pub(crate) fn factors(&self, start: usize, out: &mut [f64]) {
        out.fill(1.0);
        for scale in &self.scales {
            let (inner, count) = (scale.inner.max(1), scale.factors.len());
            if inner == 1 {
                let mut at = start % count;
                let mut rest = &mut *out;
                while !rest.is_empty() {
                    let (now, later) = rest.split_at_mut(rest.len().min(count - at));
                    for (value, factor) in now.iter_mut().zip(&scale.factors[at..]) {
                        *value *= factor;
                    }
                    (at, rest) = (0, later);
                }
                continue;
            }
            let mut done = 0;
            while done < out.len() {
                let block = (start + done) / inner;
                let until = out.len().min((block + 1) * inner - start);
                let factor = scale.factors[block % count];
                out[done..until]
                    .iter_mut()
                    .for_each(|value| *value *= factor);
                done = until;
            }
        }
    }

    /// The factor of the elements from `start` on, and how many elements share it.
    fn run(&self, start: usize) -> (f64, usize) {
        let mut factor = 1.0;
        let mut length = usize::MAX;
        for scale in &self.scales {
            let inner = scale.inner.max(1);
            let block = start / inner;
            factor *= scale.factors[block % scale.factors.len()];
            length = length.min((block + 1) * inner - start);
        }
        (factor, length)
    }

    /// Multiplies `values`, the elements from `start` on, by their factors: by the product of these, however the
    /// elements are cut into chunks.
    pub fn scale(&self, start: usize, values: &mut [f64]) {
        if self.scales.is_empty() {
            return;
        }
        if self.has_long_runs() {
            self.for_each_run(start, values.len(), |run, factor| {
                values[run].iter_mut().for_each(|value| *value *= factor);
            });
            return;
        }
        let mut factors = [0.0; 512];
        for (index, part) in values.chunks_mut(factors.len()).enumerate() {
            let factors = &mut factors[..part.len()];
            self.factors(start + index * 512, factors);
            for (value, factor) in part.iter_mut().zip(factors) {
                *value *= *factor;
            }
        }
    }
}

/// From this length on, a loop over one run is worth its start.
const LONG_RUN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_follow_their_axis() {
        // shape (2, 3, 2): one factor along axis 1, then one along axis 0.
        let recipe = Recipe::values(Vec::new()).times([
            Scale {
                inner: 2,
                factors: Arc::new([1.0, 10.0, 100.0]),
            },
            Scale {
                inner: 6,
                factors: Arc::new([1.0, -1.0]),
            },
        ]);
        let mut values: Vec<f64> = (1..=12).map(f64::from).collect();
        recipe.scale(0, &mut values);
        let expected = [
            1., 2., 30., 40., 500., 600., -7., -8., -90., -100., -1100., -1200.,
        ];
        assert_eq!(values, expected);
        // The same from the middle.
        let mut part = [4.0, 5.0, 6.0, 7.0];
        recipe.scale(3, &mut part);
        assert_eq!(part, expected[3..7]);
    }

    #[test]
    fn short_and_long_runs_give_the_same() {
        // shape (5, 7, 64): axis 0, axis 1, and (for the short way) axis 2 with factors of 1.
        let factors = |count: usize| {
            (0..count)
                .map(|index| 1.0 / (index + 3) as f64)
                .collect::<Arc<[f64]>>()
        };
        let long = Recipe::values(Vec::new()).times([
            Scale {
                inner: 448,
                factors: factors(5),
            },
            Scale {
                inner: 64,
                factors: factors(7),
            },
        ]);
        let mut short = long.clone();
        short.scales.push(Scale {
            inner: 1,
            factors: vec![1.0; 64].into(),
        });
        assert!(long.has_long_runs() && !short.has_long_runs());
        for start in [0, 1, 63, 64, 700] {
            let mut values: Vec<f64> = (start..2240).map(|index| (index as f64).sin()).collect();
            let mut same = values.clone();
            long.scale(start, &mut values);
            short.scale(start, &mut same);
            assert_eq!(values, same);
        }
    }

    #[test]
    fn a_recipe_that_does_not_fit_is_an_error() {
        assert!(Recipe::values(vec![1.0; 3]).check(4).is_err());
        let mut recipe = Recipe::values(vec![1.0; 4]);
        assert!(recipe.check(4).is_ok());
        recipe.scales.push(Scale {
            inner: 1,
            factors: Arc::new([]),
        });
        assert!(recipe.check(4).is_err());
    }
}
