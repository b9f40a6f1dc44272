//! A weight behind DequantizeLinear times factors: scales times |s|, integers reflected where s < 0.

use std::sync::Arc;

use bnkit_model::onnx::{Edit, NewTensor, NodeId, Recipe, Scale, TensorDef};

use super::{Quantised, find, limits, put_scales, require_divisors, rescaled};
use crate::fold::context::Context;
use crate::refusal::Answer;
use crate::report::Refusal;

/// Multiplies the weight in an input slot by factors: element e by `factors[(e / inner) % factors.len()]`. No edits if
/// all are 1.
///
/// `W = (q − z)·c`: c becomes c·|s|, and q becomes 2z − q where s < 0.
pub(in crate::fold::absorb) fn scale_weight(
    context: &Context<'_>,
    node: NodeId,
    slot: usize,
    weight: &Arc<TensorDef>,
    inner: usize,
    factors: Vec<f64>,
) -> Answer<Vec<Edit>> {
    let Some(quantised) = find(context, node, slot)? else {
        let new = context.scaled(weight, inner, factors)?;
        return Ok(new.map_or_else(Vec::new, |new| context.put(node, slot, new, "")));
    };
    if factors.iter().all(|&factor| factor == 1.0) {
        return Ok(Vec::new());
    }
    require_divisors(context, node, &factors)?;
    let dims = &quantised.codes.dims;
    let (axis, factors) = if factors.iter().all(|factor| *factor == factors[0]) {
        (quantised.axis.unwrap_or(0), vec![factors[0]])
    } else {
        let mut axes = match quantised.axis {
            Some(axis) => axis..axis + 1,
            None => 0..dims.len(),
        };
        let found = axes.find_map(|axis| Some((axis, along(dims, axis, inner, &factors)?)));
        match found {
            Some(found) => found,
            None => {
                return Err(Refusal::new(
                    "quantised-axis",
                    format!(
                        "the weight of {} has no quantisation scales along the channels of the affine",
                        context.model.describe(node)
                    ),
                )
                .with("node", context.model.label(node))
                .into());
            }
        }
    };
    let mut edits = flipped(context, &quantised, axis, &factors)?;
    let magnitudes: Vec<f64> = factors.iter().map(|factor| factor.abs()).collect();
    if magnitudes.iter().any(|&magnitude| magnitude != 1.0) {
        let scales = rescaled(context, &quantised, &magnitudes)?;
        edits.extend(put_scales(context, &quantised, axis, scales)?);
    }
    Ok(edits)
}

/// One factor for each index along `axis`, if the factors of a weight (as for [`scale_weight`]) depend on nothing else.
fn along(dims: &[usize], axis: usize, inner: usize, factors: &[f64]) -> Option<Vec<f64>> {
    let size = dims[axis];
    let stride: usize = dims[axis + 1..].iter().product();
    let count: usize = dims.iter().product();
    // Both are products of the last sizes, so one divides the other.
    let grain = stride.min(inner).max(1);
    let mut found: Vec<Option<f64>> = vec![None; size];
    for element in (0..count).step_by(grain) {
        let factor = factors[element / inner.max(1) % factors.len()];
        let entry = found[element / stride.max(1) % size].get_or_insert(factor);
        if *entry != factor {
            return None;
        }
    }
    found.into_iter().collect()
}

/// The integers with those of negative factors reflected about their zero point.
fn flipped(
    context: &Context<'_>,
    quantised: &Quantised,
    axis: usize,
    factors: &[f64],
) -> Answer<Vec<Edit>> {
    if factors.iter().all(|&factor| factor > 0.0) {
        return Ok(Vec::new());
    }
    let codes = &quantised.codes;
    let (least, most) = limits(codes.dtype);
    let inner: usize = codes.dims[axis + 1..].iter().product();
    let size = codes.dims[axis];
    let factor = |index: usize| factors[if factors.len() == 1 { 0 } else { index }];
    let mut new = Vec::new();
    let plain = (0..size).all(|index| quantised.zero(index.min(quantised.scales.len() - 1)) == 0);
    let mut outside = None;
    context.model.for_each_chunk(codes, |start, elements| {
        for (element, &code) in (start..).zip(elements) {
            let index = element / inner.max(1) % size;
            let zero = match quantised.axis {
                Some(_) => quantised.zero(index),
                None => quantised.zero(0),
            };
            let code = if factor(index) < 0.0 {
                2.0 * zero as f64 - code
            } else {
                code
            };
            if !(least..=most).contains(&code) {
                outside.get_or_insert((index, code));
            }
            if !plain {
                new.push(code);
            }
        }
        Ok(())
    })?;
    if let Some((channel, code)) = outside {
        return Err(Refusal::new(
            "quantised-sign",
            format!(
                "s is negative in channel {channel}, and {code} is no {}",
                codes.dtype
            ),
        )
        .with("node", context.model.label(quantised.node))
        .with("channel", channel)
        .into());
    }
    let recipe = if plain {
        Recipe::of(codes).times([Scale {
            inner,
            factors: (0..size).map(|index| factor(index).signum()).collect(),
        }])
    } else {
        Recipe::values(new)
    };
    let tensor = NewTensor {
        dtype: codes.dtype,
        dims: codes.dims.clone(),
        recipe: Arc::new(recipe),
    };
    Ok(context.put(quantised.node, 0, tensor, ""))
}
