//! Operators with a window that slides over the spatial axes: convolutions and pools.

use super::at::{At, unknown};
use super::{Fact, attributes};
use crate::DType;
use crate::onnx::model::Dim;

/// How the borders are treated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Border {
    /// `pads` says.
    Explicit,
    /// No padding.
    Valid,
    /// Enough padding for one result per stride.
    Same,
}

/// The window of one axis.
struct Axis {
    /// From the first to the last element that the dilated kernel touches.
    reach: u64,
    stride: u64,
    begin: u64,
    end: u64,
    border: Border,
}

/// The windows of all spatial axes; `None` if an attribute is malformed.
fn axes(at: &At<'_>, kernel: &[u64]) -> Option<Vec<Axis>> {
    let border = border(at)?;
    let strides = positive(at, "strides", kernel.len())?;
    let dilations = positive(at, "dilations", kernel.len())?;
    let pads = match attributes::ints(at.node, "pads")? {
        None => vec![0; kernel.len() * 2],
        Some(pads) => unsigned(pads)?,
    };
    if pads.len() != kernel.len() * 2 {
        return None;
    }
    if border != Border::Explicit && pads.iter().any(|&pad| pad != 0) {
        return None;
    }
    (0..kernel.len())
        .map(|index| {
            let taps = kernel[index].checked_sub(1)?;
            Some(Axis {
                reach: taps.checked_mul(dilations[index])?.checked_add(1)?,
                stride: strides[index],
                begin: pads[index],
                end: pads[index + kernel.len()],
                border,
            })
        })
        .collect()
}

fn border(at: &At<'_>) -> Option<Border> {
    match attributes::string(at.node, "auto_pad", "NOTSET")? {
        b"NOTSET" | b"" => Some(Border::Explicit),
        b"VALID" => Some(Border::Valid),
        b"SAME_UPPER" | b"SAME_LOWER" => Some(Border::Same),
        _ => None,
    }
}

fn unsigned(values: &[i64]) -> Option<Vec<u64>> {
    values
        .iter()
        .map(|&value| u64::try_from(value).ok())
        .collect()
}

/// A list of `count` positive numbers, 1 by default.
fn positive(at: &At<'_>, name: &str, count: usize) -> Option<Vec<u64>> {
    let values = match attributes::ints(at.node, name)? {
        None => vec![1; count],
        Some(values) => unsigned(values)?,
    };
    (values.len() == count && values.iter().all(|&value| value > 0)).then_some(values)
}

impl Axis {
    /// How many places the window takes on an axis of this size.
    fn slide(&self, size: &Dim, ceil: bool) -> Dim {
        self.positions(size, ceil).unwrap_or(Dim::Unknown)
    }

    fn positions(&self, size: &Dim, ceil: bool) -> Option<Dim> {
        let padding = self.begin.checked_add(self.end)?;
        let Some(count) = size.known() else {
            // A stride of 1 with full padding keeps a size, whatever it is.
            let keeps = self.border == Border::Same || padding.checked_add(1)? == self.reach;
            return (self.stride == 1 && keeps).then(|| size.clone());
        };
        if self.border == Border::Same {
            return Some(Dim::Known(count.div_ceil(self.stride)));
        }
        let room = count.checked_add(padding)?.checked_sub(self.reach)?;
        let whole = room / self.stride;
        if !ceil || room % self.stride == 0 {
            return Some(Dim::Known(whole.checked_add(1)?));
        }
        // A last, incomplete window. Whether it counts when it begins in the padding differs between versions and
        // runtimes; as does the rounding without padding.
        let start = whole.checked_add(1)?.checked_mul(self.stride)?;
        let agreed = self.border == Border::Explicit && start < count.checked_add(self.begin)?;
        agreed.then_some(Dim::Known(whole.checked_add(2)?))
    }

    /// The size that a transposed convolution makes of an axis.
    fn spread(&self, size: &Dim, extra: u64) -> Option<Dim> {
        let padding = self.begin.checked_add(self.end)?;
        let reach = self.reach.checked_add(extra)?;
        match size.known() {
            None => {
                let keeps = self.stride == 1 && reach == padding.checked_add(1)?;
                keeps.then(|| size.clone())
            }
            Some(count) => {
                let spread = count.checked_sub(1)?.checked_mul(self.stride)?;
                let full = spread.checked_add(reach)?.checked_sub(padding)?;
                (full > 0).then_some(Dim::Known(full))
            }
        }
    }
}

/// The kernel's sizes, from the weight, confirmed or replaced by `kernel_shape`; `None` if unknown or contradictory.
fn kernel(at: &At<'_>, weight: &[Dim]) -> Option<Vec<u64>> {
    let spatial = weight.get(2..)?;
    let sizes: Option<Vec<u64>> = spatial.iter().map(Dim::known).collect();
    let sizes = match attributes::ints(at.node, "kernel_shape")? {
        None => sizes?,
        Some(given) => {
            let given = unsigned(given)?;
            if given.len() != spatial.len() || sizes.is_some_and(|sizes| sizes != given) {
                return None;
            }
            given
        }
    };
    sizes.iter().all(|&size| size > 0).then_some(sizes)
}

/// What is known of the data of a convolution: unknown sizes, if only the weight is known.
fn data(at: &At<'_>, slot: usize, rank: usize) -> Option<Vec<Dim>> {
    match at.dims(slot) {
        None => Some(unknown(rank)),
        Some(dims) => (dims.len() == rank).then(|| dims.to_vec()),
    }
}

/// Conv: batch from the data, channel from the weight, which also tells the rank.
pub(super) fn conv(at: &At<'_>, x: usize, w: usize, dtype: Option<DType>) -> Option<Fact> {
    let dims = at.dims(w).and_then(|weight| {
        if weight.len() < 3 {
            return None;
        }
        let data = data(at, x, weight.len())?;
        let mut dims = vec![data[0].clone(), weight[0].clone()];
        match kernel(at, weight).and_then(|kernel| axes(at, &kernel)) {
            None => dims.resize(weight.len(), Dim::Unknown),
            Some(axes) => {
                let sizes = axes.iter().zip(&data[2..]);
                dims.extend(sizes.map(|(axis, size)| axis.slide(size, false)));
            }
        }
        Some(dims)
    });
    Some(Fact::new(dtype, dims))
}

/// ConvTranspose: the weight is `[Cin, Cout / group, …]`.
pub(super) fn conv_transpose(at: &At<'_>) -> Option<Fact> {
    let dims = at.dims(1).and_then(|weight| {
        if weight.len() < 3 {
            return None;
        }
        let data = data(at, 0, weight.len())?;
        let group = at
            .int("group", 1)
            .and_then(|group| u64::try_from(group).ok());
        let channels = weight[1].known().zip(group);
        let channels = channels.and_then(|(part, group)| part.checked_mul(group));
        let mut dims = vec![data[0].clone(), channels.map_or(Dim::Unknown, Dim::Known)];
        let spatial = transposed_sizes(at, weight, &data[2..]);
        dims.extend(spatial.unwrap_or_else(|| unknown(weight.len() - 2)));
        Some(dims)
    });
    Some(Fact::new(at.dtype(0).or(at.dtype(1)), dims))
}

fn transposed_sizes(at: &At<'_>, weight: &[Dim], data: &[Dim]) -> Option<Vec<Dim>> {
    if let Some(sizes) = attributes::ints(at.node, "output_shape")? {
        let sizes = unsigned(sizes)?;
        let fits = sizes.len() == data.len() && sizes.iter().all(|&size| size > 0);
        return fits.then(|| sizes.into_iter().map(Dim::Known).collect());
    }
    let kernel = kernel(at, weight)?;
    let axes = axes(at, &kernel)?;
    let extra = match attributes::ints(at.node, "output_padding")? {
        None => vec![0; kernel.len()],
        Some(extra) => unsigned(extra)?,
    };
    if extra.len() != kernel.len() {
        return None;
    }
    let size = |((axis, size), &extra): ((&Axis, &Dim), &u64)| match axis.border {
        // Said to be size · stride from opset 11 on (and something else before); a kernel that leaves gaps misses it.
        Border::Same => {
            let plain = at.opset >= 11 && extra == 0 && axis.reach >= axis.stride;
            let full = size.known()?.checked_mul(axis.stride)?;
            plain.then_some(Dim::Known(full))
        }
        _ => axis.spread(size, extra),
    };
    let each = axes.iter().zip(data).zip(&extra);
    Some(
        each.map(|axis| size(axis).unwrap_or(Dim::Unknown))
            .collect(),
    )
}

/// A pool over windows; with the indices of the maxima as second output.
pub(super) fn pool(at: &At<'_>, indices: bool) -> Vec<Fact> {
    let dims = pool_dims(at);
    let mut facts = vec![Fact::new(at.dtype(0), dims.clone())];
    if indices {
        facts.push(Fact::new(Some(DType::I64), dims));
    }
    facts
}

fn pool_dims(at: &At<'_>) -> Option<Vec<Dim>> {
    let kernel = unsigned(attributes::ints(at.node, "kernel_shape")??)?;
    if kernel.is_empty() {
        return None;
    }
    let data = data(at, 0, kernel.len() + 2)?;
    let mut dims = data[..2].to_vec();
    match attributes::flag(at.node, "ceil_mode").zip(axes(at, &kernel)) {
        None => dims.resize(data.len(), Dim::Unknown),
        Some((ceil, axes)) => {
            let sizes = axes.iter().zip(&data[2..]);
            dims.extend(sizes.map(|(axis, size)| axis.slide(size, ceil)));
        }
    }
    Some(dims)
}

/// A pool over everything: every spatial size becomes 1.
pub(super) fn global_pool(at: &At<'_>) -> Option<Fact> {
    let dims = at.dims(0).filter(|dims| dims.len() >= 2).map(|dims| {
        let mut pooled = dims[..2].to_vec();
        pooled.resize(dims.len(), Dim::Known(1));
        pooled
    });
    Some(Fact::new(at.dtype(0), dims))
}
