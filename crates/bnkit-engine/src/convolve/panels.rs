//! Products of matrices: weights by columns that lie in panels of up to three vectors.
//!
//! Eight rows of weights at a time keep a panel's sums in registers: each step loads a panel's vectors of one row and multiplies them by one weight for
//! each of the eight. Columns that would fill less than half of a last vector go the other way round: a vector of weights at
//! a time, by one column.

use std::iter;

use pulp::Simd;
use pulp::bytemuck::cast_slice;

use super::real::{Real, few_registers, lanes};

/// Rows of weights that are multiplied together.
pub(super) const ROWS: usize = 8;

/// Vectors of a panel, at most.
pub(super) const VECTORS: usize = 3;

/// One element for each row of weights, by blocks of rows; the last block ends with zeros.
pub(super) fn padded<T: Real>(elements: &[T]) -> impl Iterator<Item = [T; ROWS]> {
    elements.chunks(ROWS).map(|some| {
        let mut block = [T::ZERO; ROWS];
        block[..some.len()].copy_from_slice(some);
        block
    })
}

/// How a number of columns is split.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    /// Vectors, all or all but the last one full.
    pub(super) vectors: usize,
    /// Columns after them: less than half a vector.
    pub(super) tail: usize,
}

impl Columns {
    #[inline(always)]
    pub(super) fn new(count: usize, lanes: usize) -> Self {
        let rest = count % lanes;
        let tail = if rest < lanes / 2 { rest } else { 0 };
        Self {
            vectors: (count - tail).div_ceil(lanes),
            tail,
        }
    }

    pub(super) fn panels(&self) -> usize {
        self.vectors.div_ceil(VECTORS)
    }

    /// Vectors of one of the panels.
    #[inline(always)]
    pub(super) fn vectors_of(&self, panel: usize) -> usize {
        (self.vectors - panel * VECTORS).min(VECTORS)
    }
}

/// Multiplies eight rows of `weights` by a panel whose rows have this many `vectors`, and hands the sums of each row to `put`.
#[inline(always)]
pub(super) fn multiply<T: Real, S: Simd>(
    simd: S,
    weights: &[[T; ROWS]],
    panel: &[T],
    vectors: usize,
    put: impl FnMut(usize, &[T::Vector<S>]),
) {
    let (panel, _) = T::vectors::<S>(panel);
    // Sums, columns and a weight have to fit into the registers, of which AVX2 has 16 and the others 32.
    match (few_registers::<T, S>(), vectors) {
        (_, 1) => by_rows::<T, S, 8, 1>(simd, weights, panel, put),
        (true, 2) => by_rows::<T, S, 4, 2>(simd, weights, panel, put),
        (true, _) => by_rows::<T, S, 4, 3>(simd, weights, panel, put),
        (false, 2) => by_rows::<T, S, 8, 2>(simd, weights, panel, put),
        (false, _) => by_rows::<T, S, 8, 3>(simd, weights, panel, put),
    }
}

/// `R` rows at a time by `V` vectors.
#[inline(always)]
fn by_rows<T: Real, S: Simd, const R: usize, const V: usize>(
    simd: S,
    weights: &[[T; ROWS]],
    panel: &[T::Vector<S>],
    mut put: impl FnMut(usize, &[T::Vector<S>]),
) {
    let (panel, _) = panel.as_chunks::<V>();
    for part in 0..ROWS / R {
        let sums = sums::<T, S, R, V>(simd, weights, panel, part);
        for (row, sums) in sums.iter().enumerate() {
            put(part * R + row, sums);
        }
    }
}

/// The sums of the `part`th `R` of eight rows.
#[inline(always)]
fn sums<T: Real, S: Simd, const R: usize, const V: usize>(
    simd: S,
    weights: &[[T; ROWS]],
    panel: &[[T::Vector<S>; V]],
    part: usize,
) -> [[T::Vector<S>; V]; R] {
    let mut sums = [[T::splat(simd, T::ZERO); V]; R];
    for (weights, columns) in weights.iter().zip(panel) {
        let weights = &weights.as_chunks::<R>().0[part];
        for (sums, &weight) in sums.iter_mut().zip(weights) {
            let weight = T::splat(simd, weight);
            for (sum, &columns) in sums.iter_mut().zip(columns) {
                *sum = T::mul_add(simd, weight, columns, *sum);
            }
        }
    }
    sums
}

/// Multiplies eight rows of `weights` by one column, of which each element is there eight times.
#[inline(always)]
pub(super) fn multiply_one<T: Real, S: Simd>(
    simd: S,
    weights: &[[T; ROWS]],
    column: &[[T; ROWS]],
) -> [f64; ROWS] {
    let (weights, last_weights) = T::vectors::<S>(weights.as_flattened());
    let (column, last) = T::vectors::<S>(column.as_flattened());
    let mut sums = [T::splat(simd, T::ZERO); 4];
    let (fours, rest) = weights.as_chunks::<4>();
    let (column_fours, column_rest) = column.as_chunks::<4>();
    for (weights, column) in iter::zip(fours, column_fours) {
        for (sum, (&weight, &element)) in sums.iter_mut().zip(iter::zip(weights, column)) {
            *sum = T::mul_add(simd, weight, element, *sum);
        }
    }
    for (sum, (&weight, &element)) in sums.iter_mut().zip(iter::zip(rest, column_rest)) {
        *sum = T::mul_add(simd, weight, element, *sum);
    }
    let [a, b, c, d] = sums;
    let sum = [T::add(simd, T::add(simd, a, b), T::add(simd, c, d))];
    // A vector is some multiple of eight elements, or four of them are.
    let sums: &[T] = if lanes::<T, S>().is_multiple_of(ROWS) {
        cast_slice(&sum)
    } else {
        cast_slice(&sums)
    };
    let mut rows = [0.0; ROWS];
    for sums in sums.chunks(ROWS) {
        for (row, sum) in rows.iter_mut().zip(sums) {
            *row += sum.double();
        }
    }
    for (row, (weight, element)) in rows.iter_mut().zip(iter::zip(last_weights, last)) {
        *row += weight.double() * element.double();
    }
    rows
}
