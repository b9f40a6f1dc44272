//! Winograd's convolution F(2 × 2, 3 × 3): 16 products where [`im2col`](super::im2col) has 36.
//!
//! An output tile of 2 × 2 comes from the 4 × 4 pixels around it: Y = Aᵀ \[Σ (G g Gᵀ) ⊙ (Bᵀ d B)\] A, summed over channels (Lavin
//! and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4.1). Each of the 16 points of ⊙ is a product of
//! matrices, whose columns are the tiles. G g Gᵀ is computed once, in double precision. Some rows of tiles at a time, as many as
//! the second-level cache holds, go through three steps, each a vector of tiles at a time: Bᵀ d B; the products for eight output
//! channels; Aᵀ … A.

mod transform;

use std::iter;

use pulp::Simd;
use pulp::bytemuck::cast_slice;

use super::geometry::Geometry;
use super::panels::{Columns, ROWS, VECTORS, multiply, multiply_one, padded};
use super::real::{LINE, Real, from_line, lanes};
use transform::{Phases, after, before, of_kernel};

/// Points of a transformed tile.
const POINTS: usize = 16;

/// Floats that the transformed pixels and the sums of some rows of tiles may have: a second-level cache of 1 MB.
const BLOCK: usize = 256 << 10;

/// A 3 × 3 convolution of stride 1 with its weights transformed and laid out.
pub(super) struct Winograd<T> {
    geometry: Geometry,
    /// Tiles down and across.
    tiles: [usize; 2],
    /// Rows of tiles that go together.
    rows: usize,
    /// Per eight output channels, point and input channel. The last eight end with zeros.
    weights: Vec<[T; ROWS]>,
    /// Per eight output channels.
    bias: Vec<[T; ROWS]>,
}

/// Sizes of what some rows of tiles need. Strides are odd multiples of a cache line, lest lines that are used together displace each other.
struct Layout {
    columns: Columns,
    /// From one point of the transformed pixels to the next: panels of tiles, each with all channels.
    point: usize,
    /// From one output channel's sums to the next.
    row: usize,
    /// Vectors of tiles, those of the tail among them.
    vectors: usize,
    channels: usize,
}

impl Layout {
    fn new(channels: usize, tiles: usize, lanes: usize) -> Self {
        let columns = Columns::new(tiles, lanes);
        let vectors = tiles.div_ceil(lanes);
        let odd = |size: usize| size.next_multiple_of(2 * LINE) + LINE;
        Self {
            point: odd(columns.vectors * lanes * channels),
            row: odd(vectors * lanes),
            vectors,
            columns,
            channels,
        }
    }

    /// Where a vector of tiles of a point is.
    #[inline(always)]
    fn place<T: Real, S: Simd>(&self, vector: usize, channel: usize) -> usize {
        let panel = vector / VECTORS;
        let before = panel * VECTORS * self.channels;
        (before + channel * self.columns.vectors_of(panel) + vector % VECTORS) * lanes::<T, S>()
    }

    /// Floats of the transformed pixels, of the tail's, and of the sums.
    fn sizes(&self) -> [usize; 3] {
        [
            POINTS * self.point,
            (self.columns.tail * POINTS * self.channels * ROWS).next_multiple_of(LINE),
            POINTS * ROWS * self.row,
        ]
    }
}

/// Scratch space for some rows of tiles.
struct Space<'a, T> {
    /// Per point, panel and channel, the tiles.
    points: &'a mut [T],
    /// Per tile of the tail, point and channel, the pixel as often as there are rows.
    tails: &'a mut [[T; ROWS]],
    /// Per point and output channel, the tiles.
    sums: &'a mut [T],
    /// Two lines of output pixels.
    lines: &'a mut [T],
    /// One channel, its pixels taken apart.
    phases: &'a mut [T],
}

/// Whether this is possible, and clearly faster than im2col: measured with AVX-512, 1.1 to 1.7 times. Few channels do not pay for Bᵀ d B
/// and Aᵀ … A, and of many, too few tiles fit into the cache for each reading of the weights, which are 16/9 as large; so do
/// small images have too few.
pub(super) fn suits(geometry: &Geometry) -> bool {
    let [height, width] = geometry.output;
    geometry.taps == [3, 3]
        && geometry.strides == [1, 1]
        && geometry.dilations == [1, 1]
        && geometry.groups == 1
        && (32..=256).contains(&geometry.channels)
        && geometry.kernels >= 32
        && height.min(width) >= 10
}

impl<T: Real> Winograd<T> {
    /// Transforms `weights` (O × I × 3 × 3) and lays them and `bias` out, for vectors of `lanes`. `None` if a transformed weight is
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
        let blocks = kernels.div_ceil(ROWS);
        let mut laid = vec![[T::ZERO; ROWS]; blocks * POINTS * channels];
        for (kernel, weights) in weights.chunks_exact(9 * channels).enumerate() {
            let (block, row) = (kernel / ROWS, kernel % ROWS);
            let block = &mut laid[block * POINTS * channels..];
            for (channel, weights) in weights.as_chunks::<9>().0.iter().enumerate() {
                for (point, value) in of_kernel(weights).into_iter().enumerate() {
                    if !value.double().is_finite() {
                        return None;
                    }
                    block[point * channels + channel][row] = value;
                }
            }
        }
        let fits = |&rows: &usize| {
            let layout = Layout::new(channels, rows * tiles[1], lanes);
            layout.sizes().iter().sum::<usize>() <= BLOCK
        };
        // Work that is done for some rows, in vectors and parts of them.
        let cost = |rows: usize| {
            let columns = Columns::new(rows * tiles[1], lanes);
            columns.vectors * lanes + 2 * columns.tail
        };
        let total = |rows: usize| tiles[0] / rows * cost(rows) + cost(tiles[0] % rows);
        let rows = (1..=tiles[0])
            .filter(fits)
            .min_by_key(|&rows| (total(rows), tiles[0] - rows));
        Some(Self {
            tiles,
            rows: rows.unwrap_or(1),
            weights: laid,
            bias: padded(bias).collect(),
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
        let Geometry {
            channels,
            output: [height, width],
            ..
        } = self.geometry;
        let layout = |rows: usize| Layout::new(channels, rows * self.tiles[1], lanes);
        let largest = layout(self.rows);
        let phases = Phases::new(
            &self.geometry,
            self.tiles[1],
            self.rows,
            largest.vectors * lanes,
        );
        // The last rows may be fewer, and have a tail where the others have none.
        let last = layout(self.tiles[0] % self.rows).sizes();
        let [points, tails, sums] =
            std::array::from_fn(|index| largest.sizes()[index].max(last[index]));
        let lines = 4 * largest.row;
        let size = points + tails + sums + lines + phases.size();
        let (points, rest) = from_line(scratch, size).split_at_mut(points);
        let (tails, rest) = rest.split_at_mut(tails);
        let (sums, rest) = rest.split_at_mut(sums);
        let (lines, pixels) = rest.split_at_mut(lines);
        let mut space = Space {
            points,
            tails: tails.as_chunks_mut().0,
            sums,
            lines,
            phases: pixels,
        };
        for first in (0..self.tiles[0]).step_by(self.rows) {
            let rows = self.rows.min(self.tiles[0] - first);
            let layout = layout(rows);
            self.transform(simd, image, first, &layout, &phases, &mut space);
            let blocks = output
                .chunks_mut(ROWS * height * width)
                .zip(self.weights.chunks_exact(POINTS * channels))
                .zip(&self.bias);
            for ((planes, weights), bias) in blocks {
                products(simd, &layout, weights, &mut space);
                for (row, plane) in planes.chunks_exact_mut(height * width).enumerate() {
                    let bias = T::splat(simd, bias[row]);
                    let sums = &space.sums[row * layout.row..];
                    finish::<T, S>(simd, &layout, sums, bias, space.lines);
                    let (top, bottom) = space.lines.split_at(2 * layout.row);
                    let pairs = plane[2 * first * width..].chunks_mut(2 * width);
                    for (y, pair) in pairs.take(rows).enumerate() {
                        let at = 2 * self.tiles[1] * y;
                        for (to, line) in pair.chunks_exact_mut(width).zip([top, bottom]) {
                            to.copy_from_slice(&line[at..at + width]);
                        }
                    }
                }
            }
        }
    }

    /// Bᵀ d B of rows of tiles from `first` on.
    #[inline(always)]
    fn transform<S: Simd>(
        &self,
        simd: S,
        image: &[T],
        first: usize,
        layout: &Layout,
        phases: &Phases,
        space: &mut Space<T>,
    ) {
        let lanes = lanes::<T, S>();
        let [height, width] = self.geometry.image;
        let channels = layout.channels;
        for (channel, plane) in image.chunks_exact(height * width).enumerate() {
            phases.take(plane, first, space.phases);
            for vector in 0..layout.vectors {
                let mut rows = [[T::splat(simd, T::ZERO); 4]; 4];
                for (y, row) in rows.iter_mut().enumerate() {
                    for (x, pixel) in row.iter_mut().enumerate() {
                        let at = phases.place(y, x) + vector * lanes;
                        *pixel = T::vectors::<S>(&space.phases[at..at + lanes]).0[0];
                    }
                    *row = before::<T, S>(simd, *row);
                }
                let [a, b, c, d] = rows;
                let inside = vector < layout.columns.vectors;
                let place = if inside {
                    layout.place::<T, S>(vector, channel)
                } else {
                    0
                };
                for (x, (((a, b), c), d)) in a.into_iter().zip(b).zip(c).zip(d).enumerate() {
                    let column = before::<T, S>(simd, [a, b, c, d]);
                    for (y, value) in column.into_iter().enumerate() {
                        let point = 4 * y + x;
                        if inside {
                            let at = point * layout.point + place;
                            T::vectors_mut::<S>(&mut space.points[at..at + lanes]).0[0] = value;
                        } else {
                            let tiles = cast_slice::<_, T>(std::slice::from_ref(&value));
                            for (tile, &pixel) in tiles[..layout.columns.tail].iter().enumerate() {
                                space.tails[(tile * POINTS + point) * channels + channel] =
                                    [pixel; ROWS];
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The sums over channels, of eight output channels.
#[inline(always)]
fn products<T: Real, S: Simd>(
    simd: S,
    layout: &Layout,
    weights: &[[T; ROWS]],
    space: &mut Space<T>,
) {
    let wide = VECTORS * lanes::<T, S>();
    let size = layout.channels * lanes::<T, S>();
    let each = weights
        .chunks_exact(layout.channels)
        .zip(space.points.chunks_exact(layout.point))
        .zip(space.sums.chunks_exact_mut(ROWS * layout.row));
    for (point, ((weights, points), sums)) in each.enumerate() {
        for panel in 0..layout.columns.panels() {
            let vectors = layout.columns.vectors_of(panel);
            let run = &points[panel * VECTORS * size..][..vectors * size];
            multiply::<T, S>(
                simd,
                weights,
                run,
                vectors,
                #[inline(always)]
                |row, found| {
                    let to = &mut sums[row * layout.row + panel * wide..];
                    let (to, _) = T::vectors_mut::<S>(to);
                    to[..found.len()].copy_from_slice(found);
                },
            );
        }
        let first = layout.columns.vectors * lanes::<T, S>();
        for tile in 0..layout.columns.tail {
            let column =
                &space.tails[(tile * POINTS + point) * layout.channels..][..layout.channels];
            let found = multiply_one::<T, S>(simd, weights, column);
            for (row, found) in found.into_iter().enumerate() {
                sums[row * layout.row + first + tile] = T::nearest(found);
            }
        }
    }
}

/// Aᵀ … A and the bias of one output channel: two lines of pixels, each tile's pair after the other's.
#[inline(always)]
fn finish<T: Real, S: Simd>(
    simd: S,
    layout: &Layout,
    sums: &[T],
    bias: T::Vector<S>,
    lines: &mut [T],
) {
    let lanes = lanes::<T, S>();
    let (top, bottom) = lines.split_at_mut(2 * layout.row);
    for at in (0..layout.vectors).map(|vector| vector * lanes) {
        let mut rows = [[bias; 2]; 4];
        for (y, row) in rows.iter_mut().enumerate() {
            let sum = |x: usize| {
                let from = (4 * y + x) * ROWS * layout.row + at;
                T::vectors::<S>(&sums[from..from + lanes]).0[0]
            };
            *row = after::<T, S>(simd, [sum(0), sum(1), sum(2), sum(3)]);
        }
        let left = after::<T, S>(simd, rows.map(|row| row[0]));
        let right = after::<T, S>(simd, rows.map(|row| row[1]));
        for (line, (left, right)) in [&mut *top, &mut *bottom]
            .into_iter()
            .zip(iter::zip(left, right))
        {
            let pair = [T::add(simd, left, bias), T::add(simd, right, bias)];
            let (left, right) = cast_slice::<_, T>(&pair).split_at(lanes);
            let (to, _) = line[2 * at..][..2 * lanes].as_chunks_mut::<2>();
            for (to, (&left, &right)) in to.iter_mut().zip(iter::zip(left, right)) {
                *to = [left, right];
            }
        }
    }
}

#[cfg(test)]
mod tests;
