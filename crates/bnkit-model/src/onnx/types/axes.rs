//! What the numbers of axes and bounds mean: shared by the rules for shapes and by the evaluation of constants.

use std::ops::Range;

use super::contents::Item;
use super::{attributes, layout};
use crate::onnx::model::{Dim, Node};

/// `axis` counted from the front, for a tensor of `rank` axes.
pub(in crate::onnx) fn axis(axis: i64, rank: usize) -> Option<usize> {
    let size = i64::try_from(rank).ok()?;
    let axis = if axis < 0 {
        axis.checked_add(size)?
    } else {
        axis
    };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// `axes` counted from the front; none may come twice.
pub(in crate::onnx) fn axes(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    let mut seen = vec![false; rank];
    axes.iter()
        .map(|&value| {
            let axis = axis(value, rank)?;
            (!std::mem::replace(&mut seen[axis], true)).then_some(axis)
        })
        .collect()
}

/// Where a slice of an axis begins, and how many elements it takes.
pub(in crate::onnx) fn cut(size: u64, start: i64, end: i64, step: i64) -> Option<(u64, u64)> {
    let (size, step) = (i128::from(size), i128::from(step));
    let from_front = |at: i64| {
        if at < 0 {
            i128::from(at) + size
        } else {
            i128::from(at)
        }
    };
    let (start, end) = (from_front(start), from_front(end));
    let (start, length) = match step {
        0 => return None,
        1.. => {
            let (start, end) = (start.clamp(0, size), end.clamp(0, size));
            (start, end - start)
        }
        _ if size == 0 => (0, 0),
        _ => {
            let (start, end) = (start.clamp(0, size - 1), end.clamp(-1, size - 1));
            (start, start - end)
        }
    };
    let stride = step.abs();
    let count = (length.max(0) + stride - 1) / stride;
    Some((u64::try_from(start).ok()?, u64::try_from(count).ok()?))
}

/// The axes that a Shape node takes of a value of `rank` axes; `start` and `end` exist from opset 15 on.
pub(in crate::onnx) fn selected(node: &Node, opset: i64, rank: usize) -> Option<Range<usize>> {
    let given = node.attribute("start").or(node.attribute("end"));
    if opset < 15 && given.is_some() {
        return None;
    }
    let size = i64::try_from(rank).ok()?;
    let bound = |name: &str, default: i64| {
        let at = attributes::int(node, name, default)?;
        let at = if at < 0 { at.saturating_add(size) } else { at };
        usize::try_from(at.clamp(0, size)).ok()
    };
    let (start, end) = (bound("start", 0)?, bound("end", i64::MAX)?);
    Some(start..end.max(start))
}

/// What Reshape makes of known dimensions.
pub(in crate::onnx) fn reshaped(
    dims: &[usize],
    shape: &[i64],
    keep_zero: bool,
) -> Option<Vec<usize>> {
    let dims: Vec<Dim> = dims.iter().map(|&dim| Dim::Known(dim as u64)).collect();
    let items: Vec<Item> = shape.iter().copied().map(Item::Int).collect();
    let target = layout::reshaped(Some(&dims), &items, keep_zero)?;
    let known = target.iter().map(|dim| usize::try_from(dim.known()?).ok());
    known.collect()
}
