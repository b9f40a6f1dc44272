//! Pad: edge, reflect and wrap copy elements of the same channel; a constant has to be what the affine makes of it.

use bnkit_model::onnx::NodeId;

use super::{Carrier, Way, through};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::fold::operands::malformed;
use crate::refusal::{Answer, refuse};

pub(super) const PAD: Carrier = Carrier {
    op_type: "Pad",
    slots: (4, 1),
    backward,
    forward,
};

fn backward(context: &Context<'_>, node: NodeId, _: usize, affine: &Affine) -> Answer<Vec<Way>> {
    pass(context, node, affine)
}

fn forward(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    if slot != 0 {
        return refuse(
            "no-absorber",
            format!(
                "the affine computes a parameter of {}",
                context.model.describe(node)
            ),
        );
    }
    pass(context, node, affine)
}

fn pass(context: &Context<'_>, node: NodeId, affine: &Affine) -> Answer<Vec<Way>> {
    let describe = || context.model.describe(node);
    let data = context.input(node, 0)?;
    let Some(rank) = context.types.rank(data) else {
        return refuse(
            "unknown-shape",
            format!("the rank of what {} reads is not known", describe()),
        );
    };
    let (pads, constant) = parameters(context, node, rank)?;
    let padded = |axis: usize| {
        pads.get(axis)
            .is_none_or(|&(begin, end)| begin != 0 || end != 0)
    };
    if padded(0) || affine.axis.is_some_and(padded) {
        return refuse(
            "channel-axis",
            format!("{} pads the batch or channel axis", describe()),
        );
    }
    match context.text(node, "mode", "constant")? {
        "edge" | "reflect" | "wrap" => through(affine.clone()),
        "constant" => {
            let kept = affine
                .scale
                .iter()
                .zip(&affine.shift)
                .all(|(s, t)| s * constant + t == constant);
            if kept || pads.iter().all(|&(begin, end)| begin <= 0 && end <= 0) {
                through(affine.clone())
            } else {
                refuse(
                    "padded-shift",
                    format!(
                        "{} pads with {constant}, which the affine would change",
                        describe()
                    ),
                )
            }
        }
        mode => refuse("no-absorber", format!("{} has mode \"{mode}\"", describe())),
    }
}

/// Begin and end of every axis, and the constant: attributes before opset 11, inputs since.
fn parameters(context: &Context<'_>, node: NodeId, rank: usize) -> Answer<(Vec<(i64, i64)>, f64)> {
    let opset = context.opset(node);
    if opset < 11 {
        let name = if opset < 2 { "paddings" } else { "pads" };
        let pads = context.ints(node, name)?.unwrap_or_default();
        return Ok((
            pairs(context, node, pads, None, rank)?,
            context.float(node, "value", 0.0)?,
        ));
    }
    let ints = |slot: usize| -> Answer<Option<Vec<i64>>> {
        let Some(value) = context.model.node(node).input(slot) else {
            return Ok(None);
        };
        let name = format!("\"{}\"", context.model.value(value).name);
        let ints = context.constants().ints(value);
        Ok(Some(
            ints.map_err(|reason| context.not_constant(reason, "weight-not-constant", &name))?
                .values,
        ))
    };
    let pads = ints(1)?.unwrap_or_default();
    let axes = ints(3)?;
    let constant = context
        .optional(node, 2)?
        .and_then(|dense| dense.values.first().copied())
        .unwrap_or(0.0);
    Ok((
        pairs(context, node, &pads, axes.as_deref(), rank)?,
        constant,
    ))
}

fn pairs(
    context: &Context<'_>,
    node: NodeId,
    pads: &[i64],
    axes: Option<&[i64]>,
    rank: usize,
) -> Answer<Vec<(i64, i64)>> {
    let broken = || malformed(context, node, format!("has pads {pads:?} for {rank} axes"));
    let all: Vec<i64> = (0..rank as i64).collect();
    let axes = axes.unwrap_or(&all);
    if pads.len() != 2 * axes.len() {
        return Err(broken());
    }
    let mut result = vec![None; rank];
    for (at, &axis) in axes.iter().enumerate() {
        let axis = if axis < 0 { axis + rank as i64 } else { axis };
        let slot = usize::try_from(axis)
            .ok()
            .and_then(|axis| result.get_mut(axis))
            .ok_or_else(broken)?;
        // An axis that is named twice has no one padding.
        if slot.replace((pads[at], pads[at + axes.len()])).is_some() {
            return Err(broken());
        }
    }
    Ok(result.into_iter().map(Option::unwrap_or_default).collect())
}
