//! ConvTranspose: W is \[Cin, Cout/g, k…\]; group j of the input feeds group j of the output.

use bnkit_model::onnx::{NodeId, TensorDef};

use super::conv::{bias, require_known_bias, scale_and_shift_bias};
use super::quantised::{put_bias, scale_weight};
use super::{Absorber, Absorption, rule};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::fold::operands::convolution;
use crate::refusal::{Answer, refuse};
use crate::report::Refusal;

pub(super) const CONV_TRANSPOSE: Absorber = Absorber {
    op_type: "ConvTranspose",
    slots: (3, 1),
    rule: rule(
        "into-conv-transpose",
        "into the weight and bias of a ConvTranspose",
        "\
Before: `ConvTranspose → BatchNorm`, or `BatchNorm → ConvTranspose`. After: `ConvTranspose` with another weight and bias.

The weight is `[Cin, Cout/g, k…]`. Behind it: the output channel of `W[i,j]` is `o = (i div (Cin/g))·(Cout/g) + j`;
`W'[i,j,…] = W[i,j,…]·s[o]`, `B'[o] = B[o]·s[o] + t[o]`.

Before it: `W'[i,…] = W[i,…]·s[i]`, `B'[o] = B[o] + Σ W[i,j,k]·t[i]` over the i of o's group. The shift goes in only if t
is 0, or every output position gets every tap of the kernel: stride 1, no output padding, and every resolved pad at
least dilation·(k−1). Elsewhere the border gets fewer taps than the middle.

Conditions: weight and bias are constants of a float type; the result fits the type.",
    ),
    output: behind,
    input: before,
};

struct Shape {
    inputs: usize,
    outputs_per_group: usize,
    groups: usize,
    kernel: Vec<usize>,
}

impl Shape {
    fn outputs(&self) -> usize {
        self.outputs_per_group * self.groups
    }

    /// The output channel of row i·(Cout/g) + j of the weight.
    fn output(&self, row: usize) -> usize {
        let (input, output) = (row / self.outputs_per_group, row % self.outputs_per_group);
        input / (self.inputs / self.groups) * self.outputs_per_group + output
    }
}

fn shape(context: &Context<'_>, node: NodeId, weight: &TensorDef) -> Answer<Shape> {
    let found = convolution(context, node, weight)?;
    Ok(Shape {
        inputs: found.first,
        outputs_per_group: found.second,
        groups: found.groups,
        kernel: found.kernel,
    })
}

fn behind(context: &Context<'_>, node: NodeId, affine: &Affine) -> Answer<Absorption> {
    let weight = context.weight(node, 1)?;
    let shape = shape(context, node, &weight)?;
    let affine = context.expect(node, affine, 1, shape.outputs())?;
    let rows = shape.inputs * shape.outputs_per_group;
    let factors = (0..rows)
        .map(|row| affine.scale[shape.output(row)])
        .collect();
    let mut edits = Vec::new();
    let inner = shape.kernel.iter().product();
    edits.extend(scale_weight(context, node, 1, &weight, inner, factors)?);
    edits.extend(scale_and_shift_bias(context, node, &weight, &affine)?);
    Ok(Absorption::whole(edits, 0, &affine))
}

fn before(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Absorption> {
    if slot != 0 {
        return refuse(
            "weight-not-constant",
            "the affine computes a weight or bias of a ConvTranspose",
        );
    }
    let weight = context.weight(node, 1)?;
    let shape = shape(context, node, &weight)?;
    let affine = context.expect(node, affine, 1, shape.inputs)?;
    require_known_bias(context, node, shape.outputs())?;
    let inner: usize = shape.kernel.iter().product();
    let mut edits = Vec::new();
    let per_input = shape.outputs_per_group * inner;
    let factors = affine.scale.clone();
    edits.extend(scale_weight(context, node, 1, &weight, per_input, factors)?);
    if !affine.has_no_shift() {
        require_full_taps(context, node, &shape)?;
        let outputs = shape.outputs();
        let mut values = bias(context, node, outputs)?.unwrap_or_else(|| vec![0.0; outputs]);
        context.model.for_each_chunk(&weight, |start, elements| {
            for (element, weight) in (start..).zip(elements) {
                let row = element / inner;
                values[shape.output(row)] += weight * affine.shift[row / shape.outputs_per_group];
            }
            Ok(())
        })?;
        edits.extend(put_bias(
            context,
            node,
            (weight.dtype, vec![outputs], values),
            None,
            &context.bias_name(node, 1),
        )?);
    }
    Ok(Absorption::whole(edits, 0, &affine))
}

/// Refuses unless every output position sums over every tap of the kernel.
fn require_full_taps(context: &Context<'_>, node: NodeId, shape: &Shape) -> Answer<()> {
    let axes = shape.kernel.len();
    let all = |name, wanted: i64| -> Answer<bool> {
        Ok(context
            .ints(node, name)?
            .is_none_or(|list| list.iter().all(|&value| value == wanted)))
    };
    let resolved = matches!(
        context.text(node, "auto_pad", "NOTSET")?,
        "NOTSET" | "" | "VALID"
    ) && context.ints(node, "output_shape")?.is_none();
    let mut full = resolved && all("strides", 1)? && all("output_padding", 0)?;
    let dilations = context.ints(node, "dilations")?;
    let no_pads = context.text(node, "auto_pad", "NOTSET")? == "VALID";
    let pads = context.ints(node, "pads")?.filter(|_| !no_pads);
    for (axis, &size) in shape.kernel.iter().enumerate() {
        let dilation = dilations
            .map_or(Some(1), |list| list.get(axis).copied())
            .unwrap_or(i64::MAX);
        let reach = (size as i64 - 1).saturating_mul(dilation);
        let pad = |at: usize| pads.map_or(0, |pads| pads.get(at).copied().unwrap_or(0));
        full &= pad(axis) >= reach && pad(axis + axes) >= reach;
    }
    if full {
        return Ok(());
    }
    Err(Refusal::new(
        "transposed-border",
        format!(
            "not every output of {} sums over the whole kernel, so a shift before it is no constant behind it",
            context.model.describe(node)
        ),
    )
    .with("node", context.model.label(node))
    .into())
}
