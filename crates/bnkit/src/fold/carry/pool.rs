//! Pools: each element of the result is the average or the maximum over a window of one channel.
//!
//! An average is Σ wᵢ·xᵢ with Σ wᵢ = 1, so avg(s·x + t) = s·avg(x) + t, unless padding counts: then the zeros in it take a
//! part of the weight, and t·(1 − that part) would be right. With `ceil_mode` it depends on the runtime what a window
//! that hangs over counts. A maximum has max(s·x + t) = s·max(x) + t for s ≥ 0; its padding is −∞. Its
//! Indices stay the same for s > 0, but not under rounding: not if they are read. LpPool is no average.

use bnkit_model::onnx::NodeId;

use super::window::Windows;
use super::{
    Carrier, Way, require_data, require_no_negative_scale, require_not_spatial, stop, through,
};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::fold::operands::require_window;
use crate::refusal::Answer;

pub(super) const AVERAGE_POOL: Carrier = Carrier {
    op_type: "AveragePool",
    slots: (1, 1),
    backward: average,
    forward: average,
};
pub(super) const GLOBAL_AVERAGE_POOL: Carrier = Carrier {
    op_type: "GlobalAveragePool",
    slots: (1, 1),
    backward: global_average,
    forward: global_average,
};
pub(super) const MAX_POOL: Carrier = Carrier {
    op_type: "MaxPool",
    slots: (1, 2),
    backward: maximum,
    forward: maximum,
};
pub(super) const GLOBAL_MAX_POOL: Carrier = Carrier {
    op_type: "GlobalMaxPool",
    slots: (1, 1),
    backward: global_maximum,
    forward: global_maximum,
};

fn global_average(
    context: &Context<'_>,
    node: NodeId,
    slot: usize,
    affine: &Affine,
) -> Answer<Vec<Way>> {
    require_data(context, node, slot)?;
    require_not_spatial(context, node, affine)?;
    through(affine.clone())
}

fn average(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    require_data(context, node, slot)?;
    require_not_spatial(context, node, affine)?;
    require_window(context, node, None)?;
    if affine.has_no_shift() {
        return through(affine.clone());
    }
    let windows = Windows::read(context, node)?;
    if windows.all_lie_inside() {
        return through(affine.clone());
    }
    if context.int(node, "count_include_pad", 0)? != 0 {
        return stop(
            context,
            node,
            "padded-shift",
            "counts its padding (or a window that hangs over), which a shift would not be in",
        );
    }
    if context.opset(node) < 7 {
        return stop(
            context,
            node,
            "old-opset",
            "does not say whether its padding counts",
        );
    }
    if !windows.all_see_data() {
        return stop(
            context,
            node,
            "padded-shift",
            "may have a window with nothing but padding",
        );
    }
    through(affine.clone())
}

fn global_maximum(
    context: &Context<'_>,
    node: NodeId,
    slot: usize,
    affine: &Affine,
) -> Answer<Vec<Way>> {
    require_data(context, node, slot)?;
    require_not_spatial(context, node, affine)?;
    require_no_negative_scale(context, node, affine)?;
    through(affine.clone())
}

fn maximum(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    require_data(context, node, slot)?;
    require_not_spatial(context, node, affine)?;
    require_no_negative_scale(context, node, affine)?;
    require_window(context, node, None)?;
    let indices = context.model.node(node).output(1);
    let are_read = indices.is_some_and(|value| !context.model.value(value).uses.is_empty());
    if are_read {
        return stop(
            context,
            node,
            "no-absorber",
            "gives the indices of its maxima to others: rounding could make another element the largest",
        );
    }
    if !Windows::read(context, node)?.all_see_data() {
        return stop(
            context,
            node,
            "padded-shift",
            "may have a window with nothing but padding",
        );
    }
    through(affine.clone())
}
