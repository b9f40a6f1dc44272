//! Identity, and Dropout in eval mode, which is one.

use bnkit_model::onnx::NodeId;

use super::{Carrier, Way, through};
use crate::affine::Affine;
use crate::clean::dropout_is_eval;
use crate::fold::context::Context;
use crate::refusal::{Answer, refuse};

pub(super) const IDENTITY: Carrier = Carrier {
    op_type: "Identity",
    slots: (1, 1),
    backward: identity,
    forward: identity,
};
pub(super) const DROPOUT: Carrier = Carrier {
    op_type: "Dropout",
    slots: (3, 2),
    backward: dropout,
    forward: dropout,
};

fn identity(_: &Context<'_>, _: NodeId, _: usize, affine: &Affine) -> Answer<Vec<Way>> {
    through(affine.clone())
}

fn dropout(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Vec<Way>> {
    if slot != 0 || !dropout_is_eval(context, node) {
        return refuse(
            "no-absorber",
            format!("{} may be in training mode", context.model.describe(node)),
        );
    }
    through(affine.clone())
}
