//! Operators that change the spatial size: Resize and its ancestor Upsample, and the exchange of depth for space.

use super::at::{At, unknown};
use super::axes::axes;
use super::contents::Item;
use super::{Fact, attributes};
use crate::onnx::model::Dim;

/// Resize, by `scales` or by `sizes`; whatever it does not certainly keep or set is unknown.
pub(super) fn resize(at: &At<'_>) -> Option<Fact> {
    let dims = at
        .dims(0)
        .map(|dims| resized(at, dims).unwrap_or_else(|| unknown(dims.len())));
    Some(Fact::new(at.dtype(0), dims))
}

fn resized(at: &At<'_>, dims: &[Dim]) -> Option<Vec<Dim>> {
    // Opset 10 has no region of interest and no sizes.
    let (scales, sizes) = if at.opset < 11 {
        (1, None)
    } else {
        (2, Some(3))
    };
    let mode = attributes::string(at.node, "coordinate_transformation_mode", "half_pixel")?;
    let chosen = match attributes::ints(at.node, "axes")? {
        None => (0..dims.len()).collect(),
        Some(given) => axes(given, dims.len())?,
    };
    if let Some(slot) = sizes.filter(|&slot| at.has(slot) && !is_empty(at, slot)) {
        let policy = attributes::string(at.node, "keep_aspect_ratio_policy", "stretch")?;
        if policy != b"stretch" || (at.has(scales) && !is_empty(at, scales)) {
            return None;
        }
        let sizes = at.items(slot)?;
        return replace(dims, &chosen, &sizes, |_, size| Some(size.dim()));
    }
    if mode == b"tf_crop_and_resize" {
        return None;
    }
    let scales = at.floats(scales)?;
    replace(dims, &chosen, &scales, |dim, &scale| scaled(dim, scale))
}

/// Whether an input is there only to hold a place.
fn is_empty(at: &At<'_>, slot: usize) -> bool {
    at.dims(slot) == Some(&[Dim::Known(0)])
}

/// `dims` with those on the chosen axes made anew.
fn replace<T>(
    dims: &[Dim],
    chosen: &[usize],
    by: &[T],
    make: impl Fn(&Dim, &T) -> Option<Dim>,
) -> Option<Vec<Dim>> {
    if chosen.len() != by.len() {
        return None;
    }
    let mut replaced = dims.to_vec();
    for (&axis, by) in chosen.iter().zip(by) {
        replaced[axis] = make(&dims[axis], by).unwrap_or(Dim::Unknown);
    }
    Some(replaced)
}

/// ⌊size · scale⌋, if f32 and f64 agree on it: runtimes differ in which they use.
fn scaled(dim: &Dim, scale: f64) -> Option<Dim> {
    if scale == 1.0 {
        return Some(dim.clone());
    }
    let size = dim.known().filter(|&size| size < 1 << 24)?;
    let wide = (size as f64 * scale).floor();
    let narrow = (size as f32 * scale as f32).floor();
    let certain = wide == f64::from(narrow) && (1.0..1e15).contains(&wide);
    certain.then_some(Dim::Known(wide as u64))
}

/// Upsample: `scales` is an attribute in opsets 7 and 8, an input in 9; before, there are other attributes.
pub(super) fn upsample(at: &At<'_>) -> Option<Fact> {
    let dims = at
        .dims(0)
        .map(|dims| upsampled(at, dims).unwrap_or_else(|| unknown(dims.len())));
    Some(Fact::new(at.dtype(0), dims))
}

fn upsampled(at: &At<'_>, dims: &[Dim]) -> Option<Vec<Dim>> {
    let scales: Vec<f64> = match at.opset {
        ..7 => return None,
        7 | 8 => {
            let scales = attributes::floats(at.node, "scales")??;
            scales.iter().map(|&scale| f64::from(scale)).collect()
        }
        _ => at.floats(1)?,
    };
    let all: Vec<usize> = (0..dims.len()).collect();
    replace(dims, &all, &scales, |dim, &scale| scaled(dim, scale))
}

fn block(at: &At<'_>) -> Option<u64> {
    let block = u64::try_from(at.int("blocksize", 0)?).ok()?;
    (block > 0).then_some(block)
}

fn times(dim: &Dim, factor: Option<u64>) -> Dim {
    let product = dim
        .known()
        .zip(factor)
        .and_then(|(size, factor)| size.checked_mul(factor));
    product.map_or(Dim::Unknown, Dim::Known)
}

fn divided(dim: &Dim, by: Option<u64>) -> Dim {
    let exact = dim.known().zip(by).filter(|(size, by)| size % by == 0);
    exact.map_or(Dim::Unknown, |(size, by)| Dim::Known(size / by))
}

pub(super) fn depth_to_space(at: &At<'_>) -> Option<Fact> {
    let block = block(at);
    let square = block.and_then(|block| block.checked_mul(block));
    let dims = at.dims(0).and_then(|dims| match dims {
        [n, c, h, w] => Some(vec![
            n.clone(),
            divided(c, square),
            times(h, block),
            times(w, block),
        ]),
        _ => None,
    });
    Some(Fact::new(at.dtype(0), dims))
}

pub(super) fn space_to_depth(at: &At<'_>) -> Option<Fact> {
    let block = block(at);
    let square = block.and_then(|block| block.checked_mul(block));
    let dims = at.dims(0).and_then(|dims| match dims {
        [n, c, h, w] => Some(vec![
            n.clone(),
            times(c, square),
            divided(h, block),
            divided(w, block),
        ]),
        _ => None,
    });
    Some(Fact::new(at.dtype(0), dims))
}

impl Item {
    /// The dimension that a shape tensor with this element asks for.
    pub(super) fn dim(&self) -> Dim {
        match self {
            Self::Int(size) => u64::try_from(*size).map_or(Dim::Unknown, Dim::Known),
            Self::Symbol(name) => Dim::Symbol(name.clone()),
            Self::Unknown => Dim::Unknown,
        }
    }
}
