//! Depthwise convolution of images: tract's walks strided and narrow images element by element, which took half the
//! time of MobileNet and EfficientNet.
//!
//! Each plane is copied between zeros, taken apart into one image for each phase of the strides. A tap is then one image
//! at one offset, the whole output (with the gaps between its rows) is one run of consecutive elements, and goes by in vectors
//! ([`pulp`]) whatever the width and the stride. Taps are added in tract's order, without fused operations, so every instruction set
//! gives the same bits. Without vectors it stays with tract.

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat};
use tract_onnx::tract_core::ops::nn::DataFormat;

use super::real::{Real, lanes};
use crate::buffers::Buffers;

/// Images of more than this many taps gain nothing.
const MAX_TAPS: usize = 128;

/// A depthwise convolution: inputs are the image (1 or more × C × H × W), the kernel (C × 1 × h × w) and the bias.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Depthwise<T> {
    strides: [usize; 2],
    dilations: [usize; 2],
    /// Rows above, columns to the left.
    padding: [usize; 2],
    /// Height and width.
    output: [usize; 2],
    buffers: Buffers,
    element: PhantomData<T>,
}

impl<T: Real> Eq for Depthwise<T> {}

/// Puts our operator where a typed model convolves depthwise, in what `T` is.
pub(super) fn exchange<T: Real>(model: &mut TypedModel, buffers: &Buffers) -> TractResult<()> {
    for index in 0..model.nodes().len() {
        let Some(conv) = model.node(index).op_as::<Conv>() else {
            continue;
        };
        let ours = ours::<T>(conv, &model.node_input_facts(index)?, buffers);
        if let Some(ours) = ours {
            model.nodes_mut()[index].op = Box::new(ours);
        }
    }
    Ok(())
}

fn ours<T: Real>(conv: &Conv, inputs: &[&TypedFact], buffers: &Buffers) -> Option<Depthwise<T>> {
    let [image, kernel, bias] = inputs else {
        return None;
    };
    let pool = &conv.pool_spec;
    let &[_, channels, height, width] = image.shape.as_concrete()? else {
        return None;
    };
    let &[kernels, depth, high, wide] = kernel.shape.as_concrete()? else {
        return None;
    };
    let alike = [image, kernel, bias]
        .iter()
        .all(|fact| fact.datum_type == T::datum_type());
    let depthwise = conv.group == channels && kernels == channels && depth == 1;
    let plain = conv.q_params.is_none()
        && conv.kernel_fmt == KernelFormat::OIHW
        && pool.data_format == DataFormat::NCHW;
    let padded = pool.computed_padding(&[height, width]);
    let ours = Depthwise {
        strides: [pool.stride(0), pool.stride(1)],
        dilations: [pool.dilation(0), pool.dilation(1)],
        padding: [padded[0].pad_before, padded[1].pad_before],
        output: [padded[0].convoluted, padded[1].convoluted],
        buffers: buffers.clone(),
        element: PhantomData,
    };
    let sized = (2..=MAX_TAPS).contains(&(high * wide))
        && height * width > 0
        && ours.output.iter().all(|&size| size > 0);
    (alike && depthwise && plain && sized).then_some(ours)
}

impl<T: Real> Op for Depthwise<T> {
    fn name(&self) -> StaticName {
        "bnkit.Depthwise".into()
    }

    op_as_typed_op!();
}

impl<T: Real> TypedOp for Depthwise<T> {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.clone();
        for (axis, &size) in self.output.iter().enumerate() {
            shape.set(axis + 2, size.to_dim());
        }
        Ok(tvec!(T::fact(shape)))
    }

    as_op!();
}

impl<T: Real> EvalOp for Depthwise<T> {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [input, kernel, bias] = inputs.as_slice() else {
            bail!("expected image, kernel and bias");
        };
        let &[count, channels, height, width] = input.shape() else {
            bail!("expected an image of rank 4");
        };
        let [taps_high, taps_wide] = [kernel.shape()[2], kernel.shape()[3]];
        let [rows, columns] = self.output;
        let mut output = self.buffers.take::<T>(&[count, channels, rows, columns])?;
        // How far the taps reach, and the images of the phases that they reach into.
        let reach = |axis: usize, taps: usize| {
            (self.output[axis] - 1) * self.strides[axis] + (taps - 1) * self.dilations[axis] + 1
        };
        let extent = |axis: usize, taps: usize, size: usize| {
            reach(axis, taps)
                .max(self.padding[axis] + size)
                .div_ceil(self.strides[axis])
        };
        let phase_rows = extent(0, taps_high, height);
        let pitch = extent(1, taps_wide, width);
        let offset = |tap: usize| {
            let row = tap / taps_wide * self.dilations[0];
            let column = tap % taps_wide * self.dilations[1];
            let phase = row % self.strides[0] * self.strides[1] + column % self.strides[1];
            (phase * phase_rows + row / self.strides[0]) * pitch + column / self.strides[1]
        };
        let taps = Taps {
            offsets: (0..taps_high * taps_wide).map(offset).collect(),
            strides: self.strides,
            padding: self.padding,
            image: [height, width],
            phase_rows,
            pitch,
            output: self.output,
        };
        let image = input.try_as_plain_ram()?;
        let kernel = kernel.try_as_plain_ram()?;
        let bias = bias.try_as_plain_ram()?;
        Arch::new().dispatch(Job {
            taps: &taps,
            image: image.as_slice::<T>()?,
            kernel: kernel.as_slice::<T>()?,
            bias: bias.as_slice::<T>()?,
            output: output.try_as_plain_ram_mut()?.as_slice_mut::<T>()?,
        });
        self.buffers.give(inputs.swap_remove(0));
        Ok(tvec!(output.into_tvalue()))
    }
}

/// Where each tap finds its element, in a plane that was taken apart by the strides.
#[derive(Debug)]
struct Taps {
    /// Of each tap, from the element that belongs to an output's place.
    offsets: Vec<usize>,
    strides: [usize; 2],
    padding: [usize; 2],
    /// Height and width of the image.
    image: [usize; 2],
    /// The rows of each phase.
    phase_rows: usize,
    /// The elements from one row of a phase to the next.
    pitch: usize,
    /// Height and width of the output.
    output: [usize; 2],
}

/// Vectors of outputs that are computed at once.
const VECTORS: usize = 4;

/// A batch to convolve. `bias` has one element, or one for each channel.
struct Job<'a, T> {
    taps: &'a Taps,
    image: &'a [T],
    kernel: &'a [T],
    bias: &'a [T],
    output: &'a mut [T],
}

impl<T: Real> WithSimd for Job<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let taps = self.taps;
        let [height, width] = taps.image;
        let [rows, columns] = taps.output;
        let (pitch, phase) = (taps.pitch, taps.phase_rows * taps.pitch);
        let count = taps.offsets.len();
        let length = (rows - 1) * pitch + columns;
        let run = VECTORS * lanes::<T, S>();
        // Runs may read and write beyond the last row. The zeros around the image stay.
        let mut phases = vec![T::ZERO; phase * taps.strides[0] * taps.strides[1] + 2 * run];
        let mut runs = vec![T::ZERO; length.next_multiple_of(run)];
        let channels = self.kernel.len() / count;
        let planes = self
            .image
            .chunks_exact(height * width)
            .zip(self.output.chunks_exact_mut(rows * columns));
        for (index, (plane, output)) in planes.enumerate() {
            let channel = index % channels;
            taps.take_apart(plane, &mut phases);
            let weights = &self.kernel[channel * count..][..count];
            let bias = self.bias[if self.bias.len() == 1 { 0 } else { channel }];
            let bias = T::splat(simd, bias);
            let (vectors, _) = T::vectors_mut::<S>(&mut runs);
            for (number, run_of) in vectors.as_chunks_mut::<VECTORS>().0.iter_mut().enumerate() {
                let mut sums = [bias; VECTORS];
                for (&weight, &offset) in weights.iter().zip(&taps.offsets) {
                    let weight = T::splat(simd, weight);
                    let (pixels, _) = T::vectors::<S>(&phases[offset + number * run..][..run]);
                    for (sum, &pixel) in sums.iter_mut().zip(pixels) {
                        *sum = T::add(simd, *sum, T::mul(simd, weight, pixel));
                    }
                }
                *run_of = sums;
            }
            for (row, output) in output.chunks_exact_mut(columns).enumerate() {
                output.copy_from_slice(&runs[row * pitch..][..columns]);
            }
        }
    }
}

impl Taps {
    /// Copies a plane between the zeros, its rows and columns by their phases.
    #[inline(always)]
    fn take_apart<T: Copy>(&self, plane: &[T], phases: &mut [T]) {
        let [down, across] = self.strides;
        let phase = self.phase_rows * self.pitch;
        let left = self.padding[1];
        for (y, row) in plane.chunks_exact(self.image[1]).enumerate() {
            let y = y + self.padding[0];
            let start = y % down * across * phase + y / down * self.pitch;
            if across == 1 {
                phases[start + left..][..row.len()].copy_from_slice(row);
                continue;
            }
            for first in 0..across.min(row.len()) {
                let x = first + left;
                let to = &mut phases[start + x % across * phase + x / across..];
                if across == 2 {
                    // Spelt out, the compiler knows how to shuffle it.
                    let (pairs, rest) = row[first..].as_chunks::<2>();
                    for (to, pair) in to.iter_mut().zip(pairs) {
                        *to = pair[0];
                    }
                    if let Some((&last, to)) = rest.first().zip(to.get_mut(pairs.len())) {
                        *to = last;
                    }
                } else {
                    to.iter_mut()
                        .zip(row[first..].iter().step_by(across))
                        .for_each(|(to, &x)| *to = x);
                }
            }
        }
    }
}
