//! f32 and f64 as elements of vectors: each kernel is written once, over [`Real`].

use std::cell::RefCell;

use pulp::Simd;
use pulp::bytemuck::Pod;
use tract_onnx::tract_core::internal::*;

/// A float that [`pulp`] has vectors of.
pub(crate) trait Real: Datum + Copy + Pod {
    /// As many as a register of the processor holds.
    type Vector<S: Simd>: Copy + Pod;

    const ZERO: Self;

    /// Whether sums may be taken in another order with more roundings, for speed. Doubles are there to be exact, and an infinite
    /// element must not become NaN in its neighbours.
    const FEWER_PRODUCTS: bool;

    /// The nearest one.
    fn nearest(value: f64) -> Self;
    fn double(self) -> f64;

    fn vectors<S: Simd>(elements: &[Self]) -> (&[Self::Vector<S>], &[Self]);
    fn vectors_mut<S: Simd>(elements: &mut [Self]) -> (&mut [Self::Vector<S>], &mut [Self]);
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;
    fn add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn sub<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn mul<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a·b + c`, rounded once.
    fn mul_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;

    /// Lends this thread's scratch space, which keeps its content: fresh memory costs as much as laying out an image in it.
    fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R;
}

/// Elements of a vector.
#[inline(always)]
pub(super) const fn lanes<T: Real, S: Simd>() -> usize {
    size_of::<T::Vector<S>>() / size_of::<T>()
}

/// Whether the processor has 16 registers for vectors, as with AVX2, and not 32.
#[inline(always)]
pub(super) const fn few_registers<T: Real, S: Simd>() -> bool {
    size_of::<T::Vector<S>>() == 32
}

/// Elements in a line of the cache, and more.
pub(super) const LINE: usize = 16;

/// `size` elements of `scratch`, which grows if it has to, from one that begins a line of the cache.
pub(super) fn from_line<T: Real>(scratch: &mut Vec<T>, size: usize) -> &mut [T] {
    if scratch.len() < size + LINE {
        scratch.resize(size + LINE, T::ZERO);
    }
    let offset = scratch.as_ptr().align_offset(LINE * size_of::<T>());
    // Where that is not known, everything still fits, and only speed is lost.
    let offset = if offset < LINE { offset } else { 0 };
    &mut scratch[offset..offset + size]
}

macro_rules! real {
    ($float:ident, $vector:ident, $fewer:expr, $as:ident, $as_mut:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident, $mul_add:ident) => {
        impl Real for $float {
            type Vector<S: Simd> = S::$vector;

            const ZERO: Self = 0.0;
            const FEWER_PRODUCTS: bool = $fewer;

            #[inline(always)]
            fn nearest(value: f64) -> Self {
                value as Self
            }

            #[inline(always)]
            fn double(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn vectors<S: Simd>(elements: &[Self]) -> (&[S::$vector], &[Self]) {
                S::$as(elements)
            }

            #[inline(always)]
            fn vectors_mut<S: Simd>(elements: &mut [Self]) -> (&mut [S::$vector], &mut [Self]) {
                S::$as_mut(elements)
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> S::$vector {
                simd.$splat(value)
            }

            #[inline(always)]
            fn add<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn sub<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$sub(a, b)
            }

            #[inline(always)]
            fn mul<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$mul(a, b)
            }

            #[inline(always)]
            fn mul_add<S: Simd>(
                simd: S,
                a: S::$vector,
                b: S::$vector,
                c: S::$vector,
            ) -> S::$vector {
                simd.$mul_add(a, b, c)
            }

            fn with_scratch<R>(work: impl FnOnce(&mut Vec<Self>) -> R) -> R {
                thread_local! {
                    static SCRATCH: RefCell<Vec<$float>> = const { RefCell::new(vec![]) };
                }
                SCRATCH.with_borrow_mut(work)
            }
        }
    };
}

real!(
    f32,
    f32s,
    true,
    as_simd_f32s,
    as_mut_simd_f32s,
    splat_f32s,
    add_f32s,
    sub_f32s,
    mul_f32s,
    mul_add_f32s
);
real!(
    f64,
    f64s,
    false,
    as_simd_f64s,
    as_mut_simd_f64s,
    splat_f64s,
    add_f64s,
    sub_f64s,
    mul_f64s,
    mul_add_f64s
);
