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
