//! Sums of whole planes, which a global average pool begins with: tract adds up one element at a time.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};

use crate::buffers::Buffers;
use crate::kernels;

/// The sum of each plane of single-precision data (batch × channels × …), whose dimensions stay and become 1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Totals {
    buffers: Buffers,
}

/// What computes the same as `node`, from one input of single precision.
pub(super) fn ours(
    node: &TypedNode,
    input: &TypedFact,
    buffers: &Buffers,
) -> Option<Box<dyn TypedOp>> {
    let reduce = node.op_as::<Reduce>()?;
    let rank = input.rank();
    let planes = reduce.reducer == Reducer::Sum
        && rank > 2
        && reduce.axes.iter().copied().eq(2..rank)
        && input.shape.as_concrete().is_some();
    let buffers = buffers.clone();
    planes.then(|| Box::new(Totals { buffers }) as Box<dyn TypedOp>)
}

impl Op for Totals {
    fn name(&self) -> StaticName {
        "bnkit.Totals".into()
    }

    op_as_typed_op!();
}

impl TypedOp for Totals {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.clone();
        for axis in 2..shape.rank() {
            shape.set(axis, 1.to_dim());
        }
        Ok(tvec!(f32::fact(shape)))
    }

    as_op!();
}

impl EvalOp for Totals {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let data = args_1!(inputs);
        let mut shape: TVec<usize> = data.shape().into();
        let inner = shape[2..].iter().product();
        shape[2..].fill(1);
        let mut totals = Tensor::zero::<f32>(&shape)?;
        kernels::totals(
            data.try_as_plain_ram()?.as_slice::<f32>()?,
            inner,
            totals.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?,
        );
        self.buffers.give(data);
        Ok(tvec!(totals.into_tvalue()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduction(axes: &[usize], reducer: Reducer, shape: &[usize]) -> TypedModel {
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact(shape)).unwrap();
        let axes = axes.iter().copied().collect();
        let y = model
            .wire_node("y", Reduce { axes, reducer }, &[x])
            .unwrap();
        model.select_output_outlets(&y).unwrap();
        model
    }

    fn ours_of(model: &TypedModel) -> Option<Box<dyn TypedOp>> {
        ours(
            model.node(1),
            model.outlet_fact(OutletId::new(0, 0)).unwrap(),
            &Buffers::default(),
        )
    }

    #[test]
    fn planes_of_every_size_have_their_sum() {
        for shape in [
            &[2, 3, 1, 1][..],
            &[1, 5, 7, 7],
            &[2, 2, 33],
            &[1, 3, 4, 5, 6],
        ] {
            let inner: usize = shape[2..].iter().product();
            let axes: Vec<usize> = (2..shape.len()).collect();
            let mut model = reduction(&axes, Reducer::Sum, shape);
            let expected = model.output_fact(0).unwrap().clone();
            let count: usize = shape.iter().product();
            let numbers: Vec<f32> = (0..count)
                .map(|n| (n * 37 % 101) as f32 / 3.0 - 16.0)
                .collect();
            let x = tensor1(&numbers).into_shape(shape).unwrap();
            model.nodes_mut()[1].op = ours_of(&model).unwrap();
            let input = [model.outlet_fact(OutletId::new(0, 0)).unwrap()];
            let fact = model.node(1).op.output_facts(&input).unwrap().remove(0);
            assert_eq!(fact.shape, expected.shape);
            let plan = model.into_runnable().unwrap();
            let y = plan.run(tvec!(x.into_tvalue())).unwrap().remove(0);
            assert_eq!(y.shape()[2..].iter().product::<usize>(), 1);
            let y = y.try_as_plain_ram().unwrap();
            let y = y.as_slice::<f32>().unwrap();
            for (plane, &found) in numbers.chunks_exact(inner).zip(y) {
                let expected: f64 = plane.iter().map(|&x| f64::from(x)).sum();
                assert_eq!(found, expected as f32, "{shape:?}");
            }
        }
    }

    #[test]
    fn other_reductions_stay() {
        for (axes, reducer, shape) in [
            (&[1][..], Reducer::Sum, &[2, 3, 4, 4][..]),
            (&[2], Reducer::Sum, &[2, 3, 4, 4]),
            (&[1, 2, 3], Reducer::Sum, &[2, 3, 4, 4]),
            (&[2, 3], Reducer::Max, &[2, 3, 4, 4]),
            (&[], Reducer::Sum, &[2, 3]),
        ] {
            assert!(ours_of(&reduction(axes, reducer, shape)).is_none());
        }
    }
}
