//! Resize and its ancestor Upsample: each element of the result is Σ wᵢ·xᵢ over neighbours in its channel with Σ wᵢ = 1,
//! for nearest, linear and cubic, at the border and with `exclude_outside` and `antialias` too.
//!
//! Batch and channel axis have to keep their scale of 1, whatever their size says: a factor of 1.2 on 3 channels gives 3
//! as well, but mixes them. `tf_crop_and_resize` puts a constant where it looks outside; `tf_half_pixel_for_nn` moves
//! elements on axes that keep their size.

use bnkit_model::onnx::{AttributeValue, Dim, NodeId};

use super::{Carrier, Way, normal_axes, rank, require_data, stop, through};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::refusal::Answer;

pub(super) const RESIZE: Carrier = Carrier {
    op_type: "Resize",
    slots: (4, 1),
    backward: resize,
    forward: resize,
};
pub(super) const UPSAMPLE: Carrier = Carrier {
    op_type: "Upsample",
    slots: (2, 1),
    backward: upsample,
    forward: upsample,
};

fn resize(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    require_data(context, node, slot)?;
    let opset = context.opset(node);
    match context.text(node, "mode", "nearest")? {
        "nearest" | "linear" => {}
        "cubic" if opset >= 11 => {}
        mode => return stop(context, node, "no-absorber", format!("has mode \"{mode}\"")),
    }
    match context.text(node, "coordinate_transformation_mode", "half_pixel")? {
        "half_pixel"
        | "half_pixel_symmetric"
        | "pytorch_half_pixel"
        | "align_corners"
        | "asymmetric" => {}
        mode => {
            let what = format!("has coordinate_transformation_mode \"{mode}\"");
            return stop(context, node, "no-absorber", what);
        }
    }
    let rank = rank(context, node)?;
    let resized: Vec<usize> = match context.ints(node, "axes")? {
        Some(axes) => normal_axes(context, node, axes, rank)?,
        None => (0..rank).collect(),
    };
    // Opset 10 has no region of interest and no sizes.
    let (scales, sizes) = if opset < 11 { (1, None) } else { (2, Some(3)) };
    let is_given = |slot: usize| {
        let value = context.model.node(node).input(slot);
        value.is_some_and(|value| context.types.dims(value) != Some(&[Dim::Known(0)]))
    };
    let guarded = guarded(affine);
    let guarded = guarded.into_iter().filter(|axis| resized.contains(axis));
    if sizes.is_some_and(is_given) {
        if context.text(node, "keep_aspect_ratio_policy", "stretch")? != "stretch" {
            return match guarded.count() {
                0 => through(affine.clone()),
                _ => stop(
                    context,
                    node,
                    "unknown-shape",
                    "chooses the scale of its axes itself",
                ),
            };
        }
        for axis in guarded {
            require_same_size(context, node, axis)?;
        }
        return through(affine.clone());
    }
    let Some(scales) = context.optional(node, scales)? else {
        return stop(
            context,
            node,
            "unknown-shape",
            "has neither scales nor sizes",
        );
    };
    if scales.values.len() != resized.len() {
        return stop(
            context,
            node,
            "unknown-shape",
            "has scales that do not fit its axes",
        );
    }
    let scale = |axis: usize| {
        resized
            .iter()
            .position(|&at| at == axis)
            .map(|at| scales.values[at])
    };
    for axis in guarded {
        require_unscaled(context, node, axis, scale(axis))?;
    }
    through(affine.clone())
}

fn upsample(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    require_data(context, node, slot)?;
    match context.text(node, "mode", "nearest")? {
        "nearest" | "linear" => {}
        mode => return stop(context, node, "no-absorber", format!("has mode \"{mode}\"")),
    }
    let scales: Vec<f64> = match context.opset(node) {
        7 | 8 => match context
            .model
            .node(node)
            .attribute("scales")
            .map(|scales| &scales.value)
        {
            Some(AttributeValue::Floats(scales)) => {
                scales.iter().map(|&scale| f64::from(scale)).collect()
            }
            _ => return stop(context, node, "unknown-shape", "has no scales"),
        },
        9 => match context.optional(node, 1)? {
            Some(scales) => scales.values,
            None => return stop(context, node, "unknown-shape", "has no scales"),
        },
        _ => return stop(context, node, "old-opset", "is of an unusual version"),
    };
    for axis in guarded(affine) {
        require_unscaled(context, node, axis, scales.get(axis).copied())?;
    }
    through(affine.clone())
}

/// The axes that must keep their elements: batch, channel, and the affine's.
fn guarded(affine: &Affine) -> Vec<usize> {
    let mut axes = vec![0, 1];
    axes.extend(affine.axis.filter(|&axis| axis > 1));
    axes
}

fn require_unscaled(
    context: &Context<'_>,
    node: NodeId,
    axis: usize,
    scale: Option<f64>,
) -> Answer<()> {
    match scale {
        Some(1.0) => Ok(()),
        Some(scale) => {
            let what = format!("scales axis {axis} by {scale}");
            stop(context, node, "channel-axis", what)
        }
        None => stop(
            context,
            node,
            "unknown-shape",
            format!("has no scale for axis {axis}"),
        ),
    }
}

/// With sizes, the scale is the quotient of these.
fn require_same_size(context: &Context<'_>, node: NodeId, axis: usize) -> Answer<()> {
    let dim = |value| context.types.dims(value).and_then(|dims| dims.get(axis));
    let before = dim(context.input(node, 0)?);
    let after = context.model.node(node).output(0).and_then(dim);
    match (before, after) {
        (Some(before), Some(after)) if before == after && *before != Dim::Unknown => Ok(()),
        (Some(Dim::Known(before)), Some(Dim::Known(after))) => {
            let what = format!("makes {after} of {before} on axis {axis}");
            stop(context, node, "channel-axis", what)
        }
        _ => {
            let what = format!("may change the size of axis {axis}");
            stop(context, node, "unknown-shape", what)
        }
    }
}
