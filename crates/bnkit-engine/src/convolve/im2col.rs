//! Convolution as a product of matrices (im2col), a vector of pixels at a time.
//!
//! The pixels under each tap are copied so that they lie together, for some hundred outputs at a time.

mod image;

use std::iter;

use pulp::Simd;
use pulp::bytemuck::{cast_slice, cast_slice_mut};

use super::geometry::Geometry;
use super::panels::{Columns, ROWS, VECTORS, multiply, multiply_one, padded};
use super::real::{LINE, Real, from_line, lanes};
use image::Image;

/// Taps that go by before the sums are put away.
const PASS: usize = 512;

/// Elements in the panels that are laid out together: some of a second-level cache.
const BLOCK: usize = 96 << 10;

/// A convolution with its weights laid out.
pub(super) struct Im2col<T> {
    geometry: Geometry,
    image: Image,
    /// Elements of the laid-out image. 0 if the image is used as it is.
    laid: usize,
    /// Of each channel's taps in turn, from the first one's place.
    offsets: Vec<u32>,
    /// Per group, eight output channels, and tap. The last eight of a group end with zeros.
    weights: Vec<[T; ROWS]>,
    /// Per group and eight output channels.
    bias: Vec<[T; ROWS]>,
}

/// A vector of pixels that is copied into a panel.
#[derive(Clone, Copy)]
struct Piece {
    /// From the place under a tap for the first output.
    from: usize,
    /// In the panel's row for the first tap.
    to: usize,
    /// From one row of the panel to the next.
    row: usize,
    /// Elements that count; what comes after them is written over by the next piece, or lies behind the panel.
    count: usize,
}

/// Some outputs and taps that go together.
struct Part<'a> {
    /// How all outputs are split.
    columns: Columns,
    /// The first panel, and how many there are.
    first: usize,
    panels: usize,
    /// Outputs after the panels.
    tail: usize,
    /// The first tap, and where all of them are.
    from: usize,
    offsets: &'a [u32],
    /// From one panel to the next.
    size: usize,
}

/// Where sums go.
struct Target<'a, T> {
    /// Of up to eight output channels, one after another.
    planes: &'a mut [T],
    /// Elements of a plane.
    pixels: usize,
    /// What the sums are added to; without, to what is there.
    bias: Option<&'a [T; ROWS]>,
}

impl<T: Real> Im2col<T> {
    /// Lays out `weights` (O × I × H × W) and `bias` (O). `None` if the image is too large for that.
    pub(super) fn new(mut geometry: Geometry, weights: &[T], bias: &[T]) -> Option<Self> {
        let Geometry {
            groups,
            channels,
            kernels,
            taps: [high, wide],
            ..
        } = geometry;
        let mut image = Image::new(&geometry);
        let as_it_is = [high, wide] == [1, 1] && image.is_as_it_is();
        if as_it_is {
            // One row, which no panel has to be put together from.
            geometry.image = [1, geometry.image.iter().product()];
            geometry.output = geometry.image;
            image = Image::new(&geometry);
        }
        let channel = image.channel()?;
        let taps: Vec<usize> = (0..high * wide)
            .map(|tap| image.offset([tap / wide, tap % wide]))
            .collect();
        let offsets = (0..channels)
            .flat_map(|index| taps.iter().map(move |tap| (index * channel + tap) as u32))
            .collect();
        let depth = channels * high * wide;
        let blocks = kernels.div_ceil(ROWS);
        let mut laid = vec![[T::ZERO; ROWS]; groups * blocks * depth];
        for (kernel, weights) in weights.chunks_exact(depth).enumerate() {
            let (group, kernel) = (kernel / kernels, kernel % kernels);
            let (block, row) = (group * blocks + kernel / ROWS, kernel % ROWS);
            for (to, &weight) in iter::zip(&mut laid[block * depth..], weights) {
                to[row] = weight;
            }
        }
        Some(Self {
            laid: if as_it_is { 0 } else { channels * channel },
            image,
            offsets,
            weights: laid,
            bias: bias.chunks_exact(kernels).flat_map(padded).collect(),
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
        let wide = VECTORS * lanes::<T, S>();
        let depth = self.offsets.len();
        let pixels: usize = geometry.output.iter().product();
        let blocks = geometry.kernels.div_ceil(ROWS);
        let columns = Columns::new(pixels, lanes::<T, S>());
        let panels = columns.panels();
        // As even as possible.
        let pass = depth.div_ceil(depth.div_ceil(PASS));
        let most = (BLOCK / (pass * wide)).max(1);
        let most = panels.div_ceil(panels.div_ceil(most).max(1)).max(1);
        let sizes = [
            most * (pass * wide + LINE),
            columns.tail * pass * ROWS,
            self.laid,
        ];
        let scratch = from_line(scratch, sizes.iter().sum());
        let (run, rest) = scratch.split_at_mut(sizes[0]);
        let (tails, laid) = rest.split_at_mut(sizes[1]);
        let mut pieces = vec![];
        let [height, width] = geometry.image;
        let groups = image
            .chunks_exact(geometry.channels * height * width)
            .zip(output.chunks_exact_mut(geometry.kernels * pixels))
            .zip(self.weights.chunks_exact(blocks * depth))
            .zip(self.bias.chunks_exact(blocks));
        for (((image, output), weights), bias) in groups {
            let image = if self.laid == 0 {
                image
            } else {
                self.image.lay_out(image, laid);
                &*laid
            };
            for first in (0..panels.max(1)).step_by(most) {
                for from in (0..depth).step_by(pass) {
                    let offsets = &self.offsets[from..depth.min(from + pass)];
                    let last = first + most >= panels;
                    let part = Part {
                        columns,
                        first,
                        panels: most.min(panels - first),
                        tail: if last { columns.tail } else { 0 },
                        from,
                        offsets,
                        size: offsets.len() * wide + LINE,
                    };
                    self.gather::<S>(image, &part, &mut pieces, run);
                    let (tails, _) = tails.as_chunks_mut::<ROWS>();
                    let tails = &mut tails[..part.tail * offsets.len()];
                    self.expand(image, &part, tails);
                    let blocks = output
                        .chunks_mut(ROWS * pixels)
                        .zip(weights.chunks_exact(depth))
                        .zip(bias);
                    for ((planes, weights), bias) in blocks {
                        let target = Target {
                            planes,
                            pixels,
                            bias: (from == 0).then_some(bias),
                        };
                        multiply_part::<T, S>(simd, &part, weights, run, tails, target);
                    }
                }
            }
        }
    }

    /// Copies the pixels under some taps: per panel and tap, the outputs.
    #[inline(always)]
    fn gather<S: Simd>(&self, image: &[T], part: &Part, pieces: &mut Vec<Piece>, to: &mut [T]) {
        let lanes = lanes::<T, S>();
        let wide = VECTORS * lanes;
        let [rows, columns] = self.geometry.output;
        pieces.clear();
        for panel in 0..part.panels {
            let at = (part.first + panel) * wide;
            let row = part.columns.vectors_of(part.first + panel) * lanes;
            let count = row.min(rows * columns - at);
            let mut done = 0;
            while done < count {
                let (y, x) = ((at + done) / columns, (at + done) % columns);
                let piece = Piece {
                    from: self.image.place(y, x),
                    to: panel * part.size + done,
                    row,
                    count: lanes.min(columns - x).min(count - done),
                };
                pieces.push(piece);
                done += piece.count;
            }
        }
        for (tap, &offset) in part.offsets.iter().enumerate() {
            let from = &image[offset as usize..];
            for piece in &*pieces {
                let from = &from[piece.from..];
                let to = &mut to[piece.to + tap * piece.row..][..lanes];
                match from.get(..lanes) {
                    Some(from) => T::vectors_mut::<S>(to).0[0] = T::vectors::<S>(from).0[0],
                    None => to[..piece.count].copy_from_slice(&from[..piece.count]),
                }
            }
        }
    }

    /// Copies the pixels under some taps for the last outputs: per output and tap, one pixel eight times.
    #[inline(always)]
    fn expand(&self, image: &[T], part: &Part, to: &mut [[T; ROWS]]) {
        let [rows, columns] = self.geometry.output;
        let pixels = rows * columns - part.tail..rows * columns;
        for (pixel, to) in pixels.zip(to.chunks_exact_mut(part.offsets.len())) {
            let place = self.image.place(pixel / columns, pixel % columns);
            for (to, &offset) in to.iter_mut().zip(part.offsets) {
                *to = [image[offset as usize + place]; ROWS];
            }
        }
    }
}

/// Multiplies the weights of up to eight output channels, with all their taps, by what was copied for a part.
#[inline(always)]
fn multiply_part<T: Real, S: Simd>(
    simd: S,
    part: &Part,
    weights: &[[T; ROWS]],
    run: &[T],
    tails: &[[T; ROWS]],
    mut target: Target<T>,
) {
    let depth = part.offsets.len();
    let weights = &weights[part.from..][..depth];
    let panels = run.chunks_exact(part.size).take(part.panels);
    for (panel, run) in (part.first..).zip(panels) {
        let at = panel * VECTORS * lanes::<T, S>();
        multiply::<T, S>(
            simd,
            weights,
            run,
            part.columns.vectors_of(panel),
            #[inline(always)]
            |row, sums| target.add::<S>(simd, row, at, sums),
        );
    }
    let first = target.pixels - part.tail;
    for (pixel, run) in (first..).zip(tails.chunks_exact(depth)) {
        target.add_one(pixel, &multiply_one::<T, S>(simd, weights, run));
    }
}

impl<T: Real> Target<'_, T> {
    /// Adds the sums of one output channel for the outputs from `at` on.
    #[inline(always)]
    fn add<S: Simd>(&mut self, simd: S, row: usize, at: usize, sums: &[T::Vector<S>]) {
        let bias = self.bias.map(|bias| T::splat(simd, bias[row]));
        let Some(plane) = self
            .planes
            .get_mut(row * self.pixels..(row + 1) * self.pixels)
        else {
            return;
        };
        let plane = &mut plane[at..];
        if let Some(to) = plane.get_mut(..sums.len() * lanes::<T, S>()) {
            put::<T, S>(simd, T::vectors_mut::<S>(to).0, sums, bias);
        } else {
            let mut whole = [T::splat(simd, T::ZERO); VECTORS];
            cast_slice_mut(&mut whole)[..plane.len()].copy_from_slice(plane);
            put::<T, S>(simd, &mut whole, sums, bias);
            plane.copy_from_slice(&cast_slice(&whole)[..plane.len()]);
        }
    }

    /// Adds the sums of the output channels for one output.
    #[inline(always)]
    fn add_one(&mut self, at: usize, sums: &[f64; ROWS]) {
        for (row, plane) in self.planes.chunks_exact_mut(self.pixels).enumerate() {
            let before = self.bias.map_or(plane[at], |bias| bias[row]);
            plane[at] = T::nearest(before.double() + sums[row]);
        }
    }
}

/// Adds `sums` to `bias`, or to what is there.
#[inline(always)]
fn put<T: Real, S: Simd>(
    simd: S,
    to: &mut [T::Vector<S>],
    sums: &[T::Vector<S>],
    bias: Option<T::Vector<S>>,
) {
    for (to, &sum) in iter::zip(to, sums) {
        *to = T::add(simd, bias.unwrap_or(*to), sum);
    }
}

#[cfg(test)]
mod tests;
