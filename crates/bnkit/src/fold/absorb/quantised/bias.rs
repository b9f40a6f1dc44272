//! A bias behind DequantizeLinear: int32, in units of a scale that follows the one of the weight.

use std::sync::Arc;

use bnkit_model::DType;
use bnkit_model::onnx::{Dense, Edit, NewTensor, NodeId, Operand, Recipe};

use super::{Quantised, find, limits, put_scales, require_divisors, rescaled};
use crate::fold::context::Context;
use crate::refusal::Answer;
use crate::report::Refusal;

/// The elements of the bias in an input slot, unrounded; `None` if the slot is empty.
pub(in crate::fold::absorb) fn bias(
    context: &Context<'_>,
    node: NodeId,
    slot: usize,
) -> Answer<Option<Dense<f64>>> {
    let Some(quantised) = find(context, node, slot)? else {
        return context.optional(node, slot);
    };
    require_bias(context, &quantised)?;
    let mut values = context.model.read_f64(&quantised.codes)?;
    for (index, value) in values.iter_mut().enumerate() {
        let scale = match quantised.axis {
            Some(_) => quantised.scales[index],
            None => quantised.scales[0],
        };
        *value *= scale;
    }
    Ok(Some(Dense {
        dtype: quantised.scale.dtype,
        dims: quantised.codes.dims.to_vec(),
        values,
    }))
}

fn require_bias(context: &Context<'_>, quantised: &Quantised) -> Answer<()> {
    let zero = quantised
        .zeros
        .iter()
        .flatten()
        .all(|&zero_point| zero_point == 0);
    if quantised.codes.dtype == DType::I32 && zero && quantised.codes.dims.len() == 1 {
        return Ok(());
    }
    Err(Refusal::new(
        "quantised-bias",
        format!(
            "{} gives a bias of {} of shape {:?}, expected a vector of int32 at zero point 0",
            context.model.describe(quantised.node),
            quantised.codes.dtype,
            quantised.codes.dims
        ),
    )
    .with("node", context.model.label(quantised.node))
    .into())
}

/// Puts `values` into the bias slot of an operator. In a quantised bias, the scale follows that of the weight, which was
/// multiplied by `weight_factors` (one for each element of the bias), and the values are rounded to int32 in its units.
pub(in crate::fold::absorb) fn put_bias(
    context: &Context<'_>,
    node: NodeId,
    (dtype, dims, values): (DType, Vec<usize>, Vec<f64>),
    weight_factors: Option<&[f64]>,
    hint: &str,
) -> Answer<Vec<Edit>> {
    const SLOT: usize = 2;
    let Some(quantised) = find(context, node, SLOT)? else {
        let new = context.dense(dtype, dims, values)?;
        return Ok(context.put(node, SLOT, new, hint));
    };
    require_bias(context, &quantised)?;
    let does_not_fit = |why: String| -> Answer<Vec<Edit>> {
        Err(Refusal::new("quantised-bias", why)
            .with("node", context.model.label(quantised.node))
            .into())
    };
    if *dims != *quantised.codes.dims {
        return does_not_fit(format!(
            "the folded bias of {} has shape {dims:?}, its integers {:?}",
            context.model.describe(node),
            quantised.codes.dims
        ));
    }
    let magnitudes: Vec<f64> = match weight_factors {
        Some(factors) => {
            require_divisors(context, node, factors)?;
            factors.iter().map(|factor| factor.abs()).collect()
        }
        None => vec![1.0],
    };
    // Rounded here: the integers are in units of what will be stored.
    let to = quantised.scale.dtype;
    let scales: Vec<f64> = rescaled(context, &quantised, &magnitudes)?
        .into_iter()
        .map(|scale| to.round(scale))
        .collect();
    let codes: Vec<f64> = (values.iter().enumerate())
        .map(|(index, value)| value / scales[if scales.len() == 1 { 0 } else { index }])
        .collect();
    let (least, most) = limits(DType::I32);
    let outside = |code: &f64| !(least..=most).contains(&code.round_ties_even());
    if let Some(channel) = codes.iter().position(outside) {
        return does_not_fit(format!(
            "the folded bias of channel {channel} is {:e} units of its scale, beyond int32",
            codes[channel]
        ));
    }
    let mut edits = put_scales(context, &quantised, 0, scales)?;
    // Where the weight has the same tensor for its scales, its copy has this name already.
    let scale = |node| context.model.node(node).input(1);
    if find(context, node, 1)?.is_some_and(|weight| scale(weight.node) == scale(quantised.node)) {
        rename(context, &mut edits);
    }
    let tensor = NewTensor {
        dtype: DType::I32,
        dims: dims.into(),
        recipe: Arc::new(Recipe::values(codes)),
    };
    edits.extend(context.put(quantised.node, 0, tensor, ""));
    Ok(edits)
}

/// Gives a constant that `edits` add a name of its own among biases.
fn rename(context: &Context<'_>, edits: &mut [Edit]) {
    let fresh = |name: &str| context.model.fresh_name(&format!("{name}_bias"));
    for edit in edits {
        match edit {
            Edit::AddConstant { name, .. } => *name = fresh(name),
            Edit::SetInput {
                value: Operand::New(name),
                ..
            } => *name = fresh(name),
            _ => {}
        }
    }
}
