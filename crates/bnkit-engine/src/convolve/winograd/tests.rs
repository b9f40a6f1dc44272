//! The oracle is the sum that defines a convolution, in double precision.

use std::marker::PhantomData;

use super::*;
use crate::convolve::tests::architectures;
use crate::convolve::{Job, Lanes, Way};

/// Uniform in -1 … 1.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(step).collect()
}

/// Of `image` with `before` and `after` zeros (rows, columns) around.
fn geometry(
    [channels, kernels]: [usize; 2],
    image: [usize; 2],
    before: [usize; 2],
    after: [usize; 2],
) -> Geometry {
    Geometry {
        groups: 1,
        channels,
        kernels,
        image,
        taps: [3, 3],
        strides: [1, 1],
        dilations: [1, 1],
        padding: before,
        output: std::array::from_fn(|axis| image[axis] + before[axis] + after[axis] - 2),
    }
}

/// An output and the sum of the magnitudes of what is added.
fn defined(
    geometry: &Geometry,
    image: &[f32],
    weights: &[f32],
    bias: f32,
    [y, x]: [usize; 2],
) -> (f64, f64) {
    let [height, width] = geometry.image;
    let mut sum = (f64::from(bias), f64::from(bias.abs()));
    for (plane, taps) in image
        .chunks_exact(height * width)
        .zip(weights.chunks_exact(9))
    {
        for (tap, &weight) in taps.iter().enumerate() {
            let row = (y + tap / 3).checked_sub(geometry.padding[0]);
            let column = (x + tap % 3).checked_sub(geometry.padding[1]);
            let (Some(row), Some(column)) = (row, column) else {
                continue;
            };
            if row < height && column < width {
                let product = f64::from(weight) * f64::from(plane[row * width + column]);
                sum = (sum.0 + product, sum.1 + product.abs());
            }
        }
    }
    sum
}

fn check(geometry: &Geometry) {
    let &Geometry {
        channels,
        kernels,
        image: [height, width],
        output: [rows, columns],
        ..
    } = geometry;
    let image = numbers(channels * height * width, 1);
    let weights = numbers(kernels * channels * 9, 2);
    let bias = numbers(kernels, 3);
    for arch in architectures() {
        let way = Winograd::new(
            geometry,
            &weights,
            &bias,
            arch.dispatch(Lanes::<f32>(PhantomData)),
        );
        let way = Way::Winograd(way.unwrap());
        let mut output = vec![f32::NAN; kernels * rows * columns];
        // What is left there must not matter.
        let mut scratch = vec![f32::NAN; 1 << 20];
        arch.dispatch(Job {
            way: &way,
            image: &image,
            output: &mut output,
            scratch: &mut scratch,
        });
        for (at, &found) in output.iter().enumerate() {
            let (kernel, pixel) = (at / (rows * columns), at % (rows * columns));
            let (expected, size) = defined(
                geometry,
                &image,
                &weights[kernel * channels * 9..][..channels * 9],
                bias[kernel],
                [pixel / columns, pixel % columns],
            );
            let error = (f64::from(found) - expected).abs();
            // Written so that what is no number fails.
            assert!(
                error <= 1e-6 * size,
                "{geometry:?}, {arch:?}: {found} instead of {expected} at {at}, {:e} of {size}",
                error / size
            );
        }
    }
}

#[test]
fn odd_sizes_paddings_and_channels_give_the_sum_that_defines_them() {
    check(&geometry([5, 37], [9, 11], [1, 1], [1, 1]));
    check(&geometry([33, 70], [14, 13], [0, 2], [1, 0]));
    check(&geometry([7, 16], [3, 3], [0, 0], [0, 0]));
    check(&geometry([6, 9], [8, 5], [0, 1], [0, 0]));
    check(&geometry([3, 20], [1, 1], [2, 2], [2, 2]));
    check(&geometry([4, 18], [2, 3], [5, 4], [3, 6]));
    check(&geometry([64, 64], [7, 7], [1, 1], [1, 1]));
    check(&geometry([20, 50], [15, 30], [2, 1], [0, 2]));
}

#[test]
fn blocks_of_rows_join() {
    let geometry = geometry([150, 18], [21, 26], [1, 1], [1, 1]);
    let zeros = vec![0f32; 18 * 150 * 9];
    for arch in architectures() {
        let lanes = arch.dispatch(Lanes::<f32>(PhantomData));
        let way = Winograd::new(&geometry, &zeros, &[0.0; 18], lanes).unwrap();
        assert!(
            way.rows > 1 && !way.tiles[0].is_multiple_of(way.rows),
            "{}",
            way.rows
        );
    }
    check(&geometry);
}

#[test]
fn a_row_that_is_too_large_for_the_cache_goes_alone() {
    let geometry = geometry([130, 17], [5, 301], [1, 1], [1, 1]);
    let weights = vec![0f32; 17 * 130 * 9];
    let way = Winograd::new(&geometry, &weights, &[0.0; 17], 16).unwrap();
    assert_eq!(way.rows, 1);
    check(&geometry);
}

#[test]
fn weights_that_do_not_survive_their_transform_are_refused() {
    let geometry = geometry([1, 16], [8, 8], [1, 1], [1, 1]);
    let mut weights = vec![1f32; 16 * 9];
    assert!(Winograd::new(&geometry, &weights, &[0.0; 16], 16).is_some());
    for value in [f32::MAX, f32::INFINITY, f32::NAN] {
        weights[45..54].fill(value);
        assert!(Winograd::new(&geometry, &weights, &[0.0; 16], 16).is_none());
    }
}

#[test]
fn the_convolutions_of_residual_networks_suit() {
    let same = |channels: [usize; 2], size: usize| geometry(channels, [size, size], [1, 1], [1, 1]);
    for (channels, size) in [(64, 56), (128, 28), (256, 14)] {
        assert!(suits(&same([channels, channels], size)));
    }
    for (channels, size) in [
        ([3, 64], 56),
        ([128, 16], 56),
        ([64, 64], 7),
        ([512, 512], 14),
    ] {
        assert!(!suits(&same(channels, size)), "{channels:?}");
    }
    let fits = same([64, 64], 56);
    let others = [
        Geometry {
            strides: [2, 1],
            ..fits
        },
        Geometry {
            dilations: [1, 2],
            ..fits
        },
        Geometry { groups: 2, ..fits },
        Geometry {
            taps: [3, 2],
            ..fits
        },
    ];
    for other in &others {
        assert!(!suits(other), "{other:?}");
    }
}
