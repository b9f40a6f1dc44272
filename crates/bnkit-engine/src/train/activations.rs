//! What goes over all activations once more: sums and concatenations of branches, gates,
//! maximum pooling. Each is one pass here, an activation by bounds
//! (Relu, Clip) is part of the pass before it, and memory is used again.

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::array::TypedConcat;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cnn::MaxPool;
use tract_onnx::tract_core::ops::math::{Add, Max, Min, Mul};
use tract_onnx::tract_core::ops::nn::DataFormat;

use super::operators::Norm;
use super::totals;
use crate::buffers::Buffers;
use crate::kernels::{self, Bounds, Window};

/// Puts our operators where a decluttered model has such passes over single-precision activations.
pub(super) fn exchange(model: &mut TypedModel, buffers: &Buffers) -> TractResult<()> {
    for index in 0..model.nodes().len() {
        let ours = ours(model.node(index), &model.node_input_facts(index)?, buffers);
        if let Some(ours) = ours {
            model.nodes_mut()[index].op = ours;
        }
    }
    for index in 0..model.nodes().len() {
        while take_bounds(model, index)? {}
    }
    Ok(())
}

/// Makes the activation behind a BatchNorm or a sum part of it. Whether there was one.
fn take_bounds(model: &mut TypedModel, index: usize) -> TractResult<bool> {
    let node = model.node(index);
    let norm = node.op_as::<Norm>();
    let sum = node.op_as::<Sum>();
    let Some(bounds) = norm.map(|op| op.bounds).or(sum.map(|op| op.bounds)) else {
        return Ok(false);
    };
    let single = node.outputs[0].fact.datum_type == f32::datum_type();
    let seen = model.output_outlets()?.contains(&index.into());
    let next = model.single_succ(index)?.filter(|_| single && !seen);
    let Some(next) = next else {
        return Ok(false);
    };
    let Some((binary, bound)) = bound(model, next, index)? else {
        return Ok(false);
    };
    let bounds = if binary.0.is::<Max>() {
        Bounds {
            least: bounds.least.max(bound),
            most: bounds.most.max(bound),
        }
    } else {
        Bounds {
            least: bounds.least.min(bound),
            most: bounds.most.min(bound),
        }
    };
    let op: Box<dyn TypedOp> = match (norm, sum) {
        (Some(norm), _) => Box::new(Norm {
            bounds,
            ..norm.clone()
        }),
        (None, Some(sum)) => Box::new(Sum {
            bounds,
            ..sum.clone()
        }),
        (None, None) => return Ok(false),
    };
    let next_id = next.id;
    let behind = OutletId::new(next_id, 0);
    let readers = model.outlet_successors(behind).to_vec();
    let seen = model.output_outlets()?.contains(&behind);
    if seen {
        return Ok(false);
    }
    for reader in readers {
        model.add_edge(index.into(), reader)?;
    }
    let node = &mut model.nodes_mut()[index];
    node.op = op;
    node.outputs[0]
        .successors
        .retain(|reader| reader.node != next_id);
    Ok(true)
}

/// The operator and the bound, if `node` bounds what node `from` gives from one side.
fn bound<'m>(
    model: &'m TypedModel,
    node: &'m TypedNode,
    from: usize,
) -> TractResult<Option<(&'m TypedBinOp, f32)>> {
    let Some(binary) = node
        .op_as::<TypedBinOp>()
        .filter(|binary| binary.0.is::<Max>() || binary.0.is::<Min>())
    else {
        return Ok(None);
    };
    let Some(&other) = node.inputs.iter().find(|input| input.node != from) else {
        return Ok(None);
    };
    let facts = (model.outlet_fact(other)?, &node.outputs[0].fact);
    let same_shape = facts.1.shape == model.node(from).outputs[0].fact.shape;
    let constant = facts.0.konst.as_ref();
    let Some(constant) = constant.filter(|constant| {
        same_shape && constant.datum_type() == f32::datum_type() && constant.len() == 1
    }) else {
        return Ok(None);
    };
    let bound = constant.try_as_plain_ram()?.as_slice::<f32>()?[0];
    Ok((!bound.is_nan()).then_some((binary, bound)))
}

/// What computes the same as `node`.
fn ours(node: &TypedNode, inputs: &[&TypedFact], buffers: &Buffers) -> Option<Box<dyn TypedOp>> {
    let single = |fact: &&TypedFact| fact.datum_type == f32::datum_type() && fact.konst.is_none();
    if !inputs.iter().all(single) {
        return None;
    }
    if let Some(totals) = inputs
        .first()
        .and_then(|input| totals::ours(node, input, buffers))
    {
        return Some(totals);
    }
    let buffers = buffers.clone();
    if let Some(pool) = node.op_as::<MaxPool>() {
        let window = window(pool, inputs)?;
        return Some(Box::new(Pool { window, buffers }));
    }
    if let Some(concat) = node.op_as::<TypedConcat>() {
        let shaped = |fact: &&TypedFact| fact.shape.as_concrete().is_some();
        let ours = inputs.iter().all(shaped);
        let axis = concat.axis;
        return ours.then(|| Box::new(Concat { axis, buffers }) as Box<dyn TypedOp>);
    }
    let [a, b] = inputs else {
        return None;
    };
    let binary = node.op_as::<TypedBinOp>().filter(|op| op.1.is_none())?;
    let (first, second) = (a.shape.as_concrete()?, b.shape.as_concrete()?);
    if binary.0.is::<Add>() && first == second {
        let bounds = Bounds::NONE;
        return Some(Box::new(Sum { bounds, buffers }));
    }
    let factors = |data: &[usize], factors: &[usize]| {
        data.len() > 2
            && data.len() == factors.len()
            && data[..2] == factors[..2]
            && factors[2..].iter().all(|&size| size == 1)
            && data[2..].iter().any(|&size| size > 1)
    };
    if binary.0.is::<Mul>() && factors(first, second) {
        return Some(Box::new(Gate { data: 0, buffers }));
    }
    if binary.0.is::<Mul>() && factors(second, first) {
        return Some(Box::new(Gate { data: 1, buffers }));
    }
    None
}

fn window(pool: &MaxPool, inputs: &[&TypedFact]) -> Option<Window> {
    let &[_, _, height, width] = inputs.first()?.shape.as_concrete()? else {
        return None;
    };
    let spec = &pool.pool_spec;
    let &[high, wide] = spec.kernel_shape.as_slice() else {
        return None;
    };
    let padded = spec.computed_padding(&[height, width]);
    let window = Window {
        size: [high, wide],
        strides: [spec.stride(0), spec.stride(1)],
        dilations: [spec.dilation(0), spec.dilation(1)],
        padding: [padded[0].pad_before, padded[1].pad_before],
        image: [height, width],
        output: [padded[0].convoluted, padded[1].convoluted],
    };
    let fits = pool.with_index_outputs.is_none()
        && spec.data_format == DataFormat::NCHW
        && high * wide * height * width > 0
        && window.output.iter().all(|&size| size > 0);
    fits.then_some(window)
}

/// `a + b` of one shape, kept between bounds.
#[derive(Debug, Clone, PartialEq)]
struct Sum {
    bounds: Bounds,
    buffers: Buffers,
}

/// Data (batch × channels × …), times a factor for each channel of each sample.
#[derive(Debug, Clone, PartialEq)]
struct Gate {
    /// Which input is the data.
    data: usize,
    buffers: Buffers,
}

/// Values behind one another along an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Concat {
    axis: usize,
    buffers: Buffers,
}

/// Maximum pooling of images.
#[derive(Debug, Clone, PartialEq)]
struct Pool {
    window: Window,
    buffers: Buffers,
}

impl Eq for Sum {}
impl Eq for Gate {}
impl Eq for Pool {}

macro_rules! named {
    ($op:ident, $name:literal) => {
        impl Op for $op {
            fn name(&self) -> StaticName {
                $name.into()
            }

            op_as_typed_op!();
        }
    };
}

named!(Sum, "bnkit.Sum");
named!(Gate, "bnkit.Gate");
named!(Concat, "bnkit.Concat");
named!(Pool, "bnkit.MaxPool");

impl TypedOp for Sum {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(inputs[0].shape.clone())))
    }

    as_op!();
}

impl TypedOp for Gate {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(inputs[self.data].shape.clone())))
    }

    as_op!();
}

impl TypedOp for Concat {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.clone();
        let size: TDim = inputs.iter().map(|input| &input.shape[self.axis]).sum();
        shape.set(self.axis, size);
        Ok(tvec!(f32::fact(shape)))
    }

    as_op!();
}

impl TypedOp for Pool {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.clone();
        for (axis, &size) in self.window.output.iter().enumerate() {
            shape.set(axis + 2, size.to_dim());
        }
        Ok(tvec!(f32::fact(shape)))
    }

    as_op!();
}

/// A tensor that may be written to, with what `value` holds.
fn own(value: TValue, buffers: &Buffers) -> TractResult<Tensor> {
    if value.is_exclusive() {
        return Ok(value.into_tensor());
    }
    let mut copy = buffers.take::<f32>(value.shape())?;
    copy.try_as_plain_ram_mut()?
        .as_slice_mut::<f32>()?
        .copy_from_slice(value.try_as_plain_ram()?.as_slice::<f32>()?);
    Ok(copy)
}

impl EvalOp for Sum {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (mut a, mut b) = args_2!(inputs);
        if !a.is_exclusive() {
            std::mem::swap(&mut a, &mut b);
        }
        let mut sum = own(a, &self.buffers)?;
        kernels::add(
            sum.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?,
            b.try_as_plain_ram()?.as_slice::<f32>()?,
            self.bounds,
        );
        self.buffers.give(b);
        Ok(tvec!(sum.into_tvalue()))
    }
}

impl EvalOp for Gate {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (mut data, mut factors) = args_2!(inputs);
        if self.data == 1 {
            std::mem::swap(&mut data, &mut factors);
        }
        let inner = data.shape()[2..].iter().product();
        let mut data = own(data, &self.buffers)?;
        kernels::gate(
            data.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?,
            inner,
            factors.try_as_plain_ram()?.as_slice::<f32>()?,
        );
        Ok(tvec!(data.into_tvalue()))
    }
}

impl EvalOp for Concat {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut shape: TVec<usize> = inputs.first().context("no input")?.shape().into();
        shape[self.axis] = inputs.iter().map(|input| input.shape()[self.axis]).sum();
        let mut output = self.buffers.take::<f32>(&shape)?;
        let run: usize = shape[self.axis..].iter().product();
        let mut view = output.try_as_plain_ram_mut()?;
        let to = view.as_slice_mut::<f32>()?;
        let mut from = 0;
        for input in &inputs {
            let size: usize = input.shape()[self.axis..].iter().product();
            if size == 0 {
                continue;
            }
            let input = input.try_as_plain_ram()?;
            let runs = input.as_slice::<f32>()?.chunks_exact(size);
            for (to, run) in to.chunks_exact_mut(run).zip(runs) {
                to[from..from + size].copy_from_slice(run);
            }
            from += size;
        }
        inputs
            .into_iter()
            .for_each(|input| self.buffers.give(input));
        Ok(tvec!(output.into_tvalue()))
    }
}

impl EvalOp for Pool {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let image = args_1!(inputs);
        let &[count, channels, ..] = image.shape() else {
            bail!("expected an image of rank 4");
        };
        let [rows, columns] = self.window.output;
        let mut output = self
            .buffers
            .take::<f32>(&[count, channels, rows, columns])?;
        kernels::max_pool(
            &self.window,
            image.try_as_plain_ram()?.as_slice::<f32>()?,
            output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?,
        );
        self.buffers.give(image);
        Ok(tvec!(output.into_tvalue()))
    }
}
