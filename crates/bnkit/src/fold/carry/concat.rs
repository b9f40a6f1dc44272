//! Concat: along the channel axis the vector is cut into the parts of the branches; along another axis all of it goes to
//! each.
//!
//! Backwards every branch must absorb its part. Forwards an affine on one branch is, behind a Concat along the channel
//! axis, one that leaves the channels of the other branches alone; along another axis it acts on a part of each channel,
//! which nothing behind it can absorb.

use bnkit_model::onnx::NodeId;

use super::{Carrier, Way, features, normal_axis, require_followed, size, stop, through};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::refusal::Answer;

pub(super) const CONCAT: Carrier = Carrier {
    op_type: "Concat",
    slots: (usize::MAX, 1),
    backward,
    forward,
};

/// The axis that is joined.
fn along(context: &Context<'_>, node: NodeId) -> Answer<usize> {
    let default = if context.opset(node) < 4 { 1 } else { i64::MAX };
    let axis = context.int(node, "axis", default)?;
    if axis == i64::MAX {
        return stop(
            context,
            node,
            "unknown-shape",
            "does not say along which axis",
        );
    }
    let inputs = context.model.node(node).inputs.iter().flatten();
    let outputs = context.model.node(node).outputs.iter().flatten();
    match inputs
        .chain(outputs)
        .find_map(|&value| context.types.rank(value))
    {
        Some(rank) => normal_axis(context, node, axis, rank),
        None => stop(
            context,
            node,
            "unknown-shape",
            "joins values of unknown rank",
        ),
    }
}

/// How many channels each branch has along `axis`.
fn sizes(context: &Context<'_>, node: NodeId, axis: usize) -> Answer<Vec<usize>> {
    (0..context.model.node(node).inputs.len())
        .map(|slot| size(context, node, context.input(node, slot)?, axis))
        .collect()
}

fn sum(sizes: &[usize]) -> usize {
    sizes.iter().fold(0, |sum, &size| sum.saturating_add(size))
}

fn backward(context: &Context<'_>, node: NodeId, _: usize, affine: &Affine) -> Answer<Vec<Way>> {
    let whole = || {
        let slots = 0..context.model.node(node).inputs.len();
        Ok(vec![slots.map(|slot| (slot, affine.clone())).collect()])
    };
    let Some(axis) = affine.axis else {
        return whole();
    };
    if axis != along(context, node)? {
        return whole();
    }
    let sizes = sizes(context, node, axis)?;
    if sum(&sizes) != affine.len() {
        let what = format!("joins {sizes:?} channels, the affine has {}", affine.len());
        return stop(context, node, "channel-axis", what);
    }
    let mut way = Vec::with_capacity(sizes.len());
    let mut start = 0;
    for (slot, size) in sizes.into_iter().enumerate() {
        way.push((slot, affine.gather(start..start + size, axis)));
        start += size;
    }
    Ok(vec![way])
}

fn forward(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    if context.model.node(node).inputs.len() == 1 {
        return through(affine.clone());
    }
    let axis = along(context, node)?;
    if affine.axis.is_some_and(|channels| channels != axis) {
        return stop(
            context,
            node,
            "channel-axis",
            format!("joins along axis {axis}, so that only a part of each channel is changed"),
        );
    }
    features(context, node, context.input(node, slot)?, affine)?;
    let sizes = sizes(context, node, axis)?;
    let (start, total) = (sum(&sizes[..slot]), sum(&sizes));
    require_followed(context, node, total, axis)?;
    let places: Vec<usize> = (start..start + sizes[slot]).collect();
    through(affine.placed(&places, total, axis))
}
