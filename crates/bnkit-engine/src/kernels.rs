//! The loops that touch every activation: moments of planes, the affine that normalises them, depthwise convolution.
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

multiversion! {
    /// A depthwise convolution; see [`Taps`] for the way. `bias` has one element, or one for each channel.
    depthwise = depthwise_of [] (
        taps: &Taps, image: &[f32], kernel: &[f32], bias: &[f32], output: &mut [f32]
    )
}

/// The geometry of a depthwise convolution: where each tap finds its element, in a plane that was taken apart by the strides.
#[derive(Debug)]
pub(crate) struct Taps {
    /// Of each tap, from the element that belongs to an output's place.
    pub(crate) offsets: Vec<usize>,
    pub(crate) strides: [usize; 2],
    pub(crate) padding: [usize; 2],
    /// Height and width of the image.
    pub(crate) image: [usize; 2],
    /// The rows of each phase.
    pub(crate) phase_rows: usize,
    /// The elements from one row of a phase to the next.
    pub(crate) pitch: usize,
    /// Height and width of the output.
    pub(crate) output: [usize; 2],
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

/// Outputs that are computed at once.
const RUN: usize = 64;

#[inline(always)]
fn depthwise_of(taps: &Taps, image: &[f32], kernel: &[f32], bias: &[f32], output: &mut [f32]) {
    let [height, width] = taps.image;
    let [rows, columns] = taps.output;
    let [down, across] = taps.strides;
    let (pitch, phase) = (taps.pitch, taps.phase_rows * taps.pitch);
    let count = taps.offsets.len();
    let length = (rows - 1) * pitch + columns;
    // Runs may read and write beyond the last row. The zeros around the image stay.
    let mut phases = vec![0f32; phase * down * across + 2 * RUN];
    let mut runs = vec![0f32; length.next_multiple_of(RUN)];
    let channels = kernel.len() / count;
    let planes = image
        .chunks_exact(height * width)
        .zip(output.chunks_exact_mut(rows * columns));
    for (index, (plane, output)) in planes.enumerate() {
        let channel = index % channels;
        for (y, row) in plane.chunks_exact(width).enumerate() {
            let y = y + taps.padding[0];
            let start = y % down * across * phase + y / down * pitch;
            if across == 1 {
                phases[start + taps.padding[1]..][..width].copy_from_slice(row);
                continue;
            }
            for first in 0..across {
                let x = first + taps.padding[1];
                let to = &mut phases[start + x % across * phase + x / across..];
                for (to, &from) in to.iter_mut().zip(row.iter().skip(first).step_by(across)) {
                    *to = from;
                }
            }
        }
        let weights = &kernel[channel * count..][..count];
        let bias = bias[if bias.len() == 1 { 0 } else { channel }];
        let (runs_of, _) = runs.as_chunks_mut::<RUN>();
        for (number, run) in runs_of.iter_mut().enumerate() {
            let mut sums = [bias; RUN];
            for (&weight, &offset) in weights.iter().zip(&taps.offsets) {
                let from = offset + number * RUN;
                for (sum, &value) in sums.iter_mut().zip(&phases[from..from + RUN]) {
                    *sum += weight * value;
                }
            }
            *run = sums;
        }
        for (row, output) in output.chunks_exact_mut(columns).enumerate() {
            output.copy_from_slice(&runs[row * pitch..][..columns]);
        }
    }
}
