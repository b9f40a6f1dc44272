//! How batch statistics become running statistics: the methods as values that take the moments of one batch after another.
//!
//! | method | mean | variance |
//! | --- | --- | --- |
//! | precise | Σ n_b·m_b / Σ n_b | Σ n_b·(v_b + (m_b − mean)²) / Σ n_b, merged by Chan's formula |
//! | average | mean of m_b | mean of v_b |
//! | ema | α·running + (1−α)·m_b, in order | α·running + (1−α)·v_b, in order |
//!
//! m_b and v_b are mean and variance of the n_b elements of a batch. Where the variance is unbiased (PyTorch), `average` and `ema` take
//! v_b·n_b/(n_b−1), and `precise` multiplies by N/(N−1) in the end. Each is a value that composes: two runs over parts of the batches,
//! put together in order, are the run over all of them. An exponential average composes because it is an affine map of what it
//! starts from: running ↦ keep·running + add.

use bnkit_engine::Moments;
use serde::{Deserialize, Serialize};

use super::observe::MOST;
use super::options::{Convention, Method, MethodOptions};
use crate::{Error, Result};

/// The state of a method for one module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub(crate) enum Estimate {
    /// Moments of all elements.
    Precise {
        /// Elements per channel.
        count: u64,
        /// Their mean.
        mean: Vec<f64>,
        /// The sum of their squared deviations.
        m2: Vec<f64>,
    },
    /// Plain averages over updates.
    Average {
        /// How many updates.
        updates: u64,
        /// The average of the means.
        mean: Vec<f64>,
        /// The average of the variances.
        variance: Vec<f64>,
    },
    /// An affine map of the running values.
    Ema {
        /// The weight of the history, α.
        history: f64,
        /// What the running values are multiplied by: α to the number of updates.
        keep: f64,
        /// What is added to the mean.
        mean: Vec<f64>,
        /// What is added to the variance.
        variance: Vec<f64>,
    },
}

impl Estimate {
    /// Nothing seen yet. `history` is the weight of the history, for `ema`.
    pub(crate) fn new(method: Method, history: f64, channels: usize) -> Self {
        let zeros = || vec![0.0; channels];
        match method {
            Method::Precise | Method::Sequential => Self::Precise {
                count: 0,
                mean: zeros(),
                m2: zeros(),
            },
            Method::Average => Self::Average {
                updates: 0,
                mean: zeros(),
                variance: zeros(),
            },
            Method::Ema => Self::Ema {
                history,
                keep: 1.0,
                mean: zeros(),
                variance: zeros(),
            },
        }
    }

    /// Takes the moments of one batch (of one call of the module).
    pub(crate) fn push(&mut self, batch: &Moments, convention: Convention) -> Result<()> {
        match self {
            Self::Precise { count, mean, m2 } => {
                let mut total = Moments {
                    count: *count,
                    mean: std::mem::take(mean),
                    m2: std::mem::take(m2),
                };
                let merged = total.merge(batch);
                (*count, *mean, *m2) = (total.count, total.mean, total.m2);
                merged.map_err(|error| Error::Request(error.to_string()))
            }
            Self::Average {
                updates,
                mean,
                variance,
            } => {
                *updates += 1;
                let share = 1.0 / *updates as f64;
                approach(mean, &batch.mean, share);
                approach(variance, &batch_variance(batch, convention), share);
                Ok(())
            }
            Self::Ema {
                history,
                keep,
                mean,
                variance,
            } => {
                *keep *= *history;
                step(mean, &batch.mean, *history);
                step(variance, &batch_variance(batch, convention), *history);
                Ok(())
            }
        }
    }

    /// Takes what another run saw of the batches that come after those of this one.
    ///
    /// # Errors
    /// If the two are not of one method, weight of the history and number of channels.
    pub(crate) fn merge(&mut self, later: &Self) -> Result<()> {
        if self.channels() != later.channels() {
            return Err(Error::Request(format!(
                "{} channels here, {} there",
                self.channels(),
                later.channels()
            )));
        }
        match (self, later) {
            (this @ Self::Precise { .. }, Self::Precise { count, mean, m2 }) => {
                let later = Moments {
                    count: *count,
                    mean: mean.clone(),
                    m2: m2.clone(),
                };
                this.push(&later, Convention::Onnx)
            }
            (
                Self::Average {
                    updates,
                    mean,
                    variance,
                },
                Self::Average {
                    updates: more,
                    mean: their_mean,
                    variance: their_variance,
                },
            ) => {
                *updates += more;
                if *more > 0 {
                    let share = *more as f64 / *updates as f64;
                    approach(mean, their_mean, share);
                    approach(variance, their_variance, share);
                }
                Ok(())
            }
            (
                Self::Ema {
                    history,
                    keep,
                    mean,
                    variance,
                },
                Self::Ema {
                    history: their_history,
                    keep: their_keep,
                    mean: their_mean,
                    variance: their_variance,
                },
            ) if history == their_history => {
                *keep *= their_keep;
                compose(mean, their_mean, *their_keep);
                compose(variance, their_variance, *their_keep);
                Ok(())
            }
            _ => Err(Error::Request(
                "they are of different methods or weights of the history".to_owned(),
            )),
        }
    }

    /// The running mean and variance, given those that are stored. `None` if nothing was seen.
    pub(crate) fn finish(
        &self,
        stored: (&[f64], &[f64]),
        convention: Convention,
    ) -> Option<(Vec<f64>, Vec<f64>)> {
        match self {
            Self::Precise { count: 0, .. } | Self::Average { updates: 0, .. } => None,
            Self::Ema { keep, .. } if *keep == 1.0 => None,
            Self::Precise { count, mean, m2 } => {
                let divisor = match convention.unbiased() {
                    true => count.saturating_sub(1).max(1),
                    false => *count,
                };
                let variance = m2.iter().map(|m2| m2 / divisor as f64);
                Some((mean.clone(), variance.collect()))
            }
            Self::Average { mean, variance, .. } => Some((mean.clone(), variance.clone())),
            Self::Ema {
                keep,
                mean,
                variance,
                ..
            } => {
                let map = |from: &[f64], add: &[f64]| -> Vec<f64> {
                    from.iter()
                        .zip(add)
                        .map(|(x, add)| keep * x + add)
                        .collect()
                };
                Some((map(stored.0, mean), map(stored.1, variance)))
            }
        }
    }

    /// Whether it is the state of this method.
    pub(crate) fn is_of(&self, method: Method) -> bool {
        let other = Self::new(method, 0.0, 0);
        std::mem::discriminant(self) == std::mem::discriminant(&other)
    }

    fn channels(&self) -> usize {
        match self {
            Self::Precise { mean, .. } | Self::Average { mean, .. } | Self::Ema { mean, .. } => {
                mean.len()
            }
        }
    }

    /// Whether it can have been seen: all its vectors are for so many channels, and no count, weight or variance is beyond what it is.
    pub(crate) fn is_sound(&self, channels: usize) -> bool {
        let (sound, mean, squares) = match self {
            Self::Precise { count, mean, m2 } => (*count <= MOST, mean, m2),
            Self::Average {
                updates,
                mean,
                variance,
            } => (*updates <= MOST, mean, variance),
            Self::Ema {
                history,
                keep,
                mean,
                variance,
            } => {
                let weights = (0.0..1.0).contains(history) && (0.0..=1.0).contains(keep);
                (weights, mean, variance)
            }
        };
        sound
            && mean.len() == channels
            && squares.len() == channels
            && mean.iter().all(|x| x.is_finite())
            && squares.iter().all(|x| x.is_finite() && *x >= 0.0)
    }
}

/// values += (to − values)·share.
fn approach(values: &mut [f64], to: &[f64], share: f64) {
    for (value, to) in values.iter_mut().zip(to) {
        *value += (to - *value) * share;
    }
}

/// values = α·values + (1−α)·new.
fn step(values: &mut [f64], new: &[f64], history: f64) {
    for (value, new) in values.iter_mut().zip(new) {
        *value = history * *value + (1.0 - history) * new;
    }
}

/// values = keep·values + add: first the map that `values` belong to, then the other.
fn compose(values: &mut [f64], add: &[f64], keep: f64) {
    for (value, add) in values.iter_mut().zip(add) {
        *value = keep * *value + add;
    }
}

/// The variance of a batch that enters the running variance.
fn batch_variance(batch: &Moments, convention: Convention) -> Vec<f64> {
    match convention.unbiased() {
        true => batch.unbiased_variance(),
        false => batch.variance(),
    }
}

impl MethodOptions {
    /// The weight of the history for a node whose own is `stored`.
    ///
    /// # Errors
    /// If it is not in 0 ≤ α < 1: nothing would ever be updated.
    pub(crate) fn history(&self, node: &str, stored: f64) -> Result<f64> {
        let (history, said) = match (self.momentum, self.convention) {
            (Some(momentum), Convention::Torch) => (1.0 - momentum, "--momentum"),
            (Some(momentum), _) => (momentum, "--momentum"),
            (None, _) => (stored, "its momentum"),
        };
        if (0.0..1.0).contains(&history) {
            return Ok(history);
        }
        Err(Error::Request(match self.momentum {
            None if stored == 1.0 => format!(
                "node \"{node}\": momentum 1 gives the batch no weight (PyTorch writes it for momentum None): give a --momentum, or use --method average"
            ),
            Some(momentum) => format!(
                "{said} {momentum}: read by the {} convention the history would weigh {history}; expected 0 ≤ weight < 1",
                self.convention.name()
            ),
            None => format!(
                "node \"{node}\": {said} is {stored}, expected 0 ≤ momentum < 1: give a --momentum"
            ),
        }))
    }
}

#[cfg(test)]
#[path = "methods/tests.rs"]
mod tests;
