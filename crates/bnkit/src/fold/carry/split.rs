//! Split: along the channel axis each part has its channels of the vector; along another axis each has all of it.
//!
//! Backwards from one part, the channels of the others are left alone, so these may go anywhere. Along another axis the
//! affine would reach the other parts too: only if nobody reads them.

use bnkit_model::onnx::NodeId;

use super::{Carrier, Way, features, normal_axis, rank, require_data, size, stop, through};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::refusal::Answer;

pub(super) const SPLIT: Carrier = Carrier {
    op_type: "Split",
    slots: (2, usize::MAX),
    backward,
    forward,
};

fn along(context: &Context<'_>, node: NodeId) -> Answer<usize> {
    if context.opset(node) < 2 {
        return stop(context, node, "old-opset", "is of an unusual version");
    }
    let rank = rank(context, node)?;
    normal_axis(context, node, context.int(node, "axis", 0)?, rank)
}

/// Where on `axis` of the input the part in an output slot lies.
fn place(
    context: &Context<'_>,
    node: NodeId,
    slot: usize,
    axis: usize,
) -> Answer<std::ops::Range<usize>> {
    let part = |slot: usize| match context.model.node(node).output(slot) {
        Some(value) => size(context, node, value, axis),
        None => stop(
            context,
            node,
            "unknown-shape",
            "has parts without a name, whose size is not known",
        ),
    };
    let mut start = 0;
    for before in 0..slot {
        start += part(before)?;
    }
    Ok(start..start + part(slot)?)
}

fn is_read(context: &Context<'_>, node: NodeId, slot: usize) -> bool {
    let output = context.model.node(node).output(slot);
    output.is_some_and(|value| !context.model.value(value).uses.is_empty())
}

fn backward(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    let axis = along(context, node)?;
    if affine.axis != Some(axis) {
        let outputs = 0..context.model.node(node).outputs.len();
        if outputs
            .into_iter()
            .any(|other| other != slot && is_read(context, node, other))
        {
            return stop(
                context,
                node,
                "shared-output",
                format!("splits along axis {axis}, and other parts of the channels are read too"),
            );
        }
        return through(affine.clone());
    }
    let total = size(context, node, context.input(node, 0)?, axis)?;
    let place = place(context, node, slot, axis)?;
    if place.len() != affine.len() || place.end > total {
        let what = format!(
            "has a part {place:?} of {total} channels, the affine has {}",
            affine.len()
        );
        return stop(context, node, "channel-axis", what);
    }
    let places: Vec<usize> = place.collect();
    through(affine.placed(&places, total, axis))
}

fn forward(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    require_data(context, node, slot)?;
    let axis = along(context, node)?;
    let cut = affine.axis == Some(axis);
    if cut {
        features(context, node, context.input(node, 0)?, affine)?;
    }
    let mut way = Vec::new();
    for output in 0..context.model.node(node).outputs.len() {
        if !is_read(context, node, output) {
            continue;
        }
        let part = if cut {
            let place = place(context, node, output, axis)?;
            if place.end > affine.len() {
                return stop(
                    context,
                    node,
                    "channel-axis",
                    "has more channels than it reads",
                );
            }
            affine.gather(place, axis)
        } else {
            affine.clone()
        };
        way.push((output, part));
    }
    Ok(vec![way])
}
