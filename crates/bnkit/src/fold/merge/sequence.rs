//! A 1×1 Conv and the Conv that reads it, with nothing between: one Conv, where that is less work.
//!
//! W\[o,i,k\] = Σₘ W₂\[o,m,k\]·W₁\[m,i\], B = B₂ + Σ W₂\[o,m,k\]·B₁\[m\]. The second must not pad: at its border it sees 0, where
//! one Conv would see B₁.

use bnkit_model::onnx::{Edit, NodeId};

use super::kernel::{Kernel, volume};
use super::tree::only_reader;
use super::{Ground, Merging, Outcome, into_conv, positions};
use crate::fold::operands::convolution;
use crate::refusal::{Answer, Stop};
use crate::report::Refusal;
use crate::route::Merged;

/// Merges a Conv with the 1×1 Conv before it, if there is one.
pub(super) fn merge(ground: &Ground<'_>, second: NodeId, refusals: &mut Vec<Refusal>) -> Outcome {
    let model = ground.context.model;
    if !model.node(second).alive || !model.node(second).is("Conv") {
        return Ok(None);
    }
    let Some((first, 0)) = model
        .node(second)
        .input(0)
        .and_then(|value| model.producer(value))
    else {
        return Ok(None);
    };
    let node = model.node(first);
    if !node.is("Conv") || node.scope != model.node(second).scope {
        return Ok(None);
    }
    match pair(ground, first, second) {
        Ok(merging) => Ok(merging),
        Err(Stop::Refused(refusal)) => {
            refusals.push(refusal.with("branch", model.label(first)));
            Ok(None)
        }
        Err(Stop::Broken(error)) => Err(error.into()),
    }
}

fn refuse<T>(code: &'static str, message: String) -> Answer<T> {
    crate::refusal::refuse(code, message)
}

fn pair(ground: &Ground<'_>, first: NodeId, second: NodeId) -> Answer<Option<Merging>> {
    let context = &ground.context;
    let model = context.model;
    let between = context.input(second, 0)?;
    let (Some(_), Some(input)) = (only_reader(model, between), model.node(first).input(0)) else {
        return Ok(None);
    };
    let one = context.weight(first, 1)?;
    if one.dims.len() < 3 || one.dims[2..].iter().any(|&taps| taps != 1) {
        return Ok(None);
    }
    ground.require_shallow(first)?;
    ground.require_shallow(second)?;
    // What it costs is known without reading the weights.
    let two = context.weight(second, 1)?;
    convolution(context, second, &two)?;
    let (one_size, two_size) = (one.len(), two.len());
    let size = two.dims[0].saturating_mul(one.dims[1]);
    let size = two.dims[2..]
        .iter()
        .fold(size, |size, &taps| size.saturating_mul(taps));
    if size >= one_size.saturating_add(two_size) {
        return refuse(
            "merge-cost",
            format!("one weight of {size} elements for {one_size} and {two_size}"),
        );
    }
    let (a, b) = (
        Kernel::of_conv(context, first)?,
        Kernel::of_conv(context, second)?,
    );
    let fits = a.outputs == b.inputs * b.groups && a.windows.len() == b.windows.len();
    if a.groups != b.groups || !fits {
        return refuse(
            "merge-groups",
            format!("{} groups before {}", a.groups, b.groups),
        );
    }
    if a.dtype != b.dtype {
        return refuse(
            "merge-dtype",
            format!("a weight of {} before one of {}", a.dtype, b.dtype),
        );
    }
    if a.windows.iter().any(|window| window.stride != 1) {
        return refuse("merge-strides", "the 1×1 Conv has a stride".to_owned());
    }
    if a.windows
        .iter()
        .chain(&b.windows)
        .any(|window| !window.is_unpadded())
    {
        return refuse(
            "merge-pads",
            format!("{} pads, or the 1×1 Conv before it", model.describe(second)),
        );
    }
    let merged = product(&a, &b);
    merged.require_digits()?;
    let mut edits = into_conv(context, second, &b, &merged)?;
    edits.push(Edit::SetInput {
        node: second,
        slot: 0,
        value: input.into(),
    });
    edits.push(Edit::RemoveNode { node: first });
    // Without padding there are at least as many positions before as behind, so fewer weights are less work.
    let macs = positions(context, first)
        .zip(positions(context, second))
        .map(|(before, after)| {
            let each = |positions: u64, kernel: &Kernel| {
                positions.saturating_mul(kernel.weight.len() as u64)
            };
            (
                each(before, &a).saturating_add(each(after, &b)),
                each(after, &merged),
            )
        });
    Ok(Some(Merging {
        rule: super::SEQUENCE.code,
        into: second,
        edits,
        record: Merged::Sequence { first },
        parameters: (a.parameters() + b.parameters(), merged.parameters()),
        macs,
    }))
}

/// `b` behind `a`, whose kernel is 1.
fn product(a: &Kernel, b: &Kernel) -> Kernel {
    let taps = volume(&b.windows);
    let mut merged = Kernel {
        inputs: a.inputs,
        weight: vec![0.0; b.outputs * a.inputs * taps],
        bias: b.bias.clone(),
        has_bias: a.has_bias || b.has_bias,
        windows: b.windows.clone(),
        ..*b
    };
    let per_group = b.outputs / b.groups;
    for output in 0..b.outputs {
        for inner in 0..b.inputs {
            // The channel between: output of `a`, input of the group of `output` in `b`.
            let middle = output / per_group * b.inputs + inner;
            let row = &b.weight[(output * b.inputs + inner) * taps..][..taps];
            for input in 0..a.inputs {
                let weight = a.weight[middle * a.inputs + input];
                let at = (output * a.inputs + input) * taps;
                for (sum, tap) in merged.weight[at..at + taps].iter_mut().zip(row) {
                    *sum += weight * tap;
                }
            }
            merged.bias[output] += row.iter().sum::<f64>() * a.bias[middle];
        }
    }
    merged
}
