//! The image as the taps see it: between zeros, taken apart by the phases of the strides.

use std::iter;

use crate::convolve::geometry::Geometry;
use crate::convolve::real::Real;

/// How the channels of a group lie: one after another, of each the phases that taps use. In a phase, an output's neighbours are neighbours
/// under every tap.
pub(super) struct Image {
    geometry: Geometry,
    /// Rows and columns modulo the strides.
    phases: Vec<[usize; 2]>,
    /// Rows and columns of a phase.
    size: [usize; 2],
}

impl Image {
    pub(super) fn new(geometry: &Geometry) -> Self {
        let along = |axis: usize| -> Vec<usize> {
            let step = |tap: usize| tap * geometry.dilations[axis];
            (0..geometry.taps[axis]).map(step).collect()
        };
        let used = |axis: usize| {
            let mut phases: Vec<usize> = along(axis)
                .into_iter()
                .map(|at| at % geometry.strides[axis])
                .collect();
            phases.sort_unstable();
            phases.dedup();
            phases
        };
        let columns = used(1);
        let both = |row: usize| columns.iter().map(move |&column| [row, column]);
        let size = |axis: usize| {
            let last = along(axis).last().copied().unwrap_or_default();
            geometry.output[axis] + last / geometry.strides[axis]
        };
        Self {
            phases: used(0).into_iter().flat_map(both).collect(),
            size: [size(0), size(1)],
            geometry: *geometry,
        }
    }

    /// Whether the channels of a group lie like this already.
    pub(super) fn is_as_it_is(&self) -> bool {
        self.geometry.strides == [1, 1]
            && self.geometry.padding == [0, 0]
            && self.geometry.image == self.size
    }

    /// Elements of a channel. `None` if a `u32` cannot count those of all channels.
    pub(super) fn channel(&self) -> Option<usize> {
        let channel = self.size[0]
            .checked_mul(self.size[1])?
            .checked_mul(self.phases.len())?;
        u32::try_from(channel.checked_mul(self.geometry.channels)?).ok()?;
        Some(channel)
    }

    /// Where the element under this tap of a channel is, for the first output.
    pub(super) fn offset(&self, tap: [usize; 2]) -> usize {
        let at: [usize; 2] = std::array::from_fn(|axis| tap[axis] * self.geometry.dilations[axis]);
        let phase = std::array::from_fn(|axis| at[axis] % self.geometry.strides[axis]);
        let index = self.phases.iter().position(|&other| other == phase);
        let [y, x]: [usize; 2] = std::array::from_fn(|axis| at[axis] / self.geometry.strides[axis]);
        (index.unwrap_or_default() * self.size[0] + y) * self.size[1] + x
    }

    /// How far the output at (`y`, `x`) is from the first one.
    #[inline(always)]
    pub(super) fn place(&self, y: usize, x: usize) -> usize {
        y * self.size[1] + x
    }

    /// Copies channels.
    #[inline(always)]
    pub(super) fn lay_out<T: Real>(&self, image: &[T], to: &mut [T]) {
        let Geometry {
            image: [height, width],
            strides: [down, across],
            padding: [above, left],
            ..
        } = self.geometry;
        let [rows, columns] = self.size;
        let planes = image
            .chunks_exact(height * width)
            .flat_map(|plane| iter::zip(iter::repeat(plane), &self.phases));
        for ((plane, &[row, column]), to) in planes.zip(to.chunks_exact_mut(rows * columns)) {
            // Columns of the phase before the image, and those in it.
            let before = left.saturating_sub(column).div_ceil(across).min(columns);
            let x = (before * across + column).saturating_sub(left);
            let inside = width
                .saturating_sub(x)
                .div_ceil(across)
                .min(columns - before);
            for (y, to) in to.chunks_exact_mut(columns).enumerate() {
                let y = (y * down + row).checked_sub(above);
                let Some(y) = y.filter(|&y| y < height && inside > 0) else {
                    to.fill(T::ZERO);
                    continue;
                };
                let (zeros, to) = to.split_at_mut(before);
                let (to, after) = to.split_at_mut(inside);
                zeros.fill(T::ZERO);
                after.fill(T::ZERO);
                let from = &plane[y * width + x..(y + 1) * width];
                match across {
                    1 => to.copy_from_slice(&from[..inside]),
                    // In a form that becomes vectors.
                    2 if from.len() >= 2 * inside => {
                        let (from, _) = from.as_chunks::<2>();
                        iter::zip(to, from).for_each(|(to, &[x, _])| *to = x);
                    }
                    _ => {
                        let from = from.iter().step_by(across);
                        iter::zip(to, from).for_each(|(to, &x)| *to = x);
                    }
                }
            }
        }
    }
}
