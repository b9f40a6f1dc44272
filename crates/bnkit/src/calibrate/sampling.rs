//! How certain a statistic is: its standard error, from the spread of the values that single batches gave.
//!
//! Elements of one image are not independent, so their number says nothing; batches nearly are. With B batches the standard error of a
//! mean over batches is s/√B, where s² is the sample variance of the batches' values. The value of a batch is m_b for the mean; for the
//! variance it is v_b (`average`, `ema`) or v_b + (m_b − mean)² (`precise`). The last needs the mean over all batches; from a fixed
//! origin r it is y_b − 2c·d_b + c² with d_b = m_b − r, y_b = v_b + d_b² and c = mean − r. So the covariance matrix of (d, y) is enough,
//! which merges by Chan's formula and moves to another origin exactly. An exponential average with history weight α counts like
//! (1+α)/(1−α) batches at most. Batches count alike, a short last one included.

use bnkit_engine::Moments;
use serde::{Deserialize, Serialize};

use super::observe::MOST;
use super::options::{Method, Stability};

/// How the values of the batches of one module spread.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// How many batches.
    pub batches: u64,
    channels: Vec<Channel>,
}

/// One channel. Means, and sums of products of deviations from them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Channel {
    origin: f64,
    d: f64,
    y: f64,
    v: f64,
    dd: f64,
    dy: f64,
    yy: f64,
    vv: f64,
}

impl Channel {
    /// The same batches, seen from another origin.
    fn moved(mut self, origin: f64) -> Self {
        // d' = d + shift and y' = v + (d + shift)² = y + 2·shift·d + shift².
        let shift = self.origin - origin;
        self.yy += 4.0 * shift * (self.dy + shift * self.dd);
        self.dy += 2.0 * shift * self.dd;
        self.y += shift * (2.0 * self.d + shift);
        self.d += shift;
        self.origin = origin;
        self
    }
}

/// Standard errors of one module's statistics, one per channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Errors {
    /// Of the mean, in the units of the mean.
    pub mean: Vec<f64>,
    /// Of the variance, in the units of the variance.
    pub variance: Vec<f64>,
}

impl Spread {
    /// Takes the moments of one batch (all calls of the module in it together).
    pub(crate) fn push(&mut self, batch: &Moments) {
        let variances = batch.variance();
        let channels = batch.mean.iter().zip(variances);
        let one = Self {
            batches: 1,
            channels: channels
                .map(|(&mean, variance)| Channel {
                    origin: mean,
                    y: variance,
                    v: variance,
                    ..Channel::default()
                })
                .collect(),
        };
        self.merge(&one);
    }

    /// Whether it can have been seen, of so many channels, or of nothing yet.
    pub(crate) fn is_sound(&self, channels: usize) -> bool {
        let finite = |channel: &Channel| {
            let c = channel;
            let all = [c.origin, c.d, c.y, c.v, c.dd, c.dy, c.yy, c.vv];
            all.iter().all(|x| x.is_finite())
        };
        self.batches <= MOST
            && self.channels.len() == if self.batches == 0 { 0 } else { channels }
            && self.channels.iter().all(finite)
    }

    /// Takes what was seen of other batches of the same module.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.batches == 0 {
            self.clone_from(other);
            return;
        }
        if other.batches == 0 {
            return;
        }
        let total = self.batches + other.batches;
        let share = other.batches as f64 / total as f64;
        let weight = self.batches as f64 * share;
        for (ours, theirs) in self.channels.iter_mut().zip(&other.channels) {
            let theirs = theirs.moved(ours.origin);
            let (d, y, v) = (theirs.d - ours.d, theirs.y - ours.y, theirs.v - ours.v);
            ours.dd += theirs.dd + d * d * weight;
            ours.dy += theirs.dy + d * y * weight;
            ours.yy += theirs.yy + y * y * weight;
            ours.vv += theirs.vv + v * v * weight;
            ours.d += d * share;
            ours.y += y * share;
            ours.v += v * share;
        }
        self.batches = total;
    }

    /// The standard errors of what `method` makes of the batches; `None` with fewer than two.
    pub(crate) fn errors(&self, method: Method, history: Option<f64>) -> Option<Errors> {
        if self.batches < 2 {
            return None;
        }
        let batches = self.batches as f64;
        let counting = match (method, history) {
            (Method::Ema, Some(history)) => batches.min((1.0 + history) / (1.0 - history)),
            _ => batches,
        };
        let error = |squares: f64| (squares.max(0.0) / (batches - 1.0) / counting).sqrt();
        let variance = |channel: &Channel| match method {
            Method::Average | Method::Ema => channel.vv,
            // The mean lies c = d from the origin.
            Method::Precise | Method::Sequential => {
                channel.yy - 4.0 * channel.d * (channel.dy - channel.d * channel.dd)
            }
        };
        Some(Errors {
            mean: self.channels.iter().map(|c| error(c.dd)).collect(),
            variance: self.channels.iter().map(|c| error(variance(c))).collect(),
        })
    }
}

/// Whether enough was seen, over all channels of all modules.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// `None` with too few batches to say.
    pub enough: Option<bool>,
    /// The share of channels whose errors are within the tolerance.
    pub settled: f64,
    /// How many times more samples would be enough, about: errors go with 1/√n.
    pub factor: Option<f64>,
}

/// Judges relative errors: for each channel the larger one of mean and variance.
pub(crate) fn judge(mut errors: Vec<f64>, batches: u64, stability: &Stability) -> Verdict {
    if errors.is_empty() || batches < 2 {
        return Verdict {
            enough: None,
            settled: 0.0,
            factor: None,
        };
    }
    errors.sort_by(f64::total_cmp);
    let within = errors.partition_point(|&error| error <= stability.tolerance);
    let settled = within as f64 / errors.len() as f64;
    let enough = settled >= stability.share;
    let decisive = (stability.share * errors.len() as f64).ceil() as usize;
    let decisive = errors[decisive.clamp(1, errors.len()) - 1];
    Verdict {
        enough: (batches >= stability.min_batches as u64).then_some(enough),
        settled,
        factor: (!enough && decisive.is_finite()).then(|| (decisive / stability.tolerance).powi(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(mean: f64, variance: f64) -> Moments {
        Moments {
            count: 10,
            mean: vec![mean],
            m2: vec![10.0 * variance],
        }
    }

    const VALUES: [(f64, f64); 5] = [(1.0, 2.0), (1.5, 1.0), (0.5, 3.0), (2.0, 2.5), (1.25, 1.5)];

    fn spread(values: &[(f64, f64)], offset: f64) -> Spread {
        let mut spread = Spread::default();
        for &(mean, variance) in values {
            spread.push(&moments(mean + offset, variance));
        }
        spread
    }

    /// s/√B of the values.
    fn standard_error(values: &[f64]) -> f64 {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        (squares / (count - 1.0) / count).sqrt()
    }

    #[test]
    fn errors_are_those_of_the_batches_values() {
        let means: Vec<f64> = VALUES.iter().map(|value| value.0).collect();
        let mean = means.iter().sum::<f64>() / 5.0;
        let variances: Vec<f64> = VALUES.iter().map(|value| value.1).collect();
        let total: Vec<f64> = VALUES.iter().map(|(m, v)| v + (m - mean).powi(2)).collect();
        for offset in [0.0, 1e4] {
            let spread = spread(&VALUES, offset);
            let precise = spread.errors(Method::Precise, None).unwrap();
            assert!((precise.mean[0] - standard_error(&means)).abs() < 1e-9);
            assert!((precise.variance[0] - standard_error(&total)).abs() < 1e-9);
            let average = spread.errors(Method::Average, None).unwrap();
            assert!((average.variance[0] - standard_error(&variances)).abs() < 1e-12);
        }
    }

    #[test]
    fn a_split_changes_nothing() {
        let whole = spread(&VALUES, 0.0).errors(Method::Precise, None).unwrap();
        for cut in 0..=VALUES.len() {
            let mut parts = spread(&VALUES[..cut], 0.0);
            parts.merge(&spread(&VALUES[cut..], 0.0));
            let errors = parts.errors(Method::Precise, None).unwrap();
            assert!((errors.mean[0] - whole.mean[0]).abs() < 1e-14);
            assert!((errors.variance[0] - whole.variance[0]).abs() < 1e-14);
        }
    }

    #[test]
    fn an_exponential_average_never_counts_more_batches_than_its_memory() {
        let values: Vec<(f64, f64)> = (0..200).map(|at| (f64::from(at % 5), 1.0)).collect();
        let spread = spread(&values, 0.0);
        let error = |history| spread.errors(Method::Ema, Some(history)).unwrap().mean[0];
        let plain = spread.errors(Method::Average, None).unwrap().mean[0];
        assert!((error(0.9) / plain - (200.0f64 / 19.0).sqrt()).abs() < 1e-12);
        assert_eq!(error(0.999), plain);
    }

    #[test]
    fn the_verdict_follows_the_share_of_settled_channels() {
        let stability = Stability::default();
        let mut errors = vec![0.01; 200];
        assert_eq!(judge(errors.clone(), 8, &stability).enough, Some(true));
        assert_eq!(judge(errors.clone(), 7, &stability).enough, None);
        errors[..10].fill(0.1);
        let verdict = judge(errors, 20, &stability);
        assert_eq!(verdict.enough, Some(false));
        assert!((verdict.factor.unwrap() - 4.0).abs() < 1e-9);
        assert_eq!(judge(vec![], 20, &stability).enough, None);
    }
}
