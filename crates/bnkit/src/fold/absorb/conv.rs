//! Conv: Y\[n,o\] = Σ W\[o,i,k\]·X\[n, group(o)·I + i, …\] + B\[o\], any number of spatial axes, any groups.

use std::sync::Arc;

use bnkit_model::onnx::{NodeId, TensorDef};

use super::quantised::{self, put_bias, scale_weight};
use super::{Absorber, Absorption, rule};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::fold::operands::{convolution, is_finite, mismatch};
use crate::refusal::{Answer, refuse};
use crate::report::Refusal;

pub(super) const CONV: Absorber = Absorber {
    op_type: "Conv",
    slots: (3, 1),
    rule: rule(
        "into-conv",
        "into the weight and bias of a Conv",
        "\
Before: `Conv → BatchNorm`, or `BatchNorm → Conv`. After: `Conv` with another weight and bias.

Behind the Conv, for output channel o: `W'[o,…] = W[o,…]·s[o]`, `B'[o] = B[o]·s[o] + t[o]`. Groups, strides, dilations
and pads do not matter. An absent bias counts as 0.

Before the Conv, for input channel c = group(o)·I + i: `W'[o,i,…] = W[o,i,…]·s[c]`, `B'[o] = B[o] + Σ W[o,i,k]·t[c]`.
The shift goes in only if every resolved pad is 0, or t is 0: at a zero-padded border the Conv sees 0, not t.

Conditions: weight and bias are constants of a float type; the result fits the type.",
    ),
    output: behind,
    input: before,
};

struct Shape {
    outputs: usize,
    inputs_per_group: usize,
    groups: usize,
    kernel: Vec<usize>,
}

fn shape(context: &Context<'_>, node: NodeId, weight: &TensorDef) -> Answer<Shape> {
    let found = convolution(context, node, weight)?;
    Ok(Shape {
        outputs: found.first,
        inputs_per_group: found.second,
        groups: found.groups,
        kernel: found.kernel,
    })
}

fn behind(context: &Context<'_>, node: NodeId, affine: &Affine) -> Answer<Absorption> {
    let weight = context.weight(node, 1)?;
    let shape = shape(context, node, &weight)?;
    let affine = context.expect(node, affine, 1, shape.outputs)?;
    let mut edits = Vec::new();
    let inner = shape.inputs_per_group * shape.kernel.iter().product::<usize>();
    let factors = affine.scale.clone();
    edits.extend(scale_weight(context, node, 1, &weight, inner, factors)?);
    edits.extend(scale_and_shift_bias(context, node, &weight, &affine)?);
    Ok(Absorption::whole(edits, 0, &affine))
}

/// B' = B·s + t, for operators with the bias in slot 2.
pub(super) fn scale_and_shift_bias(
    context: &Context<'_>,
    node: NodeId,
    weight: &Arc<TensorDef>,
    affine: &Affine,
) -> Answer<Vec<bnkit_model::onnx::Edit>> {
    let bias = bias(context, node, affine.len())?;
    if bias.is_none() && affine.has_no_shift() {
        return Ok(Vec::new());
    }
    let bias = bias.unwrap_or_else(|| vec![0.0; affine.len()]);
    let values = (bias.iter().zip(&affine.scale).zip(&affine.shift))
        .map(|((bias, scale), shift)| bias * scale + shift)
        .collect();
    put_bias(
        context,
        node,
        (weight.dtype, vec![affine.len()], values),
        Some(&affine.scale),
        &context.bias_name(node, 1),
    )
}

/// The bias in slot 2, if there is one.
pub(super) fn bias(
    context: &Context<'_>,
    node: NodeId,
    channels: usize,
) -> Answer<Option<Vec<f64>>> {
    let Some(bias) = quantised::bias(context, node, 2)? else {
        return Ok(None);
    };
    // One row of `channels` values has as many, but no bias has two axes.
    if bias.dims != [channels] {
        let what = format!("has a bias of shape {:?}, expected [{channels}]", bias.dims);
        return Err(mismatch(context, node, what));
    }
    if !is_finite(&bias) {
        return refuse("range", "the bias has NaN or infinite elements");
    }
    Ok(Some(bias.values))
}

/// Refuses a constant bias that cannot be what it should be, where the fold leaves it alone; of one that a caller may override,
/// the default. One that is computed may be anything.
pub(super) fn require_known_bias(
    context: &Context<'_>,
    node: NodeId,
    channels: usize,
) -> Answer<()> {
    let context = &context.with_defaults();
    match context.model.node(node).input(2) {
        Some(value) if context.constants().is_constant(value) => {
            bias(context, node, channels).map(drop)
        }
        _ => Ok(()),
    }
}

fn before(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Absorption> {
    if slot != 0 {
        return refuse(
            "weight-not-constant",
            "the affine computes a weight or bias of a Conv",
        );
    }
    let weight = context.weight(node, 1)?;
    let shape = shape(context, node, &weight)?;
    let affine = context.expect(node, affine, 1, shape.groups * shape.inputs_per_group)?;
    if !affine.has_no_shift() {
        require_no_pads(context, node, &shape)?;
    }
    require_known_bias(context, node, shape.outputs)?;
    let outputs_per_group = shape.outputs / shape.groups;
    let channel = |row: usize| {
        let (output, input) = (row / shape.inputs_per_group, row % shape.inputs_per_group);
        output / outputs_per_group * shape.inputs_per_group + input
    };
    let rows = shape.outputs * shape.inputs_per_group;
    let inner: usize = shape.kernel.iter().product();
    let factors = (0..rows).map(|row| affine.scale[channel(row)]).collect();
    let mut edits = Vec::new();
    edits.extend(scale_weight(context, node, 1, &weight, inner, factors)?);
    if !affine.has_no_shift() {
        let mut values =
            bias(context, node, shape.outputs)?.unwrap_or_else(|| vec![0.0; shape.outputs]);
        context.model.for_each_chunk(&weight, |start, elements| {
            for (element, weight) in (start..).zip(elements) {
                let row = element / inner;
                values[row / shape.inputs_per_group] += weight * affine.shift[channel(row)];
            }
            Ok(())
        })?;
        edits.extend(put_bias(
            context,
            node,
            (weight.dtype, vec![shape.outputs], values),
            None,
            &context.bias_name(node, 1),
        )?);
    }
    Ok(Absorption::whole(edits, 0, &affine))
}

/// Refuses a Conv that may see padding: every resolved pad has to be 0.
fn require_no_pads(context: &Context<'_>, node: NodeId, shape: &Shape) -> Answer<()> {
    let padded = |evidence: String| {
        Err(Refusal::new(
            "padded-shift",
            format!(
                "{} pads with zeros, and a shift before it would have to be in the padding too",
                context.model.describe(node)
            ),
        )
        .with("node", context.model.label(node))
        .with("pads", evidence)
        .into())
    };
    match context.text(node, "auto_pad", "NOTSET")? {
        "NOTSET" | "" => match context.ints(node, "pads")? {
            Some(pads) if pads.iter().any(|&pad| pad != 0) => padded(format!("{pads:?}")),
            _ => Ok(()),
        },
        "VALID" => Ok(()),
        auto_pad => {
            // SAME: the total is max((⌈in/stride⌉ − 1)·stride + (k − 1)·dilation + 1 − in, 0); 0 for any input if k = 1.
            if shape.kernel.iter().all(|&size| size == 1)
                || same_needs_no_pads(context, node, shape)?
            {
                Ok(())
            } else {
                padded(auto_pad.to_owned())
            }
        }
    }
}

fn same_needs_no_pads(context: &Context<'_>, node: NodeId, shape: &Shape) -> Answer<bool> {
    let input = context.input(node, 0)?;
    let (strides, dilations) = (
        context.ints(node, "strides")?,
        context.ints(node, "dilations")?,
    );
    for (axis, &kernel) in shape.kernel.iter().enumerate() {
        let at = |list: Option<&[i64]>| list.map_or(Some(1), |list| list.get(axis).copied());
        let (Some(stride), Some(dilation)) = (at(strides), at(dilations)) else {
            return Ok(false);
        };
        let Some(size) = context
            .types
            .dim(input, axis + 2)
            .and_then(|size| i64::try_from(size).ok())
        else {
            return Ok(false);
        };
        if stride < 1 || dilation < 1 || size < 1 {
            return Ok(false);
        }
        let steps = (size - 1) / stride;
        let reach = (kernel as i64 - 1)
            .checked_mul(dilation)
            .and_then(|reach| reach.checked_add(steps * stride + 1));
        if reach.is_none_or(|reach| reach > size) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use crate::fold::{Options, plan};
    use crate::verify::algebra;
    use crate::verify::nets::Net;

    #[test]
    fn a_bias_that_stays_is_looked_at_even_if_a_caller_may_override_it() {
        for operator in ["Conv", "ConvTranspose"] {
            for (bias, folded) in [([1.0, 2.0], true), ([1.0, f64::NEG_INFINITY], false)] {
                let original = Net::new("x", &[1, 2, 4, 4])
                    .input("b", Some(&[2]))
                    .constant("b", &[2], &bias)
                    .constant("w", &[2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0])
                    .constant("two", &[2], &[2.0; 2])
                    .constant("zero", &[2], &[0.0; 2])
                    .node(
                        "BatchNormalization",
                        &["x", "two", "zero", "zero", "two"],
                        "n",
                    )
                    .node(operator, &["n", "w", "b"], "y")
                    .output("y")
                    .model();
                let plan = plan(&original, &Options::default()).unwrap();
                let proof = algebra::check(&original, plan.apply(), &plan.routes).unwrap();
                assert!(proof.failures.is_empty(), "{:?}", proof.failures);
                let code = plan.sites[0].refusal.as_ref().map(|refusal| refusal.code);
                assert_eq!(code, (!folded).then_some("range"), "{operator} {bias:?}");
            }
        }
    }
}
