//! Shape arithmetic: the elements of small integer tensors, with symbols in them.
//!
//! `x.reshape(x.size(0), -1)` becomes Shape → Gather → Unsqueeze → Concat → Reshape. The batch has no number, so none
//! of these is a constant; but the symbol that the input declares for it goes through them, beside the sizes that are
//! known.

use std::sync::Arc;

use super::Known;
use super::at::{At, to_items};
use super::axes::{axis, cut, selected};
use crate::DType;
use crate::onnx::model::Dim;

/// Longer tensors are not followed.
const MAX_LENGTH: usize = 64;

/// One element of an integer tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A number.
    Int(i64),
    /// The size that this symbol stands for.
    Symbol(Arc<str>),
    /// Unknown.
    Unknown,
}

impl Item {
    /// The number, if it is one.
    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }
}

/// A dimension as an element of a shape tensor.
pub(super) fn item(dim: &Dim) -> Item {
    match dim {
        Dim::Known(size) => i64::try_from(*size).map_or(Item::Unknown, Item::Int),
        Dim::Symbol(name) => Item::Symbol(name.clone()),
        Dim::Unknown => Item::Unknown,
    }
}

/// The elements of the node's first output, of which this is known; `None` if nothing is known of them.
pub(super) fn of(at: &At<'_>, known: &Known) -> Option<Vec<Item>> {
    let is_vector = known.dims.as_ref().is_some_and(|dims| dims.len() <= 1);
    if !is_vector || !matches!(known.dtype, Some(DType::I32 | DType::I64)) {
        return None;
    }
    let items = match at.node.op_type.as_str() {
        "Shape" => {
            let dims = at.dims(0)?;
            to_items(&dims[selected(at.node, at.opset, dims.len())?])
        }
        "Identity" if at.node.inputs.len() > 1 => return None,
        "Identity" | "Squeeze" | "Unsqueeze" | "Reshape" => at.items(0)?,
        "Cast" => cast(at, known)?,
        "Concat" => concat(at)?,
        "Gather" => gather(at)?,
        "Slice" => slice(at)?,
        "Add" | "Sub" | "Mul" | "Div" if at.opset >= 7 => arithmetic(at, known)?,
        _ => return None,
    };
    let told = items.iter().any(|item| *item != Item::Unknown);
    (told && items.len() <= MAX_LENGTH).then_some(items)
}

fn fits(dtype: Option<DType>, value: i64) -> bool {
    dtype == Some(DType::I64) || i32::try_from(value).is_ok()
}

fn cast(at: &At<'_>, known: &Known) -> Option<Vec<Item>> {
    let items = at.items(0)?;
    let fit = items
        .iter()
        .filter_map(Item::int)
        .all(|value| fits(known.dtype, value));
    fit.then_some(items)
}

fn concat(at: &At<'_>) -> Option<Vec<Item>> {
    let mut joined = Vec::new();
    for slot in 0..at.node.inputs.len() {
        joined.extend(at.shape_items(slot)?);
        if joined.len() > MAX_LENGTH {
            return None;
        }
    }
    Some(joined)
}

fn gather(at: &At<'_>) -> Option<Vec<Item>> {
    if at.dims(0)?.len() != 1 || axis(at.int("axis", 0)?, 1).is_none() {
        return None;
    }
    let items = at.items(0)?;
    let indices = at.ints(1)?;
    let each = indices.iter().map(|&index| axis(index, items.len()));
    each.map(|index| index.map(|index| items[index].clone()))
        .collect()
}

fn slice(at: &At<'_>) -> Option<Vec<Item>> {
    let items = at.items(0)?;
    let one = |values: Option<Vec<i64>>| match values.as_deref() {
        Some(&[value]) => Some(value),
        _ => None,
    };
    let start = one(at.list("starts", 1, 10)?)?;
    let end = one(at.list("ends", 2, 10)?)?;
    let step = match at.opset {
        ..10 => 1,
        _ => at
            .list("steps", 4, 10)?
            .map_or(Some(1), |steps| one(Some(steps)))?,
    };
    if let Some(axes) = at.list("axes", 3, 10)? {
        axis(one(Some(axes))?, 1)?;
    }
    let (start, count) = cut(items.len() as u64, start, end, step)?;
    let index = |nth: u64| i128::from(start) + i128::from(step) * i128::from(nth);
    let each = (0..count).map(|nth| usize::try_from(index(nth)).ok());
    each.map(|index| items.get(index?).cloned()).collect()
}

fn arithmetic(at: &At<'_>, known: &Known) -> Option<Vec<Item>> {
    let (a, b) = (at.items(0)?, at.items(1)?);
    let length = match (a.len(), b.len()) {
        (x, y) if x == y => x,
        (1, y) => y,
        (x, 1) => x,
        _ => return None,
    };
    let pick =
        |items: &[Item], index: usize| items[if items.len() == 1 { 0 } else { index }].clone();
    let op = at.node.op_type.as_str();
    let each = (0..length).map(|index| combine(op, pick(&a, index), pick(&b, index)));
    let checked = each.map(|item| match item.int() {
        Some(value) if !fits(known.dtype, value) => Item::Unknown,
        _ => item,
    });
    Some(checked.collect())
}

/// Symbols survive what does not change them.
fn combine(op: &str, a: Item, b: Item) -> Item {
    let value = match (op, &a, &b) {
        ("Add" | "Sub", _, Item::Int(0)) | ("Mul" | "Div", _, Item::Int(1)) => return a,
        ("Add", Item::Int(0), _) | ("Mul", Item::Int(1), _) => return b,
        ("Add", Item::Int(a), Item::Int(b)) => a.checked_add(*b),
        ("Sub", Item::Int(a), Item::Int(b)) => a.checked_sub(*b),
        ("Mul", Item::Int(a), Item::Int(b)) => a.checked_mul(*b),
        ("Div", Item::Int(a), Item::Int(b)) => a.checked_div(*b),
        _ => None,
    };
    value.map_or(Item::Unknown, Item::Int)
}
