//! Bounds in double precision (Relu, Clip). In tract they are operators of two values, the second of which is broadcast: it goes over
//! both element by element, which took a quarter of the time of a MobileNet.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::math::{Max, Min};

use super::elementwise::{at_least64, at_most64};

/// Puts operators of ours where doubles are bounded by a constant.
pub(crate) fn exchange_bounds(model: &mut TypedModel) -> TractResult<()> {
    for index in 0..model.nodes().len() {
        let node = model.node(index);
        let Some(binary) = node.op_as::<TypedBinOp>().filter(|op| op.1.is_none()) else {
            continue;
        };
        let at_least = binary.0.is::<Max>();
        if !at_least && !binary.0.is::<Min>() {
            continue;
        }
        let &[a, b] = &node.inputs[..] else {
            continue;
        };
        let (value, bound) = match (bound(model, node, a, b)?, bound(model, node, b, a)?) {
            (Some(bound), None) => (a, bound),
            (None, Some(bound)) => (b, bound),
            _ => continue,
        };
        let ours = match at_least {
            true => at_least64(bound),
            false => at_most64(bound),
        };
        let patch = TypedModelPatch::replace_single_op(model, node, &[value], ours)?;
        patch.apply(model)?;
    }
    Ok(())
}

/// The bound, if that is what `other` is to doubles of `value`.
fn bound(
    model: &TypedModel,
    node: &TypedNode,
    value: OutletId,
    other: OutletId,
) -> TractResult<Option<f64>> {
    let (fact, other) = (model.outlet_fact(value)?, model.outlet_fact(other)?);
    let Some(constant) = other.konst.as_ref().filter(|constant| {
        constant.len() == 1
            && [fact.datum_type, constant.datum_type()] == [DatumType::F64; 2]
            && fact.shape == node.outputs[0].fact.shape
    }) else {
        return Ok(None);
    };
    Ok(Some(constant.try_as_plain_ram()?.as_slice::<f64>()?[0]))
}
