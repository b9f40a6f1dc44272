//! The windows of a pool: where they lie, and whether each of them sees an element.
//!
//! A window touches k taps, `dilation` apart, and reaches over r = dilation·(k − 1) + 1 positions. One that lies wholly in
//! the padding has no average, and a maximum of −∞ (or of the lowest number, or of 0: runtimes differ).

use bnkit_model::onnx::NodeId;

use super::stop;
use crate::fold::context::Context;
use crate::refusal::Answer;

/// The windows along all spatial axes.
pub(super) struct Windows {
    /// Whether a last, incomplete window counts.
    pub ceil_mode: bool,
    axes: Vec<Axis>,
}

struct Axis {
    reach: u64,
    stride: u64,
    dilation: u64,
    begin: u64,
    end: u64,
    /// SAME_UPPER or SAME_LOWER: as much padding as makes ⌈n / stride⌉ windows.
    same: bool,
    /// The size of the data.
    size: Option<u64>,
}

impl Windows {
    /// The windows of a pool.
    pub(super) fn read(context: &Context<'_>, node: NodeId) -> Answer<Self> {
        let Some(kernel) = context.ints(node, "kernel_shape")? else {
            return stop(context, node, "unknown-shape", "has no kernel_shape");
        };
        let count = kernel.len();
        let list = |name: &str, length: usize, default: u64| -> Answer<Vec<u64>> {
            let Some(values) = context.ints(node, name)? else {
                return Ok(vec![default; length]);
            };
            let values: Vec<u64> = (values.iter())
                .filter_map(|&value| u64::try_from(value).ok())
                .filter(|&value| value >= default && value <= u64::from(u32::MAX))
                .collect();
            if values.len() == length {
                Ok(values)
            } else {
                let what = format!("has {name} that do not fit {count} axes");
                stop(context, node, "unknown-shape", what)
            }
        };
        let kernel = list("kernel_shape", count, 1)?;
        let (strides, dilations) = (list("strides", count, 1)?, list("dilations", count, 1)?);
        let auto_pad = context.text(node, "auto_pad", "NOTSET")?;
        let (pads, same) = match auto_pad {
            "NOTSET" | "" => (list("pads", 2 * count, 0)?, false),
            "VALID" => (vec![0; 2 * count], false),
            "SAME_UPPER" | "SAME_LOWER" => (vec![0; 2 * count], true),
            other => {
                let what = format!("has auto_pad \"{other}\"");
                return stop(context, node, "unknown-shape", what);
            }
        };
        let data = context.input(node, 0)?;
        let axes = (0..count).map(|axis| Axis {
            reach: dilations[axis] * (kernel[axis] - 1) + 1,
            stride: strides[axis],
            dilation: dilations[axis],
            begin: pads[axis],
            end: pads[axis + count],
            same,
            size: context.types.dim(data, axis + 2),
        });
        Ok(Self {
            ceil_mode: context.int(node, "ceil_mode", 0)? != 0,
            axes: axes.collect(),
        })
    }

    /// Whether all windows lie in the data for certain: no padding, and none that is incomplete.
    pub(super) fn all_lie_inside(&self) -> bool {
        self.axes
            .iter()
            .all(|axis| axis.lies_inside(self.ceil_mode))
    }

    /// Whether each window sees at least one element for certain.
    pub(super) fn all_see_data(&self) -> bool {
        self.axes.iter().all(|axis| axis.sees_data(self.ceil_mode))
    }
}

impl Axis {
    fn lies_inside(&self, ceil: bool) -> bool {
        if self.same {
            // (⌈n / stride⌉ − 1)·stride + r ≤ n
            return self.size.is_some_and(|size| {
                size > 0
                    && ((size - 1) / self.stride).saturating_mul(self.stride) + self.reach <= size
            });
        }
        let complete = |size: u64| {
            size.checked_sub(self.reach)
                .is_some_and(|room| room % self.stride == 0)
        };
        self.begin == 0
            && self.end == 0
            && (!ceil || self.stride == 1 || self.size.is_some_and(complete))
    }

    fn sees_data(&self, ceil: bool) -> bool {
        // Taps further apart than the data is wide could step over it.
        let steps_over = self.dilation > 1
            && (self.same || self.begin > 0 || self.end > 0)
            && self.size.is_none_or(|size| size < self.dilation);
        if steps_over {
            return false;
        }
        if self.same {
            // At most r − 1 positions are padded, and the last window begins before ⌈n / stride⌉·stride.
            return true;
        }
        // The first window ends behind the padding before the data, and the last begins before the one behind it: at
        // most r − end positions before its own end without ceil_mode, stride − 1 later with it.
        let late = if ceil { self.stride - 1 } else { 0 };
        self.begin < self.reach && self.end + late < self.reach
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Axis = Axis {
        reach: 3,
        stride: 2,
        dilation: 1,
        begin: 0,
        end: 0,
        same: false,
        size: None,
    };

    #[test]
    fn windows_inside() {
        assert!(PLAIN.lies_inside(false));
        assert!(!PLAIN.lies_inside(true));
        let sized = |size| Axis {
            size: Some(size),
            ..PLAIN
        };
        assert!(sized(7).lies_inside(true) && !sized(8).lies_inside(true));
        assert!(!Axis { end: 1, ..sized(7) }.lies_inside(false));
        let same = |size| Axis {
            reach: 2,
            same: true,
            ..sized(size)
        };
        assert!(same(8).lies_inside(false) && !same(7).lies_inside(false));
        assert!(
            !Axis {
                same: true,
                ..PLAIN
            }
            .lies_inside(false)
        );
    }

    #[test]
    fn windows_that_see_nothing_are_found_by_trying() {
        let mut tried = 0;
        for (kernel, dilation, stride) in
            (1..4u64).flat_map(|k| (1..4u64).flat_map(move |d| (1..4u64).map(move |s| (k, d, s))))
        {
            let reach = dilation * (kernel - 1) + 1;
            for (begin, end, size) in (0..5u64)
                .flat_map(|b| (0..5u64).flat_map(move |e| (1..7u64).map(move |n| (b, e, n))))
            {
                let Some(room) = (size + begin + end).checked_sub(reach) else {
                    continue;
                };
                for ceil in [false, true] {
                    let axis = Axis {
                        reach,
                        stride,
                        dilation,
                        begin,
                        end,
                        same: false,
                        size: Some(size),
                    };
                    let last = if ceil {
                        room.div_ceil(stride)
                    } else {
                        room / stride
                    };
                    let sees = |window: u64| {
                        (0..kernel).any(|tap| {
                            let at = window * stride + tap * dilation;
                            (begin..begin + size).contains(&at)
                        })
                    };
                    let all_see = (0..=last).all(sees);
                    let all_inside = (0..=last).all(|window| {
                        window * stride >= begin && window * stride + reach <= begin + size
                    });
                    let unknown = Axis { size: None, ..axis };
                    for axis in [axis, unknown] {
                        assert!(all_see || !axis.sees_data(ceil));
                        assert!(all_inside || !axis.lies_inside(ceil));
                    }
                    tried += 1;
                }
            }
        }
        assert!(tried > 5000);
    }
}
