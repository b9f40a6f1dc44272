//! The operators of which a constant expression may consist.

use super::array::{Array, Elements, Why, broadcast, count};
use super::{Constants, arithmetic, attributes, evaluate};
use crate::DType;
use crate::onnx::model::*;
use crate::onnx::types::{self, Types, axes};

/// Everything an operator knows of its place.
pub(super) struct Call<'a> {
    pub(super) node: &'a Node,
    pub(super) opset: i64,
    /// The most elements that the result may have.
    pub(super) limit: u64,
}

/// Whether nodes of this type are evaluated.
pub(super) fn is_known(op_type: &str) -> bool {
    matches!(
        op_type,
        "Add"
            | "Cast"
            | "CastLike"
            | "Concat"
            | "ConstantOfShape"
            | "DequantizeLinear"
            | "Div"
            | "Equal"
            | "Expand"
            | "Flatten"
            | "Gather"
            | "Identity"
            | "Mul"
            | "Neg"
            | "Pow"
            | "Reciprocal"
            | "Reshape"
            | "Shape"
            | "Slice"
            | "Sqrt"
            | "Squeeze"
            | "Sub"
            | "Transpose"
            | "Unsqueeze"
            | "Where"
    )
}

/// Whether nodes of this type give what they read.
pub(super) fn passes(op_type: &str) -> bool {
    matches!(op_type, "Identity" | "Dropout")
}

/// The result of the node `id` on `inputs`.
pub(super) fn apply(
    constants: &Constants<'_>,
    id: NodeId,
    inputs: Vec<Option<Array>>,
    limit: u64,
) -> Why<Array> {
    let node = constants.model.node(id);
    let opset = constants.opset(id);
    let call = Call { node, opset, limit };
    if node.op_type == "Shape" {
        return shape(constants, &call, inputs.into_iter().next().flatten());
    }
    if node.op_type == "Concat" {
        return call.concat(inputs);
    }
    let mut inputs = inputs.into_iter();
    let first = inputs.next().flatten().ok_or("its first input is absent")?;
    let rest: Vec<Option<Array>> = inputs.collect();
    match node.op_type.as_str() {
        op if passes(op) => Ok(first),
        "Cast" => {
            let number = attributes::int(node, "to", 0).and_then(|to| i32::try_from(to).ok());
            let dtype = number
                .map(DType::from_onnx)
                .ok_or("its target type is malformed")?;
            arithmetic::cast(first, dtype)
        }
        "CastLike" => arithmetic::cast(first, like(constants, node)?),
        "ConstantOfShape" => constant_of_shape(constants, &call, &first),
        "Expand" => call.expand(first, &rest),
        "Flatten" => call.flatten(first),
        "Reshape" => call.reshape(first, &rest),
        "Squeeze" => call.squeeze(first, &rest),
        "Unsqueeze" => call.unsqueeze(first, &rest),
        "Transpose" => call.transpose(first),
        "Slice" => call.slice(first, &rest),
        "Gather" => call.gather(first, &rest),
        "Neg" | "Sqrt" | "Reciprocal" => arithmetic::unary(&node.op_type, first),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Equal" => {
            let second = rest
                .into_iter()
                .next()
                .flatten()
                .ok_or("an operand is absent")?;
            arithmetic::binary(&call, first, second)
        }
        "Where" => arithmetic::choose(&call, first, rest),
        "DequantizeLinear" => arithmetic::dequantize(&call, first, rest),
        other => Err(format!("{other} is not evaluated")),
    }
}

/// The element type that a CastLike node casts to.
pub(super) fn like(constants: &Constants<'_>, node: &Node) -> Why<DType> {
    let dtype = node.input(1).and_then(|value| constants.dtype(value));
    dtype.ok_or_else(|| "the type that it casts to is unknown".to_owned())
}

/// What a Shape node gives, if every dimension that it selects is known.
pub(super) fn known_shape(types: &Types, node: &Node, opset: i64) -> Option<Vec<i64>> {
    let dims = types.dims(node.input(0)?)?;
    let range = axes::selected(node, opset, dims.len())?;
    let known = dims[range]
        .iter()
        .map(|dim| i64::try_from(dim.known()?).ok());
    known.collect()
}

fn shape(constants: &Constants<'_>, call: &Call<'_>, input: Option<Array>) -> Why<Array> {
    let sizes = match input {
        None => known_shape(constants.types, call.node, call.opset),
        Some(array) => axes::selected(call.node, call.opset, array.dims.len())
            .map(|range| array.dims[range].iter().map(|&dim| dim as i64).collect()),
    };
    let sizes = sizes.ok_or("its start or end is malformed")?;
    Ok(Array::int(DType::I64, vec![sizes.len()], sizes))
}

fn constant_of_shape(constants: &Constants<'_>, call: &Call<'_>, shape: &Array) -> Why<Array> {
    let dims = sizes(shape)?;
    let total = count(&dims, call.limit)?;
    let value = attributes::tensor(call.node, "value").ok_or("its value is malformed")?;
    let one = match value {
        None => Array::float(DType::F32, Vec::new(), vec![0.0]),
        Some(tensor) => evaluate::single(constants.model, tensor)?,
    };
    Ok(one.pick(dims, std::iter::repeat_n(0, total)))
}

/// The elements of a shape.
fn sizes(shape: &Array) -> Why<Vec<usize>> {
    let values = shape.ints().filter(|_| shape.dims.len() == 1);
    let values = values.ok_or("a shape must be a list of integers")?;
    if values.len() > types::MAX_RANK {
        return Err(format!("a shape of {} axes", values.len()));
    }
    let size = |&value: &i64| usize::try_from(value).map_err(|_| format!("a size of {value}"));
    values.iter().map(size).collect()
}

impl Call<'_> {
    /// The integers of the input in `slot` (counted from the second), if present.
    fn ints<'i>(&self, rest: &'i [Option<Array>], slot: usize) -> Why<Option<&'i [i64]>> {
        match rest.get(slot - 1) {
            Some(Some(array)) => {
                let values = array.ints().filter(|_| array.dims.len() <= 1);
                Ok(Some(values.ok_or("expected a list of integers")?))
            }
            _ => Ok(None),
        }
    }

    /// Integers that were an attribute before opset `since` and an input from then on.
    fn list<'i>(
        &'i self,
        rest: &'i [Option<Array>],
        name: &str,
        slot: usize,
        since: i64,
    ) -> Why<Option<&'i [i64]>> {
        if self.opset >= since {
            return self.ints(rest, slot);
        }
        attributes::ints(self.node, name).ok_or_else(|| malformed(name))
    }

    /// The attribute `axis`, counted from the front.
    pub(super) fn axis(&self, default: i64, rank: usize) -> Why<usize> {
        let given = attributes::int(self.node, "axis", default);
        let axis = given.and_then(|given| axes::axis(given, rank));
        axis.ok_or_else(|| malformed("axis"))
    }

    fn concat(&self, parts: Vec<Option<Array>>) -> Why<Array> {
        let parts: Option<Vec<Array>> = parts.into_iter().collect();
        let parts = parts
            .filter(|parts| !parts.is_empty())
            .ok_or("an input is absent")?;
        let mut dims = parts[0].dims.clone();
        let axis = self.axis(if self.opset < 4 { 1 } else { i64::MAX }, dims.len())?;
        let fits = |part: &Array| {
            part.dtype == parts[0].dtype
                && part.dims.len() == dims.len()
                && (0..dims.len()).all(|other| other == axis || part.dims[other] == dims[other])
        };
        if !parts.iter().all(fits) {
            return Err("its inputs do not fit together".to_owned());
        }
        let sum = parts
            .iter()
            .try_fold(0usize, |sum, part| sum.checked_add(part.dims[axis]));
        dims[axis] = sum.ok_or("its inputs are too large")?;
        count(&dims, self.limit)?;
        let outer = count(&dims[..axis], u64::MAX)?;
        let blocks = parts.iter().map(|part| count(&part.dims[axis..], u64::MAX));
        let blocks: Vec<usize> = blocks.collect::<Why<_>>()?;
        let mut floats = Vec::new();
        let mut ints = Vec::new();
        for index in 0..outer {
            for (part, &block) in parts.iter().zip(&blocks) {
                let range = index * block..(index + 1) * block;
                match &part.elements {
                    Elements::Float(values) => floats.extend_from_slice(&values[range]),
                    Elements::Int(values) => ints.extend_from_slice(&values[range]),
                }
            }
        }
        let elements = match parts[0].elements {
            Elements::Float(_) => Elements::Float(floats),
            Elements::Int(_) => Elements::Int(ints),
        };
        Ok(Array {
            dtype: parts[0].dtype,
            dims,
            elements,
        })
    }

    fn expand(&self, data: Array, rest: &[Option<Array>]) -> Why<Array> {
        let shape = rest
            .first()
            .and_then(Option::as_ref)
            .ok_or("its shape is absent")?;
        let dims = broadcast(&data.dims, &sizes(shape)?)?;
        data.expanded(&dims, self.limit)
    }

    fn flatten(&self, data: Array) -> Why<Array> {
        let given = attributes::int(self.node, "axis", 1).ok_or_else(|| malformed("axis"))?;
        let rank = data.dims.len();
        let axis = match usize::try_from(given) {
            Ok(given) if given == rank => rank,
            _ => axes::axis(given, rank).ok_or_else(|| malformed("axis"))?,
        };
        let (rows, columns) = data.dims.split_at(axis);
        let dims = vec![count(rows, u64::MAX)?, count(columns, u64::MAX)?];
        data.reshaped(dims)
    }

    fn reshape(&self, data: Array, rest: &[Option<Array>]) -> Why<Array> {
        let shape = self
            .list(rest, "shape", 1, 5)?
            .ok_or("its shape is absent")?;
        let keep_zero =
            attributes::flag(self.node, "allowzero").ok_or_else(|| malformed("allowzero"))?;
        let dims = axes::reshaped(&data.dims, shape, keep_zero);
        let dims = dims.ok_or_else(|| format!("{:?} cannot become {shape:?}", data.dims))?;
        data.reshaped(dims)
    }

    fn squeeze(&self, data: Array, rest: &[Option<Array>]) -> Why<Array> {
        let chosen = match self.list(rest, "axes", 1, 13)? {
            None => (0..data.dims.len())
                .filter(|&axis| data.dims[axis] == 1)
                .collect(),
            Some([]) => return Err(malformed("axes")),
            Some(given) => axes::axes(given, data.dims.len()).ok_or_else(|| malformed("axes"))?,
        };
        let kept = (0..data.dims.len()).filter(|axis| !chosen.contains(axis));
        let dims = kept.map(|axis| data.dims[axis]).collect();
        data.reshaped(dims)
    }

    fn unsqueeze(&self, data: Array, rest: &[Option<Array>]) -> Why<Array> {
        let given = self
            .list(rest, "axes", 1, 13)?
            .ok_or("its axes are absent")?;
        let rank = data.dims.len() + given.len();
        let chosen = Some(rank).filter(|&rank| rank <= types::MAX_RANK);
        let chosen = chosen.and_then(|rank| axes::axes(given, rank));
        let chosen = chosen.ok_or_else(|| malformed("axes"))?;
        let mut old = data.dims.iter();
        let size = |axis: usize| {
            if chosen.contains(&axis) {
                None
            } else {
                old.next().copied()
            }
        };
        let dims = (0..rank).map(size).map(|size| size.unwrap_or(1)).collect();
        data.reshaped(dims)
    }

    fn transpose(&self, data: Array) -> Why<Array> {
        let rank = data.dims.len();
        let order = match attributes::ints(self.node, "perm") {
            Some(None) => Some((0..rank).rev().collect()),
            Some(Some(perm)) => axes::axes(perm, rank).filter(|perm| perm.len() == rank),
            None => None,
        };
        let order = order.ok_or_else(|| malformed("perm"))?;
        let strides = data.strides();
        let strides: Vec<isize> = order.iter().map(|&axis| strides[axis]).collect();
        let dims = order.iter().map(|&axis| data.dims[axis]).collect();
        data.walk(dims, 0, &strides, self.limit)
    }

    fn slice(&self, data: Array, rest: &[Option<Array>]) -> Why<Array> {
        let starts = self
            .list(rest, "starts", 1, 10)?
            .ok_or("its starts are absent")?;
        let ends = self
            .list(rest, "ends", 2, 10)?
            .ok_or("its ends are absent")?;
        let steps = if self.opset < 10 {
            None
        } else {
            self.ints(rest, 4)?
        };
        let chosen = match self.list(rest, "axes", 3, 10)? {
            Some(given) => axes::axes(given, data.dims.len()),
            None => Some((0..starts.len().min(data.dims.len())).collect()),
        };
        let chosen = chosen.ok_or_else(|| malformed("axes"))?;
        let lengths = [
            starts.len(),
            ends.len(),
            steps.map_or(starts.len(), <[i64]>::len),
        ];
        if lengths.iter().any(|&length| length != chosen.len()) {
            return Err("its starts, ends, axes and steps differ in number".to_owned());
        }
        let mut dims = data.dims.clone();
        let mut strides = data.strides();
        let mut start = 0isize;
        for (index, &axis) in chosen.iter().enumerate() {
            let step = steps.map_or(1, |steps| steps[index]);
            let cut = axes::cut(dims[axis] as u64, starts[index], ends[index], step);
            let (first, taken) = cut.ok_or("a step is 0")?;
            dims[axis] = taken as usize;
            // Wrapping matters only where there are no elements to walk over.
            let stride = strides[axis];
            start = stride.wrapping_mul(first as isize).wrapping_add(start);
            // A step beyond the axis takes one element and goes nowhere.
            strides[axis] = if taken > 1 {
                stride.wrapping_mul(step as isize)
            } else {
                0
            };
        }
        data.walk(dims, start as usize, &strides, self.limit)
    }

    fn gather(&self, data: Array, rest: &[Option<Array>]) -> Why<Array> {
        let axis = self.axis(0, data.dims.len())?;
        let indices = rest
            .first()
            .and_then(Option::as_ref)
            .ok_or("its indices are absent")?;
        let wanted = indices.ints().ok_or("its indices are no integers")?;
        let size = data.dims[axis];
        let at = |&index: &i64| axes::axis(index, size).ok_or(format!("index {index} of {size}"));
        let wanted: Vec<usize> = wanted.iter().map(at).collect::<Why<_>>()?;
        let dims = [&data.dims[..axis], &indices.dims, &data.dims[axis + 1..]].concat();
        if dims.len() > types::MAX_RANK {
            return Err(format!("a result of {} axes", dims.len()));
        }
        count(&dims, self.limit)?;
        let inner = count(&data.dims[axis + 1..], u64::MAX)?;
        let outer = count(&data.dims[..axis], u64::MAX)?;
        let rows = (0..outer).flat_map(|row| wanted.iter().map(move |&at| row * size + at));
        let picked = rows.flat_map(|row| row * inner..(row + 1) * inner);
        Ok(data.pick(dims, picked))
    }
}

/// What is said of an attribute (or of the input that replaced it) that does not fit.
pub(super) fn malformed(name: &str) -> String {
    format!("its {name} is malformed")
}
