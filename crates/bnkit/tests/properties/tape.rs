//! The choices that a model is made of. A recipe is plain bytes, so proptest can shrink it: fewer steps, smaller bytes;
//! a byte of 0 is always the plainest choice.

use proptest::prelude::*;

/// What one step may choose by.
pub(crate) const STEP: usize = 20;

/// Everything that decides a model.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// Opset, types, input shape.
    pub(crate) head: [u8; STEP],
    /// What the numbers in the constants are drawn from.
    pub(crate) seed: u64,
    /// One operator each.
    pub(crate) steps: Vec<[u8; STEP]>,
}

/// Recipes of up to `most` operators.
pub(crate) fn recipes(most: usize) -> impl Strategy<Value = Recipe> {
    let bytes = || proptest::array::uniform20(any::<u8>());
    let seed = any::<u64>().no_shrink();
    let steps = proptest::collection::vec(bytes(), 1..=most);
    (bytes(), seed, steps).prop_map(|(head, seed, steps)| Recipe { head, seed, steps })
}

/// Reads choices off a step.
pub(crate) struct Tape<'t> {
    bytes: &'t [u8],
}

impl<'t> Tape<'t> {
    pub(crate) fn new(bytes: &'t [u8]) -> Self {
        Self { bytes }
    }

    fn next(&mut self) -> usize {
        match self.bytes.split_first() {
            Some((&first, rest)) => {
                self.bytes = rest;
                usize::from(first)
            }
            None => 0,
        }
    }

    /// A number below `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.next() % count.max(1)
    }

    /// True once in `count` times, never for a byte of 0.
    pub(crate) fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    /// One of the entries.
    pub(crate) fn of<T: Copy>(&mut self, entries: &[T]) -> T {
        entries[self.below(entries.len())]
    }
}

/// Numbers for constants: SplitMix64.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from `low` to `high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn many(&mut self, count: usize, low: f64, high: f64) -> Vec<f64> {
        (0..count).map(|_| self.between(low, high)).collect()
    }

    /// Away from zero, of either sign.
    pub(crate) fn nonzero(&mut self, count: usize) -> Vec<f64> {
        let one = |value: f64| {
            if value < 0.0 {
                value - 0.4
            } else {
                value + 0.4
            }
        };
        self.many(count, -1.0, 1.0).into_iter().map(one).collect()
    }
}
