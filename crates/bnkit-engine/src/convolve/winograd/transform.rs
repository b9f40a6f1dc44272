//! What goes into the products and what comes out of them: G, Bᵀ and Aᵀ of F(2, 3), and pixels in the order in which Bᵀ takes them.

use pulp::Simd;

use super::POINTS;
use crate::convolve::geometry::Geometry;
use crate::convolve::real::Real;

/// G g Gᵀ of one 3 × 3 kernel, each element rounded once.
pub(super) fn of_kernel<T: Real>(weights: &[T; 9]) -> [T; POINTS] {
    let each = |[a, b, c]: [f64; 3]| [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c];
    let columns: [[f64; 4]; 3] =
        std::array::from_fn(|x| each([0, 3, 6].map(|row| weights[row + x].double())));
    let rows: [[f64; 4]; 4] = std::array::from_fn(|y| each(columns.map(|column| column[y])));
    std::array::from_fn(|point| T::nearest(rows[point / 4][point % 4]))
}

/// Bᵀ of four pixels.
#[inline(always)]
pub(super) fn before<T: Real, S: Simd>(
    simd: S,
    [a, b, c, d]: [T::Vector<S>; 4],
) -> [T::Vector<S>; 4] {
    [
        T::sub(simd, a, c),
        T::add(simd, b, c),
        T::sub(simd, c, b),
        T::sub(simd, b, d),
    ]
}

/// Aᵀ of four sums.
#[inline(always)]
pub(super) fn after<T: Real, S: Simd>(
    simd: S,
    [a, b, c, d]: [T::Vector<S>; 4],
) -> [T::Vector<S>; 2] {
    [
        T::add(simd, a, T::add(simd, b, c)),
        T::sub(simd, T::sub(simd, b, c), d),
    ]
}

/// The pixels of one channel that some rows of tiles need, taken apart: the neighbours of a pixel are those of the next tiles.
pub(super) struct Phases {
    image: [usize; 2],
    /// Rows above, columns to the left.
    padding: [usize; 2],
    /// Tiles in a row.
    across: usize,
    /// Rows of tiles.
    rows: usize,
    /// Floats of a phase.
    size: usize,
}

impl Phases {
    /// For `rows` rows of `across` tiles, of which vectors up to `run` are read.
    #[inline(always)]
    pub(super) fn new(geometry: &Geometry, across: usize, rows: usize, run: usize) -> Self {
        Self {
            image: geometry.image,
            padding: geometry.padding,
            across,
            rows,
            size: ((rows + 1) * across).max(run + across),
        }
    }

    /// Floats of all phases, and of the row that is being taken apart.
    #[inline(always)]
    pub(super) fn size(&self) -> usize {
        8 * self.size + 2 * (self.across + 1)
    }

    /// Where the first tile's pixel at (`y`, `x`) is: the other tiles' follow.
    #[inline(always)]
    pub(super) fn place(&self, y: usize, x: usize) -> usize {
        (y % 2 * 4 + x) * self.size + y / 2 * self.across
    }

    /// Takes a channel apart for rows of tiles from `first` on, with zeros around it.
    #[inline(always)]
    pub(super) fn take<T: Real>(&self, plane: &[T], first: usize, to: &mut [T]) {
        let [height, width] = self.image;
        let [above, left] = self.padding;
        let across = self.across;
        let (to, line) = to.split_at_mut(8 * self.size);
        let line = &mut line[..2 * (across + 1)];
        line.fill(T::ZERO);
        let count = width.min(line.len().saturating_sub(left));
        for y in 0..2 * (self.rows + 1) {
            let row = (2 * first + y).checked_sub(above);
            let row = row.filter(|&row| row < height && count > 0);
            if let Some(row) = row {
                line[left..][..count].copy_from_slice(&plane[row * width..][..count]);
            }
            let to = &mut to[y % 2 * 4 * self.size..][..4 * self.size];
            let (left, right) = to.split_at_mut(2 * self.size);
            let (a, b) = left.split_at_mut(self.size);
            let (c, d) = right.split_at_mut(self.size);
            let [a, b, c, d] = [a, b, c, d].map(|to| &mut to[y / 2 * across..][..across]);
            if row.is_none() {
                for to in [a, b, c, d] {
                    to.fill(T::ZERO);
                }
                continue;
            }
            let (pairs, _) = line.as_chunks::<2>();
            let pairs = &pairs[..across + 1];
            for (pairs, (((a, b), c), d)) in pairs.windows(2).zip(a.iter_mut().zip(b).zip(c).zip(d))
            {
                [*a, *b] = pairs[0];
                [*c, *d] = pairs[1];
            }
        }
    }
}
