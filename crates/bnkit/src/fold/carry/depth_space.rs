//! DepthToSpace and SpaceToDepth: b² channels become one of b times the height and width, and back.
//!
//! With C channels on the side in space, channel k of those in depth belongs to channel k mod C (mode DCR, and
//! SpaceToDepth) or k div b² (mode CRD). From space to depth the vector is repeated; from depth to space all b² copies
//! have to agree.

use bnkit_model::onnx::NodeId;

use super::{Carrier, Way, features, require_data, require_not_spatial, stop, through};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::refusal::Answer;

pub(super) const DEPTH_TO_SPACE: Carrier = Carrier {
    op_type: "DepthToSpace",
    slots: (1, 1),
    backward: |context, node, _, affine| {
        let order = order(context, node)?;
        to_depth(context, node, affine, order)
    },
    forward: |context, node, slot, affine| {
        require_data(context, node, slot)?;
        features(context, node, context.input(node, 0)?, affine)?;
        let order = order(context, node)?;
        to_space(context, node, affine, order)
    },
};
pub(super) const SPACE_TO_DEPTH: Carrier = Carrier {
    op_type: "SpaceToDepth",
    slots: (1, 1),
    backward: |context, node, _, affine| to_space(context, node, affine, Order::Columns),
    forward: |context, node, slot, affine| {
        require_data(context, node, slot)?;
        features(context, node, context.input(node, 0)?, affine)?;
        to_depth(context, node, affine, Order::Columns)
    },
};

/// How the channels in depth are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// k mod C: DCR, depth before column before row.
    Columns,
    /// k div b²: CRD.
    Blocks,
}

impl Order {
    /// The channel in space that channel `k` in depth belongs to.
    fn channel(self, k: usize, channels: usize, copies: usize) -> usize {
        match self {
            Self::Columns => k % channels,
            Self::Blocks => k / copies,
        }
    }
}

fn order(context: &Context<'_>, node: NodeId) -> Answer<Order> {
    // Before opset 11 there was no other.
    match context.text(node, "mode", "DCR")? {
        "DCR" => Ok(Order::Columns),
        "CRD" if context.opset(node) >= 11 => Ok(Order::Blocks),
        mode => stop(context, node, "no-absorber", format!("has mode \"{mode}\"")),
    }
}

/// b².
fn copies(context: &Context<'_>, node: NodeId) -> Answer<usize> {
    let block = context.int(node, "blocksize", 0)?;
    let copies = usize::try_from(block)
        .ok()
        .and_then(|block| block.checked_mul(block));
    match copies {
        Some(copies) if (1..1 << 32).contains(&copies) => Ok(copies),
        _ => stop(
            context,
            node,
            "unknown-shape",
            format!("has blocksize {block}"),
        ),
    }
}

fn to_depth(
    context: &Context<'_>,
    node: NodeId,
    affine: &Affine,
    order: Order,
) -> Answer<Vec<Way>> {
    require_not_spatial(context, node, affine)?;
    if affine.axis != Some(1) {
        return through(affine.clone());
    }
    let (copies, channels) = (copies(context, node)?, affine.len());
    // The size of the value on that side, so that a blocksize in a broken file cannot ask for more.
    let [input, output] = [
        context.model.node(node).input(0),
        context.model.node(node).output(0),
    ]
    .map(|value| value.and_then(|value| context.types.dim(value, 1)));
    let expected = channels
        .checked_mul(copies)
        .and_then(|size| u64::try_from(size).ok());
    if expected.is_none() || (input != expected && output != expected) {
        return stop(
            context,
            node,
            "unknown-shape",
            "has an unknown number of channels",
        );
    }
    let sources = (0..channels * copies).map(|k| order.channel(k, channels, copies));
    through(affine.gather(sources, 1))
}

fn to_space(
    context: &Context<'_>,
    node: NodeId,
    affine: &Affine,
    order: Order,
) -> Answer<Vec<Way>> {
    require_not_spatial(context, node, affine)?;
    if affine.axis != Some(1) {
        return through(affine.clone());
    }
    let copies = copies(context, node)?;
    match merge(affine, copies, order) {
        Some(affine) => through(affine),
        None => stop(
            context,
            node,
            "channel-axis",
            format!("makes one channel of {copies} that the affine treats differently"),
        ),
    }
}

/// One (s, t) for each channel in space, if its copies agree.
fn merge(affine: &Affine, copies: usize, order: Order) -> Option<Affine> {
    if !affine.len().is_multiple_of(copies) {
        return None;
    }
    let channels = affine.len() / copies;
    let mut first = vec![None; channels];
    for k in 0..affine.len() {
        let same = *first[order.channel(k, channels, copies)].get_or_insert(k);
        if affine.scale[k] != affine.scale[same] || affine.shift[k] != affine.shift[same] {
            return None;
        }
    }
    Some(affine.gather(first.into_iter().flatten(), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_lie_apart_or_together() {
        let sources =
            |order: Order| -> Vec<usize> { (0..8).map(|k| order.channel(k, 2, 4)).collect() };
        assert_eq!(sources(Order::Columns), [0, 1, 0, 1, 0, 1, 0, 1]);
        assert_eq!(sources(Order::Blocks), [0, 0, 0, 0, 1, 1, 1, 1]);
    }

    #[test]
    fn copies_have_to_agree() {
        let affine = |scale: &[f64]| Affine::per_channel(scale.to_vec(), vec![0.0; scale.len()], 1);
        let columns = affine(&[2., 3., 2., 3., 2., 3., 2., 3.]);
        let merged = merge(&columns, 4, Order::Columns).map(|affine| affine.scale);
        assert_eq!(merged, Some(vec![2., 3.]));
        assert_eq!(merge(&columns, 4, Order::Blocks), None);
        let blocks = affine(&[2., 2., 2., 2., 3., 3., 3., 3.]);
        let merged = merge(&blocks, 4, Order::Blocks).map(|affine| affine.scale);
        assert_eq!(merged, Some(vec![2., 3.]));
        assert_eq!(merge(&affine(&[2., 3., 2.]), 4, Order::Columns), None);
        let mut shifted = columns;
        shifted.shift[6] = 1.0;
        assert_eq!(merge(&shifted, 4, Order::Columns), None);
    }
}
