//! Vectors in f64 that remember what went into them, and units in the last place.

use bnkit_model::DType;

/// The relative error of one rounding in f64.
const HALF_ULP: f64 = 1.0 / (1u64 << 53) as f64;

/// Numbers, and how exactly they are known.
#[derive(Debug, Clone, Default)]
pub(super) struct Exact {
    /// The values.
    pub(super) value: Vec<f64>,
    /// For each value, the sum of the magnitudes of the terms in it.
    pub(super) size: Vec<f64>,
    /// How many roundings went into a value, at most.
    pub(super) terms: usize,
}

impl Exact {
    /// Numbers as they are stored.
    pub(super) fn stored(value: Vec<f64>) -> Self {
        let size = value.iter().map(|value| value.abs()).collect();
        Self {
            value,
            size,
            terms: 0,
        }
    }

    pub(super) fn zeros(count: usize) -> Self {
        Self::stored(vec![0.0; count])
    }

    pub(super) fn len(&self) -> usize {
        self.value.len()
    }

    /// How far value `index` may be off by the order in which it was computed.
    pub(super) fn slack(&self, index: usize) -> f64 {
        slack(self.terms, self.size[index])
    }

    /// A vector of one element, as one of `count` equal elements.
    pub(super) fn widened(self, count: usize) -> Self {
        if self.len() != 1 || count == 1 {
            return self;
        }
        Self {
            value: vec![self.value[0]; count],
            size: vec![self.size[0]; count],
            terms: self.terms,
        }
    }
}

/// What `terms` roundings of terms that sum up to `size` can do.
pub(super) fn slack(terms: usize, size: f64) -> f64 {
    terms as f64 * HALF_ULP * size
}

/// The layout of a float type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    /// Bits behind the leading one.
    fraction: i32,
    /// The exponents of the smallest and the largest normal numbers.
    exponents: (i32, i32),
}

impl Grid {
    /// The layout of `dtype`; `None` for types that are no floats.
    pub(super) fn of(dtype: DType) -> Option<Self> {
        let (fraction, exponents) = match dtype {
            DType::F16 => (10, (-14, 15)),
            DType::BF16 => (7, (-126, 127)),
            DType::F32 => (23, (-126, 127)),
            DType::F64 => (52, (-1022, 1023)),
            _ => return None,
        };
        Some(Self {
            fraction,
            exponents,
        })
    }

    /// The distance of neighbouring numbers around `value`. Below the smallest normal number it stays what it is there;
    /// beyond the largest one, what it was there.
    pub(super) fn ulp(self, value: f64) -> f64 {
        let exponent = (value.to_bits() >> 52 & 0x7ff) as i32 - 1023;
        let exponent = exponent.clamp(self.exponents.0, self.exponents.1);
        power_of_two(exponent - self.fraction)
    }
}

/// 2 to the power of `exponent`, which is at least −1074 and at most 1023.
fn power_of_two(exponent: i32) -> f64 {
    if exponent >= -1022 {
        f64::from_bits(((exponent + 1023) as u64) << 52)
    } else {
        f64::from_bits(1 << (exponent + 1074))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulps_of_each_type() {
        let ulp = |dtype, value| Grid::of(dtype).unwrap().ulp(value);
        assert_eq!(ulp(DType::F32, 1.0), f64::from(f32::EPSILON));
        assert_eq!(ulp(DType::F32, -1.999), f64::from(f32::EPSILON));
        assert_eq!(ulp(DType::F64, 1.0), f64::EPSILON);
        assert_eq!(ulp(DType::F16, 1.0), 2f64.powi(-10));
        assert_eq!(ulp(DType::BF16, 4.0), 2f64.powi(-5));
    }

    #[test]
    fn ulps_stay_the_same_below_the_normal_numbers() {
        let ulp = |dtype, value| Grid::of(dtype).unwrap().ulp(value);
        assert_eq!(ulp(DType::F16, 1e-5), 2f64.powi(-24));
        assert_eq!(ulp(DType::F16, 0.0), 2f64.powi(-24));
        assert_eq!(ulp(DType::F32, 0.0), f64::from(f32::from_bits(1)));
        assert_eq!(ulp(DType::F64, 0.0), f64::from_bits(1));
        assert_eq!(ulp(DType::F64, f64::from_bits(77)), f64::from_bits(1));
    }

    #[test]
    fn the_ulp_of_what_does_not_fit_is_that_of_the_largest_number() {
        let ulp = |dtype, value| Grid::of(dtype).unwrap().ulp(value);
        assert_eq!(ulp(DType::F16, 1e9), 32.0);
        assert_eq!(ulp(DType::F16, f64::INFINITY), 32.0);
    }
}
