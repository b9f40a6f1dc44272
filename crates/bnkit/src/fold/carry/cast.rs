//! Cast: to a wider float type, and only forwards, so that the fold happens in the wider type.
//!
//! f16, bf16 → f32 → f64 keep every value. Backwards the affine would end in constants of the narrower type and be
//! rounded there, where the original computed in the wider one. A cast to a narrower type rounds and overflows: never.

use bnkit_model::DType;
use bnkit_model::onnx::NodeId;

use super::{Carrier, Way, stop, through};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::refusal::Answer;

pub(super) const CAST: Carrier = Carrier {
    op_type: "Cast",
    slots: (1, 1),
    backward,
    forward,
};

/// How the types of input and output compare.
#[derive(PartialEq, Eq)]
enum Kind {
    Same,
    Widening,
    Other,
}

fn kind(from: DType, to: DType) -> Kind {
    use DType::{BF16, F16, F32, F64};
    match (from, to) {
        (F16, F16) | (BF16, BF16) | (F32, F32) | (F64, F64) => Kind::Same,
        (F16 | BF16, F32) | (F16 | BF16 | F32, F64) => Kind::Widening,
        _ => Kind::Other,
    }
}

fn pass(
    context: &Context<'_>,
    node: NodeId,
    affine: &Affine,
    allowed: &[Kind],
) -> Answer<Vec<Way>> {
    let value = context.input(node, 0)?;
    let output = context.model.node(node).output(0);
    let from = context.types.dtype(value);
    let to = output.and_then(|output| context.types.dtype(output));
    let (Some(from), Some(to)) = (from, to) else {
        return stop(
            context,
            node,
            "dtype",
            "converts between types that are not known",
        );
    };
    if allowed.contains(&kind(from, to)) {
        return through(affine.clone());
    }
    let what = format!("converts {from} to {to}: the fold would round otherwise than the original");
    stop(context, node, "dtype", what)
}

fn backward(context: &Context<'_>, node: NodeId, _: usize, affine: &Affine) -> Answer<Vec<Way>> {
    pass(context, node, affine, &[Kind::Same])
}

fn forward(context: &Context<'_>, node: NodeId, _: usize, affine: &Affine) -> Answer<Vec<Way>> {
    pass(context, node, affine, &[Kind::Same, Kind::Widening])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_keeps_every_value_is_widening() {
        use DType::{BF16, F16, F32, F64, I32};
        for (from, to) in [(F16, F32), (BF16, F32), (F16, F64), (F32, F64)] {
            assert!(kind(from, to) == Kind::Widening);
            assert!(kind(to, from) == Kind::Other);
        }
        assert!(kind(F16, BF16) == Kind::Other && kind(BF16, F16) == Kind::Other);
        assert!(kind(I32, F64) == Kind::Other && kind(F32, I32) == Kind::Other);
        assert!(kind(F32, F32) == Kind::Same && kind(I32, I32) == Kind::Other);
    }
}
