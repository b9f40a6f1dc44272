//! What is done to an image before a network sees it, as a value that YAML can describe. The order is fixed: resize, crop, colour,
//! then (x·scale − mean)/std for each colour, then the layout.

use serde::Deserialize;

/// The steps from a decoded image (0 to 255) to a network's input.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocess {
    /// How the size is changed first.
    pub resize: Option<Resize>,
    /// Height and width that are cut from the middle.
    pub crop: Option<[u32; 2]>,
    /// Which colours, in which order.
    pub color: Color,
    /// What pixel values (0 to 255) are multiplied by.
    pub scale: f64,
    /// What is then subtracted, one for each colour (or one for all).
    pub mean: Vec<f64>,
    /// What it is then divided by, one for each colour (or one for all).
    pub std: Vec<f64>,
    /// The order of the axes.
    pub layout: Layout,
}

/// A change of size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// To what.
    #[serde(flatten)]
    pub to: ResizeTo,
    /// How pixels are interpolated.
    #[serde(default)]
    pub filter: Filter,
}

/// The size after a resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeTo {
    /// The shorter side gets this length, the other follows.
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
