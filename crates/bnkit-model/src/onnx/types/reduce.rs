//! Operators that take something out along an axis: reductions, the largest, the first k.

use super::Fact;
use super::at::{At, unknown};
use super::axes::{axes, axis};
use crate::DType;
use crate::onnx::model::Dim;

/// The axes that are reduced: an attribute before opset `since`, an input from then on.
pub(super) fn reduce(at: &At<'_>, since: i64) -> Option<Fact> {
    Some(Fact::new(at.dtype(0), reduced(at, since)))
}

fn reduced(at: &At<'_>, since: i64) -> Option<Vec<Dim>> {
    let dims = at.dims(0)?;
    let keep = at.int("keepdims", 1)? != 0;
    let Some(given) = at.list("axes", 1, since) else {
        return keep.then(|| unknown(dims.len()));
    };
    let given = given.unwrap_or_default();
    if given.is_empty() && at.int("noop_with_empty_axes", 0)? != 0 {
        return Some(dims.to_vec());
    }
    let chosen = match given.as_slice() {
        [] => (0..dims.len()).collect(),
        given => axes(given, dims.len())?,
    };
    Some(without(dims, &chosen, keep))
}

/// `dims` without the axes in `chosen`, or with size 1 in their place.
fn without(dims: &[Dim], chosen: &[usize], keep: bool) -> Vec<Dim> {
    let each = dims.iter().enumerate();
    each.filter_map(|(axis, dim)| match (chosen.contains(&axis), keep) {
        (false, _) => Some(dim.clone()),
        (true, true) => Some(Dim::Known(1)),
        (true, false) => None,
    })
    .collect()
}

/// The position of the largest or smallest along an axis.
pub(super) fn arg(at: &At<'_>) -> Option<Fact> {
    let dims = at.dims(0).and_then(|dims| {
        let axis = axis(at.int("axis", 0)?, dims.len())?;
        Some(without(dims, &[axis], at.int("keepdims", 1)? != 0))
    });
    Some(Fact::new(Some(DType::I64), dims))
}

/// The k largest along an axis, and their positions.
pub(super) fn top_k(at: &At<'_>) -> Vec<Fact> {
    let dims = at.dims(0).and_then(|dims| {
        let axis = axis(at.int("axis", -1)?, dims.len())?;
        let count = if at.opset < 10 {
            at.int("k", -1)
        } else {
            at.single(1)
        };
        let count = count.and_then(|count| u64::try_from(count).ok());
        let mut dims = dims.to_vec();
        dims[axis] = count.map_or(Dim::Unknown, Dim::Known);
        Some(dims)
    });
    vec![
        Fact::new(at.dtype(0), dims.clone()),
        Fact::new(Some(DType::I64), dims),
    ]
}
