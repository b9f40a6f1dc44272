//! What the elements of a tensor are like, read in chunks: a tensor may be larger than memory.
//!
//! Two passes: the first one finds the ends and the mean, the second one the deviation from that mean and the histogram
//! between those ends. Sums are f64.

use bnkit_model::stored::{CHUNK, Stored};
use bnkit_model::tensor::decode_f64;
use bnkit_model::{DType, Result};
use serde::Serialize;

/// How many values a report shows.
const SHOWN: usize = 16;
/// How many bins a histogram has.
const BINS: usize = 16;

/// What the elements of a tensor are like. NaNs count nowhere but in `nan` and `not_finite`; `mean`, `std` and the histogram
/// are those of the finite ones.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Values {
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
    /// The standard deviation (population).
    pub std: f64,
    /// How many are 0.
    pub zeros: u64,
    /// How many are NaN or infinite.
    pub not_finite: u64,
    /// How many are NaN.
    pub nan: u64,
    /// How the finite ones are spread; `None` if there are none, or all are equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
    /// The first ones, in row-major order.
    pub first: Vec<f64>,
}

/// How values are spread: bins of equal width.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Histogram {
    /// Where the first bin begins.
    pub low: f64,
    /// Where the last bin ends; that value is in it.
    pub high: f64,
    /// How many values are in each bin.
    pub counts: Vec<u64>,
}

/// The ends of the elements, and how many of them are special.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ends {
    /// The smallest that is no NaN.
    pub min: f64,
    /// The largest that is no NaN.
    pub max: f64,
    /// How many are 0.
    pub zeros: u64,
    /// How many are NaN.
    pub nan: u64,
    /// How many are infinite.
    pub infinite: u64,
}

impl Default for Ends {
    fn default() -> Self {
        Self {
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            zeros: 0,
            nan: 0,
            infinite: 0,
        }
    }
}

impl Ends {
    /// Takes in more elements.
    pub(crate) fn add(&mut self, values: &[f64]) {
        for &value in values {
            // f64::min and max pass over NaN.
            self.min = self.min.min(value);
            self.max = self.max.max(value);
            self.zeros += u64::from(value == 0.0);
            self.nan += u64::from(value.is_nan());
            self.infinite += u64::from(value.is_infinite());
        }
    }
}

/// Calls `visit` with the elements in chunks, widened to f64.
///
/// # Errors
/// If they cannot be read, or are no numbers.
pub(crate) fn each_chunk(
    stored: &Stored,
    dtype: DType,
    mut visit: impl FnMut(&[f64]),
) -> Result<()> {
    let size = dtype.size().unwrap_or(1);
    stored.for_each_part(CHUNK * size, |_, bytes| {
        visit(&decode_f64(dtype, bytes)?);
        Ok(())
    })
}

/// Looks at all elements; `None` if there are none.
///
/// # Errors
/// If they cannot be read, or are no numbers.
pub(crate) fn read(stored: &Stored, dtype: DType) -> Result<Option<Values>> {
    let mut ends = Ends::default();
    let mut finite = Finite::default();
    let mut first = Vec::new();
    each_chunk(stored, dtype, |values| {
        first.extend(values.iter().copied().take(SHOWN - first.len()));
        ends.add(values);
        values.iter().for_each(|&value| finite.add(value));
    })?;
    if first.is_empty() {
        return Ok(None);
    }
    let mean = finite.sum / finite.count.max(1) as f64;
    let (low, high) = (finite.min, finite.max);
    let mut counts = vec![0; BINS];
    let mut squares = 0.0;
    let width = (high - low) / BINS as f64;
    let spread = finite.count > 0 && width > 0.0 && width.is_finite();
    each_chunk(stored, dtype, |values| {
        for value in values.iter().filter(|value| value.is_finite()) {
            squares += (value - mean).powi(2);
            if spread {
                let bin = ((value - low) / width) as usize;
                counts[bin.min(BINS - 1)] += 1;
            }
        }
    })?;
    Ok(Some(Values {
        min: ends.min,
        max: ends.max,
        mean,
        std: (squares / finite.count.max(1) as f64).sqrt(),
        zeros: ends.zeros,
        not_finite: ends.nan + ends.infinite,
        nan: ends.nan,
        histogram: spread.then_some(Histogram { low, high, counts }),
        first,
    }))
}

/// The finite elements so far.
struct Finite {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Default for Finite {
    fn default() -> Self {
        Self {
            count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Finite {
    fn add(&mut self, value: f64) {
        if value.is_finite() {
            self.count += 1;
            self.sum += value;
            self.min = self.min.min(value);
            self.max = self.max.max(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use bnkit_model::source::Source;

    use super::*;

    fn values(elements: &[f32]) -> Option<Values> {
        let bytes: Vec<u8> = elements.iter().flat_map(|it| it.to_le_bytes()).collect();
        let stored = Stored {
            range: 0..bytes.len() as u64,
            source: Source::memory(bytes).into(),
        };
        read(&stored, DType::F32).unwrap()
    }

    #[test]
    fn nan_is_counted_and_nothing_else() {
        let values = values(&[1.0, 3.0, 0.0, f32::NAN]).unwrap();
        assert_eq!((values.min, values.max, values.zeros), (0.0, 3.0, 1));
        assert_eq!((values.not_finite, values.nan), (1, 1));
        // (1 + 3 + 0)/3; the variance is 14/9.
        assert!((values.mean - 4.0 / 3.0).abs() < 1e-15);
        assert!((values.std - (14.0f64 / 9.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn an_infinity_is_an_end_and_no_part_of_the_spread() {
        let values = values(&[0.0, 16.0, 15.5, 1.0, f32::INFINITY]).unwrap();
        assert_eq!(
            (values.max, values.not_finite, values.nan),
            (f64::INFINITY, 1, 0)
        );
        let histogram = values.histogram.unwrap();
        assert_eq!((histogram.low, histogram.high), (0.0, 16.0));
        // Bins of width 1: 0 in the first, 1 in the second, 15.5 and the end itself in the last.
        let mut expected = vec![0; 16];
        (expected[0], expected[1], expected[15]) = (1, 1, 2);
        assert_eq!(histogram.counts, expected);
    }

    #[test]
    fn many_chunks_are_one_tensor() {
        // 0, 1, 2 … n − 1: mean (n − 1)/2, variance (n² − 1)/12.
        let n = 2 * CHUNK + 3;
        let elements: Vec<f32> = (0..n).map(|at| at as f32).collect();
        let values = values(&elements).unwrap();
        let n = n as f64;
        assert_eq!(values.mean, (n - 1.0) / 2.0);
        assert!((values.std / ((n * n - 1.0) / 12.0).sqrt() - 1.0).abs() < 1e-12);
        assert_eq!(values.first.len(), SHOWN);
        assert_eq!(
            values.histogram.unwrap().counts.iter().sum::<u64>(),
            n as u64
        );
    }

    #[test]
    fn nothing_and_equal_values_have_no_spread() {
        assert_eq!(values(&[]), None);
        assert_eq!(values(&[2.0, 2.0]).unwrap().histogram, None);
        assert_eq!(values(&[f32::NAN]).unwrap().histogram, None);
    }
}
