//! Images of another size, to the last bit as Pillow up to version 12 makes them (13 sometimes begins with the rows).
//!
//! An output pixel with its middle at c = (k + ½)·in/out is Σ wᵢ·pᵢ with wᵢ = K((i + ½ − c)/f), made to sum to 1, where f = max(in/out, 1)
//! widens the kernel K when the image shrinks. Columns come first, then rows, and each pass gives 8-bit values: weights are integers in
//! units of 2⁻²², and a sum is rounded and clipped. Networks were trained on what this gives, and calibration data should be the same.

use std::f64::consts::PI;

use bnkit_model::{Error, Limits, Result};
use image::RgbImage;
use serde::Deserialize;

/// A change of size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resize {
    /// To what.
    pub to: ResizeTo,
    /// How pixels are interpolated.
    pub filter: Filter,
}

/// The size after a resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResizeTo {
    /// The shorter side gets this length, the other follows (rounded down, as in torchvision).
    Shorter(u32),
    /// Height and width.
    Exact([u32; 2]),
}

/// How pixels are interpolated; when an image shrinks, the filter widens, as in Pillow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// The nearest pixel.
    Nearest,
    /// A triangle (Pillow's BILINEAR).
    #[default]
    Bilinear,
    /// Catmull and Rom's cubic (Pillow's BICUBIC).
    Bicubic,
    /// Lanczos' window of 3.
    Lanczos,
}

/// Bits behind the point of a weight: 8 of the 32 are a pixel's, 2 are for weights above 1 and the sign.
const BITS: u32 = 22;

impl Filter {
    /// How far the kernel reaches.
    fn reach(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn kernel(self, x: f64) -> f64 {
        let x = x.abs();
        let sinc = |x: f64| {
            if x == 0.0 {
                1.0
            } else {
                (PI * x).sin() / (PI * x)
            }
        };
        match self {
            Self::Nearest => 1.0,
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Self::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::Bicubic | Self::Lanczos => 0.0,
        }
    }

    /// The first of `from` pixels that counts for each of `to`, and the weights from there on.
    fn weights(self, from: u32, to: u32) -> Vec<(usize, Vec<i64>)> {
        let scale = f64::from(from) / f64::from(to);
        let widen = scale.max(1.0);
        // Products with reciprocals, as the last bit of a weight can decide how a pixel is rounded.
        let narrow = 1.0 / widen;
        let reach = self.reach() * widen;
        if self == Self::Nearest {
            // Step by step: where a middle falls between two pixels, how it was rounded decides.
            let middles = std::iter::successors(Some(scale * 0.5), |middle| Some(middle + scale));
            let one = |middle: f64| ((middle as usize).min(from as usize - 1), vec![1 << BITS]);
            return middles.take(to as usize).map(one).collect();
        }
        let one = |k: u32| {
            let middle = (f64::from(k) + 0.5) * scale;
            // Truncated, as below zero is cut off anyway.
            let first = (middle - reach + 0.5).max(0.0) as u32;
            let end = ((middle + reach + 0.5) as u32).min(from);
            let values: Vec<f64> = (first..end)
                .map(|i| self.kernel((f64::from(i) - middle + 0.5) * narrow))
                .collect();
            let share = 1.0 / values.iter().sum::<f64>();
            let fixed = |value: f64| (value * share * f64::from(1u32 << BITS)).round() as i64;
            (first as usize, values.into_iter().map(fixed).collect())
        };
        (0..to).map(one).collect()
    }
}

impl Resize {
    /// The image in its new size.
    ///
    /// # Errors
    /// If it would get far too large.
    pub(super) fn apply(self, image: &RgbImage) -> Result<RgbImage> {
        let (width, height) = image.dimensions();
        let (new_width, new_height) = match self.to {
            ResizeTo::Exact([height, width]) => (width, height),
            ResizeTo::Shorter(length) => {
                let longer = |long: u32, short: u32| {
                    let longer = u64::from(length) * u64::from(long) / u64::from(short.max(1));
                    u32::try_from(longer).unwrap_or(u32::MAX)
                };
                match width <= height {
                    true => (length, longer(height, width)),
                    false => (longer(width, height), length),
                }
            }
        };
        // A thin line of an image, made wider, would get longer in proportion.
        let most = Limits::get().image_pixels;
        if u64::from(new_width) * u64::from(new_height.max(height)) > most {
            return Err(Error::invalid(format!(
                "the image is {height}×{width} (height × width) and would become {new_height}×{new_width}: more than {most} pixels"
            )));
        }
        Ok(resize(image, new_width, new_height, self.filter))
    }
}

/// The image in another size.
fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let (old_width, old_height) = image.dimensions();
    let wide = match width == old_width {
        true => image.clone(),
        false => {
            let weights = filter.weights(old_width, width);
            RgbImage::from_fn(width, old_height, |x, y| {
                let (first, weights) = &weights[x as usize];
                sum(weights, |i| image.get_pixel((first + i) as u32, y).0)
            })
        }
    };
    if height == old_height {
        return wide;
    }
    let weights = filter.weights(old_height, height);
    RgbImage::from_fn(width, height, |x, y| {
        let (first, weights) = &weights[y as usize];
        sum(weights, |i| wide.get_pixel(x, (first + i) as u32).0)
    })
}

/// Rounded to the nearest, halves up, and clipped.
fn sum(weights: &[i64], pixel: impl Fn(usize) -> [u8; 3]) -> image::Rgb<u8> {
    let mut sums = [1i64 << (BITS - 1); 3];
    for (i, weight) in weights.iter().enumerate() {
        for (sum, value) in sums.iter_mut().zip(pixel(i)) {
            *sum += weight * i64::from(value);
        }
    }
    image::Rgb(sums.map(|sum| (sum >> BITS).clamp(0, 255) as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Filter; 4] = [
        Filter::Nearest,
        Filter::Bilinear,
        Filter::Bicubic,
        Filter::Lanczos,
    ];

    #[test]
    fn the_shorter_side_leads() {
        let change = |to| Resize {
            to,
            filter: Filter::Bilinear,
        };
        let size = |to, width, height| {
            let resized = change(to).apply(&RgbImage::new(width, height));
            resized.unwrap().dimensions()
        };
        assert_eq!(size(ResizeTo::Shorter(10), 20, 33), (10, 16));
        assert_eq!(size(ResizeTo::Shorter(10), 33, 20), (16, 10));
        assert_eq!(size(ResizeTo::Exact([5, 7]), 33, 20), (7, 5));
        let line = change(ResizeTo::Shorter(256)).apply(&RgbImage::new(1, 10_000));
        let error = line.unwrap_err().to_string();
        assert!(error.contains("10000×1") && error.contains("2560000×256"));
    }

    #[test]
    fn weights_sum_to_one_and_stay_inside() {
        for filter in ALL {
            for (from, to) in [(1, 7), (7, 1), (5, 5), (29, 13), (13, 29), (640, 256)] {
                let weights = filter.weights(from, to);
                assert_eq!(weights.len(), to as usize);
                for (first, weights) in weights {
                    let off = weights.iter().sum::<i64>() - (1 << BITS);
                    assert!(off.unsigned_abs() <= weights.len() as u64, "{filter:?}");
                    assert!(!weights.is_empty() && first + weights.len() <= from as usize);
                }
            }
        }
    }

    #[test]
    fn even_areas_stay_what_they_are() {
        let image = RgbImage::from_pixel(9, 5, image::Rgb([7, 130, 255]));
        for filter in ALL {
            let resized = resize(&image, 4, 11, filter);
            assert!(resized.pixels().all(|pixel| pixel.0 == [7, 130, 255]));
        }
    }

    #[test]
    fn half_the_size_by_a_triangle() {
        // Weights 1 3 3 1, at the border 3 3 1.
        let image = RgbImage::from_fn(4, 1, |x, _| image::Rgb([[8, 0, 80, 160][x as usize]; 3]));
        let resized = resize(&image, 2, 1, Filter::Bilinear);
        let found: Vec<u8> = resized.pixels().map(|pixel| pixel.0[0]).collect();
        // 104/7 = 14.86 and 720/7 = 102.86.
        assert_eq!(found, [15, 103]);
    }
}
