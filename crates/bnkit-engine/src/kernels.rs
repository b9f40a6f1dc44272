//! The two loops that touch every activation: moments of planes, and the affine that normalises them.
//!
//! They are plain loops that the compiler vectorises. The same source is compiled for several instruction sets, and the widest
//! that the processor has is chosen at run time: a baseline x86-64 build converts two floats to doubles at a time, AVX-512 eight.
//! The number of partial sums is fixed in the source and nothing is contracted to fused operations, so every instruction set gives
//! the same bits. This is the only `unsafe` code of the crate: a call of a function compiled for features that were just detected.

/// Partial sums per plane: four vectors of AVX-512, enough to hide the latency of an addition.
const LANES: usize = 32;

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
    /// Mean and sum of squared deviations per channel of `data`, laid out as any number of `mean.len()` × `inner`. Two passes over
    /// each plane; what the rounded mean leaves over is corrected.
    moments = moments_of [T: Into<f64>] (
        data: &[T], channels: usize, inner: usize, mean: &mut [f64], m2: &mut [f64]
    )
}

multiversion! {
    /// `(x − centre)·scale + shift` per channel, in place.
    normalise = normalise_f32 [] (data: &mut [f32], inner: usize, affine: &Affine)
}

multiversion! {
    /// As [`normalise`], in double precision.
    normalise_double = normalise_f64 [] (data: &mut [f64], inner: usize, affine: &Affine)
}

/// What a BatchNorm does to each channel, in f64: `(x − centre)·scale + shift`.
#[derive(Debug, Clone)]
pub(crate) struct Affine {
    pub(crate) centre: Vec<f64>,
    pub(crate) scale: Vec<f64>,
    pub(crate) shift: Vec<f64>,
}

#[inline(always)]
fn sum<T: Copy + Into<f64>>(plane: &[T], term: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0f64; LANES];
    let (chunks, rest) = plane.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += term(value.into());
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += term(value.into());
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
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
        let planes = || data[channel * inner..].chunks(channels * inner);
        let mut total = 0.0;
        for plane in planes() {
            total += sum(&plane[..inner], |x| x);
        }
        let centre = total / count;
        let mut squares = 0.0;
        for plane in planes() {
            squares += sum(&plane[..inner], |x| (x - centre) * (x - centre));
        }
        mean[channel] = centre;
        m2[channel] = squares;
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

#[inline(always)]
fn normalise_f32(data: &mut [f32], inner: usize, affine: &Affine) {
    if inner == 0 {
        return;
    }
    let channels = affine.centre.len();
    for (index, plane) in data.chunks_exact_mut(inner).enumerate() {
        let channel = index % channels;
        // The centre is rounded; what that leaves over goes into the shift.
        let centre = affine.centre[channel] as f32;
        let left_over = affine.centre[channel] - f64::from(centre);
        let scale = affine.scale[channel] as f32;
        let shift = (affine.shift[channel] - left_over * affine.scale[channel]) as f32;
        for x in plane {
            *x = (*x - centre) * scale + shift;
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
