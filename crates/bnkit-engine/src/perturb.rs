//! Small changes to constants while a model is loaded, to measure how far rounding them moves the outputs.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bnkit_model::DType;

/// A change to some constants, by the names of initializers or of the outputs of Constant nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Perturbation {
    /// Rounds each to a narrower type: what storing an exact constant costs.
    Round(HashMap<String, DType>),
    /// Moves each value by half a unit in the last place of its stored type, up or down at random: what storing these constants must
    /// have cost, where the exact ones are not known.
    Jitter {
        /// The constants to move.
        tensors: HashSet<String>,
        /// Picks the directions.
        seed: u64,
    },
    /// Moves each value by one unit in the last place of its stored type, up or down at random. Half a unit is more than none only in
    /// a wider type; an engine that has no wider type can run this.
    Nudge {
        /// The constants to move.
        tensors: HashSet<String>,
        /// Picks the directions.
        seed: u64,
    },
}

impl Perturbation {
    /// Whether the constant of this name changes.
    pub(crate) fn touches(&self, name: &str) -> bool {
        match self {
            Self::Round(types) => types.contains_key(name),
            Self::Jitter { tensors, .. } | Self::Nudge { tensors, .. } => tensors.contains(name),
        }
    }

    /// Changes the values of the constant of this name, stored as `dtype`.
    pub(crate) fn apply(&self, name: &str, dtype: DType, values: &mut [f64]) {
        match self {
            Self::Round(types) => {
                if let Some(dtype) = types.get(name) {
                    for value in values {
                        *value = dtype.round(*value);
                    }
                }
            }
            Self::Jitter { seed, .. } | Self::Nudge { seed, .. } => {
                let step = match self {
                    Self::Nudge { .. } => 1.0,
                    _ => 0.5,
                };
                let mut hasher = DefaultHasher::new();
                (seed, name).hash(&mut hasher);
                // SplitMix64: the directions need not be more random than that.
                let mut state = hasher.finish();
                for value in values {
                    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let mut bits = state;
                    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                    let distance = step * ulp(dtype, *value);
                    *value += if (bits >> 63) == 0 {
                        distance
                    } else {
                        -distance
                    };
                }
            }
        }
    }
}

/// The distance of neighbouring values of `dtype` at `value`; 0 at 0 and where there is none.
fn ulp(dtype: DType, value: f64) -> f64 {
    let (digits, lowest) = match dtype {
        DType::F16 => (10, -14),
        DType::BF16 => (7, -126),
        DType::F32 => (23, -126),
        DType::F64 => (52, -1022),
        _ => return 0.0,
    };
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let exponent = (value.abs().log2().floor() as i32).max(lowest);
    2f64.powi(exponent - digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_in_the_last_place() {
        assert_eq!(ulp(DType::F32, 1.5), f64::from(f32::EPSILON));
        assert_eq!(ulp(DType::F16, -2048.0), 2.0);
        assert_eq!(ulp(DType::F16, 1e-7), 2f64.powi(-24));
        assert_eq!(ulp(DType::F32, 0.0), 0.0);
    }

    #[test]
    fn jitter_is_half_a_unit_both_ways_and_repeatable() {
        let how = Perturbation::Jitter {
            tensors: ["w".to_owned()].into(),
            seed: 1,
        };
        assert!(how.touches("w") && !how.touches("b"));
        let mut values = vec![1.0; 100];
        how.apply("w", DType::BF16, &mut values);
        let up = values
            .iter()
            .filter(|&&value| value == 1.0 + 1.0 / 256.0)
            .count();
        let down = values
            .iter()
            .filter(|&&value| value == 1.0 - 1.0 / 256.0)
            .count();
        assert_eq!(up + down, 100);
        assert!(up > 30 && down > 30);
        let mut again = vec![1.0; 100];
        how.apply("w", DType::BF16, &mut again);
        assert_eq!(values, again);
    }

    #[test]
    fn a_nudge_is_a_neighbour_in_the_stored_type() {
        let how = Perturbation::Nudge {
            tensors: ["w".to_owned()].into(),
            seed: 1,
        };
        let before = [1.5f32, -3.0e-7, 0.1, 1.0e20].map(f64::from);
        let mut values = before;
        how.apply("w", DType::F32, &mut values);
        for (value, before) in values.iter().zip(before) {
            let (value, before) = (*value as f32, before as f32);
            assert!(value == before.next_up() || value == before.next_down());
        }
    }

    #[test]
    fn rounding_is_to_the_named_type() {
        let how = Perturbation::Round([("w".to_owned(), DType::F16)].into());
        let mut values = [2049.0, 0.1];
        how.apply("w", DType::F64, &mut values);
        assert_eq!(values, [2048.0, 0.0999755859375]);
    }
}
