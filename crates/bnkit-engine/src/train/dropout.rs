//! Inverted Dropout whose mask is a pure function of the seed, the batch, the sample, the node and the element: neither threads nor
//! the way the batch is run change it.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::bail;

/// Sebastiano Vigna's SplitMix64: good enough to toss coins, and free of state.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Drops elements of `data`, which holds `rows` samples, the first of them the batch's `first`-th, and scales the rest up.
pub(super) fn apply(
    data: &mut Tensor,
    name: &str,
    ratio: f64,
    (seed, first, rows): (u64, usize, usize),
) -> TractResult<()> {
    if !(0.0..=1.0).contains(&ratio) {
        bail!("the ratio of Dropout {name:?} is {ratio}");
    }
    if ratio == 0.0 {
        return Ok(());
    }
    let node = name
        .bytes()
        .fold(mix(seed), |hash, byte| mix(hash ^ u64::from(byte)));
    let rows = if data.shape().first() == Some(&rows) {
        rows
    } else {
        1
    };
    let row = (data.len() / rows).max(1);
    let keep = |index: usize| {
        let sample = mix(node ^ (first + index / row) as u64);
        let uniform = mix(sample ^ (index % row) as u64) >> 11;
        uniform as f64 / (1u64 << 53) as f64 >= ratio
    };
    let scale = if ratio < 1.0 {
        1.0 / (1.0 - ratio)
    } else {
        0.0
    };
    let double = data.datum_type() == DatumType::F64;
    let mut view = data.try_as_plain_ram_mut()?;
    if double {
        for (index, x) in view.as_slice_mut::<f64>()?.iter_mut().enumerate() {
            *x = if keep(index) { *x * scale } else { 0.0 };
        }
    } else {
        for (index, x) in view.as_slice_mut::<f32>()?.iter_mut().enumerate() {
            *x = if keep(index) { *x * scale as f32 } else { 0.0 };
        }
    }
    Ok(())
}
