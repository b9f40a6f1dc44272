//! Absorbers: operators that swallow an affine into their constants. One file each, one line in [`ABSORBERS`].

use bnkit_model::onnx::{Edit, NodeId};

use super::context::Context;
use crate::affine::Affine;
use crate::explain::{Explanation, Kind};
use crate::refusal::Answer;
use crate::route::Part;

mod batch_norm;
mod binary;
mod conv;
mod conv_transpose;
mod gemm;
mod matmul;
mod quantised;

pub(crate) use binary::constant_affine;
pub(crate) use quantised::{EXPLANATIONS as QUANTISED, require_foldable};

/// An operator that absorbs.
pub(crate) struct Absorber {
    /// The operator, of ONNX's own domain.
    pub op_type: &'static str,
    /// How many inputs and outputs it has at most.
    pub slots: (usize, usize),
    /// What `bnkit explain` says; its code is the rule's name in reports.
    pub rule: Explanation,
    /// The affine stands behind the operator.
    pub output: fn(&Context<'_>, NodeId, &Affine) -> Answer<Absorption>,
    /// The affine stands before the operator, at this input slot.
    pub input: fn(&Context<'_>, NodeId, usize, &Affine) -> Answer<Absorption>,
}

/// What absorbing takes.
#[derive(Debug)]
pub(crate) struct Absorption {
    /// The edits that put it into the operator's constants.
    pub edits: Vec<Edit>,
    /// What went in.
    pub part: Part,
    /// The operator's data input.
    pub data_slot: usize,
    /// For each feature of the operator, the channel of the site that acts on it.
    pub channels: Vec<u32>,
    /// What has to go on, backwards from the data input.
    pub rest: Option<Affine>,
}

impl Absorption {
    /// Everything went in. Without a shift the part is the scale: another operator may have taken t.
    fn whole(edits: Vec<Edit>, data_slot: usize, affine: &Affine) -> Self {
        Self {
            edits,
            part: if affine.has_no_shift() {
                Part::Scale
            } else {
                Part::Whole
            },
            data_slot,
            channels: affine.channels.clone(),
            rest: None,
        }
    }
}

/// All absorbers.
pub(crate) static ABSORBERS: &[Absorber] = &[
    conv::CONV,
    conv_transpose::CONV_TRANSPOSE,
    gemm::GEMM,
    matmul::MATMUL,
    batch_norm::BATCH_NORM,
    binary::ADD,
    binary::SUB,
    binary::MUL,
    binary::DIV,
];

/// The absorber for a node.
pub(crate) fn absorber(context: &Context<'_>, node: NodeId) -> Option<&'static Absorber> {
    ABSORBERS
        .iter()
        .find(|absorber| context.model.node(node).is(absorber.op_type))
}

const fn rule(code: &'static str, title: &'static str, text: &'static str) -> Explanation {
    Explanation {
        code,
        kind: Kind::Rule,
        title,
        text,
    }
}
