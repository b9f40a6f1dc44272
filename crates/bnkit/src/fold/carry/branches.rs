//! Add and Sub of two branches, none of them constant: s·(a ± b) + t = (s·a + t) ± s·b.
//!
//! Both branches take the scale, one of them the shift (the second of a Sub takes −t). x + x is one branch: it takes
//! the scale once and half of the shift, which is exact. Forwards the other branch would have to be divided: refused.

use bnkit_model::onnx::NodeId;

use super::{Carrier, Way, stop};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::refusal::Answer;

pub(super) const ADD: Carrier = Carrier {
    op_type: "Add",
    slots: (2, 1),
    backward: |context, node, _, affine| backward(context, node, affine, 1.0),
    forward,
};
pub(super) const SUB: Carrier = Carrier {
    op_type: "Sub",
    slots: (2, 1),
    backward: |context, node, _, affine| backward(context, node, affine, -1.0),
    forward,
};

/// Whether a node adds or subtracts two values of which none is constant.
pub(crate) fn joins_branches(context: &Context<'_>, node: NodeId) -> bool {
    let node = context.model.node(node);
    let constants = context.constants();
    (node.is("Add") || node.is("Sub"))
        && node
            .inputs
            .iter()
            .flatten()
            .all(|&value| !constants.is_constant(value))
}

/// Refuses operands of which one is repeated along the axis of the channels.
fn require_all_channels(context: &Context<'_>, node: NodeId, affine: &Affine) -> Answer<()> {
    let opset = context.opset(node);
    // Before opset 7 operands have the same shape unless `broadcast` says otherwise.
    if opset < 7 && context.int(node, "broadcast", 0)? != 0 {
        return stop(context, node, "broadcast", "broadcasts by the rules of old");
    }
    let Some(axis) = affine.axis else {
        return Ok(());
    };
    let operands = [context.input(node, 0)?, context.input(node, 1)?];
    let [Some(first), Some(second)] = operands.map(|value| context.types.rank(value)) else {
        return stop(
            context,
            node,
            "unknown-shape",
            "joins values of unknown rank",
        );
    };
    if first != second {
        let what = format!("joins values of {first} and {second} axes");
        return stop(context, node, "broadcast", what);
    }
    for value in operands {
        match context.types.dim(value, axis) {
            Some(size) if size == affine.len() as u64 => {}
            Some(size) => {
                let what = format!(
                    "has {size} channels in \"{}\", the affine {}",
                    context.model.value(value).name,
                    affine.len()
                );
                return stop(context, node, "broadcast", what);
            }
            None => {
                let what = format!(
                    "joins \"{}\", whose size on axis {axis} is not known",
                    context.model.value(value).name
                );
                return stop(context, node, "unknown-shape", what);
            }
        }
    }
    Ok(())
}

/// `sign` is what the second operand is multiplied by.
fn backward(context: &Context<'_>, node: NodeId, affine: &Affine, sign: f64) -> Answer<Vec<Way>> {
    if !context.through_branches {
        return stop(
            context,
            node,
            "no-absorber",
            "joins two branches (--through-branches folds into both)",
        );
    }
    require_all_channels(context, node, affine)?;
    if context.input(node, 0)? == context.input(node, 1)? {
        if sign < 0.0 {
            return stop(context, node, "no-absorber", "takes a value from itself");
        }
        let half = affine.with_shift_times(0.5);
        return Ok(vec![vec![(0, half.clone()), (1, half)]]);
    }
    let scale = affine.scale_only();
    let first = vec![(0, affine.clone()), (1, scale.clone())];
    if affine.has_no_shift() {
        return Ok(vec![first]);
    }
    let second = vec![(0, scale), (1, affine.with_shift_times(sign))];
    Ok(vec![first, second])
}

fn forward(context: &Context<'_>, node: NodeId, _: usize, _: &Affine) -> Answer<Vec<Way>> {
    stop(
        context,
        node,
        "no-absorber",
        "combines two values, none of them constant, and the affine is on one of them",
    )
}
