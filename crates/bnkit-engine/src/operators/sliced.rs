//! Slices, hidden from tract where something behind them takes every n-th element.
//!
//! tract moves a Downsample (of a Slice with steps, or of a Conv that strides over its input) in front of what it reads. In front of a
//! Slice that does not begin at 0 it gets an offset, and where a Conv stands before that, tract makes the Downsample the stride of the
//! Conv and forgets the offset (0.23.9). Mostly the shapes no longer fit then, and tract fails; where they do, other elements are
//! computed. A slice of ours lets no Downsample pass, and has none inside that could go its own way.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::array::{Slice, StridedSlice};
use tract_onnx::tract_core::ops::cnn::Conv;
use tract_onnx::tract_core::ops::{logic::IfThenElse, scan::Scan};

/// tract's Slice, or its StridedSlice, which it makes Slices and Downsamples of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hidden(Box<dyn TypedOp>);

impl Op for Hidden {
    fn name(&self) -> StaticName {
        "HiddenSlice".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Hidden {
    op_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.0.eval(context, inputs)
    }
}

impl TypedOp for Hidden {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.0.output_facts(inputs)
    }

    as_op!();
}

/// Hides every slice of floats, in loop and branch bodies too, if anything may take every n-th element.
pub(crate) fn hide_slices(model: &mut TypedModel) -> TractResult<()> {
    match skips(model) {
        true => hide(model),
        false => Ok(()),
    }
}

fn skips(model: &TypedModel) -> bool {
    model.nodes().iter().any(|node| {
        if let Some(scan) = node.op_as::<Scan>() {
            skips(&scan.body)
        } else if let Some(branch) = node.op_as::<IfThenElse>() {
            skips(&branch.then_body) || skips(&branch.else_body)
        } else if let Some(conv) = node.op_as::<Conv>() {
            conv.pool_spec.strides().iter().any(|&stride| stride > 1)
        } else {
            node.op_is::<StridedSlice>()
        }
    })
}

fn hide(model: &mut TypedModel) -> TractResult<()> {
    for index in 0..model.nodes().len() {
        let floats = model
            .node_input_facts(index)?
            .first()
            .is_some_and(|fact| fact.datum_type.is_float());
        let op = &mut model.nodes_mut()[index].op;
        if let Some(scan) = op.downcast_mut::<Scan>() {
            hide(&mut scan.body)?;
        } else if let Some(branch) = op.downcast_mut::<IfThenElse>() {
            hide(&mut branch.then_body)?;
            hide(&mut branch.else_body)?;
        } else if floats && (op.is::<Slice>() || op.is::<StridedSlice>()) {
            *op = Box::new(Hidden(op.clone()));
        }
    }
    Ok(())
}
