//! tract's operator registry as we use it, and operators of our own: what tract has no double precision for.
//!
//! The exchange happens in the typed graph, where types are known and where expansions (Gelu is Erf inside, an LSTM holds Sigmoid in
//! its loop) have been written out.

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{AttributeProto, NodeProto, attribute_proto::AttributeType};
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::{
    fft, logic::IfThenElse, lstm_cell::LstmEpilogue, math, nn, scan::Scan,
};
use tract_onnx::tract_hir::internal::*;

use crate::{Precision, normalise::SINGLE};

mod bounds;
mod elementwise;
mod lstm;
mod norm;
mod resample;
mod reversed;
mod sliced;

pub(crate) use bounds::exchange_bounds;
pub(crate) use reversed::hide_reversed;
pub(crate) use sliced::hide_slices;

/// The operator type of [`Align`].
pub(crate) const ALIGN: &str = "bnkit.Align";

/// The operators that models are read with.
pub(crate) fn registry(precision: Precision) -> Onnx {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
    onnx.op_register.insert(ALIGN, |_, node| {
        let axis = node.get_attr("axis")?;
        Ok((expand(Align { axis }), vec![]))
    });
    onnx.op_register.insert("Upsample", upsample);
    if precision == Precision::F64 {
        onnx.op_register.insert("BatchNormalization", norm::norm);
    }
    onnx
}

/// Upsample is Resize with one choice of its attributes, which Resize got in opset 11.
fn upsample(
    context: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let resize = *context
        .framework
        .op_register
        .0
        .get("Resize")
        .context("Resize is registered")?;
    let [x, scales] = node.input.as_slice() else {
        bail!("Upsample expects two inputs");
    };
    let text = |name: &str, value: &str| AttributeProto {
        name: name.into(),
        r#type: AttributeType::String as i32,
        s: value.into(),
        ..Default::default()
    };
    let mode = node.get_attr_opt::<&str>("mode")?.unwrap_or("nearest");
    let node = NodeProto {
        op_type: "Resize".into(),
        input: vec![x.clone(), String::new(), scales.clone()],
        attribute: vec![
            text("mode", if mode == "bilinear" { "linear" } else { mode }),
            text("coordinate_transformation_mode", "asymmetric"),
            text("nearest_mode", "floor"),
        ],
        ..node.clone()
    };
    let context = ParsingContext {
        onnx_operator_set_version: 13,
        ..context.clone()
    };
    resize(&context, &node)
}

/// B with ones behind its dimensions, so that it starts at axis `axis` of A: broadcasting as it was before opset 7.
/// Inputs are B and A; of A only the rank is read.
#[derive(Debug, Clone)]
struct Align {
    axis: i64,
}

impl Align {
    fn trailing(&self, b: usize, a: usize) -> TractResult<usize> {
        let axis = if self.axis < 0 {
            self.axis + a as i64
        } else {
            self.axis
        };
        usize::try_from(axis)
            .ok()
            .and_then(|axis| a.checked_sub(axis + b))
            .with_context(|| format!("an operand of rank {b} at axis {} of rank {a}", self.axis))
    }
}

impl Expansion for Align {
    fn name(&self) -> StaticName {
        ALIGN.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2)?;
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        s.given_2(&inputs[0].shape, &inputs[1].rank, move |s, b, a| {
            let mut shape = b.clone();
            // A single element broadcasts wherever it stands.
            let ones = self.trailing(b.len(), a as usize)?;
            shape.extend(std::iter::repeat_n(1.to_dim(), ones));
            s.equals(&outputs[0].shape, shape)
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let b = model.outlet_fact(inputs[0])?.rank();
        let ones = self.trailing(b, model.outlet_fact(inputs[1])?.rank())?;
        let mut wire = tvec!(inputs[0]);
        for step in 0..ones {
            let op = tract_onnx::tract_core::ops::change_axes::AxisOp::Add(b + step);
            wire = model.wire_node(format!("{prefix}.{step}"), op, &wire)?;
        }
        Ok(wire)
    }
}

/// Puts operators of ours in the place of those that tract has in single precision only, in loop and branch bodies too.
pub(crate) fn exchange(model: &mut TypedModel) -> TractResult<()> {
    for index in 0..model.nodes().len() {
        let double = model
            .node_input_facts(index)?
            .first()
            .is_some_and(|fact| fact.datum_type == DatumType::F64);
        let op = &mut model.nodes_mut()[index].op;
        if let Some(scan) = op.downcast_mut::<Scan>() {
            exchange(&mut scan.body)?;
        } else if let Some(branch) = op.downcast_mut::<IfThenElse>() {
            exchange(&mut branch.then_body)?;
            exchange(&mut branch.else_body)?;
        } else if double && let Some(cell) = op.downcast_ref::<LstmEpilogue>() {
            let hidden = cell.hidden;
            *op = Box::new(lstm::LstmCell { hidden });
        } else if double && op.name() == "Resize" {
            let inner = op.clone();
            *op = Box::new(resample::Resample { inner });
        } else if double && let Some(element_wise) = op.downcast_ref::<ElementWiseOp>() {
            let mini = &element_wise.0;
            let ours = if mini.is::<nn::Sigmoid>() {
                elementwise::sigmoid64()
            } else if mini.is::<nn::HardSwish>() {
                elementwise::hard_swish64()
            } else if let Some(leaky) = mini.downcast_ref::<nn::LeakyRelu>() {
                elementwise::leaky_relu64(leaky.alpha)
            } else if mini.is::<math::Erf>() {
                elementwise::erf64()
            } else if mini.is::<math::RoundHalfToEven>() {
                elementwise::round64()
            } else if mini.is::<nn::silu::Silu>() {
                elementwise::silu64()
            } else if mini
                .downcast_ref::<nn::GeluApproximate>()
                .is_some_and(|gelu| !gelu.fast_impl)
            {
                elementwise::gelu_tanh64()
            } else {
                continue;
            };
            *op = Box::new(ours);
        }
    }
    Ok(())
}

/// The first node that removes elements by negative padding, which tract takes for enormous padding.
pub(crate) fn negative_padding(model: &TypedModel) -> Option<&str> {
    let negative = |pad: &tract_onnx::tract_core::ops::array::Pad| {
        let mut sizes = pad.pads.iter().flat_map(|&(before, after)| [before, after]);
        sizes.any(|size| isize::try_from(size).is_err())
    };
    let mut nodes = model.nodes().iter();
    let node = nodes.find(|node| node.op_as().is_some_and(negative))?;
    Some(&node.name)
}

/// The first step of a graph of doubles that is computed in single precision, if there is one. Single steps that belong to the
/// meaning of an operator (in front of a quantisation, say) are not meant.
pub(crate) fn single_step(model: &TypedModel) -> TractResult<Option<String>> {
    for node in model.nodes() {
        let inputs = model.node_input_facts(node.id)?;
        if let Some(scan) = node.op_as::<Scan>() {
            if let Some(step) = single_step(&scan.body)? {
                return Ok(Some(step));
            }
        } else if let Some(branch) = node.op_as::<IfThenElse>() {
            for body in [&branch.then_body, &branch.else_body] {
                if let Some(step) = single_step(body)? {
                    return Ok(Some(step));
                }
            }
        }
        let double = inputs.iter().any(|fact| fact.datum_type == DatumType::F64);
        let in_single = node.op_is::<nn::GridSample>()
            || node.op_is::<nn::RmsNorm>()
            || node.op_is::<nn::ScaledRmsNorm>()
            || node.op_is::<fft::Fft>()
            || node.op_is::<fft::Stft>()
            || node
                .op_as::<nn::Reduce>()
                .is_some_and(|reduce| reduce.reducer == nn::Reducer::MeanOfSquares);
        let to_single = double
            && !node.name.starts_with(SINGLE)
            && node.outputs.iter().any(|output| {
                let single = [DatumType::F16, DatumType::F32].contains(&output.fact.datum_type);
                single && output.fact.konst.is_none()
            });
        if double && in_single || to_single {
            return Ok(Some(node.name.clone()));
        }
    }
    Ok(None)
}
