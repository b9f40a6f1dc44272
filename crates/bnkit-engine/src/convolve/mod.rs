//! Convolution of images: tract's gathers columns for every product, which took half the time of a ResNet in train mode, and most of
//! a proof's time in double precision.
//!
//! Two ways, both on registers full of sums ([`pulp`] gives vectors of the processor's own width, without `unsafe`): [`im2col`] for
//! any kernel; [`winograd`] for 3 × 3 kernels of stride 1, with fewer products, where images and channels are many enough. Weights are laid
//! out once, when the model is compiled. [`depthwise`] is for one channel a group. What has no constant weights, few channels in a
//! group, or runs on a processor without fused multiply-add, stays with tract.

mod depthwise;
mod geometry;
mod im2col;
mod panels;
mod real;
mod winograd;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use pulp::{Arch, Simd, WithSimd};
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat};
use tract_onnx::tract_core::ops::nn::DataFormat;

use crate::buffers::Buffers;
use geometry::Geometry;
use im2col::Im2col;
use real::{Real, lanes};
use winograd::Winograd;

/// Narrower vectors are not worth it: the processor has none, or no fused multiply-add.
const MIN_LANES: usize = 4;

/// A convolution whose kernel and bias are constants: the input is the image (N × C × H × W).
#[derive(Clone)]
struct Convolve<T: Real> {
    /// The node's name: tells operators apart, as their weights do.
    name: String,
    /// Channels, height and width.
    output: [usize; 3],
    way: Arc<Way<T>>,
    buffers: Buffers,
}

enum Way<T: Real> {
    Im2col(Im2col<T>),
    Winograd(Winograd<T>),
}

impl<T: Real> fmt::Debug for Convolve<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Convolve({:?}, {:?})", self.name, self.output)
    }
}

impl<T: Real> PartialEq for Convolve<T> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.way, &other.way)
    }
}

impl<T: Real> Eq for Convolve<T> {}

/// Which convolutions to exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those with a kernel of 1 × 1, which decluttering makes products of matrices.
    SinglePixels,
    All,
}

/// Whether the processor has vectors that our kernels are worth it for.
fn has_vectors() -> bool {
    Arch::new().dispatch(Lanes::<f32>(PhantomData)) >= MIN_LANES
}

/// Puts our operators where a typed model convolves with constants, in what `T` is.
pub(crate) fn exchange<T: Real>(
    model: &mut TypedModel,
    which: Which,
    buffers: &Buffers,
) -> TractResult<()> {
    if !has_vectors() {
        return Ok(());
    }
    if which == Which::All {
        depthwise::exchange::<T>(model, buffers)?;
    }
    let lanes = Arch::new().dispatch(Lanes::<T>(PhantomData));
    for index in 0..model.nodes().len() {
        let node = model.node(index);
        let Some(conv) = node.op_as::<Conv>() else {
            continue;
        };
        let single = conv.pool_spec.kernel_shape.iter().all(|&size| size == 1);
        if which == Which::SinglePixels && !single {
            continue;
        }
        let [image, kernel, bias] = *node.inputs else {
            continue;
        };
        let (Some(weights), Some(constant)) = (constant(model, kernel)?, constant(model, bias)?)
        else {
            continue;
        };
        let fact = model.outlet_fact(image)?;
        let ours = ours::<T>(conv, fact, &weights, &constant, lanes)?;
        if let Some((output, way)) = ours {
            let ours = Convolve {
                name: node.name.clone(),
                output,
                way: Arc::new(way),
                buffers: buffers.clone(),
            };
            let patch = TypedModelPatch::replace_single_op(model, node, &[image], ours)?;
            patch.apply(model)?;
        }
    }
    Ok(())
}

/// The constant that a value is, if it is one or computed from nothing else: what tract reads as a bias is a cast.
fn constant(model: &TypedModel, value: OutletId) -> TractResult<Option<Arc<Tensor>>> {
    if let Some(constant) = &model.outlet_fact(value)?.konst {
        return Ok(Some(constant.clone()));
    }
    let node = model.node(value.node);
    let [input] = *node.inputs else {
        return Ok(None);
    };
    let Some(input) = constant(model, input)? else {
        return Ok(None);
    };
    // What cannot be computed now is no constant.
    let computed = node.op.eval_out_of_plan(tvec!(input.into_tvalue()));
    let values = computed.ok().flatten();
    Ok(values.map(|mut values| values.swap_remove(value.slot).into_arc_tensor()))
}

fn ours<T: Real>(
    conv: &Conv,
    image: &TypedFact,
    weights: &Tensor,
    bias: &Tensor,
    lanes: usize,
) -> TractResult<Option<([usize; 3], Way<T>)>> {
    let pool = &conv.pool_spec;
    let Some(&[_, channels, height, width]) = image.shape.as_concrete() else {
        return Ok(None);
    };
    let &[kernels, depth, high, wide] = weights.shape() else {
        return Ok(None);
    };
    let alike = [image.datum_type, weights.datum_type(), bias.datum_type()]
        .iter()
        .all(|&kind| kind == T::datum_type());
    let plain = conv.q_params.is_none()
        && conv.kernel_fmt == KernelFormat::OIHW
        && pool.data_format == DataFormat::NCHW;
    let padded = pool.computed_padding(&[height, width]);
    let geometry = Geometry {
        groups: conv.group,
        channels: depth,
        kernels: kernels / conv.group,
        image: [height, width],
        taps: [high, wide],
        strides: [pool.stride(0), pool.stride(1)],
        dilations: [pool.dilation(0), pool.dilation(1)],
        padding: [padded[0].pad_before, padded[1].pad_before],
        output: [padded[0].convoluted, padded[1].convoluted],
    };
    let fits = channels == depth * conv.group
        && kernels % conv.group == 0
        && geometry.kernels * 2 >= panels::ROWS
        && depth * high * wide * height * width > 0
        && geometry.output.iter().all(|&size| size > 0);
    if !(alike && plain && fits) {
        return Ok(None);
    }
    let weights = weights.try_as_plain_ram()?;
    let weights = weights.as_slice::<T>()?;
    let bias = bias.try_as_plain_ram()?;
    let bias = match bias.as_slice::<T>()? {
        &[one] => vec![one; kernels],
        each if each.len() == kernels => each.to_vec(),
        _ => return Ok(None),
    };
    let output = [kernels, geometry.output[0], geometry.output[1]];
    let winograd = (T::FEWER_PRODUCTS && winograd::suits(&geometry))
        .then(|| Winograd::new(&geometry, weights, &bias, lanes))
        .flatten();
    let way = match winograd {
        Some(winograd) => Some(Way::Winograd(winograd)),
        None => Im2col::new(geometry, weights, &bias).map(Way::Im2col),
    };
    Ok(way.map(|way| (output, way)))
}

impl<T: Real> Op for Convolve<T> {
    fn name(&self) -> StaticName {
        "bnkit.Convolve".into()
    }

    op_as_typed_op!();
}

impl<T: Real> TypedOp for Convolve<T> {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.clone();
        for (axis, &size) in self.output.iter().enumerate() {
            shape.set(axis + 1, size.to_dim());
        }
        Ok(tvec!(T::fact(shape)))
    }

    as_op!();
}

impl<T: Real> EvalOp for Convolve<T> {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = inputs.pop().context("no image")?;
        let count = input.shape()[0];
        let [channels, rows, columns] = self.output;
        let mut output = self.buffers.take::<T>(&[count, channels, rows, columns])?;
        let image = input.try_as_plain_ram()?;
        let image = image.as_slice::<T>()?;
        if let Some(size) = image.len().checked_div(count) {
            let mut view = output.try_as_plain_ram_mut()?;
            let samples = image.chunks_exact(size).zip(
                view.as_slice_mut::<T>()?
                    .chunks_exact_mut(channels * rows * columns),
            );
            T::with_scratch(|scratch| {
                for (image, output) in samples {
                    Arch::new().dispatch(Job {
                        way: &self.way,
                        image,
                        output,
                        scratch,
                    });
                }
            });
        }
        self.buffers.give(input);
        Ok(tvec!(output.into_tvalue()))
    }
}

/// How many elements a vector has.
struct Lanes<T>(PhantomData<T>);

impl<T: Real> WithSimd for Lanes<T> {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        lanes::<T, S>()
    }
}

/// One image, convolved.
struct Job<'a, T: Real> {
    way: &'a Way<T>,
    image: &'a [T],
    output: &'a mut [T],
    scratch: &'a mut Vec<T>,
}

impl<T: Real> WithSimd for Job<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.way {
            Way::Im2col(im2col) => im2col.run(simd, self.image, self.output, self.scratch),
            Way::Winograd(winograd) => winograd.run(simd, self.image, self.output, self.scratch),
        }
    }
}

#[cfg(test)]
mod tests;
