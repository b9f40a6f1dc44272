//! Mergeable moments: how many elements were seen per channel, their mean and the sum of their squared deviations from it.
//!
//! The variance never comes from E[x²] − E[x]², which cancels; partial results are merged by the formula of Chan, Golub and
//! LeVeque. So batches, threads and machines can split the work in any way, and the result is the same to a few units of f64's
//! last place.

use crate::kernels;
use crate::{EngineError, Result};

/// Count, mean and sum of squared deviations of each channel. Every channel has seen equally many elements.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Moments {
    /// The number of elements per channel.
    pub count: u64,
    /// The mean of each channel.
    pub mean: Vec<f64>,
    /// The sum of squared deviations from the mean, of each channel.
    pub m2: Vec<f64>,
}

impl Moments {
    /// What nothing has been seen of yet.
    pub fn empty(channels: usize) -> Self {
        Self {
            count: 0,
            mean: vec![0.0; channels],
            m2: vec![0.0; channels],
        }
    }

    /// The moments of `data`, laid out as `outer` × `channels` × `inner` in row-major order (a batch, its channels, its pixels).
    ///
    /// # Panics
    /// If `data` does not have as many elements as that.
    pub fn of_planes<T: Copy + Into<f64>>(
        data: &[T],
        outer: usize,
        channels: usize,
        inner: usize,
    ) -> Self {
        assert_eq!(data.len(), outer * channels * inner, "elements");
        let mut out = Self::empty(channels);
        out.count = (outer * inner) as u64;
        if out.count > 0 {
            kernels::moments(data, channels, inner, &mut out.mean, &mut out.m2);
        }
        out
    }

    /// How many channels there are.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// Adds what another part of the data has seen.
    ///
    /// # Errors
    /// If the channels are not the same number.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.count == 0 && self.mean.is_empty() {
            self.clone_from(other);
            return Ok(());
        }
        if self.channels() != other.channels() {
            return Err(EngineError::model(format!(
                "moments of {} channels cannot be merged with moments of {}",
                self.channels(),
                other.channels()
            )));
        }
        if other.count == 0 {
            return Ok(());
        }
        let total = self.count + other.count;
        let share = other.count as f64 / total as f64;
        let spread = self.count as f64 * share;
        let ours = self.mean.iter_mut().zip(&mut self.m2);
        for ((mean, m2), (&other_mean, &other_m2)) in ours.zip(other.mean.iter().zip(&other.m2)) {
            let delta = other_mean - *mean;
            *mean += delta * share;
            *m2 += other_m2 + delta * delta * spread;
        }
        self.count = total;
        Ok(())
    }

    /// The population variance (divided by n) of each channel; NaN if nothing was seen.
    pub fn variance(&self) -> Vec<f64> {
        self.m2.iter().map(|m2| m2 / self.count as f64).collect()
    }

    /// The unbiased variance (divided by n − 1) of each channel; NaN or infinite with fewer than two elements.
    pub fn unbiased_variance(&self) -> Vec<f64> {
        self.m2
            .iter()
            .map(|m2| m2 / (self.count as f64 - 1.0))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: &[f64], b: &[f64], scale: f64) -> bool {
        a.iter()
            .zip(b)
            .all(|(a, b)| (a - b).abs() <= 1e-12 * scale.max(b.abs()))
    }

    proptest! {
        #[test]
        fn merging_in_any_split_and_order_gives_the_same(
            values in prop::collection::vec(-1e3f64..1e3, 2..200),
            offset in -1e4f64..1e4,
            cuts in prop::collection::vec(0usize..200, 0..6),
            backwards: bool,
        ) {
            let values: Vec<f64> = values.iter().map(|x| x + offset).collect();
            let whole = Moments::of_planes(&values, 1, 1, values.len());
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % values.len()).collect();
            cuts.extend([0, values.len()]);
            cuts.sort_unstable();
            let mut parts: Vec<Moments> = cuts
                .windows(2)
                .map(|cut| {
                    let part = &values[cut[0]..cut[1]];
                    Moments::of_planes(part, 1, 1, part.len())
                })
                .collect();
            if backwards {
                parts.reverse();
            }
            let mut merged = Moments::default();
            for part in &parts {
                merged.merge(part).unwrap();
            }
            prop_assert_eq!(merged.count, whole.count);
            prop_assert!(close(&merged.mean, &whole.mean, offset.abs()));
            // A mean that is rounded at the size of the offset shows in the squares.
            prop_assert!(close(&merged.m2, &whole.m2, offset * offset * 1e-4));
        }

        #[test]
        fn layouts_agree(outer in 1usize..5, channels in 1usize..5, inner in 1usize..80, seed: u32) {
            let mut state = seed;
            let data: Vec<f32> = (0..outer * channels * inner)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / 65536.0
                })
                .collect();
            let found = Moments::of_planes(&data, outer, channels, inner);
            for channel in 0..channels {
                let values: Vec<f64> = (0..outer)
                    .flat_map(|row| &data[(row * channels + channel) * inner..][..inner])
                    .map(|&x| f64::from(x))
                    .collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let m2 = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
                prop_assert!((found.mean[channel] - mean).abs() <= 1e-13 * mean.abs());
                prop_assert!((found.m2[channel] - m2).abs() <= 1e-12 * m2.abs() + 1e-20);
            }
        }
    }

    #[test]
    fn a_huge_mean_does_not_hide_the_variance() {
        let data: Vec<f32> = (0..1000).map(|n| 1e6 + (n % 2) as f32).collect();
        let seen = Moments::of_planes(&data, 1, 1, 1000);
        assert_eq!(seen.variance(), [0.25]);
        assert_eq!(seen.unbiased_variance(), [250.0 / 999.0]);
    }

    #[test]
    fn channels_must_agree_and_nothing_adds_nothing() {
        let mut seen = Moments::of_planes(&[1f32, 2.0, 3.0, 4.0], 1, 2, 2);
        assert!(seen.merge(&Moments::empty(3)).is_err());
        let before = seen.clone();
        seen.merge(&Moments::empty(2)).unwrap();
        assert_eq!(seen, before);
    }
}
