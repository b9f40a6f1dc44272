//! How far two values of one output are apart, over any number of samples. Computed in f64.
//!
//! NaN against NaN and an infinity against the same infinity are no difference; NaN or an infinity against anything else is an
//! infinite one. Such elements are left out of range and signal.

use bnkit_model::{Result, Tensor};
use serde::Serialize;

/// The distance of an output from its reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Metrics {
    /// The largest difference of two elements.
    pub max_abs: f64,
    /// That, relative to the largest magnitude in the reference (not to the element itself, which may be zero).
    pub max_rel: f64,
    /// The root of the mean squared difference.
    pub rms: f64,
    /// The reference's energy over that of the difference, in decibels; `None` where nothing differs, and where there is no signal.
    pub snr_db: Option<f64>,
    /// How often the largest element along the class axis is the same one; `None` for outputs that have no such axis.
    pub argmax_agreement: Option<f64>,
}

/// Gathers what [`Metrics`] says, tensor by tensor.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    elements: u64,
    finite: u64,
    max_abs: f64,
    range: f64,
    noise: f64,
    signal: f64,
    mismatches: u64,
    rows: u64,
    agreeing: u64,
}

impl Comparison {
    /// Adds one sample. Both tensors must have the same shape.
    ///
    /// # Errors
    /// If a tensor has no numbers.
    pub fn add(&mut self, reference: &Tensor, found: &Tensor) -> Result<()> {
        let (a, b) = (reference.to_f64()?, found.to_f64()?);
        for (&a, &b) in a.iter().zip(&b) {
            self.elements += 1;
            if a.is_finite() && b.is_finite() {
                let error = (a - b).abs();
                self.finite += 1;
                self.max_abs = self.max_abs.max(error);
                self.noise += error * error;
                self.signal += a * a;
            } else if !(a == b || a.is_nan() && b.is_nan()) {
                self.mismatches += 1;
            }
            if a.is_finite() {
                self.range = self.range.max(a.abs());
            }
        }
        if reference.dtype().is_float() {
            self.add_classes(reference.dims(), &a, &b);
        }
        Ok(())
    }

    fn add_classes(&mut self, dims: &[usize], a: &[f64], b: &[f64]) {
        let Some(axis) = class_axis(dims) else {
            return;
        };
        let classes = dims[axis];
        let inner: usize = dims[axis + 1..].iter().product();
        let outer: usize = dims[..axis].iter().product();
        for row in 0..outer * inner {
            let start = row / inner * classes * inner + row % inner;
            let at = |values: &[f64], class: usize| values[start + class * inner];
            let best = (0..classes).fold(0, |best, class| {
                if at(a, class) > at(a, best) {
                    class
                } else {
                    best
                }
            });
            // A tie in the candidate is no disagreement.
            let agrees = (0..classes).all(|class| at(b, class) <= at(b, best));
            self.rows += 1;
            self.agreeing += u64::from(agrees);
        }
    }

    /// The largest finite magnitude of the references.
    pub fn range(&self) -> f64 {
        self.range
    }

    /// The share of elements that are finite on both sides: what the numbers are about.
    pub fn finite(&self) -> f64 {
        if self.elements == 0 {
            1.0
        } else {
            self.finite as f64 / self.elements as f64
        }
    }

    /// The largest difference; infinite if an element is NaN or infinite on one side only.
    pub fn max_abs(&self) -> f64 {
        if self.mismatches > 0 {
            f64::INFINITY
        } else {
            self.max_abs
        }
    }

    /// The summary.
    pub fn metrics(&self) -> Metrics {
        let max_abs = self.max_abs();
        let noise = if self.mismatches > 0 {
            f64::INFINITY
        } else {
            self.noise
        };
        Metrics {
            max_abs,
            max_rel: relative(max_abs, self.range),
            rms: (noise / self.elements.max(1) as f64).sqrt(),
            snr_db: (noise > 0.0 && self.signal > 0.0)
                .then(|| 10.0 * (self.signal / noise).log10()),
            argmax_agreement: (self.rows > 0).then(|| self.agreeing as f64 / self.rows as f64),
        }
    }
}

/// `difference` relative to `range`; of nothing, any difference is infinite.
pub fn relative(difference: f64, range: f64) -> f64 {
    if difference == 0.0 {
        0.0
    } else {
        difference / range
    }
}

/// The axis that classes lie on: the last of a (batch, …, classes) output, the channels of an image-like one. An axis of one
/// element, or an output without a batch axis, has no classes.
fn class_axis(dims: &[usize]) -> Option<usize> {
    let axis = match dims.len() {
        0 | 1 => return None,
        2 | 3 => dims.len() - 1,
        _ => 1,
    };
    (dims[axis] > 1 && !dims.contains(&0)).then_some(axis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(dims: &[usize], a: &[f32], b: &[f32]) -> Metrics {
        let mut comparison = Comparison::default();
        let tensor = |values| Tensor::from_f32(dims.to_vec(), values).unwrap();
        comparison.add(&tensor(a), &tensor(b)).unwrap();
        comparison.metrics()
    }

    #[test]
    fn by_hand() {
        let metrics = compare(&[2, 2], &[3.0, -4.0, 0.0, 0.0], &[3.0, -4.5, 0.0, 0.5]);
        assert_eq!(metrics.max_abs, 0.5);
        assert_eq!(metrics.max_rel, 0.125);
        assert_eq!(metrics.rms, (0.5f64 / 4.0).sqrt());
        assert!((metrics.snr_db.unwrap() - 10.0 * 50f64.log10()).abs() < 1e-12);
    }

    #[test]
    fn equal_tensors_have_no_noise() {
        let metrics = compare(&[1, 2], &[1.0, 2.0], &[1.0, 2.0]);
        assert_eq!(metrics.max_abs, 0.0);
        assert_eq!(metrics.max_rel, 0.0);
        assert_eq!(metrics.snr_db, None);
        assert_eq!(metrics.argmax_agreement, Some(1.0));
    }

    #[test]
    fn nan_and_infinity_must_stand_in_the_same_places() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let same = compare(&[4], &[nan, inf, -inf, 1.0], &[nan, inf, -inf, 1.5]);
        assert_eq!(same.max_abs, 0.5);
        assert_eq!(same.max_rel, 0.5);
        for (a, b) in [
            (nan, 1.0),
            (1.0, nan),
            (inf, -inf),
            (inf, 3.0),
            (3.0, inf),
            (nan, inf),
        ] {
            let metrics = compare(&[1], &[a], &[b]);
            assert_eq!(metrics.max_abs, f64::INFINITY, "{a} {b}");
            assert_eq!(metrics.max_rel, f64::INFINITY, "{a} {b}");
            assert_eq!(metrics.rms, f64::INFINITY, "{a} {b}");
        }
    }

    #[test]
    fn a_difference_from_zero_is_infinite_relative_to_it() {
        assert_eq!(compare(&[1], &[0.0], &[1e-9]).max_rel, f64::INFINITY);
        assert_eq!(compare(&[1], &[0.0], &[0.0]).max_rel, 0.0);
    }

    #[test]
    fn classes_lie_on_the_last_axis_or_on_the_channels() {
        let agreement = |dims: &[usize], a: &[f32], b: &[f32]| compare(dims, a, b).argmax_agreement;
        assert_eq!(
            agreement(&[2, 2], &[1.0, 2.0, 5.0, 4.0], &[1.0, 2.0, 4.0, 5.0]),
            Some(0.5)
        );
        // (1, 2 channels, 1, 2 pixels): the second pixel changes its class.
        let (a, b) = ([1.0, 2.0, 0.0, 3.0], [1.0, 4.0, 0.0, 3.0]);
        assert_eq!(agreement(&[1, 2, 1, 2], &a, &b), Some(0.5));
        // A tie in the candidate counts as agreement.
        assert_eq!(agreement(&[1, 2], &[1.0, 2.0], &[2.0, 2.0]), Some(1.0));
        assert_eq!(agreement(&[3], &[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]), None);
        assert_eq!(agreement(&[3, 1], &[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]), None);
        assert_eq!(agreement(&[1, 1, 2, 2], &a, &b), None);
    }

    #[test]
    fn samples_add_up() {
        let mut comparison = Comparison::default();
        for (a, b) in [(10.0f32, 10.0f32), (1.0, 2.0)] {
            let tensor = |x| Tensor::from_f32(vec![1], &[x]).unwrap();
            comparison.add(&tensor(a), &tensor(b)).unwrap();
        }
        let metrics = comparison.metrics();
        assert_eq!(comparison.range(), 10.0);
        assert_eq!(comparison.finite(), 1.0);
        assert_eq!(metrics.max_rel, 0.1);
        assert_eq!(metrics.rms, 0.5f64.sqrt());
    }
}
