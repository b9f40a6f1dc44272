//! Relu, LeakyRelu, PRelu: f(s·x) = s·f(x) for s ≥ 0, since each is linear on either side of 0. A shift does not pass.
//!
//! s = 0 is fine: both sides are 0. The slope of a PRelu only says which of two lines it is, so it stays as it is.

use bnkit_model::onnx::NodeId;

use super::{Carrier, Way, require_data, require_no_negative_scale, stop, through};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::refusal::Answer;

pub(super) const RELU: Carrier = Carrier {
    op_type: "Relu",
    slots: (1, 1),
    backward: pass,
    forward: pass,
};
pub(super) const LEAKY_RELU: Carrier = Carrier {
    op_type: "LeakyRelu",
    slots: (1, 1),
    backward: pass,
    forward: pass,
};
pub(super) const PRELU: Carrier = Carrier {
    op_type: "PRelu",
    slots: (2, 1),
    backward: parametric,
    forward: parametric,
};

fn pass(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    require_data(context, node, slot)?;
    if !affine.has_no_shift() {
        return stop(
            context,
            node,
            "nonzero-shift",
            "does not commute with a shift",
        );
    }
    require_no_negative_scale(context, node, affine)?;
    through(affine.clone())
}

fn parametric(
    context: &Context<'_>,
    node: NodeId,
    slot: usize,
    affine: &Affine,
) -> Answer<Vec<Way>> {
    require_data(context, node, slot)?;
    let slope = context.input(node, 1)?;
    if !context.constants().is_constant(slope) {
        return stop(
            context,
            node,
            "weight-not-constant",
            "has a slope that is computed at run time",
        );
    }
    pass(context, node, slot, affine)
}
