//! Operators that work element by element: the shape stays, or two shapes are broadcast.

use super::at::{At, broadcast};
use super::{Fact, attributes};
use crate::DType;
use crate::onnx::constant::Constants;
use crate::onnx::model::Dim;

/// The shape of the first input, and `dtype`.
pub(super) fn same(at: &At<'_>, dtype: Option<DType>) -> Option<Fact> {
    Some(Fact::new(dtype, at.dims(0).map(<[Dim]>::to_vec)))
}

/// A Constant node, by the header of what it holds.
pub(super) fn constant(at: &At<'_>) -> Option<Fact> {
    let (dtype, dims) = Constants::literal_header(at.node)?;
    let dims = dims.iter().map(|&dim| Dim::Known(dim as u64)).collect();
    Some(Fact::new(Some(dtype), Some(dims)))
}

/// The data, and the mask: of the data's type before opset 10, boolean since.
pub(super) fn dropout(at: &At<'_>) -> Vec<Fact> {
    let data = same(at, at.dtype(0));
    let mask = same(at, Some(DType::Bool).filter(|_| at.opset >= 10));
    data.into_iter().chain(mask).collect()
}

/// The target type of a `to`-like attribute; `None` if it is malformed or names no type.
fn target(at: &At<'_>, name: &str) -> Option<DType> {
    let number = i32::try_from(at.int(name, 0)?).ok()?;
    (number > 0).then(|| DType::from_onnx(number))
}

pub(super) fn cast(at: &At<'_>) -> Option<Fact> {
    same(at, target(at, "to"))
}

/// The type is that of the zero point, or what the node asks for, or uint8.
pub(super) fn quantize(at: &At<'_>) -> Option<Fact> {
    let dtype = if at.has(2) {
        at.dtype(2)
    } else if at.int("output_dtype", 0)? == 0 {
        Some(DType::U8)
    } else {
        target(at, "output_dtype")
    };
    same(at, dtype)
}

/// The type is what the node asks for, or that of the scale.
pub(super) fn dequantize(at: &At<'_>) -> Option<Fact> {
    let dtype = if at.int("output_dtype", 0)? == 0 {
        at.dtype(1)
    } else {
        target(at, "output_dtype")
    };
    same(at, dtype)
}

/// The shape of a result that is broadcast from `slots`; before opset `since` that of the first input.
fn shape(at: &At<'_>, slots: std::ops::Range<usize>, since: i64) -> Option<Vec<Dim>> {
    let mut dims = at.dims(slots.start)?.to_vec();
    if at.opset < since {
        return Some(dims);
    }
    for slot in slots.skip(1) {
        dims = broadcast(&dims, at.dims(slot)?)?;
    }
    Some(dims)
}

/// The element type that inputs share: that of one; none if two contradict each other.
fn common(at: &At<'_>, slots: std::ops::Range<usize>) -> Option<DType> {
    let mut known = slots.filter_map(|slot| at.dtype(slot));
    let first = known.next()?;
    known.all(|other| other == first).then_some(first)
}

pub(super) fn binary(at: &At<'_>) -> Option<Fact> {
    let dtype = match at.node.op_type.as_str() {
        // The exponent may be of another type.
        "Pow" => at.dtype(0),
        _ => common(at, 0..2),
    };
    Some(Fact::new(dtype, shape(at, 0..2, 7)))
}

pub(super) fn variadic(at: &At<'_>) -> Option<Fact> {
    let slots = 0..at.node.inputs.len();
    Some(Fact::new(common(at, slots.clone()), shape(at, slots, 8)))
}

pub(super) fn comparison(at: &At<'_>) -> Option<Fact> {
    Some(Fact::new(Some(DType::Bool), shape(at, 0..2, 7)))
}

pub(super) fn choice(at: &At<'_>) -> Option<Fact> {
    Some(Fact::new(common(at, 1..3), shape(at, 0..3, 0)))
}

/// An element type that is given by an attribute's tensor, or f32.
pub(super) fn value_dtype(at: &At<'_>) -> Option<DType> {
    let value = attributes::tensor(at.node, "value")?;
    Some(value.map_or(DType::F32, |tensor| tensor.dtype))
}
