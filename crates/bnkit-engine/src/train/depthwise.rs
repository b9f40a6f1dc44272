//! Depthwise convolution of single-precision images: tract's walks strided and narrow images element by element, which took half the
//! time of MobileNet and EfficientNet.
//!
//! Each plane is copied between zeros, taken apart into one image for each phase of the strides. A tap is then one image
//! at one offset, the whole output (with the gaps between its rows) is one run of consecutive elements, and goes by in vectors
//! ([`pulp`]) whatever the width and the stride. Taps are added in tract's order, without fused operations, so every instruction set
//! gives the same bits. Without vectors it stays with tract.

use pulp::{Arch, Simd, WithSimd};
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat};
use tract_onnx::tract_core::ops::nn::DataFormat;

use super::buffers::Buffers;
use super::convolve::has_vectors;

/// Images of more than this many taps gain nothing.
const MAX_TAPS: usize = 128;

/// A depthwise convolution: inputs are the image (1 or more × C × H × W), the kernel (C × 1 × h × w) and the bias.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Depthwise {
    strides: [usize; 2],
    dilations: [usize; 2],
    /// Rows above, columns to the left.
    padding: [usize; 2],
    /// Height and width.
    output: [usize; 2],
    buffers: Buffers,
}

/// Puts our operator where a typed model convolves depthwise.
pub(super) fn exchange(model: &mut TypedModel, buffers: &Buffers) -> TractResult<()> {
    if !has_vectors() {
        return Ok(());
    }
    for index in 0..model.nodes().len() {
        let Some(conv) = model.node(index).op_as::<Conv>() else {
            continue;
        };
        let ours = ours(conv, &model.node_input_facts(index)?, buffers);
        if let Some(ours) = ours {
            model.nodes_mut()[index].op = Box::new(ours);
        }
    }
    Ok(())
}

fn ours(conv: &Conv, inputs: &[&TypedFact], buffers: &Buffers) -> Option<Depthwise> {
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
    let single = [image, kernel, bias]
        .iter()
        .all(|fact| fact.datum_type == f32::datum_type());
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
    };
    let sized = (2..=MAX_TAPS).contains(&(high * wide))
        && height * width > 0
        && ours.output.iter().all(|&size| size > 0);
    (single && depthwise && plain && sized).then_some(ours)
}

impl Op for Depthwise {
    fn name(&self) -> StaticName {
        "bnkit.Depthwise".into()
    }

    op_as_typed_op!();
}

impl TypedOp for Depthwise {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.clone();
        for (axis, &size) in self.output.iter().enumerate() {
            shape.set(axis + 2, size.to_dim());
        }
        Ok(tvec!(f32::fact(shape)))
    }

    as_op!();
}

impl EvalOp for Depthwise {
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
        let mut output = self.buffers.take(&[count, channels, rows, columns])?;
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
            image: image.as_slice::<f32>()?,
            kernel: kernel.as_slice::<f32>()?,
            bias: bias.as_slice::<f32>()?,
            output: output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?,
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
struct Job<'a> {
    taps: &'a Taps,
    image: &'a [f32],
    kernel: &'a [f32],
    bias: &'a [f32],
    output: &'a mut [f32],
}

impl WithSimd for Job<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let taps = self.taps;
        let [height, width] = taps.image;
        let [rows, columns] = taps.output;
        let (pitch, phase) = (taps.pitch, taps.phase_rows * taps.pitch);
        let count = taps.offsets.len();
        let length = (rows - 1) * pitch + columns;
        let run = VECTORS * S::F32_LANES;
        // Runs may read and write beyond the last row. The zeros around the image stay.
        let mut phases = vec![0f32; phase * taps.strides[0] * taps.strides[1] + 2 * run];
        let mut runs = vec![0f32; length.next_multiple_of(run)];
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
            let bias = simd.splat_f32s(bias);
            let (vectors, _) = S::as_mut_simd_f32s(&mut runs);
            for (number, run_of) in vectors.as_chunks_mut::<VECTORS>().0.iter_mut().enumerate() {
                let mut sums = [bias; VECTORS];
                for (&weight, &offset) in weights.iter().zip(&taps.offsets) {
                    let weight = simd.splat_f32s(weight);
                    let (pixels, _) = S::as_simd_f32s(&phases[offset + number * run..][..run]);
                    for (sum, &pixel) in sums.iter_mut().zip(pixels) {
                        *sum = simd.add_f32s(*sum, simd.mul_f32s(weight, pixel));
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
    fn take_apart(&self, plane: &[f32], phases: &mut [f32]) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::tract_core::ops::cnn::{PaddingSpec, PoolSpec};

    fn numbers(count: usize) -> Vec<f32> {
        (0..count)
            .map(|n| (n * 37 % 101) as f32 / 50.0 - 1.0)
            .collect()
    }

    #[test]
    fn every_geometry_gives_what_tract_gives() {
        let cases = [
            // Image, kernel, strides, dilations, padding before and after.
            ([7, 7], [3, 3], [1, 1], [1, 1], [1, 1], [1, 1]),
            ([112, 112], [3, 3], [2, 2], [1, 1], [1, 1], [1, 1]),
            ([14, 15], [5, 5], [2, 2], [1, 1], [1, 2], [2, 1]),
            ([9, 30], [3, 5], [2, 3], [1, 1], [0, 0], [0, 0]),
            ([20, 11], [3, 3], [1, 1], [2, 3], [2, 3], [2, 3]),
            ([16, 16], [2, 7], [3, 2], [2, 1], [1, 0], [0, 4]),
            ([1, 1], [3, 3], [2, 2], [1, 1], [1, 1], [1, 1]),
            ([5, 64], [1, 3], [1, 4], [1, 1], [0, 1], [0, 0]),
        ];
        for (case, (image, kernel, strides, dilations, before, after)) in
            cases.into_iter().enumerate()
        {
            let channels = 3;
            let (pixels, taps) = (image[0] * image[1], kernel[0] * kernel[1]);
            let shaped =
                |count: usize, shape: &[usize]| tensor1(&numbers(count)).into_shape(shape).unwrap();
            let x = shaped(2 * channels * pixels, &[2, channels, image[0], image[1]]);
            let w = shaped(channels * taps, &[channels, 1, kernel[0], kernel[1]]);
            let conv = Conv {
                pool_spec: PoolSpec {
                    data_format: DataFormat::NCHW,
                    kernel_shape: kernel.into_iter().collect(),
                    padding: PaddingSpec::Explicit(
                        before.into_iter().collect(),
                        after.into_iter().collect(),
                    ),
                    dilations: Some(dilations.into_iter().collect()),
                    strides: Some(strides.into_iter().collect()),
                    input_channels: channels,
                    output_channels: channels,
                },
                kernel_fmt: KernelFormat::OIHW,
                group: channels,
                q_params: None,
            };
            let mut model = TypedModel::default();
            let source = model
                .add_source("x", f32::fact([2, channels, image[0], image[1]]))
                .unwrap();
            let w = model.add_const("w", w).unwrap();
            let b = model.add_const("b", tensor1(&[0.5f32, -1.0, 2.0])).unwrap();
            let y = model.wire_node("y", conv, &[source, w, b]).unwrap();
            model.select_output_outlets(&y).unwrap();
            let run = |model: TypedModel| {
                let plan = model.into_optimized().unwrap().into_runnable().unwrap();
                plan.run(tvec!(x.clone().into_tvalue())).unwrap().remove(0)
            };
            let expected = run(model.clone());
            exchange(&mut model, &Buffers::default()).unwrap();
            assert!(model.nodes().iter().any(|node| node.op_is::<Depthwise>()));
            let found = run(model);
            found
                .close_enough(&expected, Approximation::Close)
                .unwrap_or_else(|error| panic!("case {case}: {error}"));
        }
    }
}
