//! A sum over taps in double precision is the oracle; every kind of vector that this processor has is tried.

use std::fmt::Debug;

use super::*;
use crate::convolve::tests::architectures;
use crate::convolve::{Job, Way};

fn numbers<T: Real>(count: usize) -> Vec<T> {
    let each = (0..count).map(|n| T::nearest((n * 37 % 101) as f64 / 50.0 - 1.0));
    each.collect()
}

/// The sum that defines a convolution.
fn expected<T: Real>(geometry: &Geometry, image: &[T], weights: &[T], bias: &[T]) -> Vec<f64> {
    let Geometry {
        channels, kernels, ..
    } = *geometry;
    let [high, wide] = geometry.taps;
    let [height, width] = geometry.image;
    let mut output = vec![];
    for kernel in 0..geometry.groups * kernels {
        let first = kernel / kernels * channels;
        for y in 0..geometry.output[0] {
            for x in 0..geometry.output[1] {
                let mut sum = bias[kernel].double();
                for tap in 0..channels * high * wide {
                    let (channel, i, j) = (tap / (high * wide), tap / wide % high, tap % wide);
                    let row = (y * geometry.strides[0] + i * geometry.dilations[0])
                        .checked_sub(geometry.padding[0]);
                    let column = (x * geometry.strides[1] + j * geometry.dilations[1])
                        .checked_sub(geometry.padding[1]);
                    let (Some(row), Some(column)) = (row, column) else {
                        continue;
                    };
                    if row < height && column < width {
                        let pixel = image[((first + channel) * height + row) * width + column];
                        let weight = weights[kernel * channels * high * wide + tap];
                        sum += pixel.double() * weight.double();
                    }
                }
                output.push(sum);
            }
        }
    }
    output
}

fn compare<T: Real + Debug>(geometry: Geometry, tolerance: f64) {
    let Geometry {
        groups,
        channels,
        kernels,
        ..
    } = geometry;
    let depth = channels * geometry.taps.iter().product::<usize>();
    let image = numbers::<T>(groups * channels * geometry.image.iter().product::<usize>());
    let weights = numbers::<T>(groups * kernels * depth);
    let bias = numbers::<T>(groups * kernels);
    let expected = expected(&geometry, &image, &weights, &bias);
    let way = Way::Im2col(Im2col::new(geometry, &weights, &bias).unwrap());
    for processor in architectures() {
        let mut output = vec![T::nearest(f64::NAN); expected.len()];
        // What an earlier image left behind must not show.
        let mut scratch = vec![T::nearest(f64::NAN); 100_000];
        processor.dispatch(Job {
            way: &way,
            image: &image,
            output: &mut output,
            scratch: &mut scratch,
        });
        for (index, (found, expected)) in output.iter().zip(&expected).enumerate() {
            let error = (found.double() - expected).abs();
            assert!(
                error < tolerance,
                "{geometry:?} on {processor:?}: {found:?} instead of {expected} at {index}"
            );
        }
    }
}

fn geometry(channels: usize, kernels: usize, image: [usize; 2]) -> Geometry {
    Geometry {
        groups: 1,
        channels,
        kernels,
        image,
        taps: [1, 1],
        strides: [1, 1],
        dilations: [1, 1],
        padding: [0, 0],
        output: image,
    }
}

#[test]
fn every_number_of_outputs_fills_its_panels() {
    for pixels in 1..=110 {
        let geometry = geometry(3, 9, [1, pixels]);
        compare::<f32>(geometry, 1e-5);
        compare::<f64>(geometry, 1e-13);
    }
}

#[test]
fn passes_and_runs_join() {
    // Three passes; several runs of several panels, and some outputs after them.
    for (depth, size) in [(PASS * 2 + 37, [15, 33]), (7, [111, 131]), (PASS, [7, 7])] {
        let geometry = geometry(depth, 11, size);
        compare::<f32>(geometry, 1e-3);
        compare::<f64>(geometry, 1e-10);
    }
}

#[test]
fn rows_of_every_width_are_put_together() {
    for width in 1..=35 {
        for strides in [[1, 1], [2, 1], [1, 3]] {
            let padding = [1, 2];
            let taps = [2, 3];
            let image = [5, width];
            let output = std::array::from_fn(|axis| {
                (image[axis] + 2 * padding[axis] - taps[axis]) / strides[axis] + 1
            });
            let geometry = Geometry {
                groups: 2,
                taps,
                strides,
                padding,
                output,
                ..geometry(3, 5, image)
            };
            compare::<f32>(geometry, 1e-5);
            compare::<f64>(geometry, 1e-13);
        }
    }
}

#[test]
fn only_phases_that_taps_use_are_laid_out() {
    let strided = Geometry {
        strides: [2, 2],
        output: [4, 4],
        ..geometry(3, 8, [8, 8])
    };
    // One element of each 2 × 2, from three channels.
    let im2col = Im2col::new(strided, &numbers::<f32>(24), &numbers(8)).unwrap();
    assert_eq!(im2col.laid, 3 * 4 * 4);
    let as_it_is = geometry(3, 8, [8, 8]);
    let im2col = Im2col::new(as_it_is, &numbers::<f32>(24), &numbers(8)).unwrap();
    assert_eq!(im2col.laid, 0);
}
