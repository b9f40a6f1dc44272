//! Slice: along the channel axis the vector is cut; along others it stays as it is.
//!
//! Output channel j is input channel start + step·j. Backwards the channels that are cut away are left alone: nobody else
//! reads them. Steps backwards through the channels are refused.

use bnkit_model::onnx::NodeId;

use super::{Carrier, Way, features, ints, normal_axes, rank, require_data, size, stop, through};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::refusal::Answer;

pub(super) const SLICE: Carrier = Carrier {
    op_type: "Slice",
    slots: (5, 1),
    backward,
    forward,
};

/// The channels along `axis`, of `count`, that are kept; `None` if this axis is not cut.
fn kept(
    context: &Context<'_>,
    node: NodeId,
    axis: usize,
    count: usize,
) -> Answer<Option<Vec<usize>>> {
    let odd = |what: &str| stop(context, node, "unknown-shape", what);
    let rank = rank(context, node)?;
    let axes = ints(context, node, "axes", 3, 10)?;
    let starts = ints(context, node, "starts", 1, 10)?;
    let ends = ints(context, node, "ends", 2, 10)?;
    let (Some(starts), Some(ends)) = (starts, ends) else {
        return odd("has no bounds");
    };
    let steps = match context.opset(node) {
        ..10 => None,
        _ => ints(context, node, "steps", 4, 10)?,
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len().min(rank) as i64).collect());
    let lengths = [
        Some(starts.len()),
        Some(ends.len()),
        steps.as_ref().map(Vec::len),
    ];
    if lengths
        .into_iter()
        .flatten()
        .any(|length| length != axes.len())
    {
        return odd("has starts, ends, axes and steps that differ in length");
    }
    let axes = normal_axes(context, node, &axes, rank)?;
    let Some(at) = axes.iter().position(|&cut| cut == axis) else {
        return Ok(None);
    };
    let step = steps.map_or(1, |steps| steps[at]);
    let Some(step) = usize::try_from(step).ok().filter(|&step| step > 0) else {
        return stop(
            context,
            node,
            "channel-axis",
            "steps backwards through the channels",
        );
    };
    Ok(Some(
        cut(count, starts[at], ends[at]).step_by(step).collect(),
    ))
}

/// What lies between two bounds; negative ones count from the end, others are cut off there.
fn cut(count: usize, start: i64, end: i64) -> std::ops::Range<usize> {
    let bound = |at: i64| {
        let size = count as i128;
        let at = i128::from(at);
        let at = if at < 0 { at + size } else { at };
        at.clamp(0, size) as usize
    };
    bound(start)..bound(end)
}

fn backward(context: &Context<'_>, node: NodeId, _: usize, affine: &Affine) -> Answer<Vec<Way>> {
    let Some(axis) = affine.axis else {
        return through(affine.clone());
    };
    let total = size(context, node, context.input(node, 0)?, axis)?;
    let Some(kept) = kept(context, node, axis, total)? else {
        return through(affine.clone());
    };
    if kept.len() != affine.len() {
        let what = format!(
            "keeps {} channels, the affine has {}",
            kept.len(),
            affine.len()
        );
        return stop(context, node, "channel-axis", what);
    }
    through(affine.placed(&kept, total, axis))
}

fn forward(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    require_data(context, node, slot)?;
    let Some(axis) = affine.axis else {
        return through(affine.clone());
    };
    features(context, node, context.input(node, 0)?, affine)?;
    match kept(context, node, axis, affine.len())? {
        None => through(affine.clone()),
        Some(kept) if kept.is_empty() => stop(context, node, "channel-axis", "keeps no channel"),
        Some(kept) => through(affine.gather(kept.into_iter(), axis)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_count_from_either_end() {
        assert_eq!(cut(4, 1, 3), 1..3);
        assert_eq!(cut(4, -3, i64::MAX), 1..4);
        assert_eq!(cut(4, i64::MIN, -1), 0..3);
        assert!(cut(4, 3, 1).is_empty() && cut(4, 9, 12).is_empty());
    }
}
