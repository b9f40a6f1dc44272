//! Weights and biases behind DequantizeLinear: an affine goes into the quantisation, the integers stay integers.
//!
//! `W = (q − z)·c` with integers q, zero points z and scales c. Multiplying W by s is multiplying c by |s| and, for
//! s < 0, reflecting q about z. Whoever scales a weight or writes a bias does it through this module, so that a
//! quantised model is never turned back into floats on the way; what does not fit is refused.
//!
//! This file knows what a quantised constant is and writes its scales; `weight` and `bias` use that.

use std::sync::Arc;

use bnkit_model::DType;
use bnkit_model::onnx::{AttributeValue, Edit, NewTensor, NodeId, Recipe, TensorDef, ValueId};

use crate::fold::context::Context;
use crate::fold::operands::require_slots;
use crate::refusal::{Answer, refuse};
use crate::report::Refusal;

mod bias;
mod explain;
mod weight;

pub(super) use bias::{bias, put_bias};
pub(crate) use explain::EXPLANATIONS;
pub(super) use weight::scale_weight;

/// How far an expression is searched for a DequantizeLinear.
const MAX_SEARCHED: usize = 256;

/// A constant behind a DequantizeLinear of its own.
struct Quantised {
    node: NodeId,
    codes: Arc<TensorDef>,
    scale: Arc<TensorDef>,
    /// Unrounded, if a fold made them.
    scales: Vec<f64>,
    /// None is 0.
    zeros: Option<Vec<i64>>,
    /// The axis that several scales lie along.
    axis: Option<usize>,
}

impl Quantised {
    fn zero(&self, index: usize) -> i64 {
        match self.zeros.as_deref() {
            None => 0,
            Some([one]) => *one,
            Some(many) => many[index],
        }
    }
}

/// The quantisation of the constant in an input slot; `None` if it has none.
fn find(context: &Context<'_>, node: NodeId, slot: usize) -> Answer<Option<Quantised>> {
    let Some(start) = context.model.node(node).input(slot) else {
        return Ok(None);
    };
    if !is_quantised(context, start) {
        return Ok(None);
    }
    let producer = context.model.producer(start).map(|(id, _)| id);
    let Some(id) = producer.filter(|&id| context.model.node(id).is("DequantizeLinear")) else {
        return unsuitable(context, start, "is computed from a quantised tensor");
    };
    let dequantize = context.model.node(id);
    if context.model.value(start).uses.len() != 1
        || dequantize.scope != context.model.node(node).scope
    {
        return unsuitable(context, start, "is read by other operators too");
    }
    require_slots(context, id, (3, 1))?;
    if context.int(id, "block_size", 0)? != 0 {
        return Err(Refusal::new(
            "quantised-block",
            format!("{} has a block_size", context.model.describe(id)),
        )
        .with("node", context.model.label(id))
        .into());
    }
    let codes = tensor(context, id, 0)?;
    let scale = tensor(context, id, 1)?;
    if !codes.dtype.is_integer() || codes.is_empty() || !scale.dtype.is_float() {
        let what = format!("is dequantised from {} by {}", codes.dtype, scale.dtype);
        return unsuitable(context, start, &what);
    }
    let zeros = match dequantize.input(2) {
        None => None,
        Some(_) => {
            let zero = tensor(context, id, 2)?;
            if zero.dtype != codes.dtype {
                let what = format!("has a zero point of {} for {}", zero.dtype, codes.dtype);
                return unsuitable(context, start, &what);
            }
            Some(context.model.read_tensor(&zero)?.to_i64()?)
        }
    };
    let scales = context.model.read_f64(&scale)?;
    if !scales.iter().all(|&scale| scale > 0.0 && scale.is_finite()) {
        return unsuitable(
            context,
            start,
            "has a quantisation scale that is not positive",
        );
    }
    let axis = match &*scale.dims {
        [] | [1] => None,
        &[channels] => {
            let axis = context.int(id, "axis", 1)?;
            let rank = codes.dims.len() as i64;
            let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok();
            let fits = |&axis: &usize| codes.dims.get(axis) == Some(&channels);
            let Some(axis) = axis.filter(fits).filter(|_| context.opset(id) >= 13) else {
                return unsuitable(context, start, "has scales that do not fit it");
            };
            Some(axis)
        }
        _ => {
            return refuse(
                "quantised-block",
                format!(
                    "{} has scales of shape {:?}",
                    context.model.describe(id),
                    scale.dims
                ),
            );
        }
    };
    if zeros
        .as_ref()
        .is_some_and(|zeros| zeros.len() != scales.len())
    {
        return unsuitable(context, start, "has zero points that do not fit its scales");
    }
    Ok(Some(Quantised {
        node: id,
        codes,
        scale,
        scales,
        zeros,
        axis,
    }))
}

/// Whether a DequantizeLinear or QuantizeLinear is part of a constant, or of what would be one without it.
fn is_quantised(context: &Context<'_>, start: ValueId) -> bool {
    let mut open = vec![start];
    let mut searched = 0;
    while let Some(value) = open.pop() {
        let Some((id, _)) = context.model.producer(value) else {
            continue;
        };
        let node = context.model.node(id);
        if node.is("DequantizeLinear") || node.is("QuantizeLinear") {
            return true;
        }
        searched += 1;
        // What is not constant is refused elsewhere. An element of the operand of a Shape or CastLike is not read.
        if searched > MAX_SEARCHED || node.is("Shape") || !context.constants().is_constant(value) {
            continue;
        }
        let operands = if node.is("CastLike") { 1 } else { usize::MAX };
        open.extend(node.inputs.iter().take(operands).flatten());
    }
    false
}

fn unsuitable<T>(context: &Context<'_>, value: ValueId, what: &str) -> Answer<T> {
    let name = &context.model.value(value).name;
    Err(
        Refusal::new("quantised-weight", format!("\"{name}\" {what}"))
            .with("value", name.as_str())
            .into(),
    )
}

/// A constant operand of a DequantizeLinear.
fn tensor(context: &Context<'_>, node: NodeId, slot: usize) -> Answer<Arc<TensorDef>> {
    let value = context.input(node, slot)?;
    context.require_not_annotated(value)?;
    let what = format!("\"{}\"", context.model.value(value).name);
    context
        .constants()
        .tensor(value)
        .map_err(|reason| context.not_constant(reason, "quantised-weight", &what))
}

/// Refuses a constant that is quantised in a way that no rule here can change.
pub(crate) fn require_foldable(context: &Context<'_>, node: NodeId, slot: usize) -> Answer<()> {
    find(context, node, slot).map(drop)
}

/// Refuses a constant that is quantised, for operators that have no rule for that.
pub(super) fn require_plain(context: &Context<'_>, node: NodeId, slot: usize) -> Answer<()> {
    match context.model.node(node).input(slot) {
        Some(value) if is_quantised(context, value) => unsuitable(
            context,
            value,
            "is quantised, and would become a float tensor",
        ),
        _ => Ok(()),
    }
}

fn require_divisors(context: &Context<'_>, node: NodeId, factors: &[f64]) -> Answer<()> {
    let odd = |factor: &f64| *factor == 0.0 || !factor.is_finite();
    match factors.iter().position(odd) {
        None => Ok(()),
        Some(channel) => Err(Refusal::new(
            "quantised-scale",
            format!(
                "a quantisation scale of {} would become {}",
                context.model.describe(node),
                factors[channel].abs()
            ),
        )
        .with("channel", channel)
        .into()),
    }
}

/// The scales times `magnitudes`, of which there is one for all, or one for each index along the axis.
fn rescaled(context: &Context<'_>, quantised: &Quantised, magnitudes: &[f64]) -> Answer<Vec<f64>> {
    let uniform = magnitudes.iter().all(|one| *one == magnitudes[0]);
    if uniform {
        let scales = quantised.scales.iter();
        return Ok(scales.map(|scale| scale * magnitudes[0]).collect());
    }
    if quantised.scales.len() == magnitudes.len() {
        let pairs = quantised.scales.iter().zip(magnitudes);
        return Ok(pairs.map(|(scale, magnitude)| scale * magnitude).collect());
    }
    let describe = || context.model.describe(quantised.node);
    if !context.per_channel_scales {
        return Err(Refusal::new(
            "per-tensor-scale",
            format!(
                "{} has one scale for all channels, {} are needed",
                describe(),
                magnitudes.len()
            ),
        )
        .with("node", context.model.label(quantised.node))
        .into());
    }
    if context.opset(quantised.node) < 13 {
        return refuse(
            "old-opset",
            format!("{}: one scale for each channel needs opset 13", describe()),
        );
    }
    let one = quantised.scales[0];
    Ok(magnitudes.iter().map(|magnitude| one * magnitude).collect())
}

/// Writes scales, along `axis` if there are several now.
fn put_scales(
    context: &Context<'_>,
    quantised: &Quantised,
    axis: usize,
    scales: Vec<f64>,
) -> Answer<Vec<Edit>> {
    let (node, dtype) = (quantised.node, quantised.scale.dtype);
    let lost = |&scale: &f64| (dtype.round(scale) - scale).abs() > scale / 256.0;
    if let Some(channel) = scales.iter().position(lost) {
        return Err(Refusal::new(
            "range",
            format!(
                "the quantisation scale {:e} of channel {channel} does not fit {dtype}",
                scales[channel]
            ),
        )
        .with("channel", channel)
        .into());
    }
    let becomes_vector = scales.len() != quantised.scales.len();
    let count = scales.len();
    let dims = match becomes_vector {
        true => [count].into(),
        false => quantised.scale.dims.clone(),
    };
    let mut edits = context.put(node, 1, context.dense(dtype, dims, scales)?, "");
    if becomes_vector {
        edits.push(Edit::SetAttribute {
            node,
            name: "axis".to_owned(),
            value: AttributeValue::Int(axis as i64),
        });
        if let Some(value) = context.model.node(node).input(2) {
            let zero = quantised.zero(0) as f64;
            let dtype = context.constants().tensor(value);
            let dtype = dtype
                .map_err(|why| context.not_constant(why, "quantised-weight", "the zero point"))?
                .dtype;
            let tensor = NewTensor {
                dtype,
                dims: [count].into(),
                recipe: Arc::new(Recipe::values(vec![zero; count])),
            };
            edits.extend(context.put(node, 2, tensor, ""));
        }
    }
    Ok(edits)
}

/// The least and the greatest number of an integer type.
fn limits(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::I8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
        DType::U8 => (0.0, f64::from(u8::MAX)),
        DType::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
        DType::U16 => (0.0, f64::from(u16::MAX)),
        DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        DType::U32 => (0.0, f64::from(u32::MAX)),
        // No model is quantised to 64 bits.
        _ => (0.0, 0.0),
    }
}

#[cfg(test)]
mod tests;
