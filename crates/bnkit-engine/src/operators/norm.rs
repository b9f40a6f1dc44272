//! BatchNormalization in double precision, as it is written: (x − mean)·scale/√(variance + ε) + bias. tract has a product and a sum
//! in its place, both of which go over the whole image element by element.

use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use crate::kernels::{self, Affine};

/// Builds the operator of a node in eval mode; without an ε it takes that of ONNX.
pub(super) fn norm(
    _context: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let epsilon: f32 = node.get_attr_opt("epsilon")?.unwrap_or(1e-5);
    Ok((expand(Norm { epsilon }), vec![]))
}

/// As it is read: inputs are X (N × C × …), and scale, bias, mean and variance of C elements each.
#[derive(Debug, Clone)]
struct Norm {
    epsilon: f32,
}

/// As it is computed: the input is X, of doubles.
#[derive(Debug, Clone)]
struct Normalise(Arc<Affine>);

impl Expansion for Norm {
    fn name(&self) -> StaticName {
        "bnkit.Norm".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 5)?;
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)?;
        for parameter in &inputs[1..] {
            s.equals(&inputs[0].datum_type, &parameter.datum_type)?;
            s.equals(&inputs[1].shape, &parameter.shape)?;
        }
        s.given(&inputs[0].shape, move |s, shape| match shape.get(1) {
            Some(channels) => s.equals(&inputs[1].shape[0], channels.clone()),
            None => Ok(()),
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let image = model.outlet_fact(inputs[0])?;
        ensure!(
            image.datum_type == DatumType::F64 && image.rank() >= 2,
            "an input of {image:?}"
        );
        let channels = image.shape[1].to_usize()?;
        let parameter = |position: usize| -> TractResult<Vec<f64>> {
            let constant = model.outlet_fact(inputs[position])?.konst.as_ref();
            let constant = constant.context("Params are not const")?;
            let elements = constant.try_as_plain_ram()?;
            let elements = elements.as_slice::<f64>()?;
            ensure!(elements.len() == channels, "{constant:?} for {channels}");
            Ok(elements.to_vec())
        };
        let (scale, variance) = (parameter(1)?, parameter(4)?);
        let scale = scale.iter().zip(&variance);
        let affine = Affine {
            centre: parameter(3)?,
            scale: scale
                .map(|(scale, variance)| scale / (variance + f64::from(self.epsilon)).sqrt())
                .collect(),
            shift: parameter(2)?,
        };
        model.wire_node(prefix, Normalise(Arc::new(affine)), &inputs[..1])
    }
}

impl PartialEq for Normalise {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Normalise {}

impl Op for Normalise {
    fn name(&self) -> StaticName {
        "bnkit.Normalise".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Normalise {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut image = inputs.pop().context("no image")?.into_tensor();
        let inner = image.shape()[2..].iter().product();
        let mut view = image.try_as_plain_ram_mut()?;
        kernels::normalise_double(view.as_slice_mut::<f64>()?, inner, &self.0);
        Ok(tvec!(image.into_tvalue()))
    }
}

impl TypedOp for Normalise {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].datum_type.fact(inputs[0].shape.clone())))
    }

    as_op!();
}
