//! What is wrong with the numbers of a BatchNorm: what no fold can be right with, and what deserves a word.

use bnkit_model::onnx::Name;

use super::{Parameters, ROLES};
use crate::report::{Finding, Warning};

/// A variance below this part of ε leaves ε alone to say what the channel is divided by.
pub(crate) const TINY: f64 = 1e-2;

/// Values that make every output of a channel NaN or nonsense.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fault {
    /// The input slot of the parameter.
    pub slot: usize,
    /// What the parameter is: one of [`ROLES`].
    pub role: &'static str,
    /// The first such channel.
    pub channel: usize,
    /// How many such channels there are.
    pub count: usize,
    /// NaN or an infinity; or σ² + ε, which is not positive.
    pub value: f64,
}

impl Fault {
    /// One sentence about it.
    pub(crate) fn say(&self, tensor: &str) -> String {
        let Self {
            role,
            channel,
            count,
            value,
            ..
        } = self;
        if value.is_finite() {
            return format!(
                "tensor \"{tensor}\": variance + epsilon is {value:e} in channel {channel}, not positive ({count} such channels)"
            );
        }
        format!(
            "tensor \"{tensor}\": {role} is {value} in channel {channel} ({count} such channels)"
        )
    }
}

impl Parameters {
    /// Values that no fold can be right with, at most one fault of each kind for each parameter.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let vectors = [&self.gamma, &self.beta, &self.mean, &self.variance];
        let mut faults = Vec::new();
        for ((slot, role), values) in ROLES.into_iter().zip(vectors) {
            let bad = |value: &&f64| !value.is_finite();
            if let Some(channel) = values.iter().position(|value| bad(&value)) {
                faults.push(Fault {
                    slot,
                    role,
                    channel,
                    count: values.iter().filter(bad).count(),
                    value: values[channel],
                });
            }
        }
        let bad = |variance: &&f64| variance.is_finite() && *variance + self.epsilon <= 0.0;
        if let Some(channel) = self.variance.iter().position(|variance| bad(&variance)) {
            let (slot, role) = ROLES[3];
            faults.push(Fault {
                slot,
                role,
                channel,
                count: self.variance.iter().filter(bad).count(),
                value: self.variance[channel] + self.epsilon,
            });
        }
        faults
    }

    /// Whether ε hides the variance of a channel.
    pub(crate) fn has_tiny_variance(&self, channel: usize) -> bool {
        self.variance[channel] < self.epsilon * TINY
    }

    /// Looks at the values; `tensor` names what is in an input slot.
    pub(crate) fn examine<'n>(&mut self, label: &Name, tensor: impl Fn(usize) -> &'n str) {
        self.findings = self
            .faults()
            .iter()
            .map(|fault| Finding {
                code: "bad-statistics",
                node: label.clone(),
                message: fault.say(tensor(fault.slot)),
            })
            .collect();
        let dead = self.gamma.iter().filter(|&&gamma| gamma == 0.0).count();
        if dead > 0 {
            self.warnings.push(Warning {
                code: "dead-channel",
                message: format!(
                    "scale is 0 in {dead} of {} channels: they are constant",
                    self.gamma.len()
                ),
            });
        }
        // Both conditions: a channel that is really constant has variance 0 and is amplified most of all.
        let tiny = (0..self.channels())
            .filter(|&channel| self.has_tiny_variance(channel))
            .count();
        if tiny > 0 {
            self.warnings.push(Warning {
                code: "tiny-variance",
                message: format!(
                    "variance is far below epsilon in {tiny} of {} channels: they are amplified up to {:.0}×",
                    self.variance.len(),
                    1.0 / self.epsilon.sqrt()
                ),
            });
        }
    }
}
