//! BatchNormalization and Dropout in train mode, as operators in tract's graph.
//!
//! They only hold their place: what they compute needs the whole batch, or the sample's number, which an operator of tract does not
//! have. The executor ([`super::program`]) computes them itself. They cannot be folded away, moved, merged or stepped over: the
//! default answers to tract's optimiser (axes are disconnected, nothing may be sliced or transposed through) see to that, and the
//! name is part of their identity.

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use crate::kernels::Bounds;

/// The operator type of [`Norm`].
pub(crate) const NORM: &str = "bnkit.BatchNorm";

/// The operator type of [`Dropout`].
pub(crate) const DROPOUT: &str = "bnkit.Dropout";

/// Adds the operators of train mode to a registry.
pub(super) fn register(onnx: &mut Onnx) {
    onnx.op_register.insert(NORM, norm);
    onnx.op_register.insert(DROPOUT, dropout);
}

fn norm(
    _context: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let name = node.output.first().context("an output")?.clone();
    let epsilon: f32 = node.get_attr("epsilon")?;
    let norm = Norm {
        name,
        epsilon,
        bounds: Bounds::NONE,
    };
    Ok((expand(norm), vec![]))
}

fn dropout(
    _context: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let name = node.output.first().context("an output")?.clone();
    let ratio: f32 = node.get_attr_opt("ratio")?.unwrap_or(0.5);
    Ok((expand(Dropout { name, ratio }), vec![]))
}

/// A BatchNorm in train mode: inputs are X, scale and bias.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Norm {
    /// The node's output in the ONNX graph.
    pub(super) name: String,
    /// Added to the variance.
    pub(super) epsilon: f32,
    /// The activation behind it, if it has become part of this.
    pub(super) bounds: Bounds,
}

impl Eq for Norm {}

/// A Dropout in train mode: inputs are the data and, if it is not an attribute, the ratio.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dropout {
    /// The node's output in the ONNX graph: part of the seed.
    pub(super) name: String,
    /// The share of elements that become zero, where no input says it.
    pub(super) ratio: f32,
}

impl Eq for Dropout {}

macro_rules! place_holder {
    ($op:ident, $name:expr) => {
        impl Op for $op {
            fn name(&self) -> StaticName {
                $name.into()
            }

            op_as_typed_op!();
        }

        impl EvalOp for $op {
            not_out_of_plan!();

            fn eval(&self, _: &EvalContext, _: TVec<TValue>) -> TractResult<TVec<TValue>> {
                bail!("{} runs in train mode only", self.name)
            }
        }

        impl TypedOp for $op {
            fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
                Ok(tvec!(inputs[0].datum_type.fact(inputs[0].shape.clone())))
            }

            as_op!();
        }
    };
}

place_holder!(Norm, NORM);
place_holder!(Dropout, DROPOUT);

/// A node that stands for itself until it runs, on floats that it can compute with.
fn wire_floats(
    op: impl Into<Box<dyn TypedOp>>,
    prefix: &str,
    model: &mut TypedModel,
    inputs: &[OutletId],
) -> TractResult<TVec<OutletId>> {
    let kind = model.outlet_fact(inputs[0])?.datum_type;
    ensure!(
        [DatumType::F32, DatumType::F64].contains(&kind),
        "an input of {kind:?}"
    );
    model.wire_node(prefix, op, inputs)
}

impl Expansion for Norm {
    fn name(&self) -> StaticName {
        NORM.into()
    }

    fn runs_out_of_plan(&self) -> bool {
        false
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 3)?;
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)?;
        s.equals(&inputs[1].rank, 1)?;
        s.equals(&inputs[2].rank, 1)?;
        s.equals(&inputs[1].shape[0], &inputs[2].shape[0])?;
        s.given(&inputs[0].rank, move |s, rank| {
            if rank < 2 {
                bail!("an input of rank {rank} has no channels");
            }
            s.equals(&inputs[0].shape[1], &inputs[1].shape[0])
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        wire_floats(self.clone(), prefix, model, inputs)
    }
}

impl Expansion for Dropout {
    fn name(&self) -> StaticName {
        DROPOUT.into()
    }

    fn runs_out_of_plan(&self) -> bool {
        false
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        wire_floats(self.clone(), prefix, model, inputs)
    }
}
