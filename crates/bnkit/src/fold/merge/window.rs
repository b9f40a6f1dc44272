//! Where a Conv looks: along each axis, output p is made of the inputs at `stride·p − begin + dilation·tap`, zeros
//! outside. Two windows with the same stride can be one if their taps lie on one grid and they give equally many outputs.

use bnkit_model::onnx::{NodeId, ValueId};

use crate::fold::context::Context;
use crate::refusal::{Answer, refuse};
use crate::report::Refusal;

/// Numbers beyond this make no sense in a network, and would overflow below.
const LIMIT: i64 = 1 << 24;

/// The window of a Conv along one axis; paddings are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// The number of taps.
    pub(super) kernel: i64,
    /// Zeros before the first input.
    pub(super) begin: i64,
    /// Zeros behind the last input.
    pub(super) end: i64,
    pub(super) dilation: i64,
    pub(super) stride: i64,
}

impl Window {
    /// The window of an identity.
    pub(super) const IDENTITY: Self = Self {
        kernel: 1,
        begin: 0,
        end: 0,
        dilation: 1,
        stride: 1,
    };

    /// From the first tap to the last.
    fn reach(&self) -> i64 {
        (self.kernel - 1) * self.dilation
    }

    /// How much longer than the input the sequence of positions is, before strides: 0 keeps the size.
    fn excess(&self) -> i64 {
        self.begin + self.end - self.reach()
    }

    /// How many outputs an input of `size` has; `None` if it is too small.
    fn outputs(&self, size: i64) -> Option<i64> {
        let room = size + self.excess() - 1;
        (room >= 0).then(|| room / self.stride + 1)
    }

    /// Whether it sees nothing but its input.
    pub(super) fn is_unpadded(&self) -> bool {
        self.begin == 0 && self.end == 0
    }

    /// The window that has the taps of both, and as many outputs as this one.
    pub(super) fn union(&self, other: &Self, size: Option<u64>) -> Answer<Self> {
        if self.stride != other.stride {
            return refuse(
                "merge-strides",
                format!("the strides are {} and {}", self.stride, other.stride),
            );
        }
        let aside = self.begin - other.begin;
        let dilation = match (self.kernel, other.kernel) {
            (1, 1) if aside == 0 => self.dilation,
            (1, 1) => 1,
            (1, _) => other.dilation,
            (_, 1) => self.dilation,
            _ if self.dilation != other.dilation => {
                return refuse(
                    "merge-dilations",
                    format!("the dilations are {} and {}", self.dilation, other.dilation),
                );
            }
            _ => self.dilation,
        };
        if aside % dilation != 0 {
            return refuse(
                "merge-pads",
                format!(
                    "paddings of {} and {} put the taps {} apart, between those of a dilation of {dilation}",
                    self.begin,
                    other.begin,
                    aside.abs()
                ),
            );
        }
        let size = size.and_then(|size| i64::try_from(size).ok());
        let equally_many = self.excess() == other.excess()
            || size.is_some_and(|size| {
                size < LIMIT
                    && self.outputs(size).is_some()
                    && self.outputs(size) == other.outputs(size)
            });
        if !equally_many {
            return refuse(
                "merge-pads",
                format!(
                    "paddings of {}, {} and {}, {} do not give the same size for every input",
                    self.begin, self.end, other.begin, other.end
                ),
            );
        }
        let begin = self.begin.max(other.begin);
        let last = (self.reach() - self.begin).max(other.reach() - other.begin);
        let reach = begin + last;
        let end = self.excess() + reach - begin;
        if end < 0 || reach % dilation != 0 {
            return refuse("merge-pads", "no padding gives both windows");
        }
        Ok(Self {
            kernel: reach / dilation + 1,
            begin,
            end,
            dilation,
            stride: self.stride,
        })
    }
}

/// The windows of a Conv along its spatial axes. `input` is what it reads.
pub(super) fn windows(
    context: &Context<'_>,
    node: NodeId,
    kernel: &[usize],
    input: ValueId,
) -> Answer<Vec<Window>> {
    let axes = kernel.len();
    let list = |name: &'static str, count: usize, default: i64, least: i64| -> Answer<Vec<i64>> {
        let values = match context.ints(node, name)? {
            None => vec![default; count],
            Some(values) => values.to_vec(),
        };
        let fine = values.len() == count && values.iter().all(|v| (least..LIMIT).contains(v));
        match fine {
            true => Ok(values),
            false => odd(context, node, &format!("{name} = {values:?}")),
        }
    };
    let strides = list("strides", axes, 1, 1)?;
    let dilations = list("dilations", axes, 1, 1)?;
    let auto = context.text(node, "auto_pad", "NOTSET")?;
    let pads = match auto {
        "NOTSET" | "" => list("pads", 2 * axes, 0, 0)?,
        _ => vec![0; 2 * axes],
    };
    let mut windows = Vec::with_capacity(axes);
    for (axis, &kernel) in kernel.iter().enumerate() {
        let taps = i64::try_from(kernel)
            .ok()
            .filter(|k| (1..LIMIT).contains(k));
        let Some(taps) = taps else {
            return odd(context, node, &format!("a kernel of {kernel}"));
        };
        let mut window = Window {
            kernel: taps,
            begin: pads[axis],
            end: pads[axis + axes],
            dilation: dilations[axis],
            stride: strides[axis],
        };
        match auto {
            "NOTSET" | "" | "VALID" => {}
            "SAME_UPPER" | "SAME_LOWER" => {
                let total = same(&window, context.types.dim(input, axis + 2));
                let Some(total) = total else {
                    return Err(Refusal::new(
                        "merge-pads",
                        format!(
                            "{} pads by auto_pad = {auto}, which depends on a size that is not known",
                            context.model.describe(node)
                        ),
                    )
                    .with("node", context.model.label(node))
                    .into());
                };
                // The odd one goes to the end for SAME_UPPER, to the beginning for SAME_LOWER.
                let (less, more) = (total / 2, total - total / 2);
                (window.begin, window.end) = match auto {
                    "SAME_UPPER" => (less, more),
                    _ => (more, less),
                };
            }
            _ => return odd(context, node, &format!("auto_pad = {auto}")),
        }
        windows.push(window);
    }
    Ok(windows)
}

/// The padding of SAME: as many outputs as strides fit into the input, max((⌈n/stride⌉ − 1)·stride + reach + 1 − n, 0).
fn same(window: &Window, size: Option<u64>) -> Option<i64> {
    if window.stride == 1 || window.reach() == 0 {
        return Some(window.reach());
    }
    let size = size.and_then(|size| i64::try_from(size).ok());
    let size = size.filter(|size| (1..LIMIT).contains(size))?;
    let last = (size - 1) / window.stride * window.stride;
    Some((last + window.reach() + 1 - size).max(0))
}

fn odd<T>(context: &Context<'_>, node: NodeId, what: &str) -> Answer<T> {
    Err(Refusal::new(
        "merge-pads",
        format!("{} has {what}", context.model.describe(node)),
    )
    .with("node", context.model.label(node))
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kernel: i64, begin: i64, end: i64) -> Window {
        Window {
            kernel,
            begin,
            end,
            ..Window::IDENTITY
        }
    }

    #[test]
    fn smaller_kernels_go_into_the_middle() {
        let three = window(3, 1, 1);
        assert_eq!(three.union(&Window::IDENTITY, None).unwrap(), three);
        assert_eq!(Window::IDENTITY.union(&three, None).unwrap(), three);
        assert_eq!(
            window(5, 2, 2).union(&three, None).unwrap(),
            window(5, 2, 2)
        );
        // Even kernels have no middle; where the paddings say it is counts.
        assert_eq!(
            window(2, 1, 0).union(&window(2, 0, 1), None).unwrap(),
            window(3, 1, 1)
        );
        let dilated = Window {
            dilation: 2,
            ..window(3, 2, 2)
        };
        assert_eq!(dilated.union(&Window::IDENTITY, None).unwrap(), dilated);
    }

    #[test]
    fn windows_that_do_not_fit_are_refused() {
        let code = |a: Window, b: Window, size| match a.union(&b, size) {
            Err(crate::refusal::Stop::Refused(refusal)) => refusal.code,
            other => panic!("{other:?}"),
        };
        let three = window(3, 1, 1);
        let wide = Window {
            dilation: 2,
            ..window(3, 2, 2)
        };
        let fast = Window { stride: 2, ..three };
        assert_eq!(code(three, window(1, 1, 1), None), "merge-pads");
        assert_eq!(code(three, window(3, 0, 0), None), "merge-pads");
        assert_eq!(code(three, wide, None), "merge-dilations");
        assert_eq!(code(wide, window(1, 1, -1), None), "merge-pads");
        assert_eq!(code(three, fast, None), "merge-strides");
        // Of a stride of 2, only an even size is halved alike.
        let (same, point) = (
            Window {
                stride: 2,
                ..window(3, 0, 1)
            },
            Window {
                stride: 2,
                ..Window::IDENTITY
            },
        );
        assert_eq!(same.union(&point, Some(8)).unwrap(), same);
        assert_eq!(code(same, point, Some(9)), "merge-pads");
        assert_eq!(code(same, point, None), "merge-pads");
    }
}
