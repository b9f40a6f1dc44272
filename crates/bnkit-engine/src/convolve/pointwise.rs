//! Convolution with a 1 × 1 kernel: a product of matrices, a vector of pixels at a time.
//!
//! A run of up to three vectors of pixels is copied, all its channels, so that it lies together; then eight output channels at a time
//! keep their sums in registers while the input channels go by.

use pulp::Simd;
use pulp::bytemuck::cast_slice;

use super::real::{Real, few_registers, lanes};

/// Output channels at a time.
const ROWS: usize = 8;

/// A 1 × 1 convolution with its weights laid out.
pub(super) struct Pointwise<T> {
    /// Input channels.
    channels: usize,
    /// Output channels.
    kernels: usize,
    /// Per eight output channels and input channel. The last eight end with zeros.
    weights: Vec<[T; ROWS]>,
    /// Per eight output channels.
    bias: Vec<[T; ROWS]>,
}

impl<T: Real> Pointwise<T> {
    /// Lays out `weights` (O × I) and `bias` (O) for images of `channels`.
    pub(super) fn new(channels: usize, weights: &[T], bias: Vec<T>) -> Self {
        let kernels = bias.len();
        let blocks = kernels.div_ceil(ROWS);
        let mut laid = vec![[T::ZERO; ROWS]; blocks * channels];
        let mut biases = vec![[T::ZERO; ROWS]; blocks];
        for (kernel, (weights, bias)) in weights.chunks_exact(channels).zip(bias).enumerate() {
            let (block, row) = (kernel / ROWS, kernel % ROWS);
            biases[block][row] = bias;
            for (to, &weight) in laid[block * channels..].iter_mut().zip(weights) {
                to[row] = weight;
            }
        }
        Self {
            channels,
            kernels,
            weights: laid,
            bias: biases,
        }
    }

    /// Convolves one sample.
    #[inline(always)]
    pub(super) fn run<S: Simd>(
        &self,
        simd: S,
        image: &[T],
        output: &mut [T],
        scratch: &mut Vec<T>,
    ) {
        let lanes = lanes::<T, S>();
        let pixels = output.len() / self.kernels;
        // Sums and pixels have to fit into the registers, of which AVX2 has 16 and the others 32.
        let most = if few_registers::<T, S>() { 1 } else { 3 };
        scratch.resize((self.channels * most * lanes).max(scratch.len()), T::ZERO);
        let mut from = 0;
        while from < pixels {
            let count = (pixels - from).min(most * lanes);
            let vectors = count.div_ceil(lanes);
            let run = &mut scratch[..self.channels * vectors * lanes];
            let rows = image
                .chunks_exact(pixels)
                .zip(run.chunks_exact_mut(vectors * lanes));
            for (row, to) in rows {
                to[..count].copy_from_slice(&row[from..from + count]);
            }
            let (run, _) = T::vectors::<S>(run);
            match vectors {
                3 => self.pixels::<S, 3>(simd, run, output, from, count),
                2 => self.pixels::<S, 2>(simd, run, output, from, count),
                _ => self.pixels::<S, 1>(simd, run, output, from, count),
            }
            from += count;
        }
    }

    /// All output channels of `count` pixels, in `V` vectors.
    #[inline(always)]
    fn pixels<S: Simd, const V: usize>(
        &self,
        simd: S,
        run: &[T::Vector<S>],
        output: &mut [T],
        from: usize,
        count: usize,
    ) {
        let (run, _) = run.as_chunks::<V>();
        let pixels = output.len() / self.kernels;
        let blocks = output
            .chunks_mut(ROWS * pixels)
            .zip(self.weights.chunks_exact(self.channels))
            .zip(&self.bias);
        for ((output, weights), bias) in blocks {
            let mut sums = bias.map(|bias| [T::splat(simd, bias); V]);
            for (weights, pixels) in weights.iter().zip(run) {
                for (sums, &weight) in sums.iter_mut().zip(weights) {
                    let weight = T::splat(simd, weight);
                    for (sum, &pixel) in sums.iter_mut().zip(pixels) {
                        *sum = T::mul_add(simd, weight, pixel, *sum);
                    }
                }
            }
            for (plane, sums) in output.chunks_exact_mut(pixels).zip(&sums) {
                let sums: &[T] = cast_slice(sums);
                plane[from..from + count].copy_from_slice(&sums[..count]);
            }
        }
    }
}
