//! Convolution as a product of matrices (im2col), a vector of pixels at a time.
//!
//! Some hundred outputs at a time, the pixels under each tap are copied so that they lie together, in panels of three vectors; then eight
//! output channels at a time keep a panel's sums in registers while the taps go by: each step loads three vectors of pixels and
//! multiplies them by one weight for each of the eight. Outputs that would fill less than half of a last vector go the other way
//! round: a vector of weights at a time.

mod image;

use std::iter;

use pulp::Simd;
use pulp::bytemuck::{cast_slice, cast_slice_mut};

use super::geometry::Geometry;
use super::real::{LINE, Real, few_registers, lanes, to_line};
use image::Image;

/// Output channels that are computed together.
pub(super) const ROWS: usize = 8;

/// Vectors of pixels in a panel.
const VECTORS: usize = 3;

/// Elements in a panel, at most: the widest vectors have 16.
const WIDEST: usize = 16 * VECTORS;

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

/// A vector that is copied into a panel.
#[derive(Clone, Copy, Default)]
struct Piece {
    /// From the place under a tap for the first output.
    from: usize,
    /// In the panel's row.
    to: usize,
    /// Elements that count; what comes after them is written over by the next piece.
    count: usize,
}

/// How the outputs of an image and the taps of an output are split.
struct Split {
    /// Vectors of outputs, all or all but the last one full.
    vectors: usize,
    /// Panels of vectors.
    panels: usize,
    /// Outputs after them: less than half a vector.
    tail: usize,
    /// Panels that are laid out together, at most.
    most: usize,
    /// Taps that go by together, at most.
    pass: usize,
}

impl Split {
    #[inline(always)]
    fn new(pixels: usize, depth: usize, lanes: usize) -> Self {
        let rest = pixels % lanes;
        let tail = if rest < lanes / 2 { rest } else { 0 };
        let vectors = (pixels - tail).div_ceil(lanes);
        let panels = vectors.div_ceil(VECTORS);
        // As even as possible.
        let pass = depth.div_ceil(depth.div_ceil(PASS));
        let most = (BLOCK / (pass * VECTORS * lanes)).max(1);
        let most = panels.div_ceil(panels.div_ceil(most).max(1)).max(1);
        Self {
            vectors,
            panels,
            tail,
            most,
            pass,
        }
    }
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
        let mut biases = vec![[T::ZERO; ROWS]; groups * blocks];
        for (kernel, (weights, &bias)) in iter::zip(weights.chunks_exact(depth), bias).enumerate() {
            let (group, kernel) = (kernel / kernels, kernel % kernels);
            let (block, row) = (group * blocks + kernel / ROWS, kernel % ROWS);
            biases[block][row] = bias;
            for (to, &weight) in iter::zip(&mut laid[block * depth..], weights) {
                to[row] = weight;
            }
        }
        Some(Self {
            laid: if as_it_is { 0 } else { channels * channel },
            image,
            offsets,
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
        let lanes = lanes::<T, S>();
        let depth = self.offsets.len();
        let pixels: usize = geometry.output.iter().product();
        let blocks = geometry.kernels.div_ceil(ROWS);
        let split = Split::new(pixels, depth, lanes);
        let sizes = [
            // Whole vectors are copied, of which the last one ends behind the panels.
            split.most * split.pass * VECTORS * lanes + LINE,
            split.tail * split.pass * ROWS,
            self.laid,
        ];
        let size = sizes.iter().sum::<usize>() + LINE;
        if scratch.len() < size {
            scratch.resize(size, T::ZERO);
        }
        let aligned = to_line(scratch);
        let (panels, rest) = scratch[aligned..].split_at_mut(sizes[0]);
        let (tails, rest) = rest.split_at_mut(sizes[1]);
        let laid = &mut rest[..sizes[2]];
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
            for first in (0..split.panels.max(1)).step_by(split.most) {
                for from in (0..depth).step_by(split.pass) {
                    let offsets = &self.offsets[from..depth.min(from + split.pass)];
                    let last = first + split.most >= split.panels;
                    let count = split.most.min(split.panels - first);
                    let tail = if last { split.tail } else { 0 };
                    let size = offsets.len() * VECTORS * lanes;
                    for panel in 0..count {
                        let at = (first + panel) * VECTORS * lanes;
                        self.gather::<S>(image, at, offsets, &mut panels[panel * size..]);
                    }
                    let tails = &mut tails[..tail * offsets.len() * ROWS];
                    self.expand(image, pixels - tail, offsets, tails);
                    let blocks = output
                        .chunks_mut(ROWS * pixels)
                        .zip(weights.chunks_exact(depth))
                        .zip(bias);
                    for ((planes, weights), bias) in blocks {
                        let weights = &weights[from..][..offsets.len()];
                        let mut target = Target {
                            planes,
                            pixels,
                            bias: (from == 0).then_some(bias),
                        };
                        for (panel, run) in panels.chunks_exact(size).take(count).enumerate() {
                            let panel = first + panel;
                            let vectors = split.vectors - panel * VECTORS;
                            let at = panel * VECTORS * lanes;
                            // Sums, pixels and a weight have to fit into the registers, of which AVX2 has 16 and the others 32.
                            match (few_registers::<T, S>(), vectors) {
                                (_, 1) => target.add::<S, 8, 1>(simd, run, weights, at),
                                (true, 2) => target.add::<S, 4, 2>(simd, run, weights, at),
                                (true, _) => target.add::<S, 4, 3>(simd, run, weights, at),
                                (false, 2) => target.add::<S, 8, 2>(simd, run, weights, at),
                                (false, _) => target.add::<S, 8, 3>(simd, run, weights, at),
                            }
                        }
                        let tails = tails.chunks_exact(offsets.len() * ROWS);
                        for (pixel, run) in (pixels - tail..).zip(tails) {
                            target.add_one::<S>(simd, run, weights, pixel);
                        }
                    }
                }
            }
        }
    }

    /// Copies the pixels under some taps for a panel of outputs from `at` on: per tap, the outputs.
    #[inline(always)]
    fn gather<S: Simd>(&self, image: &[T], at: usize, offsets: &[u32], to: &mut [T]) {
        let lanes = lanes::<T, S>();
        let wide = VECTORS * lanes;
        let [rows, columns] = self.geometry.output;
        let count = wide.min(rows * columns - at);
        let mut pieces = [Piece::default(); WIDEST];
        let mut most = 0;
        let mut done = 0;
        while done < count {
            let (y, x) = ((at + done) / columns, (at + done) % columns);
            let piece = Piece {
                from: self.image.place(y, x),
                to: done,
                count: lanes.min(columns - x).min(count - done),
            };
            done += piece.count;
            pieces[most] = piece;
            most += 1;
        }
        for (tap, &offset) in offsets.iter().enumerate() {
            let from = &image[offset as usize..];
            let to = &mut to[tap * wide..][..wide + lanes];
            for &Piece {
                from: place,
                to: slot,
                count,
            } in &pieces[..most]
            {
                let from = &from[place..];
                let to = &mut to[slot..][..lanes];
                match from.get(..lanes) {
                    Some(from) => T::vectors_mut::<S>(to).0[0] = T::vectors::<S>(from).0[0],
                    None => to[..count].copy_from_slice(&from[..count]),
                }
            }
        }
    }

    /// Copies the pixels under some taps for the last outputs, from `at` on: per output and tap, one pixel eight times.
    #[inline(always)]
    fn expand(&self, image: &[T], at: usize, offsets: &[u32], to: &mut [T]) {
        let [rows, columns] = self.geometry.output;
        for (pixel, to) in (at..rows * columns).zip(to.chunks_exact_mut(offsets.len() * ROWS)) {
            let place = self.image.place(pixel / columns, pixel % columns);
            for (to, &offset) in to.as_chunks_mut::<ROWS>().0.iter_mut().zip(offsets) {
                *to = [image[offset as usize + place]; ROWS];
            }
        }
    }
}

impl<T: Real> Target<'_, T> {
    /// Adds the products of some taps, for the first `V` vectors of a panel of outputs from `at` on, `R` channels at a time.
    #[inline(always)]
    fn add<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        run: &[T],
        weights: &[[T; ROWS]],
        at: usize,
    ) {
        let (run, _) = T::vectors::<S>(run).0.as_chunks::<VECTORS>();
        let pixels = self.pixels;
        for (part, planes) in self.planes.chunks_mut(R * pixels).enumerate() {
            let sums = products::<T, S, R, V>(simd, run, weights, part);
            for (row, (plane, sums)) in planes.chunks_exact_mut(pixels).zip(&sums).enumerate() {
                let bias = self.bias.map(|bias| T::splat(simd, bias[part * R + row]));
                let plane = &mut plane[at..];
                if let Some(to) = plane.get_mut(..V * lanes::<T, S>()) {
                    put::<T, S>(simd, T::vectors_mut::<S>(to).0, sums, bias);
                } else {
                    let mut whole = [T::splat(simd, T::ZERO); V];
                    cast_slice_mut(&mut whole)[..plane.len()].copy_from_slice(plane);
                    put::<T, S>(simd, &mut whole, sums, bias);
                    plane.copy_from_slice(&cast_slice(&whole)[..plane.len()]);
                }
            }
        }
    }

    /// Adds the products of some taps for the output at `at`, of which each pixel is there eight times.
    #[inline(always)]
    fn add_one<S: Simd>(&mut self, simd: S, run: &[T], weights: &[[T; ROWS]], at: usize) {
        let (pixels, last_pixels) = T::vectors::<S>(run);
        let (weights, last_weights) = T::vectors::<S>(weights.as_flattened());
        let mut sums = [T::splat(simd, T::ZERO); 4];
        for (pixels, weights) in iter::zip(pixels.chunks(4), weights.chunks(4)) {
            for (sum, (&pixel, &weight)) in sums.iter_mut().zip(iter::zip(pixels, weights)) {
                *sum = T::mul_add(simd, pixel, weight, *sum);
            }
        }
        // Four vectors are some multiple of eight elements, and so is what comes before the last ones.
        let mut rows = [0.0; ROWS];
        for (element, sum) in cast_slice::<_, T>(&sums).iter().enumerate() {
            rows[element % ROWS] += sum.double();
        }
        for (row, (pixel, weight)) in rows.iter_mut().zip(iter::zip(last_pixels, last_weights)) {
            *row += pixel.double() * weight.double();
        }
        for (row, plane) in self.planes.chunks_exact_mut(self.pixels).enumerate() {
            let before = self.bias.map_or(plane[at], |bias| bias[row]);
            plane[at] = T::nearest(before.double() + rows[row]);
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

/// The sums of `V` vectors of a panel for the `part`th `R` of eight output channels.
#[inline(always)]
fn products<T: Real, S: Simd, const R: usize, const V: usize>(
    simd: S,
    run: &[[T::Vector<S>; VECTORS]],
    weights: &[[T; ROWS]],
    part: usize,
) -> [[T::Vector<S>; V]; R] {
    let mut sums = [[T::splat(simd, T::ZERO); V]; R];
    for (weights, pixels) in weights.iter().zip(run) {
        let weights = &weights.as_chunks::<R>().0[part];
        for (sums, &weight) in sums.iter_mut().zip(weights) {
            let weight = T::splat(simd, weight);
            for (sum, &pixel) in sums.iter_mut().zip(pixels) {
                *sum = T::mul_add(simd, weight, pixel, *sum);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests;
