//! Operators that move elements about and leave them as they are.

use super::at::{At, broadcast, factors, merge, product, unknown};
use super::axes::{axes, axis, cut, selected};
use super::contents::Item;
use super::{Fact, attributes, elementwise};
use crate::DType;
use crate::onnx::model::Dim;

/// Flatten: always a matrix.
pub(super) fn flatten(at: &At<'_>) -> Option<Fact> {
    let Some(dims) = at.dims(0) else {
        return Some(Fact::new(at.dtype(0), Some(unknown(2))));
    };
    let split = at
        .int("axis", 1)
        .and_then(|given| match usize::try_from(given) {
            Ok(given) if given == dims.len() => Some(given),
            _ => axis(given, dims.len()),
        });
    let matrix = split.map(|split| vec![product(&dims[..split]), product(&dims[split..])]);
    Some(Fact::new(at.dtype(0), matrix))
}

pub(super) fn reshape(at: &At<'_>) -> Option<Fact> {
    let items = if at.opset < 5 {
        let shape = attributes::ints(at.node, "shape")?;
        shape.map(|shape| shape.iter().copied().map(Item::Int).collect())
    } else {
        at.shape_items(1)
    };
    let keep_zero = attributes::flag(at.node, "allowzero")?;
    let dims = items.and_then(|items| reshaped(at.dims(0), &items, keep_zero));
    Some(Fact::new(at.dtype(0), dims))
}

/// What Reshape makes of `dims`: 0 copies a size (unless `keep_zero`), -1 takes the rest.
pub(super) fn reshaped(dims: Option<&[Dim]>, items: &[Item], keep_zero: bool) -> Option<Vec<Dim>> {
    let mut rest: Option<Vec<Dim>> = dims.map(<[Dim]>::to_vec);
    let mut target = Vec::with_capacity(items.len());
    let mut inferred = None;
    // Sizes that are copied or named on both sides cancel, whatever they are; the others must divide.
    let mut others = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let size = match item {
            Item::Int(0) if !keep_zero => match dims {
                None => Dim::Unknown,
                Some(dims) => {
                    let size = dims.get(index)?.clone();
                    cancel(&mut rest, index);
                    target.push(size);
                    continue;
                }
            },
            Item::Int(-1) if inferred.is_none() => {
                inferred = Some(index);
                Dim::Unknown
            }
            Item::Int(size) => Dim::Known(u64::try_from(*size).ok()?),
            // A size that comes out of another shape; were it 0, there would be no elements to speak of.
            other => other.dim(),
        };
        if inferred != Some(index) {
            others.push(size.clone());
        }
        target.push(size);
    }
    if inferred.is_some() && items.contains(&Item::Int(0)) && keep_zero {
        return None;
    }
    let Some(mut rest) = rest else {
        return Some(target);
    };
    for other in others
        .iter_mut()
        .filter(|other| matches!(other, Dim::Symbol(_)))
    {
        if let Some(same) = rest.iter_mut().find(|dim| *dim == other) {
            *same = Dim::Known(1);
            *other = Dim::Known(1);
        }
    }
    match (inferred, factors(&rest), factors(&others)) {
        (Some(index), Some((have @ 1.., size)), Some((want @ 1.., None))) => {
            target[index] = match size {
                None => Dim::Known((have % want == 0).then_some(have / want)?),
                Some(size) if have == want => size.clone(),
                Some(_) => Dim::Unknown,
            };
        }
        (None, Some((have, None)), Some((want, None))) if have != want => return None,
        _ => {}
    }
    Some(target)
}

fn cancel(rest: &mut Option<Vec<Dim>>, index: usize) {
    if let Some(dim) = rest.as_mut().and_then(|rest| rest.get_mut(index)) {
        *dim = Dim::Known(1);
    }
}

pub(super) fn transpose(at: &At<'_>) -> Option<Fact> {
    let dims = at.dims(0).and_then(|dims| {
        let order = match attributes::ints(at.node, "perm")? {
            None => (0..dims.len()).rev().collect(),
            Some(perm) => axes(perm, dims.len()).filter(|perm| perm.len() == dims.len())?,
        };
        Some(order.into_iter().map(|axis| dims[axis].clone()).collect())
    });
    Some(Fact::new(at.dtype(0), dims))
}

pub(super) fn squeeze(at: &At<'_>) -> Option<Fact> {
    let dims = at.dims(0).and_then(|dims| {
        let chosen = match at.list("axes", 1, 13)? {
            // Readers differ: no axis, or all of size 1.
            Some(given) if given.is_empty() => return None,
            Some(given) => axes(&given, dims.len())?,
            // All axes of size 1: which these are shows only if all sizes are known.
            None if dims.iter().all(|dim| dim.known().is_some()) => (0..dims.len())
                .filter(|&axis| dims[axis] == Dim::Known(1))
                .collect(),
            None => return None,
        };
        if chosen
            .iter()
            .any(|&axis| dims[axis].known().is_some_and(|size| size != 1))
        {
            return None;
        }
        let kept = (0..dims.len()).filter(|axis| !chosen.contains(axis));
        Some(kept.map(|axis| dims[axis].clone()).collect())
    });
    Some(Fact::new(at.dtype(0), dims))
}

pub(super) fn unsqueeze(at: &At<'_>) -> Option<Fact> {
    let dims = at.dims(0).and_then(|dims| {
        let given = at.list("axes", 1, 13)??;
        let chosen = axes(&given, dims.len().checked_add(given.len())?)?;
        let mut old = dims.iter();
        let each = (0..dims.len() + chosen.len()).map(|axis| {
            if chosen.contains(&axis) {
                Some(Dim::Known(1))
            } else {
                old.next().cloned()
            }
        });
        each.collect()
    });
    Some(Fact::new(at.dtype(0), dims))
}

pub(super) fn concat(at: &At<'_>) -> Option<Fact> {
    let slots = 0..at.node.inputs.len();
    let dtype = slots.clone().find_map(|slot| at.dtype(slot));
    Some(Fact::new(dtype, concatenated(at, slots)))
}

fn concatenated(at: &At<'_>, slots: std::ops::Range<usize>) -> Option<Vec<Dim>> {
    let mut dims = slots.clone().find_map(|slot| at.dims(slot))?.to_vec();
    let default = if at.opset < 4 { 1 } else { i64::MAX };
    let along = axis(at.int("axis", default)?, dims.len())?;
    let mut sum = Some(0u64);
    let mut only = None;
    for slot in slots.clone() {
        let Some(part) = at.dims(slot) else {
            sum = None;
            continue;
        };
        if part.len() != dims.len() {
            return None;
        }
        only = Some(part[along].clone());
        sum = sum
            .zip(part[along].known())
            .and_then(|(sum, size)| sum.checked_add(size));
        for axis in (0..dims.len()).filter(|&axis| axis != along) {
            dims[axis] = merge(&dims[axis], &part[axis])?;
        }
    }
    dims[along] = match (sum, only) {
        (Some(sum), _) => Dim::Known(sum),
        (None, Some(only)) if slots.len() == 1 => only,
        _ => Dim::Unknown,
    };
    Some(dims)
}

pub(super) fn slice(at: &At<'_>) -> Option<Fact> {
    let dims = at
        .dims(0)
        .map(|dims| sliced(at, dims).unwrap_or_else(|| unknown(dims.len())));
    Some(Fact::new(at.dtype(0), dims))
}

fn sliced(at: &At<'_>, dims: &[Dim]) -> Option<Vec<Dim>> {
    let starts = at.list("starts", 1, 10).flatten();
    let ends = at.list("ends", 2, 10).flatten();
    let steps = if at.opset < 10 {
        None
    } else {
        at.list("steps", 4, 10)?
    };
    let chosen = match at.list("axes", 3, 10)? {
        Some(given) => axes(&given, dims.len())?,
        None => (0..starts.as_ref()?.len().min(dims.len())).collect(),
    };
    let mut dims = dims.to_vec();
    for (index, &axis) in chosen.iter().enumerate() {
        let step = steps
            .as_ref()
            .map_or(Some(1), |steps| steps.get(index).copied());
        let bounds = starts.as_ref().zip(ends.as_ref());
        let bounds = bounds.and_then(|(starts, ends)| starts.get(index).zip(ends.get(index)));
        let size = bounds.zip(step);
        let size = size.and_then(|((&start, &end), step)| part(&dims[axis], start, end, step));
        dims[axis] = size.unwrap_or(Dim::Unknown);
    }
    Some(dims)
}

fn part(dim: &Dim, start: i64, end: i64, step: i64) -> Option<Dim> {
    match dim.known() {
        Some(size) => cut(size, start, end, step).map(|(_, count)| Dim::Known(count)),
        // From the first to the last, whatever the size.
        None if (start, step) == (0, 1) && end >= i64::from(i32::MAX) => Some(dim.clone()),
        None => None,
    }
}

pub(super) fn split(at: &At<'_>) -> Vec<Fact> {
    let count = at.node.outputs.len();
    let sizes = split_sizes(at);
    let along = at.dims(0).zip(at.int("axis", 0));
    let along = along.and_then(|(dims, given)| Some((dims, axis(given, dims.len())?)));
    let fact = |slot: usize| {
        let dims = along.map(|(dims, axis)| {
            let mut dims = dims.to_vec();
            let size = sizes.as_ref().and_then(|sizes| sizes.get(slot));
            dims[axis] = size.map_or(Dim::Unknown, |&size| Dim::Known(size));
            dims
        });
        Fact::new(at.dtype(0), dims)
    };
    (0..count).map(fact).collect()
}

/// The sizes of the parts. Without sizes the parts are equal, but only `num_outputs` says for certain how many there
/// are: outputs at the end that nobody reads may be missing from the node's list.
fn split_sizes(at: &At<'_>) -> Option<Vec<u64>> {
    let dims = at.dims(0)?;
    let size = dims[axis(at.int("axis", 0)?, dims.len())?].known();
    if at.opset < 2 && at.has(1) {
        return None;
    }
    if let Some(given) = at.list("split", 1, 13)? {
        let sizes = given.iter().map(|&size| u64::try_from(size).ok());
        let sizes: Vec<u64> = sizes.collect::<Option<_>>()?;
        let sum = sizes
            .iter()
            .try_fold(0u64, |sum, &size| sum.checked_add(size))?;
        return (size.is_none_or(|size| size == sum)).then_some(sizes);
    }
    let size = size?;
    if at.opset < 18 {
        let count = u64::try_from(at.written_outputs()?).ok()?;
        let equal = count > 0 && size % count == 0;
        return equal.then(|| vec![size / count; at.node.outputs.len()]);
    }
    let count = u64::try_from(at.int("num_outputs", 0)?).ok()?;
    if count == 0 || count < at.node.outputs.len() as u64 {
        return None;
    }
    let part = size.div_ceil(count);
    let last = size.checked_sub(part.checked_mul(count - 1)?)?;
    let mut sizes = vec![part; at.node.outputs.len()];
    if sizes.len() as u64 == count {
        *sizes.last_mut()? = last;
    }
    Some(sizes)
}

pub(super) fn pad(at: &At<'_>) -> Option<Fact> {
    let dims = at
        .dims(0)
        .map(|dims| padded(at, dims).unwrap_or_else(|| unknown(dims.len())));
    Some(Fact::new(at.dtype(0), dims))
}

fn padded(at: &At<'_>, dims: &[Dim]) -> Option<Vec<Dim>> {
    let pads = at.list(if at.opset < 2 { "paddings" } else { "pads" }, 1, 11)??;
    let chosen = if at.opset >= 18 && at.has(3) {
        axes(&at.ints(3)?, dims.len())?
    } else {
        (0..dims.len()).collect()
    };
    if pads.len() != chosen.len() * 2 {
        return None;
    }
    let mut padded = dims.to_vec();
    for (index, &axis) in chosen.iter().enumerate() {
        let (begin, end) = (pads[index], pads[index + chosen.len()]);
        padded[axis] = match (dims[axis].known(), begin, end) {
            (_, 0, 0) => continue,
            (None, ..) => Dim::Unknown,
            (Some(size), begin, end) => {
                let size = i128::from(size) + i128::from(begin) + i128::from(end);
                u64::try_from(size).map_or(Dim::Unknown, Dim::Known)
            }
        };
    }
    Some(padded)
}

pub(super) fn gather(at: &At<'_>) -> Option<Fact> {
    let dims = at.dims(0).zip(at.dims(1)).and_then(|(data, indices)| {
        let axis = axis(at.int("axis", 0)?, data.len())?;
        Some([&data[..axis], indices, &data[axis + 1..]].concat())
    });
    Some(Fact::new(at.dtype(0), dims))
}

pub(super) fn expand(at: &At<'_>) -> Option<Fact> {
    let dims = at.dims(0).zip(at.shape_items(1)).and_then(|(dims, items)| {
        let negative = |item: &Item| item.int().is_some_and(|size| size < 0);
        if items.iter().any(negative) {
            return None;
        }
        let shape: Vec<Dim> = items.iter().map(Item::dim).collect();
        broadcast(dims, &shape)
    });
    Some(Fact::new(at.dtype(0), dims))
}

pub(super) fn tile(at: &At<'_>) -> Option<Fact> {
    let dims = at
        .dims(0)
        .map(|dims| tiled(at, dims).unwrap_or_else(|| unknown(dims.len())));
    Some(Fact::new(at.dtype(0), dims))
}

fn tiled(at: &At<'_>, dims: &[Dim]) -> Option<Vec<Dim>> {
    let repeats = at
        .ints(1)
        .filter(|repeats| at.opset >= 6 && repeats.len() == dims.len())?;
    let each = dims.iter().zip(repeats);
    Some(
        each.map(|(dim, repeat)| repeated(dim, repeat).unwrap_or(Dim::Unknown))
            .collect(),
    )
}

fn repeated(dim: &Dim, repeat: i64) -> Option<Dim> {
    match repeat {
        1 => Some(dim.clone()),
        _ => Some(Dim::Known(
            dim.known()?.checked_mul(u64::try_from(repeat).ok()?)?,
        )),
    }
}

pub(super) fn shape(at: &At<'_>) -> Option<Fact> {
    let count = at
        .dims(0)
        .and_then(|dims| selected(at.node, at.opset, dims.len()));
    let count = count.map_or(Dim::Unknown, |axes| Dim::Known(axes.len() as u64));
    Some(Fact::new(Some(DType::I64), Some(vec![count])))
}

pub(super) fn constant_of_shape(at: &At<'_>) -> Option<Fact> {
    let dims = at.shape_items(0);
    let dims = dims.map(|items| items.iter().map(Item::dim).collect());
    Some(Fact::new(elementwise::value_dtype(at), dims))
}
