//! What a branch computes, as a convolution in f64: weight, bias and windows. A BatchNorm is one with a single tap and
//! its scales on the diagonal, an identity one with ones there.

use bnkit_model::DType;
use bnkit_model::onnx::{NodeId, ValueId};

use super::window::{Window, windows};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::fold::operands::{convolution, mismatch};
use crate::refusal::{Answer, refuse};
use crate::report::Refusal;

/// A convolution: Y\[o\] = Σ W\[o,i,k\]·X\[group(o)·I + i, …\] + B\[o\].
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// Output channels.
    pub(super) outputs: usize,
    /// Input channels of a group.
    pub(super) inputs: usize,
    pub(super) groups: usize,
    /// The type of the weight.
    pub(super) dtype: DType,
    /// W, row-major: output channel, input channel of its group, taps.
    pub(super) weight: Vec<f64>,
    /// B, zeros if there is none.
    pub(super) bias: Vec<f64>,
    /// Whether there is a B.
    pub(super) has_bias: bool,
    pub(super) windows: Vec<Window>,
}

/// Refuses a Conv with quantized constants: what is merged would be stored as floats.
fn require_plain(context: &Context<'_>, node: NodeId) -> Answer<()> {
    let model = context.model;
    for mut value in [1, 2]
        .into_iter()
        .filter_map(|slot| model.node(node).input(slot))
    {
        // A chain of constant nodes is finite, since graphs are.
        while let Some((producer, _)) = model.producer(value) {
            let info = model.node(producer);
            if info.is("DequantizeLinear") {
                return Err(Refusal::new(
                    "merge-quantised",
                    format!("{} has quantized constants", model.describe(node)),
                )
                .with("node", model.label(node))
                .into());
            }
            let Some(input) = info.input(0) else { break };
            value = input;
        }
    }
    Ok(())
}

/// How many taps windows have together.
pub(super) fn volume(windows: &[Window]) -> usize {
    windows
        .iter()
        .map(|window| usize::try_from(window.kernel).unwrap_or(0))
        .fold(1, usize::saturating_mul)
}

impl Kernel {
    /// What a Conv computes.
    pub(super) fn of_conv(context: &Context<'_>, node: NodeId) -> Answer<Self> {
        require_plain(context, node)?;
        let definition = context.weight(node, 1)?;
        let shape = convolution(context, node, &definition)?;
        let input = context.input(node, 0)?;
        let windows = windows(context, node, &shape.kernel, input)?;
        let weight = context.optional(node, 1)?.map(|dense| dense.values);
        let bias = context.optional(node, 2)?;
        if let Some(bias) = &bias
            && bias.dims != [shape.first]
        {
            let what = format!(
                "has a bias of shape {:?}, expected [{}]",
                bias.dims, shape.first
            );
            return Err(mismatch(context, node, what));
        }
        let bias = bias.map(|dense| dense.values);
        Ok(Self {
            outputs: shape.first,
            inputs: shape.second,
            groups: shape.groups,
            dtype: definition.dtype,
            weight: weight.unwrap_or_default(),
            has_bias: bias.is_some(),
            bias: bias.unwrap_or_else(|| vec![0.0; shape.first]),
            windows,
        })
    }

    /// y = s·x + t beside a convolution like `beside`, which must have as many outputs as inputs.
    pub(super) fn of_affine(affine: &Affine, beside: &Self) -> Answer<Self> {
        let channels = beside.inputs * beside.groups;
        if channels != beside.outputs || affine.len() != channels {
            return refuse(
                "merge-channels",
                format!(
                    "an identity of {channels} channels cannot go into a Conv with {} outputs",
                    beside.outputs
                ),
            );
        }
        let mut weight = vec![0.0; channels * beside.inputs];
        for (channel, &scale) in affine.scale.iter().enumerate() {
            // In its group, output o is fed by input o: the groups are equally large on both sides.
            weight[channel * beside.inputs + channel % beside.inputs] = scale;
        }
        Ok(Self {
            outputs: channels,
            inputs: beside.inputs,
            groups: beside.groups,
            dtype: beside.dtype,
            weight,
            bias: affine.shift.clone(),
            has_bias: !affine.has_no_shift(),
            windows: vec![Window::IDENTITY; beside.windows.len()],
        })
    }

    /// Refuses a kernel that does not map the same inputs to the same outputs as `base`, or is of another type.
    pub(super) fn require_like(&self, base: &Self) -> Answer<()> {
        if (self.groups, self.inputs) != (base.groups, base.inputs)
            || self.windows.len() != base.windows.len()
        {
            return refuse(
                "merge-groups",
                format!(
                    "{} groups of {} inputs beside {} groups of {}",
                    self.groups, self.inputs, base.groups, base.inputs
                ),
            );
        }
        if self.outputs != base.outputs {
            return refuse(
                "merge-channels",
                format!("{} outputs beside {}", self.outputs, base.outputs),
            );
        }
        if self.dtype != base.dtype {
            return refuse(
                "merge-dtype",
                format!("a weight of {} beside one of {}", self.dtype, base.dtype),
            );
        }
        Ok(())
    }

    /// Windows that have the taps of both.
    pub(super) fn union(
        context: &Context<'_>,
        input: ValueId,
        a: &[Window],
        b: &[Window],
    ) -> Answer<Vec<Window>> {
        let axes = a.iter().zip(b).enumerate();
        axes.map(|(axis, (a, b))| a.union(b, context.types.dim(input, axis + 2)))
            .collect()
    }

    /// Adds `other`, whose windows lie within those of this one, tap by tap.
    pub(super) fn add(&mut self, other: &Self) {
        let sizes = |windows: &[Window]| -> Vec<usize> {
            windows.iter().map(|w| w.kernel as usize).collect()
        };
        let (to, from) = (sizes(&self.windows), sizes(&other.windows));
        let axes = self.windows.iter().zip(&other.windows);
        // A single tap has no dilation of its own; those of this one count.
        let first: Vec<usize> = axes
            .map(|(a, b)| ((a.begin - b.begin) / a.dilation) as usize)
            .collect();
        let (to_volume, from_volume) = (volume(&self.windows), volume(&other.windows));
        let place = |mut tap: usize| {
            let (mut at, mut inner) = (0, 1);
            for axis in (0..from.len()).rev() {
                at += (tap % from[axis] + first[axis]) * inner;
                tap /= from[axis];
                inner *= to[axis];
            }
            at
        };
        let places: Vec<usize> = (0..from_volume).map(place).collect();
        for row in 0..self.outputs * self.inputs {
            for (tap, &at) in places.iter().enumerate() {
                self.weight[row * to_volume + at] += other.weight[row * from_volume + tap];
            }
        }
        for (bias, other) in self.bias.iter_mut().zip(&other.bias) {
            *bias += other;
        }
        self.has_bias |= other.has_bias;
    }

    /// A kernel like this one with these windows and only zeros.
    pub(super) fn empty(&self, windows: Vec<Window>) -> Self {
        Self {
            weight: vec![0.0; self.outputs * self.inputs * volume(&windows)],
            bias: vec![0.0; self.outputs],
            has_bias: false,
            windows,
            ..*self
        }
    }

    /// The dimensions of the weight.
    pub(super) fn dims(&self) -> Vec<usize> {
        let taps = self.windows.iter().map(|window| window.kernel as usize);
        [self.outputs, self.inputs]
            .into_iter()
            .chain(taps)
            .collect()
    }

    /// The number of elements of weight and bias.
    pub(super) fn parameters(&self) -> u64 {
        (self.weight.len() + if self.has_bias { self.outputs } else { 0 }) as u64
    }

    /// Refuses a float16 weight whose channels would lose their digits among the subnormal numbers.
    pub(super) fn require_digits(&self) -> Answer<()> {
        if self.dtype != DType::F16 {
            return Ok(());
        }
        const LIMIT: f64 = 1.0 / 256.0;
        let row = self.weight.len() / self.outputs.max(1);
        for (channel, weights) in self.weight.chunks(row.max(1)).enumerate() {
            let error: f64 = weights
                .iter()
                .map(|&w| (self.dtype.round(w) - w).powi(2))
                .sum();
            let norm: f64 = weights.iter().map(|w| w * w).sum();
            if error > LIMIT * LIMIT * norm {
                return Err(Refusal::new(
                    "range",
                    format!("the merged weights of channel {channel} are too small for f16 and would lose their digits"),
                )
                .with("channel", channel)
                .into());
            }
        }
        Ok(())
    }
}
