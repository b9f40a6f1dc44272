//! The loops that touch every activation: moments of planes, the affine that normalises them, sums, gates, maximum pooling.
//!
//! They are plain loops that the compiler vectorises. The same source is compiled for several instruction sets, and the widest
//! that the processor has is chosen at run time: a baseline x86-64 build converts two floats to doubles at a time, AVX-512 eight.
//! The number of partial sums is fixed in the source and nothing is contracted to fused operations, so every instruction set gives
//! the same bits. This is the only `unsafe` code of the crate: a call of a function compiled for features that were just detected.

use std::hint::black_box;

/// Partial sums per plane: four vectors of AVX-512, enough to hide the latency of an addition.
const LANES: usize = 32;

/// What is left of a plane goes into the partial sums so many at a time: a vector of AVX-512.
const PART: usize = 8;

/// How many times the sum of squares may shrink when it is brought to the mean: two digits of f64's sixteen.
const CANCELLING: f64 = 64.0;

/// Defines a function that runs `$inner`, compiled for the best instruction set that the processor has.
macro_rules! multiversion {
    ($(#[$doc:meta])* $name:ident = $inner:ident [$($generic:ident: $bound:path),*] ($($argument:ident: $kind:ty),*)) => {
        $(#[$doc])*
        pub(crate) fn $name<$($generic: Copy + $bound),*>($($argument: $kind),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2<$($generic: Copy + $bound),*>($($argument: $kind),*) {
                    $inner($($argument),*);
                }
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
                fn avx512<$($generic: Copy + $bound),*>($($argument: $kind),*) {
                    $inner($($argument),*);
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw")
                {
                    // SAFETY: the processor has these features.
                    #[allow(unsafe_code)]
                    return unsafe { avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has this feature.
                    #[allow(unsafe_code)]
                    return unsafe { avx2($($argument),*) };
                }
            }
            $inner($($argument),*);
        }
    };
}

multiversion! {
    /// Mean and sum of squared deviations per channel of `data`, laid out as any number of `mean.len()` × `inner`. One pass over each
    /// plane, around a number close to its mean; a second one where that was not close enough.
    moments = moments_of [T: Into<f64>] (
        data: &[T], channels: usize, inner: usize, mean: &mut [f64], m2: &mut [f64]
    )
}

multiversion! {
    /// `(x − centre)·scale + shift` per channel, kept between `bounds`, in place.
    normalise = normalise_f32 [] (data: &mut [f32], inner: usize, affine: &Affine, bounds: Bounds)
}

multiversion! {
    /// As [`normalise`], of `data` into `to`.
    normalise_into = normalise_f32_into [] (
        data: &[f32], to: &mut [f32], inner: usize, affine: &Affine, bounds: Bounds
    )
}

multiversion! {
    /// As [`normalise`], in double precision.
    normalise_double = normalise_f64 [] (data: &mut [f64], inner: usize, affine: &Affine)
}

multiversion! {
    /// Adds `other` to `sum`, and keeps the result between `bounds`.
    add = add_of [] (sum: &mut [f32], other: &[f32], bounds: Bounds)
}

multiversion! {
    /// Multiplies each plane of `inner` elements by its factor.
    gate = gate_of [] (data: &mut [f32], inner: usize, factors: &[f32])
}

multiversion! {
    /// The sum of each plane of `inner` elements, rounded once.
    totals = totals_of [] (data: &[f32], inner: usize, totals: &mut [f32])
}

multiversion! {
    /// The largest element of each window.
    max_pool = max_pool_of [] (window: &Window, image: &[f32], output: &mut [f32])
}

/// The geometry of maximum pooling; rows before columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) size: [usize; 2],
    pub(crate) strides: [usize; 2],
    pub(crate) dilations: [usize; 2],
    /// Rows above, columns to the left.
    pub(crate) padding: [usize; 2],
    pub(crate) image: [usize; 2],
    pub(crate) output: [usize; 2],
}

/// Leaves the wide registers of the processor clean. tract's AVX-512 kernels do not, and each plain SSE instruction that comes after
/// them on the same thread then keeps the upper halves alive, and waits for what it has nothing to do with (Intel's optimisation manual, on
/// mixing SSE and AVX code). What the compiler makes of wide code ends with the instruction that cleans them.
pub(crate) fn clean_registers() {
    add(&mut black_box([0.0; LANES]), &[0.0; LANES], Bounds::NONE);
}

/// The least and the largest value that an activation lets through: Relu is from 0 to infinity. NaN goes through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) least: f32,
    pub(crate) most: f32,
}

impl Bounds {
    /// Everything.
    pub(crate) const NONE: Self = Self {
        least: f32::NEG_INFINITY,
        most: f32::INFINITY,
    };

    #[inline(always)]
    fn keep(self, x: f32) -> f32 {
        let x = if x < self.least { self.least } else { x };
        if x > self.most { self.most } else { x }
    }
}

/// What a BatchNorm does to each channel, in f64: `(x − centre)·scale + shift`.
#[derive(Debug, Clone)]
pub(crate) struct Affine {
    pub(crate) centre: Vec<f64>,
    pub(crate) scale: Vec<f64>,
    pub(crate) shift: Vec<f64>,
}

#[inline(always)]
fn total(mut lanes: [f64; LANES]) -> f64 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The sums of the deviations from `centre`, and of their squares, of planes of `inner` elements that are `pitch` apart.
#[inline(always)]
fn deviations<T: Copy + Into<f64>>(
    planes: &[T],
    pitch: usize,
    inner: usize,
    centre: f64,
) -> (f64, f64) {
    let (mut sums, mut squares) = ([0f64; LANES], [0f64; LANES]);
    for plane in planes.chunks(pitch) {
        let (chunks, rest) = plane[..inner].as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                let deviation = chunk[lane].into() - centre;
                sums[lane] += deviation;
                squares[lane] += deviation * deviation;
            }
        }
        // Of planes of 7 × 7 this is a third: as wide as there is something.
        let (parts, last) = rest.as_chunks::<PART>();
        let lanes = sums.as_chunks_mut::<PART>().0.iter_mut();
        let lanes = lanes.zip(squares.as_chunks_mut::<PART>().0);
        for (part, (sums, squares)) in parts.iter().zip(lanes) {
            for lane in 0..PART {
                let deviation = part[lane].into() - centre;
                sums[lane] += deviation;
                squares[lane] += deviation * deviation;
            }
        }
        for (lane, &value) in (parts.len() * PART..).zip(last) {
            let deviation = value.into() - centre;
            sums[lane] += deviation;
            squares[lane] += deviation * deviation;
        }
    }
    (total(sums), total(squares))
}

#[inline(always)]
fn moments_of<T: Copy + Into<f64>>(
    data: &[T],
    channels: usize,
    inner: usize,
    mean: &mut [f64],
    m2: &mut [f64],
) {
    if channels == 0 || inner == 0 {
        return;
    }
    if inner == 1 {
        return moments_of_rows(data, channels, mean, m2);
    }
    let outer = data.len() / (channels * inner);
    let count = (outer * inner) as f64;
    for channel in 0..channels {
        let planes = &data[channel * inner..];
        // Σ(x − c)² − (Σ(x − c))²/n cancels little if c is within a few deviations of the mean, as some elements' mean mostly is.
        let first = &planes[..inner.min(LANES)];
        let mut centre = first.iter().map(|&x| x.into()).sum::<f64>() / first.len() as f64;
        let (mut sum, mut squares) = deviations(planes, channels * inner, inner, centre);
        let mut off = sum * sum / count;
        // NaN is not close either.
        let close = squares <= CANCELLING * (squares - off);
        if !close {
            centre += sum / count;
            (sum, squares) = deviations(planes, channels * inner, inner, centre);
            off = sum * sum / count;
        }
        mean[channel] = centre + sum / count;
        m2[channel] = (squares - off).max(0.0);
    }
}

/// Planes of one element: the channels lie side by side.
#[inline(always)]
fn moments_of_rows<T: Copy + Into<f64>>(
    data: &[T],
    channels: usize,
    mean: &mut [f64],
    m2: &mut [f64],
) {
    let count = (data.len() / channels) as f64;
    for row in data.chunks_exact(channels) {
        for (mean, &value) in mean.iter_mut().zip(row) {
            *mean += value.into();
        }
    }
    mean.iter_mut().for_each(|mean| *mean /= count);
    for row in data.chunks_exact(channels) {
        for ((m2, &mean), &value) in m2.iter_mut().zip(&*mean).zip(row) {
            let deviation = value.into() - mean;
            *m2 += deviation * deviation;
        }
    }
}

/// Centre, scale and shift of a channel.
#[inline(always)]
fn of_channel(affine: &Affine, channel: usize) -> [f32; 3] {
    // The centre is rounded; what that leaves over goes into the shift.
    let centre = affine.centre[channel] as f32;
    let left_over = affine.centre[channel] - f64::from(centre);
    let shift = affine.shift[channel] - left_over * affine.scale[channel];
    [centre, affine.scale[channel] as f32, shift as f32]
}

#[inline(always)]
fn normalise_f32(data: &mut [f32], inner: usize, affine: &Affine, bounds: Bounds) {
    if inner == 0 {
        return;
    }
    let channels = affine.centre.len();
    for (index, plane) in data.chunks_exact_mut(inner).enumerate() {
        let [centre, scale, shift] = of_channel(affine, index % channels);
        for x in plane {
            *x = bounds.keep((*x - centre) * scale + shift);
        }
    }
}

#[inline(always)]
fn normalise_f32_into(data: &[f32], to: &mut [f32], inner: usize, affine: &Affine, bounds: Bounds) {
    if inner == 0 {
        return;
    }
    let channels = affine.centre.len();
    let planes = data.chunks_exact(inner).zip(to.chunks_exact_mut(inner));
    for (index, (plane, to)) in planes.enumerate() {
        let [centre, scale, shift] = of_channel(affine, index % channels);
        for (x, to) in plane.iter().zip(to) {
            *to = bounds.keep((x - centre) * scale + shift);
        }
    }
}

#[inline(always)]
fn add_of(sum: &mut [f32], other: &[f32], bounds: Bounds) {
    for (sum, &other) in sum.iter_mut().zip(other) {
        *sum = bounds.keep(*sum + other);
    }
}

#[inline(always)]
fn gate_of(data: &mut [f32], inner: usize, factors: &[f32]) {
    if inner == 0 {
        return;
    }
    for (plane, &factor) in data.chunks_exact_mut(inner).zip(factors) {
        plane.iter_mut().for_each(|x| *x *= factor);
    }
}

#[inline(always)]
fn totals_of(data: &[f32], inner: usize, totals: &mut [f32]) {
    if inner == 0 {
        return;
    }
    for (plane, to) in data.chunks_exact(inner).zip(totals) {
        *to = deviations(plane, inner, inner, 0.0).0 as f32;
    }
}

#[inline(always)]
fn max_pool_of(window: &Window, image: &[f32], output: &mut [f32]) {
    let [height, width] = window.image;
    let [rows, columns] = window.output;
    let [high, wide] = window.size;
    let [down, across] = window.strides;
    let (above, left) = (window.padding[0], window.padding[1]);
    let reach = (columns - 1) * across + (wide - 1) * window.dilations[1] + 1;
    // The largest of the rows under a window, between columns that are never larger.
    let mut line = vec![f32::NEG_INFINITY; reach.max(left + width)];
    let planes = image
        .chunks_exact(height * width)
        .zip(output.chunks_exact_mut(rows * columns));
    for (plane, output) in planes {
        for (y, output) in output.chunks_exact_mut(columns).enumerate() {
            let inside = &mut line[left..][..width];
            inside.fill(f32::NEG_INFINITY);
            for tap in 0..high {
                let row = (y * down + tap * window.dilations[0]).checked_sub(above);
                let Some(row) = row.filter(|&row| row < height) else {
                    continue;
                };
                for (most, &x) in inside.iter_mut().zip(&plane[row * width..][..width]) {
                    *most = if *most < x { x } else { *most };
                }
            }
            for (x, output) in output.iter_mut().enumerate() {
                let taps = line[x * across..].iter().step_by(window.dilations[1]);
                let largest = |most: f32, &x: &f32| if most < x { x } else { most };
                *output = taps.take(wide).fold(f32::NEG_INFINITY, largest);
            }
        }
    }
}

#[inline(always)]
fn normalise_f64(data: &mut [f64], inner: usize, affine: &Affine) {
    if inner == 0 {
        return;
    }
    let channels = affine.centre.len();
    for (index, plane) in data.chunks_exact_mut(inner).enumerate() {
        let channel = index % channels;
        let (centre, scale) = (affine.centre[channel], affine.scale[channel]);
        let shift = affine.shift[channel];
        for x in plane {
            *x = (*x - centre) * scale + shift;
        }
    }
}
