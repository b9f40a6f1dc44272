//! What is done to an image before a network sees it, as a value that YAML can describe.
//!
//! The order is fixed: resize, crop, colour, then (x·scale − mean)/std for each colour, then the layout. A preset gives all of it, and what
//! else is said replaces parts of the preset:
//!
//! ```yaml
//! preset: imagenet
//! resize: {shorter: 232, filter: bicubic}
//! ```

use std::path::Path;
use std::str::FromStr;

use bnkit_model::{Error, Result};
use image::RgbImage;
use serde::Deserialize;

pub use super::resample::{Filter, Resize, ResizeTo};
use crate::yaml;

/// The steps from a decoded image (values from 0 to 255) to a network's input.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Description")]
pub struct Preprocess {
    /// How the size is changed first.
    pub resize: Option<Resize>,
    /// Height and width that are cut from the middle.
    pub crop: Option<[u32; 2]>,
    /// Which colours, in which order.
    pub color: Color,
    /// What pixel values (0 to 255) are multiplied by.
    pub scale: f64,
    /// What is then subtracted, one for each colour (in the order of `color`) or one for all.
    pub mean: Vec<f64>,
    /// What it is then divided by, one for each colour or one for all.
    pub std: Vec<f64>,
    /// The order of the axes.
    pub layout: Layout,
}

/// Colours and their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Color {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One: 0.299 R + 0.587 G + 0.114 B.
    #[serde(alias = "gray")]
    Grey,
}

impl Color {
    /// How many values a pixel has.
    pub fn channels(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb | Self::Bgr => 3,
        }
    }
}

/// The order of the axes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Sample, colour, height, width.
    #[default]
    Nchw,
    /// Sample, height, width, colour.
    Nhwc,
}

/// Ready-made descriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// torchvision's evaluation: shorter side 256 (bilinear), 224×224 from the middle, RGB, the mean and deviation of ImageNet, NCHW.
    Imagenet,
    /// Shorter side 342 (bilinear), 299×299 from the middle, RGB, −1 to 1, NCHW.
    Inception,
    /// Keras' mode "tf": 224×224 (bilinear), RGB, −1 to 1, NHWC.
    Tensorflow,
}

/// What a YAML file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    preset: Option<Preset>,
    resize: Option<ResizeDescription>,
    crop: Option<[u32; 2]>,
    color: Option<Color>,
    scale: Option<f64>,
    mean: Option<Vec<f64>>,
    std: Option<Vec<f64>>,
    layout: Option<Layout>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResizeDescription {
    shorter: Option<u32>,
    exact: Option<[u32; 2]>,
    #[serde(default)]
    filter: Filter,
}

impl TryFrom<Description> for Preprocess {
    type Error = String;

    fn try_from(given: Description) -> Result<Self, String> {
        let mut steps = given.preset.map_or_else(Self::default, Self::preset);
        if let Some(resize) = given.resize {
            let to = match (resize.shorter, resize.exact) {
                (Some(length), None) => ResizeTo::Shorter(length),
                (None, Some(size)) => ResizeTo::Exact(size),
                _ => return Err("resize: give one of \"shorter\" and \"exact\"".to_owned()),
            };
            steps.resize = Some(Resize {
                to,
                filter: resize.filter,
            });
        }
        steps.crop = given.crop.or(steps.crop);
        steps.color = given.color.unwrap_or(steps.color);
        steps.scale = given.scale.unwrap_or(steps.scale);
        steps.mean = given.mean.unwrap_or(steps.mean);
        steps.std = given.std.unwrap_or(steps.std);
        steps.layout = given.layout.unwrap_or(steps.layout);
        steps.check()?;
        Ok(steps)
    }
}

impl FromStr for Preprocess {
    type Err = String;

    /// A preset's name, a YAML file, or the YAML itself in braces.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "imagenet" => return Ok(Self::preset(Preset::Imagenet)),
            "inception" => return Ok(Self::preset(Preset::Inception)),
            "tensorflow" => return Ok(Self::preset(Preset::Tensorflow)),
            _ => {}
        }
        if text.trim_start().starts_with('{') {
            yaml::check_depth(text)?;
            return serde_yaml::from_str(text).map_err(|error| error.to_string());
        }
        if Path::new(text).extension().is_none() && !Path::new(text).exists() {
            return Err("there are imagenet, inception, tensorflow, or a YAML file".to_owned());
        }
        let content = yaml::read(Path::new(text)).map_err(|error| error.to_string())?;
        serde_yaml::from_str(&content).map_err(|error| error.to_string())
    }
}

impl Default for Preprocess {
    /// The size as it is, RGB, values from 0 to 1, NCHW.
    fn default() -> Self {
        Self {
            resize: None,
            crop: None,
            color: Color::Rgb,
            scale: 1.0 / 255.0,
            mean: vec![0.0],
            std: vec![1.0],
            layout: Layout::Nchw,
        }
    }
}

impl Preprocess {
    /// A ready-made description.
    pub fn preset(preset: Preset) -> Self {
        let resize = |to| {
            Some(Resize {
                to,
                filter: Filter::Bilinear,
            })
        };
        let plain = Self::default();
        match preset {
            Preset::Imagenet => Self {
                resize: resize(ResizeTo::Shorter(256)),
                crop: Some([224, 224]),
                mean: vec![0.485, 0.456, 0.406],
                std: vec![0.229, 0.224, 0.225],
                ..plain
            },
            Preset::Inception => Self {
                resize: resize(ResizeTo::Shorter(342)),
                crop: Some([299, 299]),
                mean: vec![0.5],
                std: vec![0.5],
                ..plain
            },
            Preset::Tensorflow => Self {
                resize: resize(ResizeTo::Exact([224, 224])),
                scale: 1.0 / 127.5,
                mean: vec![1.0],
                layout: Layout::Nhwc,
                ..plain
            },
        }
    }

    fn check(&self) -> Result<(), String> {
        let channels = self.color.channels();
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != 1 && values.len() != channels {
                return Err(format!(
                    "{name}: expected 1 or {channels} numbers, found {}",
                    values.len()
                ));
            }
        }
        let finite = self.mean.iter().chain(&self.std).chain([&self.scale]);
        if !finite.into_iter().all(|value| value.is_finite()) || self.std.contains(&0.0) {
            return Err("scale, mean and std must be finite, and std not 0".to_owned());
        }
        let sizes = self.crop.iter().flatten().chain(match &self.resize {
            Some(Resize {
                to: ResizeTo::Exact(size),
                ..
            }) => size.as_slice(),
            Some(Resize {
                to: ResizeTo::Shorter(length),
                ..
            }) => std::slice::from_ref(length),
            None => &[],
        });
        match sizes.into_iter().all(|&size| size > 0) {
            true => Ok(()),
            false => Err("sizes must be positive".to_owned()),
        }
    }

    /// Dimensions (without samples) and values of an image, row-major.
    ///
    /// # Errors
    /// If the image is smaller than what is to be cut from it, or would get far too large.
    pub fn apply(&self, image: &RgbImage) -> Result<([usize; 3], Vec<f32>)> {
        let resized = self.resize.map(|resize| resize.apply(image)).transpose()?;
        let image = resized.as_ref().unwrap_or(image);
        let (width, height) = image.dimensions();
        let [rows, columns] = self.crop.unwrap_or([height, width]);
        if rows > height || columns > width {
            return Err(Error::invalid(format!(
                "the image is {height}×{width} (height × width), and {rows}×{columns} are to be cut from it: resize it first"
            )));
        }
        let (top, left) = (middle(height, rows), middle(width, columns));
        let (rows, columns, channels) = (rows as usize, columns as usize, self.color.channels());
        let pick = |values: &[f64], channel: usize| values[channel % values.len()];
        let mut values = vec![0f32; rows * columns * channels];
        for row in 0..rows {
            for column in 0..columns {
                let [red, green, blue] = image.get_pixel(left + column as u32, top + row as u32).0;
                let colors = match self.color {
                    Color::Rgb => [red, green, blue],
                    Color::Bgr => [blue, green, red],
                    Color::Grey => [luma(red, green, blue); 3],
                };
                for (channel, &color) in colors.iter().enumerate().take(channels) {
                    let value = (f64::from(color) * self.scale - pick(&self.mean, channel))
                        / pick(&self.std, channel);
                    let at = match self.layout {
                        Layout::Nchw => (channel * rows + row) * columns + column,
                        Layout::Nhwc => (row * columns + column) * channels + channel,
                    };
                    values[at] = value as f32;
                }
            }
        }
        let dims = match self.layout {
            Layout::Nchw => [channels, rows, columns],
            Layout::Nhwc => [rows, columns, channels],
        };
        Ok((dims, values))
    }
}

/// Where a part of `inner` begins in the middle of `outer`: half the rest, a half rounded to even as torchvision does.
fn middle(outer: u32, inner: u32) -> u32 {
    (f64::from(outer - inner) / 2.0).round_ties_even() as u32
}

/// The brightness by ITU-R BT.601, as Pillow computes it.
fn luma(red: u8, green: u8, blue: u8) -> u8 {
    let sum = 19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue);
    ((sum + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 200]))
    }

    #[test]
    fn the_middle_is_cut_and_normalised_by_colour() {
        let steps = Preprocess {
            crop: Some([2, 2]),
            color: Color::Bgr,
            scale: 1.0,
            mean: vec![200.0, 0.0, 1.0],
            std: vec![1.0, 2.0, 1.0],
            ..Preprocess::default()
        };
        let (dims, values) = steps.apply(&gradient(4, 6)).unwrap();
        assert_eq!(dims, [3, 2, 2]);
        assert_eq!(
            values,
            [0., 0., 0., 0., 1., 1., 1.5, 1.5, 0., 1., 0., 1.].map(|x: f32| x)
        );
        let nhwc = Preprocess {
            layout: Layout::Nhwc,
            ..steps
        };
        let (dims, values) = nhwc.apply(&gradient(4, 6)).unwrap();
        assert_eq!(dims, [2, 2, 3]);
        assert_eq!(values[..6], [0., 1., 0., 0., 1., 1.]);
        let error = nhwc.apply(&gradient(1, 6)).unwrap_err().to_string();
        assert!(error.contains("6×1"), "{error}");
    }

    #[test]
    fn grey_weighs_the_colours_and_rounds() {
        // 2.99 + 58.7 + 22.8 = 84.49.
        assert_eq!(luma(10, 100, 200), 84);
        assert_eq!(luma(255, 255, 255), 255);
    }

    #[test]
    fn a_text_is_a_preset_or_yaml() {
        let read = str::parse::<Preprocess>;
        assert_eq!(read("inception"), Ok(Preprocess::preset(Preset::Inception)));
        let small = read("{preset: imagenet, crop: [32, 48]}").unwrap();
        assert_eq!(small.crop, Some([32, 48]));
        assert_eq!(small.mean, [0.485, 0.456, 0.406]);
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        let path = file.path().to_str().unwrap();
        std::fs::write(path, "color: grey\nscale: 1\n").unwrap();
        assert_eq!(read(path).unwrap().scale, 1.0);
        std::fs::write(path, "colour: grey\n").unwrap();
        let wrong = read(path).unwrap_err();
        assert!(wrong.contains("colour"), "{wrong}");
        let wrong = read("imagnet").unwrap_err();
        assert!(wrong.contains("imagenet, inception"), "{wrong}");
        assert!(read("no.yaml").is_err() && read("{crop: 3}").is_err());
    }

    #[test]
    fn a_description_changes_a_preset() {
        let read = |text: &str| serde_json::from_str::<Preprocess>(text);
        let steps =
            read(r#"{"preset": "imagenet", "resize": {"shorter": 232, "filter": "bicubic"}}"#);
        let steps = steps.unwrap();
        assert_eq!(steps.mean, [0.485, 0.456, 0.406]);
        assert_eq!(
            steps.resize,
            Some(Resize {
                to: ResizeTo::Shorter(232),
                filter: Filter::Bicubic
            })
        );
        for wrong in [
            r#"{"presett": "imagenet"}"#,
            r#"{"mean": [1, 2]}"#,
            r#"{"std": [0]}"#,
            r#"{"crop": [0, 1]}"#,
            r#"{"resize": {"shorter": 2, "exact": [2, 2]}}"#,
            r#"{"resize": {"filter": "bicubic"}}"#,
            r#"{"color": "grey", "mean": [1, 2, 3]}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
