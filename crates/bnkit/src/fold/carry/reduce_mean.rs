//! ReduceMean: mean(s·x + t) = s·mean(x) + t, as long as the channels are not averaged with each other.

use bnkit_model::onnx::NodeId;

use super::{Carrier, Way, ints, normal_axes, rank, require_data, stop, through};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::refusal::Answer;

pub(super) const REDUCE_MEAN: Carrier = Carrier {
    op_type: "ReduceMean",
    slots: (2, 1),
    backward,
    forward,
};

/// Which axes of the input are averaged over, for each whether it is.
fn reduced(context: &Context<'_>, node: NodeId) -> Answer<Vec<bool>> {
    let rank = rank(context, node)?;
    let axes = ints(context, node, "axes", 1, 18)?.unwrap_or_default();
    if axes.is_empty() {
        // Nothing given means everything, unless `noop_with_empty_axes` (from opset 18 on) says nothing.
        let nothing =
            context.opset(node) >= 18 && context.int(node, "noop_with_empty_axes", 0)? != 0;
        return Ok(vec![!nothing; rank]);
    }
    let mut reduced = vec![false; rank];
    for axis in normal_axes(context, node, &axes, rank)? {
        reduced[axis] = true;
    }
    Ok(reduced)
}

/// The axes of the input that those of the output are.
fn kept(context: &Context<'_>, node: NodeId, reduced: &[bool]) -> Answer<Vec<usize>> {
    let keep = context.int(node, "keepdims", 1)? != 0;
    Ok((0..reduced.len())
        .filter(|&axis| keep || !reduced[axis])
        .collect())
}

fn backward(context: &Context<'_>, node: NodeId, _: usize, affine: &Affine) -> Answer<Vec<Way>> {
    let Some(axis) = affine.axis else {
        return through(affine.clone());
    };
    let reduced = reduced(context, node)?;
    match kept(context, node, &reduced)?.get(axis) {
        Some(&input) if !reduced[input] => through(affine.clone().at(input)),
        _ => stop(context, node, "channel-axis", "averages over the channels"),
    }
}

fn forward(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    require_data(context, node, slot)?;
    let Some(axis) = affine.axis else {
        return through(affine.clone());
    };
    let reduced = reduced(context, node)?;
    let output = (kept(context, node, &reduced)?.iter()).position(|&input| input == axis);
    match output {
        Some(output) if !reduced[axis] => through(affine.clone().at(output)),
        _ => stop(context, node, "channel-axis", "averages over the channels"),
    }
}
