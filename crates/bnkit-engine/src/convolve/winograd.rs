//! Winograd's convolution F(2 × 2, 3 × 3), a vector of output channels at a time: 16 products where [`im2col`](super::im2col) has 36.
//!
//! An output tile of 2 × 2 comes from the 4 × 4 pixels around it: Y = Aᵀ \[Σ (G g Gᵀ) ⊙ (Bᵀ d B)\] A, summed over channels (Lavin
//! and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4.1). Each of the 16 points of ⊙ is a product of
//! matrices. G g Gᵀ is computed once, in double precision. Some rows of tiles at a time, as many as the second-level cache holds, go
//! through three steps: Bᵀ d B, a vector of tiles at a time; the products, eight tiles by up to two vectors of channels in
//! registers; Aᵀ … A, a vector of channels at a time.

mod transform;

use pulp::Simd;

use super::geometry::Geometry;
use super::real::{LINE, Real, lanes, to_line};
use transform::{Phases, after, before, of_kernel};

/// Points of a transformed tile.
const POINTS: usize = 16;

/// Tiles that are multiplied together.
const WIDE: usize = 8;

/// Floats that the transformed pixels and the sums of some rows of tiles may have: a second-level cache of 1 MB.
const BLOCK: usize = 256 << 10;

/// A 3 × 3 convolution of stride 1 with its weights transformed and laid out.
pub(super) struct Winograd<T> {
    geometry: Geometry,
    /// Tiles down and across.
    tiles: [usize; 2],
    /// Vectors of output channels that are multiplied together, at most.
    most: usize,
    /// Rows of tiles that go together.
    rows: usize,
    layout: Layout,
    /// From here on, the weights begin at a line of the cache.
    aligned: usize,
    /// Per `most` vectors of output channels, point, input channel and output channel. The last vector ends with zeros.
    weights: Vec<T>,
    /// Per output channel, with zeros at the end.
    bias: Vec<T>,
}

/// Strides of the scratch space, in floats.
struct Layout {
    /// From one channel of a point to the next: the tiles.
    run: usize,
    /// From one point of all channels to the next.
    point: usize,
    /// Tiles.
    slots: usize,
    /// From the sums of one tile to those of the next.
    slot: usize,
}

/// What is multiplied together: rows of tiles by vectors of output channels.
struct Part {
    first: usize,
    rows: usize,
    from: usize,
    count: usize,
}

/// Whether this is possible, and clearly faster than direct convolution: measured with AVX-512, 1.3 to 2 times. Few output channels
/// do not pay for Bᵀ d B, few input channels not for Aᵀ … A, and few pixels not for weights that are 16/9 as large. Of
/// more channels, too few tiles fit into the cache for each reading of the weights.
pub(super) fn suits(geometry: &Geometry) -> bool {
    let [height, width] = geometry.output;
    geometry.taps == [3, 3]
        && geometry.strides == [1, 1]
        && geometry.dilations == [1, 1]
        && geometry.groups == 1
        && (32..=512).contains(&geometry.channels)
        && (64..=512).contains(&geometry.kernels)
        && height.min(width) >= 7
        && geometry.channels * height * width >= 128 * 7 * 7
}

impl<T: Real> Winograd<T> {
    /// Transforms `weights` (O × I × 3 × 3) and lays them and `bias` out for vectors of `lanes`. `None` if a transformed weight is
    /// infinite or none.
    pub(super) fn new(
        geometry: &Geometry,
        weights: &[T],
        bias: &[T],
        lanes: usize,
    ) -> Option<Self> {
        let geometry = *geometry;
        let Geometry {
            channels, kernels, ..
        } = geometry;
        let tiles = geometry.output.map(|size| size.div_ceil(2));
        // Sums and weights have to fit into the registers, of which AVX2 has 16 and the others 32.
        let most = if lanes * size_of::<T>() == 32 { 1 } else { 2 };
        let panels = kernels.div_ceil(lanes);
        let mut laid = vec![T::ZERO; panels * lanes * POINTS * channels + LINE];
        let aligned = to_line(&laid);
        for (kernel, weights) in weights.chunks_exact(9 * channels).enumerate() {
            let from = kernel / (most * lanes) * most;
            let across = (panels - from).min(most) * lanes;
            let group = &mut laid[aligned + from * lanes * POINTS * channels..];
            let lane = kernel - from * lanes;
            for (channel, weights) in weights.as_chunks::<9>().0.iter().enumerate() {
                for (point, value) in of_kernel(weights).into_iter().enumerate() {
                    if !value.double().is_finite() {
                        return None;
                    }
                    group[(point * channels + channel) * across + lane] = value;
                }
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(panels * lanes, T::ZERO);
        let layout = |rows: usize| {
            let slots = (rows * tiles[1]).max(WIDE);
            let run = slots.next_multiple_of(lanes);
            Layout {
                run,
                point: (channels * run).next_multiple_of(2 * LINE) + LINE,
                slots,
                slot: POINTS * most * lanes + LINE,
            }
        };
        let fits = |&rows: &usize| {
            let layout = layout(rows);
            layout.point * POINTS + layout.slot * layout.slots <= BLOCK
        };
        let most_rows = (1..=tiles[0]).take_while(fits).last().unwrap_or(1);
        // Blocks as even as possible.
        let rows = tiles[0].div_ceil(tiles[0].div_ceil(most_rows));
        Some(Self {
            tiles,
            most,
            rows,
            layout: layout(rows),
            aligned,
            weights: laid,
            bias,
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
        let lanes = lanes::<T, S>();
        let panels = self.geometry.kernels.div_ceil(lanes);
        let pixels = self.geometry.output[0] * self.geometry.output[1];
        let phases = Phases::new(&self.geometry, self.tiles[1], self.rows, self.layout.run);
        let sizes = [
            POINTS * self.layout.point,
            self.layout.slots * self.layout.slot,
            (4 * self.tiles[1] * self.most * lanes).next_multiple_of(LINE),
            phases.size(),
        ];
        let size = sizes.iter().sum::<usize>() + LINE;
        if scratch.len() < size {
            scratch.resize(size, T::ZERO);
        }
        let aligned = to_line(scratch);
        let (points, rest) = scratch[aligned..].split_at_mut(sizes[0]);
        let (sums, rest) = rest.split_at_mut(sizes[1]);
        let (tiles, rest) = rest.split_at_mut(sizes[2]);
        let between = &mut rest[..sizes[3]];
        for first in (0..self.tiles[0]).step_by(self.rows) {
            self.transform(simd, image, first, &phases, between, points);
            for from in (0..panels).step_by(self.most) {
                let part = Part {
                    first,
                    rows: self.rows.min(self.tiles[0] - first),
                    from,
                    count: (panels - from).min(self.most),
                };
                match part.count {
                    2 => self.products::<S, 2>(simd, &part, points, sums),
                    _ => self.products::<S, 1>(simd, &part, points, sums),
                }
                let kernels = (part.count * lanes).min(self.geometry.kernels - from * lanes);
                let output = &mut output[from * lanes * pixels..][..kernels * pixels];
                self.finish(simd, &part, sums, tiles, output);
            }
        }
    }

    /// Bᵀ d B of rows of tiles from `first` on: per point and channel, the tiles.
    #[inline(always)]
    fn transform<S: Simd>(
        &self,
        simd: S,
        image: &[T],
        first: usize,
        phases: &Phases,
        between: &mut [T],
        points: &mut [T],
    ) {
        let lanes = lanes::<T, S>();
        let [height, width] = self.geometry.image;
        let &Layout { run, point, .. } = &self.layout;
        for (channel, plane) in image.chunks_exact(height * width).enumerate() {
            phases.take(plane, first, between);
            for from in (0..run).step_by(lanes) {
                let mut rows = [[T::splat(simd, T::ZERO); 4]; 4];
                for (y, row) in rows.iter_mut().enumerate() {
                    for (x, pixel) in row.iter_mut().enumerate() {
                        let at = phases.place(y, x) + from;
                        *pixel = T::vectors::<S>(&between[at..at + lanes]).0[0];
                    }
                    *row = before::<T, S>(simd, *row);
                }
                let [a, b, c, d] = rows;
                for (x, (((a, b), c), d)) in a.into_iter().zip(b).zip(c).zip(d).enumerate() {
                    let column = before::<T, S>(simd, [a, b, c, d]);
                    for (y, value) in column.into_iter().enumerate() {
                        let at = (4 * y + x) * point + channel * run + from;
                        T::vectors_mut::<S>(&mut points[at..at + lanes]).0[0] = value;
                    }
                }
            }
        }
    }

    /// The sums over channels: per tile and point, `V` vectors of output channels.
    #[inline(always)]
    fn products<S: Simd, const V: usize>(
        &self,
        simd: S,
        part: &Part,
        points: &[T],
        sums: &mut [T],
    ) {
        let lanes = lanes::<T, S>();
        let channels = self.geometry.channels;
        let &Layout {
            run, point, slot, ..
        } = &self.layout;
        let size = channels * V * lanes;
        let weights = &self.weights[self.aligned + part.from * lanes * POINTS * channels..];
        let each = weights.chunks_exact(size).zip(points.chunks_exact(point));
        for (index, (weights, points)) in each.take(POINTS).enumerate() {
            let (weights, _) = T::vectors::<S>(weights).0.as_chunks::<V>();
            let points = &points[..channels * run];
            let tiles = part.rows * self.tiles[1];
            for tile in (0..tiles).step_by(WIDE) {
                // The last ones overlap those before them.
                let tile = tile.min(tiles.max(WIDE) - WIDE);
                let found = product::<T, S, V>(simd, &points[tile..], run, weights);
                let to = &mut sums[tile * slot..];
                for (to, sums) in to.chunks_mut(slot).zip(&found) {
                    let to = &mut to[index * V * lanes..][..V * lanes];
                    T::vectors_mut::<S>(to).0.copy_from_slice(sums);
                }
            }
        }
    }

    /// Aᵀ … A and the bias, into the output of some channels.
    #[inline(always)]
    fn finish<S: Simd>(&self, simd: S, part: &Part, sums: &[T], tiles: &mut [T], output: &mut [T]) {
        let lanes = lanes::<T, S>();
        let [height, width] = self.geometry.output;
        let across = self.tiles[1];
        let slot = self.layout.slot;
        let (bias, _) = T::vectors::<S>(&self.bias[part.from * lanes..][..part.count * lanes]);
        let size = 4 * across * lanes;
        for y in 0..part.rows {
            let row = sums[y * across * slot..].chunks_exact(slot).take(across);
            for (x, sums) in row.enumerate() {
                let (sums, _) = T::vectors::<S>(&sums[..POINTS * part.count * lanes]);
                for (v, &bias) in bias.iter().enumerate() {
                    let (tiles, _) = T::vectors_mut::<S>(&mut tiles[v * size..][..size]);
                    let mut rows = [[bias; 2]; 4];
                    for (y, row) in rows.iter_mut().enumerate() {
                        let sum = |x: usize| sums[(4 * y + x) * part.count + v];
                        *row = after::<T, S>(simd, [sum(0), sum(1), sum(2), sum(3)]);
                    }
                    for column in 0..2 {
                        let pixels = rows.map(|row| row[column]);
                        for (row, pixel) in after::<T, S>(simd, pixels).into_iter().enumerate() {
                            tiles[(row * across + x) * 2 + column] = T::add(simd, pixel, bias);
                        }
                    }
                }
            }
            let top = 2 * (part.first + y);
            for (kernel, plane) in output.chunks_exact_mut(height * width).enumerate() {
                let tiles = &tiles[kernel / lanes * size..][..size];
                let rows = plane[top * width..].chunks_exact_mut(width);
                for (to, from) in rows.zip(tiles.chunks_exact(size / 2)) {
                    let from = from[kernel % lanes..].iter().step_by(lanes);
                    to.iter_mut().zip(from).for_each(|(to, &pixel)| *to = pixel);
                }
            }
        }
    }
}

/// The sums over channels of one point, for neighbours: `run` floats from one channel to the next.
#[inline(always)]
fn product<T: Real, S: Simd, const V: usize>(
    simd: S,
    points: &[T],
    run: usize,
    weights: &[[T::Vector<S>; V]],
) -> [[T::Vector<S>; V]; WIDE] {
    let mut registers = [[T::splat(simd, T::ZERO); V]; WIDE];
    for (weights, pixels) in weights.iter().zip(points.chunks(run)) {
        for (sums, &pixel) in registers.iter_mut().zip(&pixels[..WIDE]) {
            let pixel = T::splat(simd, pixel);
            for (sum, &weights) in sums.iter_mut().zip(weights) {
                *sum = T::mul_add(simd, pixel, weights, *sum);
            }
        }
    }
    registers
}

#[cfg(test)]
mod tests;
