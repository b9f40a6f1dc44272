//! Direct convolution, a vector of output channels at a time.
//!
//! The image is copied once between zeros, its columns taken apart by their phase of the stride; an output's neighbours in its row are
//! then neighbours under every tap. A tile is several neighbours by up to four vectors of channels, all in registers while the
//! taps go by: each step loads those vectors of weights and multiplies them by one pixel for each neighbour. Nothing is gathered, and
//! no width is wasted but the last tile's of a row, which overlaps the one before it.

use pulp::Simd;
use pulp::bytemuck::cast_slice;

use super::real::{Real, few_registers, lanes};

/// Taps that go by before the sums of a tile make room for the next tile's: the weights of a pass stay in the second-level cache.
const PASS: usize = 1152;

/// Tiles that take turns in a pass.
const TURNS: usize = 32;

/// Shapes and steps; rows before columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) groups: usize,
    /// Input channels of a group.
    pub(super) channels: usize,
    /// Output channels of a group.
    pub(super) kernels: usize,
    pub(super) image: [usize; 2],
    pub(super) taps: [usize; 2],
    pub(super) strides: [usize; 2],
    pub(super) dilations: [usize; 2],
    /// Rows above, columns to the left.
    pub(super) padding: [usize; 2],
    pub(super) output: [usize; 2],
}

/// A convolution with its weights laid out.
pub(super) struct Direct<T> {
    geometry: Geometry,
    /// Neighbours in a tile: 7 or 4.
    wide: usize,
    /// Height of the image between zeros, and columns of each of its phases.
    rows: usize,
    columns: usize,
    /// Of each channel's taps in turn, from the first one's place.
    offsets: Vec<u32>,
    /// Per group, vector of output channels and tap: the weights. The last vector of a group ends with zeros.
    weights: Vec<T>,
    /// As the weights.
    bias: Vec<T>,
}

impl<T: Real> Direct<T> {
    /// Lays out `weights` (O × I × H × W) and `bias` for vectors of `lanes`. `None` if the image is too large for that.
    pub(super) fn new(
        geometry: Geometry,
        weights: &[T],
        bias: Vec<T>,
        lanes: usize,
    ) -> Option<Self> {
        let Geometry {
            channels, kernels, ..
        } = geometry;
        let [high, across] = geometry.taps;
        let stride = geometry.strides[1];
        let width = geometry.output[1];
        let padded = |tile: usize| width.div_ceil(tile) * tile;
        // A tile of four reuses its weights less.
        let wide = if padded(4) * 8 < padded(7) * 7 { 4 } else { 7 };
        let rows =
            (geometry.output[0] - 1) * geometry.strides[0] + (high - 1) * geometry.dilations[0] + 1;
        let columns = (across - 1) * geometry.dilations[1] / stride + width.max(wide);
        let pitch = columns * stride;
        u32::try_from(channels.checked_mul(rows)?.checked_mul(pitch)?).ok()?;
        let offset = |tap: usize| {
            let (channel, tap) = (tap / (high * across), tap % (high * across));
            let row = tap / across * geometry.dilations[0];
            let column = tap % across * geometry.dilations[1];
            (channel * rows + row) * pitch + column % stride * columns + column / stride
        };
        let depth = channels * high * across;
        let panels = kernels.div_ceil(lanes);
        let mut laid = vec![T::ZERO; geometry.groups * panels * depth * lanes];
        let mut biases = vec![T::ZERO; geometry.groups * panels * lanes];
        for (kernel, (weights, bias)) in weights.chunks_exact(depth).zip(bias).enumerate() {
            let (group, kernel) = (kernel / kernels, kernel % kernels);
            let (panel, lane) = (group * panels + kernel / lanes, kernel % lanes);
            biases[panel * lanes + lane] = bias;
            let panel = &mut laid[panel * depth * lanes..][..depth * lanes];
            for (&weight, to) in weights
                .iter()
                .zip(panel.iter_mut().skip(lane).step_by(lanes))
            {
                *to = weight;
            }
        }
        Some(Self {
            wide,
            rows,
            columns,
            offsets: (0..depth).map(|tap| offset(tap) as u32).collect(),
            weights: laid,
            bias: biases,
            geometry,
        })
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
        let geometry = &self.geometry;
        let depth = self.offsets.len();
        let [height, width] = geometry.image;
        let pixels = geometry.output[0] * geometry.output[1];
        let lanes = lanes::<T, S>();
        let panels = geometry.kernels.div_ceil(lanes);
        let groups = image
            .chunks_exact(geometry.channels * height * width)
            .zip(output.chunks_exact_mut(geometry.kernels * pixels))
            .zip(self.weights.chunks_exact(panels * depth * lanes))
            .zip(self.bias.chunks_exact(panels * lanes));
        // Sums and weights have to fit into the registers, of which AVX2 has 16 and the others 32.
        let most = match (few_registers::<T, S>(), self.wide) {
            (true, 7) => 1,
            (true, _) => 2,
            (false, _) => 4,
        };
        for (((image, output), weights), bias) in groups {
            let as_it_is = geometry.strides[1] == 1
                && [self.rows, self.columns] == geometry.image
                && geometry.padding == [0, 0];
            let image = if as_it_is {
                image
            } else {
                self.pad(image, scratch);
                &scratch[..]
            };
            let (weights, _) = T::vectors::<S>(weights);
            let (bias, _) = T::vectors::<S>(bias);
            let mut from = 0;
            while from < panels {
                let count = (panels - from).min(most);
                let weights = &weights[from * depth..][..count * depth];
                let bias = &bias[from..from + count];
                let kernels = (count * lanes).min(geometry.kernels - from * lanes);
                let output = &mut output[from * lanes * pixels..][..kernels * pixels];
                match (count, self.wide) {
                    (4, 7) => self.panels::<S, 4, 7>(simd, image, weights, bias, output),
                    (3, 7) => self.panels::<S, 3, 7>(simd, image, weights, bias, output),
                    (2, 7) => self.panels::<S, 2, 7>(simd, image, weights, bias, output),
                    (_, 7) => self.panels::<S, 1, 7>(simd, image, weights, bias, output),
                    (4, _) => self.panels::<S, 4, 4>(simd, image, weights, bias, output),
                    (3, _) => self.panels::<S, 3, 4>(simd, image, weights, bias, output),
                    (2, _) => self.panels::<S, 2, 4>(simd, image, weights, bias, output),
                    _ => self.panels::<S, 1, 4>(simd, image, weights, bias, output),
                }
                from += count;
            }
        }
    }

    /// Copies the channels of a group between zeros.
    #[inline(always)]
    fn pad(&self, image: &[T], scratch: &mut Vec<T>) {
        let [height, width] = self.geometry.image;
        let [above, left] = self.geometry.padding;
        let stride = self.geometry.strides[1];
        let pitch = self.columns * stride;
        scratch.resize(self.geometry.channels * self.rows * pitch, T::ZERO);
        let planes = image
            .chunks_exact(height * width)
            .zip(scratch.chunks_exact_mut(self.rows * pitch));
        for (plane, padded) in planes {
            for (y, to) in padded.chunks_exact_mut(pitch).enumerate() {
                to.fill(T::ZERO);
                let Some(row) = y.checked_sub(above).filter(|&y| y < height) else {
                    continue;
                };
                let row = &plane[row * width..][..width];
                for first in 0..stride.min(width) {
                    let x = first + left;
                    let phase = &mut to[x % stride * self.columns..][..self.columns];
                    let Some(phase) = phase.get_mut(x / stride..) else {
                        continue;
                    };
                    if stride == 1 {
                        let count = width.min(phase.len());
                        phase[..count].copy_from_slice(&row[..count]);
                    } else {
                        let each = row[first..].iter().step_by(stride);
                        phase.iter_mut().zip(each).for_each(|(to, &x)| *to = x);
                    }
                }
            }
        }
    }

    /// All outputs of `V` vectors of channels, in tiles of `W`.
    #[inline(always)]
    fn panels<S: Simd, const V: usize, const W: usize>(
        &self,
        simd: S,
        image: &[T],
        weights: &[T::Vector<S>],
        bias: &[T::Vector<S>],
        output: &mut [T],
    ) {
        let [rows, width] = self.geometry.output;
        let depth = self.offsets.len();
        let down = self.geometry.strides[0] * self.columns * self.geometry.strides[1];
        let lanes = lanes::<T, S>();
        let pixels = rows * width;
        let across = width.div_ceil(W);
        let tiles = rows * across;
        let place = |tile: usize| (tile / across, (tile % across * W).min(width.max(W) - W));
        let mut sums = [[[T::splat(simd, T::ZERO); V]; W]; TURNS];
        for first in (0..tiles).step_by(TURNS) {
            let sums = &mut sums[..TURNS.min(tiles - first)];
            for pixel in sums.as_flattened_mut() {
                pixel.copy_from_slice(bias);
            }
            for from in (0..depth).step_by(PASS) {
                let to = depth.min(from + PASS);
                let offsets = &self.offsets[from..to];
                let weights = std::array::from_fn(|v| &weights[v * depth + from..v * depth + to]);
                for (turn, sums) in sums.iter_mut().enumerate() {
                    let (y, x) = place(first + turn);
                    tile::<T, S, V, W>(simd, &image[y * down + x..], offsets, weights, sums);
                }
            }
            for (turn, sums) in sums.iter().enumerate() {
                let (y, x) = place(first + turn);
                let count = W.min(width);
                let sums: &[T] = cast_slice(sums.as_flattened());
                for (kernel, plane) in output.chunks_exact_mut(pixels).enumerate() {
                    let to = &mut plane[y * width + x..][..count];
                    let from = sums[kernel..].iter().step_by(V * lanes);
                    to.iter_mut().zip(from).for_each(|(to, &sum)| *to = sum);
                }
            }
        }
    }
}

/// Adds the products of some taps to the sums of one tile.
#[inline(always)]
fn tile<T: Real, S: Simd, const V: usize, const W: usize>(
    simd: S,
    image: &[T],
    offsets: &[u32],
    weights: [&[T::Vector<S>]; V],
    sums: &mut [[T::Vector<S>; V]; W],
) {
    let weights: [&[T::Vector<S>]; V] = std::array::from_fn(|v| &weights[v][..offsets.len()]);
    let mut registers = *sums;
    for (tap, &offset) in offsets.iter().enumerate() {
        let pixels = &image[offset as usize..][..W];
        for (sums, &pixel) in registers.iter_mut().zip(pixels) {
            let pixel = T::splat(simd, pixel);
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = T::mul_add(simd, pixel, weights[tap], *sum);
            }
        }
    }
    *sums = registers;
}
