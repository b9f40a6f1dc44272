//! Transpose: the channel axis moves with the permutation.

use bnkit_model::onnx::NodeId;

use super::{Carrier, Way, through};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::fold::operands::malformed;
use crate::refusal::{Answer, refuse};

pub(super) const TRANSPOSE: Carrier = Carrier {
    op_type: "Transpose",
    slots: (1, 1),
    backward,
    forward,
};

/// perm: axis i of the output is axis perm\[i\] of the input; the reverse order if not given.
fn permutation(context: &Context<'_>, node: NodeId) -> Answer<Vec<usize>> {
    if let Some(perm) = context.ints(node, "perm")? {
        let mut seen = vec![false; perm.len()];
        let axes: Vec<usize> = perm
            .iter()
            .filter_map(|&axis| usize::try_from(axis).ok())
            .collect();
        for &axis in &axes {
            if let Some(seen) = seen.get_mut(axis) {
                *seen = true;
            }
        }
        let rank = context.types.rank(context.input(node, 0)?);
        let fits = rank.is_none_or(|rank| rank == perm.len());
        return if fits && axes.len() == perm.len() && seen.into_iter().all(|seen| seen) {
            Ok(axes)
        } else {
            let what = format!("has perm {perm:?}, which is no permutation of its axes");
            Err(malformed(context, node, what))
        };
    }
    match context.types.rank(context.input(node, 0)?) {
        Some(rank) => Ok((0..rank).rev().collect()),
        None => refuse(
            "unknown-shape",
            format!(
                "the rank of what {} reads is not known",
                context.model.describe(node)
            ),
        ),
    }
}

fn backward(context: &Context<'_>, node: NodeId, _: usize, affine: &Affine) -> Answer<Vec<Way>> {
    let perm = permutation(context, node)?;
    move_axis(context, node, affine, |axis| perm.get(axis).copied())
}

fn forward(context: &Context<'_>, node: NodeId, _: usize, affine: &Affine) -> Answer<Vec<Way>> {
    let perm = permutation(context, node)?;
    move_axis(context, node, affine, |axis| {
        perm.iter().position(|&from| from == axis)
    })
}

fn move_axis(
    context: &Context<'_>,
    node: NodeId,
    affine: &Affine,
    to: impl Fn(usize) -> Option<usize>,
) -> Answer<Vec<Way>> {
    match affine.axis.map(to) {
        None => through(affine.clone()),
        Some(Some(axis)) => through(affine.clone().at(axis)),
        Some(None) => refuse(
            "channel-axis",
            format!("{} has no such axis", context.model.describe(node)),
        ),
    }
}
