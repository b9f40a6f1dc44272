//! How a tensor that does not exist yet is computed: a stored tensor or values in f64, times factors in f64.
//!
//! Recipes compose without rounding: a second change to the same weight adds a factor, and the product is rounded to
//! the stored type once, when it is written. Evaluation goes in chunks, so that a large weight is never held whole.

use std::sync::Arc;

use super::model::TensorDef;

/// A tensor to be computed. The result has the dimensions of the [`TensorDef`] that holds the recipe.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What the factors are applied to.
    pub base: Base,
    /// Factors, applied one after the other.
    pub scales: Vec<Scale>,
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
    /// Plain values.
    pub fn values(values: Vec<f64>) -> Self {
        Self {
            base: Base::Values(values.into()),
            scales: Vec::new(),
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

    /// Multiplies `values`, the elements from `start` on, by their factors.
    pub fn scale(&self, start: usize, values: &mut [f64]) {
        if self.scales.is_empty() {
            return;
        }
        let mut done = 0;
        while done < values.len() {
            let (factor, length) = self.run(start + done);
            let until = values.len().min(done.saturating_add(length));
            for value in &mut values[done..until] {
                *value *= factor;
            }
            done = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_follow_their_axis() {
        // shape (2, 3, 2): one factor along axis 1, then one along axis 0.
        let recipe = Recipe {
            base: Base::Values(Arc::new([])),
            scales: vec![
                Scale {
                    inner: 2,
                    factors: Arc::new([1.0, 10.0, 100.0]),
                },
                Scale {
                    inner: 6,
                    factors: Arc::new([1.0, -1.0]),
                },
            ],
        };
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
}
