//! Where a Conv looks, as its attributes and the shape of its weight say.

use bnkit_model::onnx::{Dim, Node};

use super::book::{Answer, Book, Trouble, int};
use super::border::Window;

/// How an axis of the input becomes one of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    pub(super) stride: i64,
    /// Zeros before and behind the input.
    pub(super) pads: (i64, i64),
    /// By how much the input is longer than the outputs before strides, negative: pads less the reach of the kernel.
    pub(super) growth: i64,
}

/// What a Conv says of itself, apart from numbers.
pub(super) struct Place {
    pub(super) groups: usize,
    pub(super) dims: Vec<usize>,
    pub(super) axes: Vec<Axis>,
    pub(super) dilations: Vec<i64>,
}

impl Place {
    pub(super) fn of(book: &Book<'_>, node: &Node, dims: &[usize]) -> Answer<Self> {
        let groups = usize::try_from(int(node, "group", 1)?).unwrap_or(0);
        let fits =
            dims.len() >= 3 && groups > 0 && !dims.contains(&0) && dims[0].is_multiple_of(groups);
        if !node.is("Conv") || !fits {
            let why = format!("{groups} groups with a weight of the shape {dims:?}");
            return Err(Trouble::Wrong(why));
        }
        let window = Window::of(node, &dims[2..])?;
        let count = window.kernel.len();
        let mut axes = Vec::with_capacity(count);
        for axis in 0..count {
            let (stride, dilation) = (window.strides[axis], window.dilations[axis]);
            let reach = (window.kernel[axis] - 1)
                .checked_mul(dilation)
                .filter(|_| stride > 0 && dilation > 0);
            let reach = reach.ok_or_else(|| Trouble::wrong("its window makes no sense"))?;
            let pads = match window.auto.as_str() {
                "NOTSET" | "" => (window.pads[axis], window.pads[axis + count]),
                "VALID" => (0, 0),
                "SAME_UPPER" | "SAME_LOWER" => {
                    let total = same_total(book, node, axis, stride, reach)?;
                    let half = total / 2;
                    match window.auto == "SAME_UPPER" {
                        true => (half, total - half),
                        false => (total - half, half),
                    }
                }
                other => return Err(Trouble::Wrong(format!("it pads by \"{other}\""))),
            };
            axes.push(Axis {
                stride,
                pads,
                growth: pads.0 + pads.1 - reach,
            });
        }
        Ok(Self {
            groups,
            dims: dims.to_vec(),
            axes,
            dilations: window.dilations,
        })
    }

    /// How far each tap is from the position of the output, in the order of the weight.
    pub(super) fn distances(&self) -> Vec<Vec<i64>> {
        let mut all: Vec<Vec<i64>> = vec![Vec::new()];
        for (axis, &size) in self.dims[2..].iter().enumerate() {
            let far = |tap: usize| tap as i64 * self.dilations[axis] - self.axes[axis].pads.0;
            let longer = |start: &Vec<i64>| {
                let start = start.clone();
                (0..size).map(move |tap| [start.as_slice(), &[far(tap)]].concat())
            };
            all = all.iter().flat_map(longer).collect();
        }
        all
    }
}

/// What SAME pads in total: so that ⌈size / stride⌉ outputs come out.
fn same_total(book: &Book<'_>, node: &Node, axis: usize, stride: i64, reach: i64) -> Answer<i64> {
    if stride == 1 || reach == 0 {
        return Ok(reach);
    }
    let size = size(book, node, axis).ok_or_else(|| {
        Trouble::wrong("its padding depends on the size of its input, which is not known")
    })?;
    let outputs = (size + stride - 1) / stride;
    Ok(((outputs - 1) * stride + reach + 1 - size).max(0))
}

/// The size of a spatial axis of what a node reads, if it is known.
pub(super) fn size(book: &Book<'_>, node: &Node, axis: usize) -> Option<i64> {
    let dims = book.types.dims(node.input(0)?)?;
    let size = dims.get(axis + 2).and_then(Dim::known)?;
    i64::try_from(size).ok().filter(|&size| size > 0)
}

/// Checks that two axes give as many outputs: for every size, or for the known one.
pub(super) fn same_outputs(a: Axis, b: Axis, size: Option<i64>) -> Answer<()> {
    let outputs = |axis: Axis, size: i64| (size + axis.growth - 1).div_euclid(axis.stride) + 1;
    let alike = a.growth == b.growth
        || size.is_some_and(|size| outputs(a, size) == outputs(b, size) && outputs(a, size) > 0);
    match a.stride == b.stride && alike {
        true => Ok(()),
        false => Err(Trouble::wrong(
            "the strides or the sizes of the outputs differ",
        )),
    }
}
