//! Whether a Conv sees anything but its input: where it does, a shift in front of it has not the same effect everywhere.

use bnkit_model::onnx::AttributeValue;
use bnkit_model::onnx::{Dim, Node};

use super::book::{Answer, Book, ints};

/// The window of a Conv or ConvTranspose.
pub(super) struct Window {
    pub(super) kernel: Vec<i64>,
    pub(super) strides: Vec<i64>,
    pub(super) dilations: Vec<i64>,
    /// Explicit padding: all beginnings, then all ends.
    pub(super) pads: Vec<i64>,
    /// "NOTSET", "VALID", "SAME_UPPER" or "SAME_LOWER".
    pub(super) auto: String,
}

impl Window {
    pub(super) fn of(node: &Node, kernel: &[usize]) -> Answer<Self> {
        let axes = kernel.len();
        let auto = match node.attribute("auto_pad").map(|a| &a.value) {
            None => "NOTSET".to_owned(),
            Some(AttributeValue::String(text)) => String::from_utf8_lossy(text).into_owned(),
            Some(_) => String::new(),
        };
        Ok(Self {
            kernel: kernel.iter().map(|&size| size as i64).collect(),
            strides: ints(node, "strides", axes, 1)?,
            dilations: ints(node, "dilations", axes, 1)?,
            pads: ints(node, "pads", 2 * axes, 0)?,
            auto,
        })
    }

    /// From the first to the last element that the kernel touches along `axis`, less one.
    fn reach(&self, axis: usize) -> i64 {
        (self.kernel[axis] - 1).saturating_mul(self.dilations[axis])
    }
}

/// Whether a Conv pads its input nowhere.
pub(super) fn is_unpadded(book: &Book<'_>, node: &Node, kernel: &[usize]) -> Answer<bool> {
    let window = Window::of(node, kernel)?;
    Ok(match window.auto.as_str() {
        "NOTSET" | "" => window.pads.iter().all(|&pad| pad == 0),
        "VALID" => true,
        "SAME_UPPER" | "SAME_LOWER" => {
            let dims = node.input(0).and_then(|value| book.types.dims(value));
            (0..kernel.len()).all(|axis| {
                let size = dims
                    .and_then(|dims| dims.get(axis + 2))
                    .and_then(Dim::known);
                same_needs_none(&window, axis, size)
            })
        }
        _ => false,
    })
}

/// Whether as many results as strides fit come out of an input of this size without padding.
fn same_needs_none(window: &Window, axis: usize, size: Option<u64>) -> bool {
    let stride = window.strides[axis].max(1);
    if window.reach(axis) == 0 {
        return true;
    }
    let Some(size) = size
        .and_then(|size| i64::try_from(size).ok())
        .filter(|&size| size > 0)
    else {
        return false;
    };
    let last = (size - 1) / stride * stride;
    last.saturating_add(window.reach(axis)) < size
}

/// Whether in a ConvTranspose every tap of the kernel reaches every element of the output.
pub(super) fn is_saturated(node: &Node, kernel: &[usize]) -> Answer<bool> {
    let window = Window::of(node, kernel)?;
    let axes = kernel.len();
    let extra = ints(node, "output_padding", axes, 0)?;
    let plain = window.strides.iter().all(|&stride| stride == 1)
        && extra.iter().all(|&extra| extra == 0)
        && node.attribute("output_shape").is_none();
    let covered = |axis: usize| match window.auto.as_str() {
        "NOTSET" | "" => {
            let pads = [window.pads[axis], window.pads[axis + axes]];
            pads.iter().all(|&pad| pad >= window.reach(axis))
        }
        // The padding that these choose is less than the reach, unless both are 0.
        "VALID" | "SAME_UPPER" | "SAME_LOWER" => window.reach(axis) == 0,
        _ => false,
    };
    Ok(plain && (0..axes).all(covered))
}
