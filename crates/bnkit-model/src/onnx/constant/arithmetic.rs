//! Operators that compute something new: floats in f64 without rounding, integers in i64 without overflow.

use super::array::{Array, Elements, Why, broadcast, count};
use super::attributes;
use super::operators::{Call, malformed};
use crate::DType;

/// Cast: to a float type it rounds once, to an integer type it truncates; what does not fit is refused.
pub(super) fn cast(array: Array, dtype: DType) -> Why<Array> {
    let is_int = dtype.is_integer();
    if !is_int && !dtype.is_float() && dtype != DType::Bool {
        return Err(format!("a cast to {dtype} is not evaluated"));
    }
    let dims = array.dims;
    Ok(match array.elements {
        Elements::Float(values) if dtype == DType::Bool => Array::int(
            dtype,
            dims,
            values
                .iter()
                .map(|&value| i64::from(value != 0.0))
                .collect(),
        ),
        Elements::Float(values) if is_int => {
            let whole = |&value: &f64| {
                let whole = value.trunc();
                // i64 itself ends just below 2^63.
                let inside = whole >= i64::MIN as f64 && whole < 9_223_372_036_854_775_808.0;
                if inside {
                    fitting(whole as i64, dtype)
                } else {
                    Err(misfit(value, dtype))
                }
            };
            Array::int(dtype, dims, values.iter().map(whole).collect::<Why<_>>()?)
        }
        Elements::Float(mut values) => {
            values
                .iter_mut()
                .for_each(|value| *value = dtype.round(*value));
            Array::float(dtype, dims, values)
        }
        Elements::Int(values) if dtype == DType::Bool => Array::int(
            dtype,
            dims,
            values.iter().map(|&value| i64::from(value != 0)).collect(),
        ),
        Elements::Int(values) if is_int => {
            let same = values.into_iter().map(|value| fitting(value, dtype));
            Array::int(dtype, dims, same.collect::<Why<_>>()?)
        }
        Elements::Int(values) => {
            let float = |value: i64| match dtype {
                DType::F32 => f64::from(value as f32),
                _ => dtype.round(value as f64),
            };
            Array::float(dtype, dims, values.into_iter().map(float).collect())
        }
    })
}

fn misfit(value: impl std::fmt::Display, dtype: DType) -> String {
    format!("{value} does not fit {dtype}")
}

/// `value`, if a `dtype` can hold it.
fn fitting(value: i64, dtype: DType) -> Why<i64> {
    let fits = match dtype {
        DType::I8 => i8::try_from(value).is_ok(),
        DType::U8 => u8::try_from(value).is_ok(),
        DType::I16 => i16::try_from(value).is_ok(),
        DType::U16 => u16::try_from(value).is_ok(),
        DType::I32 => i32::try_from(value).is_ok(),
        DType::U32 => u32::try_from(value).is_ok(),
        DType::U64 => value >= 0,
        DType::I64 => true,
        _ => false,
    };
    if fits {
        Ok(value)
    } else {
        Err(misfit(value, dtype))
    }
}

pub(super) fn unary(op: &str, array: Array) -> Why<Array> {
    let (dtype, dims) = (array.dtype, array.dims);
    match array.elements {
        Elements::Float(mut values) => {
            let compute: fn(f64) -> f64 = match op {
                "Neg" => |value| -value,
                "Sqrt" => f64::sqrt,
                "Reciprocal" => f64::recip,
                _ => return Err(format!("{op} is not evaluated")),
            };
            values.iter_mut().for_each(|value| *value = compute(*value));
            Ok(Array::float(dtype, dims, values))
        }
        Elements::Int(values) if op == "Neg" => {
            let negated = values.into_iter().map(|value| {
                let value = value.checked_neg().ok_or_else(|| misfit(value, dtype))?;
                fitting(value, dtype)
            });
            Ok(Array::int(dtype, dims, negated.collect::<Why<_>>()?))
        }
        Elements::Int(_) => Err(format!("{op} of {dtype} is not evaluated")),
    }
}

/// Both operands under the shape that they are broadcast to.
fn aligned(call: &Call<'_>, a: Array, b: Array) -> Why<(Array, Array)> {
    if a.dims == b.dims {
        return Ok((a, b));
    }
    if call.opset < 7 {
        return Err("broadcasting before opset 7 is not evaluated".to_owned());
    }
    let dims = broadcast(&a.dims, &b.dims)?;
    Ok((
        a.expanded(&dims, call.limit)?,
        b.expanded(&dims, call.limit)?,
    ))
}

pub(super) fn binary(call: &Call<'_>, a: Array, b: Array) -> Why<Array> {
    let op = call.node.op_type.as_str();
    if a.dtype != b.dtype {
        return Err(format!("its operands are {} and {}", a.dtype, b.dtype));
    }
    let (a, b) = aligned(call, a, b)?;
    let (dtype, dims) = (a.dtype, a.dims);
    match (a.elements, b.elements) {
        (Elements::Float(a), Elements::Float(b)) if op == "Equal" => {
            let equal = a.iter().zip(&b).map(|(a, b)| i64::from(a == b));
            Ok(Array::int(DType::Bool, dims, equal.collect()))
        }
        (Elements::Int(a), Elements::Int(b)) if op == "Equal" => {
            let equal = a.iter().zip(&b).map(|(a, b)| i64::from(a == b));
            Ok(Array::int(DType::Bool, dims, equal.collect()))
        }
        (Elements::Float(mut a), Elements::Float(b)) => {
            let compute: fn(f64, f64) -> f64 = match op {
                "Add" => |a, b| a + b,
                "Sub" => |a, b| a - b,
                "Mul" => |a, b| a * b,
                "Div" => |a, b| a / b,
                "Pow" => f64::powf,
                _ => return Err(format!("{op} is not evaluated")),
            };
            a.iter_mut().zip(&b).for_each(|(a, &b)| *a = compute(*a, b));
            Ok(Array::float(dtype, dims, a))
        }
        (Elements::Int(mut a), Elements::Int(b)) => {
            let compute: fn(i64, i64) -> Option<i64> = match op {
                "Add" => i64::checked_add,
                "Sub" => i64::checked_sub,
                "Mul" => i64::checked_mul,
                "Div" => i64::checked_div,
                _ => return Err(format!("{op} of {dtype} is not evaluated")),
            };
            for (a, &b) in a.iter_mut().zip(&b) {
                let result = compute(*a, b);
                let result = result.ok_or_else(|| format!("{op} of {a} and {b} has no result"))?;
                *a = fitting(result, dtype)?;
            }
            Ok(Array::int(dtype, dims, a))
        }
        _ => Err("its operands differ in kind".to_owned()),
    }
}

/// Where: the condition, what is taken if it holds, and what if not.
pub(super) fn choose(call: &Call<'_>, condition: Array, rest: Vec<Option<Array>>) -> Why<Array> {
    let mut rest = rest.into_iter().flatten();
    let (yes, no) = rest.next().zip(rest.next()).ok_or("an operand is absent")?;
    if yes.dtype != no.dtype || condition.dtype != DType::Bool {
        return Err("its operands differ in type".to_owned());
    }
    let dims = broadcast(&broadcast(&condition.dims, &yes.dims)?, &no.dims)?;
    let condition = condition.expanded(&dims, call.limit)?.into_ints();
    let condition = condition.ok_or("its condition is not boolean")?;
    let yes = yes.expanded(&dims, call.limit)?;
    let no = no.expanded(&dims, call.limit)?;
    fn pick<T: Copy>(condition: &[i64], yes: &[T], no: &[T]) -> Vec<T> {
        let each = condition.iter().zip(yes.iter().zip(no));
        each.map(|(&holds, (&yes, &no))| if holds != 0 { yes } else { no })
            .collect()
    }
    let elements = match (&yes.elements, &no.elements) {
        (Elements::Float(yes), Elements::Float(no)) => Elements::Float(pick(&condition, yes, no)),
        (Elements::Int(yes), Elements::Int(no)) => Elements::Int(pick(&condition, yes, no)),
        _ => return Err("its operands differ in kind".to_owned()),
    };
    Ok(Array {
        dtype: yes.dtype,
        dims,
        elements,
    })
}

/// DequantizeLinear: (x − zero point) · scale, per tensor or per axis.
pub(super) fn dequantize(call: &Call<'_>, data: Array, rest: Vec<Option<Array>>) -> Why<Array> {
    let mut rest = rest.into_iter();
    let scale = rest.next().flatten().ok_or("its scale is absent")?;
    let zero = rest.next().flatten();
    if attributes::int(call.node, "block_size", 0) != Some(0) {
        return Err("quantization in blocks is not evaluated".to_owned());
    }
    let dtype = match attributes::int(call.node, "output_dtype", 0) {
        Some(0) => scale.dtype,
        Some(number) => {
            DType::from_onnx(i32::try_from(number).map_err(|_| malformed("output_dtype"))?)
        }
        None => return Err(malformed("output_dtype")),
    };
    if !dtype.is_float() || !scale.dtype.is_float() {
        return Err(format!("dequantization to {dtype} is not evaluated"));
    }
    // The axis counts only if the scale is a vector; an only element of it holds for all.
    let (channels, inner) = match scale.dims.as_slice() {
        [] | [1] => (1, 1),
        &[channels] => {
            let axis = call.axis(1, data.dims.len())?;
            if data.dims[axis] != channels || call.opset < 13 {
                return Err(format!(
                    "{channels} scales do not fit shape {:?}",
                    data.dims
                ));
            }
            (channels, count(&data.dims[axis + 1..], u64::MAX)?)
        }
        other => return Err(format!("a scale of shape {other:?}")),
    };
    let zeros = match zero {
        None => vec![0; channels],
        Some(zero) if zero.dtype != data.dtype => {
            return Err(format!("a zero point of {} for {}", zero.dtype, data.dtype));
        }
        Some(zero) if zero.len() == channels && zero.dims.len() <= 1 => {
            zero.into_ints().ok_or("its zero point is no integer")?
        }
        Some(zero) => return Err(format!("a zero point of shape {:?}", zero.dims)),
    };
    let scales = scale.into_f64();
    let dims = data.dims.clone();
    let values = data.into_ints().ok_or("its data are no integers")?;
    let value = |(index, value): (usize, i64)| {
        let channel = index / inner.max(1) % channels.max(1);
        // Exact: the types are of at most 32 bits, or the value is far below 2^53.
        (value as f64 - zeros[channel] as f64) * scales[channel]
    };
    let values = values.into_iter().enumerate().map(value).collect();
    Ok(Array::float(dtype, dims, values))
}
