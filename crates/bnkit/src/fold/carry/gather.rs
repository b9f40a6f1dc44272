//! Gather: along the channel axis the vector is gathered too; along another axis the channels move with it.
//!
//! Output channel j is input channel indices\[j\]. Backwards the channels that are not chosen are left alone; one that is
//! chosen twice would have to be two, so it is refused.

use bnkit_model::onnx::NodeId;

use super::{Carrier, Way, features, normal_axis, rank, require_data, size, stop, through};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::refusal::Answer;

pub(super) const GATHER: Carrier = Carrier {
    op_type: "Gather",
    slots: (2, 1),
    backward,
    forward,
};

/// The axis that is gathered along, and how many axes the indices put in its place.
fn along(context: &Context<'_>, node: NodeId) -> Answer<(usize, usize)> {
    let axis = context.int(node, "axis", 0)?;
    let axis = normal_axis(context, node, axis, rank(context, node)?)?;
    match context.types.rank(context.input(node, 1)?) {
        Some(axes) => Ok((axis, axes)),
        None => stop(
            context,
            node,
            "unknown-shape",
            "has indices of unknown rank",
        ),
    }
}

/// The channels that are chosen, of `count`.
fn chosen(context: &Context<'_>, node: NodeId, count: usize) -> Answer<Vec<usize>> {
    let indices = context.input(node, 1)?;
    let what = format!("\"{}\"", context.model.value(indices).name);
    let indices = (context.constants().ints(indices))
        .map_err(|reason| context.not_constant(reason, "weight-not-constant", &what))?;
    let from_front = |&index: &i64| normal_axis(context, node, index, count);
    indices.values.iter().map(from_front).collect()
}

fn backward(context: &Context<'_>, node: NodeId, _: usize, affine: &Affine) -> Answer<Vec<Way>> {
    let Some(channels) = affine.axis else {
        return through(affine.clone());
    };
    let (axis, axes) = along(context, node)?;
    if channels < axis {
        return through(affine.clone());
    }
    if channels >= axis + axes {
        return through(affine.clone().at(channels + 1 - axes));
    }
    if axes != 1 {
        return stop(
            context,
            node,
            "channel-axis",
            "spreads the channels over several axes",
        );
    }
    let total = size(context, node, context.input(node, 0)?, axis)?;
    let chosen = chosen(context, node, total)?;
    let mut seen = vec![false; total];
    if chosen
        .iter()
        .any(|&channel| std::mem::replace(&mut seen[channel], true))
    {
        return stop(context, node, "channel-axis", "takes a channel twice");
    }
    if chosen.len() != affine.len() {
        let what = format!(
            "takes {} channels, the affine has {}",
            chosen.len(),
            affine.len()
        );
        return stop(context, node, "channel-axis", what);
    }
    through(affine.placed(&chosen, total, axis))
}

fn forward(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    require_data(context, node, slot)?;
    let Some(channels) = affine.axis else {
        return through(affine.clone());
    };
    let (axis, axes) = along(context, node)?;
    if channels < axis {
        return through(affine.clone());
    }
    if channels > axis {
        return through(affine.clone().at(channels + axes - 1));
    }
    if axes != 1 {
        return stop(
            context,
            node,
            "channel-axis",
            "spreads the channels over several axes",
        );
    }
    features(context, node, context.input(node, 0)?, affine)?;
    let chosen = chosen(context, node, affine.len())?;
    if chosen.is_empty() {
        return stop(context, node, "channel-axis", "takes no channel");
    }
    through(affine.gather(chosen.into_iter(), axis))
}
