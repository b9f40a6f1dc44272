//! Carriers: operators that an affine passes through, possibly changed. One file each, one line in [`CARRIERS`].
//!
//! A carrier says what the affine is on its other side; whether anybody else reads the values in between is the
//! business of the walk in `walk.rs`.

use bnkit_model::onnx::NodeId;

use super::context::Context;
use crate::affine::Affine;
use crate::refusal::Answer;

mod identity;
mod pad;
mod reshape;
mod transpose;

/// One way to pass: the slots on the other side, each with its affine. All of them must be absorbed.
pub(crate) type Way = Vec<(usize, Affine)>;

/// Asks a carrier about an affine at one of its slots.
pub(crate) type Pass = fn(&Context<'_>, NodeId, usize, &Affine) -> Answer<Vec<Way>>;

/// An operator that carries.
pub(crate) struct Carrier {
    /// The operator, of ONNX's own domain.
    pub op_type: &'static str,
    /// From an output slot to input slots: the ways to try, in order.
    pub backward: Pass,
    /// From an input slot to output slots.
    pub forward: Pass,
}

/// All carriers.
pub(crate) static CARRIERS: &[Carrier] = &[
    identity::IDENTITY,
    identity::DROPOUT,
    pad::PAD,
    reshape::FLATTEN,
    reshape::RESHAPE,
    reshape::SQUEEZE,
    reshape::UNSQUEEZE,
    transpose::TRANSPOSE,
];

/// The carrier for a node.
pub(crate) fn carrier(context: &Context<'_>, node: NodeId) -> Option<&'static Carrier> {
    CARRIERS
        .iter()
        .find(|carrier| context.model.node(node).is(carrier.op_type))
}

/// The only way: `affine` at slot 0.
fn through(affine: Affine) -> Answer<Vec<Way>> {
    Ok(vec![vec![(0, affine)]])
}
