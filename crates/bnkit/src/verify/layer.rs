//! A layer and its BatchNorm against the layer that replaces them, each on its own: for checkpoints without a graph.
//!
//! Where a layer's input is just as large as its kernel, every output channel is one scalar product of its weights with
//! the input, whatever the strides, pads and groups: y = W·x + b. So one random x for all weights tests all of them. The
//! sums are made in f64 from the bytes before and after; neither the fold nor its graph is asked.
//!
//! Two differences are looked at: with the new weights as they were before rounding, where only f64's own error is
//! accepted, and as they are stored, where each weight may be off by half a unit of its last place.

use bnkit_model::{DType, Result};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Told about elements: the index of the first one, and the elements.
pub(crate) type Visit<'v> = &'v mut dyn FnMut(usize, &[f64]) -> Result<()>;

/// Elements that can be read, not rounded to the type that they are stored in.
pub(crate) trait Elements: Sync {
    /// Gives all elements in order.
    fn for_each(&self, visit: Visit<'_>) -> Result<()>;
    /// The type that they are stored in.
    fn dtype(&self) -> DType;
}

/// Which output channel an element of a weight belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Channels {
    /// Each channel has `inner` elements, one after the other.
    First {
        /// How many.
        inner: usize,
    },
    /// The channels are the last axis (or the last two, as one).
    Last {
        /// How many there are.
        count: usize,
    },
    /// Blocks of `rows` rows with a channel each for their columns, which are runs of `inner` elements.
    Grouped {
        /// Rows of a group: I/g.
        rows: usize,
        /// Columns: O/g.
        columns: usize,
        /// Elements of a kernel.
        inner: usize,
    },
}

impl Channels {
    /// The channel of an element, and how many from it on belong to the same one.
    fn run(self, element: usize) -> (usize, usize) {
        let left = |inner: usize| inner.max(1) - element % inner.max(1);
        match self {
            Self::First { inner } => (element / inner.max(1), left(inner)),
            Self::Last { count } => (element % count.max(1), 1),
            Self::Grouped {
                rows,
                columns,
                inner,
            } => {
                let block = element / inner.max(1);
                let (row, column) = (block / columns.max(1), block % columns.max(1));
                (row / rows.max(1) * columns + column, left(inner))
            }
        }
    }
}

/// A BatchNorm's parameters in f64, one for each channel.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub(crate) gamma: Vec<f64>,
    pub(crate) beta: Vec<f64>,
    pub(crate) mean: Vec<f64>,
    pub(crate) variance: Vec<f64>,
    pub(crate) epsilon: f64,
}

impl Norm {
    /// (x − μ)/√(σ²+ε)·γ + β, as Ioffe & Szegedy 2015 write it.
    fn apply(&self, channel: usize, x: f64) -> f64 {
        let deviation = (self.variance[channel] + self.epsilon).sqrt();
        (x - self.mean[channel]) / deviation * self.gamma[channel] + self.beta[channel]
    }

    /// The size of what `apply` adds up, where x is a sum of terms of this size together.
    fn size(&self, channel: usize, terms: f64) -> f64 {
        let deviation = (self.variance[channel] + self.epsilon).sqrt();
        (terms + self.mean[channel].abs()) / deviation * self.gamma[channel].abs()
            + self.beta[channel].abs()
    }
}

/// A layer, with the BatchNorm behind it.
pub(crate) struct Layer<'l> {
    pub(crate) weight: &'l dyn Elements,
    /// One for each channel, not rounded; zeros if there is none.
    pub(crate) bias: Vec<f64>,
    /// `None` if there is none any more.
    pub(crate) norm: Option<Norm>,
}

/// A layer before and after.
pub(crate) struct Pair<'l> {
    /// How to speak of it.
    pub(crate) name: String,
    pub(crate) channels: Channels,
    pub(crate) before: Layer<'l>,
    pub(crate) after: Layer<'l>,
}

/// How far a layer is from what it replaces.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Distance {
    /// The largest difference before rounding, relative to the size of the terms.
    pub(crate) exact: f64,
    /// The largest difference as stored, relative to what rounding explains.
    pub(crate) stored: f64,
}

impl Distance {
    /// What f64's own error may be, relative to the terms.
    const EXACT: f64 = 1e-9;

    /// Whether nothing but rounding differs.
    pub(crate) fn is_small(self) -> bool {
        self.exact <= Self::EXACT && self.stored <= 1.0
    }
}

/// Compares all pairs, in parallel.
///
/// # Errors
/// If a tensor cannot be read.
pub(crate) fn compare(pairs: &[Pair<'_>], seed: u64) -> Result<Vec<Distance>> {
    let x = Input::draw(seed);
    pairs.par_iter().map(|pair| one(pair, &x)).collect()
}

fn one(pair: &Pair<'_>, x: &Input) -> Result<Distance> {
    let count = pair.before.bias.len();
    let before = Sums::of(pair.before.weight, pair.channels, count, x)?;
    let after = Sums::of(pair.after.weight, pair.channels, count, x)?;
    let unit = Unit::of(pair.after.weight.dtype());
    let dtype = pair.after.weight.dtype();
    let mut worst = Distance::default();
    for channel in 0..count {
        let expected = pair.before.output(channel, before.exact[channel], None);
        let terms = pair.before.size(channel, before.size[channel]);
        let stored = pair
            .after
            .output(channel, after.stored[channel], Some(dtype));
        // A BatchNorm that stays adds the rounding of its own numbers.
        let roundings = if pair.after.norm.is_some() { 4.0 } else { 1.0 };
        let explained = roundings * unit.relative * pair.after.size(channel, after.size[channel])
            + unit.absolute * (after.inputs[channel] + 1.0)
            + Distance::EXACT * terms;
        worst.stored = worst.stored.max(ratio(stored - expected, explained));
        if pair.after.norm.is_none() {
            let exact = pair.after.output(channel, after.exact[channel], None);
            worst.exact = worst.exact.max(ratio(exact - expected, terms));
        }
    }
    Ok(worst)
}

impl Layer<'_> {
    /// What the layer (and its BatchNorm) computes, of the product of weights and input; with its bias rounded to a type.
    fn output(&self, channel: usize, product: f64, rounded: Option<DType>) -> f64 {
        let bias = self.bias[channel];
        let x = product + rounded.map_or(bias, |dtype| dtype.round(bias));
        self.norm.as_ref().map_or(x, |norm| norm.apply(channel, x))
    }

    /// The size of the terms that `output` adds up.
    fn size(&self, channel: usize, terms: f64) -> f64 {
        let terms = terms + self.bias[channel].abs();
        let norm = self.norm.as_ref();
        norm.map_or(terms, |norm| norm.size(channel, terms))
    }
}

/// A difference in units of `size`; one that is no number is as far as can be.
fn ratio(difference: f64, size: f64) -> f64 {
    let ratio = difference.abs() / size;
    match difference == 0.0 {
        true => 0.0,
        false if ratio.is_nan() => f64::INFINITY,
        false => ratio,
    }
}

/// Half a unit in the last place of a type: relative, and absolute where numbers are subnormal.
struct Unit {
    relative: f64,
    absolute: f64,
}

impl Unit {
    fn of(dtype: DType) -> Self {
        let (digits, smallest) = match dtype {
            DType::F16 => (11, -24),
            DType::BF16 => (8, -133),
            DType::F32 => (24, -149),
            _ => (53, -1074),
        };
        Self {
            relative: 2f64.powi(-digits),
            absolute: 2f64.powi(smallest) / 2.0,
        }
    }
}

/// A random input; it begins anew after a prime number of elements, which no shape of a kernel divides.
struct Input(Vec<f64>);

impl Input {
    const PERIOD: usize = 8191;

    fn draw(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        Self(
            (0..Self::PERIOD)
                .map(|_| random.random_range(-1.0..1.0))
                .collect(),
        )
    }
}

/// Scalar products of a weight with the input, by output channel.
struct Sums {
    /// With the elements as they are.
    exact: Vec<f64>,
    /// With the elements rounded to the type that they are stored in.
    stored: Vec<f64>,
    /// The sum of the terms' magnitudes.
    size: Vec<f64>,
    /// At least the sum of the inputs' magnitudes.
    inputs: Vec<f64>,
}

/// The sums of one run.
#[derive(Default)]
struct Run {
    exact: f64,
    stored: f64,
    size: f64,
}

/// Products of weights and inputs, summed; the loop for f32 is one that the compiler vectorises.
fn products(weights: &[f64], inputs: &[f64], dtype: DType) -> Run {
    match dtype {
        DType::F32 => sum(weights, inputs, |value| f64::from(value as f32)),
        dtype => sum(weights, inputs, |value| dtype.round(value)),
    }
}

fn sum(weights: &[f64], inputs: &[f64], round: impl Fn(f64) -> f64) -> Run {
    const LANES: usize = 8;
    let (mut exact, mut stored, mut size) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let whole = weights.len() / LANES * LANES;
    let parts = weights[..whole]
        .chunks_exact(LANES)
        .zip(inputs[..whole].chunks_exact(LANES));
    for (weights, inputs) in parts {
        for lane in 0..LANES {
            let product = round(weights[lane]) * inputs[lane];
            exact[lane] += weights[lane] * inputs[lane];
            stored[lane] += product;
            size[lane] += product.abs();
        }
    }
    let mut run = Run {
        exact: exact.iter().sum(),
        stored: stored.iter().sum(),
        size: size.iter().sum(),
    };
    for (&weight, &input) in weights[whole..].iter().zip(&inputs[whole..]) {
        let product = round(weight) * input;
        run.exact += weight * input;
        run.stored += product;
        run.size += product.abs();
    }
    run
}

impl Sums {
    fn of(weight: &dyn Elements, channels: Channels, count: usize, x: &Input) -> Result<Self> {
        let zeros = || vec![0.0; count];
        let (mut exact, mut stored, mut size, mut inputs) = (zeros(), zeros(), zeros(), zeros());
        let dtype = weight.dtype();
        weight.for_each(&mut |start, values| {
            let mut done = 0;
            while done < values.len() {
                let (channel, run) = channels.run(start + done);
                // Not beyond the end of the input, either.
                let at = (start + done) % Input::PERIOD;
                let until = values
                    .len()
                    .min(done.saturating_add(run).min(done + Input::PERIOD - at));
                let part = &values[done..until];
                let sums = products(part, &x.0[at..at + part.len()], dtype);
                exact[channel] += sums.exact;
                stored[channel] += sums.stored;
                size[channel] += sums.size;
                inputs[channel] += part.len() as f64;
                done = until;
            }
            Ok(())
        })?;
        Ok(Self {
            exact,
            stored,
            size,
            inputs,
        })
    }
}

#[cfg(test)]
mod tests;
