//! Gemm: Y = alpha·op(A)·op(B) + beta·C, with C broadcast to (M, N).

use std::sync::Arc;

use bnkit_model::onnx::{Dense, Edit, NodeId, TensorDef};

use super::quantised::{self, put_bias, scale_weight};
use super::{Absorber, Absorption, rule};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::fold::operands::{is_finite, mismatch, require_declared, require_size, require_type};
use crate::refusal::{Answer, refuse};

pub(super) const GEMM: Absorber = Absorber {
    op_type: "Gemm",
    slots: (3, 1),
    rule: rule(
        "into-gemm",
        "into B and C of a Gemm",
        "\
Before: `Gemm → BatchNorm`, or `BatchNorm → Gemm`. After: `Gemm` with another B and C; beta becomes 1, alpha stays.

Behind it, for column n of the result: the N side of B times s[n], `C'[n] = beta·C[n]·s[n] + t[n]`. C may be absent or have
any shape that broadcasts to (M, N); one that varies with M becomes (M, N).

Before it, for the contracted index k of A (transA = 0): row k of op(B) times s[k],
`C'[n] = beta·C[n] + alpha·Σ t[k]·op(B)[k,n]`. With transA = 1 the channel is not the contracted index: refused.

Conditions: B and C are constants of a float type; the result fits the type.",
    ),
    output: behind,
    input: before,
};

struct Gemm {
    b: Arc<TensorDef>,
    inner: usize,
    outer: usize,
    /// Whether B is stored as (N, K).
    transposed: bool,
    /// The axis of A that becomes rows of the result.
    row_axis: usize,
    alpha: f64,
    beta: f64,
}

impl Gemm {
    fn columns(&self) -> usize {
        if self.transposed {
            self.b.dims[0]
        } else {
            self.b.dims[1]
        }
    }

    fn rows(&self) -> usize {
        if self.transposed {
            self.b.dims[1]
        } else {
            self.b.dims[0]
        }
    }
}

fn read(context: &Context<'_>, node: NodeId) -> Answer<Gemm> {
    let b = context.weight(node, 1)?;
    require_declared(context, node, 1, &b)?;
    let transposed = context.int(node, "transB", 0)? != 0;
    let [outer, inner] = *b.dims else {
        let what = format!("has a B of shape {:?}, expected two axes", b.dims);
        return Err(mismatch(context, node, what));
    };
    let data = context.input(node, 0)?;
    if let Some(rank) = context.types.rank(data)
        && rank != 2
    {
        let what = format!("has an A of {rank} axes, expected two");
        return Err(mismatch(context, node, what));
    }
    let contracted = usize::from(context.int(node, "transA", 0)? == 0);
    let count = if transposed { inner } else { outer };
    require_size(context, node, data, (contracted, count))?;
    require_type(context, node, data, b.dtype)?;
    let factor = |name| -> Answer<f64> {
        match context.float(node, name, 1.0)? {
            value if value.is_finite() => Ok(value),
            value => {
                let describe = context.model.describe(node);
                refuse("range", format!("{describe} has {name} {value}"))
            }
        }
    };
    let (alpha, beta) = (factor("alpha")?, factor("beta")?);
    Ok(Gemm {
        b,
        inner,
        outer,
        transposed,
        row_axis: 1 - contracted,
        alpha,
        beta,
    })
}

fn behind(context: &Context<'_>, node: NodeId, affine: &Affine) -> Answer<Absorption> {
    let gemm = read(context, node)?;
    let affine = context.expect(node, affine, 1, gemm.columns())?;
    let inner = if gemm.transposed { gemm.inner } else { 1 };
    let mut edits = Vec::new();
    let factors = affine.scale.clone();
    edits.extend(scale_weight(context, node, 1, &gemm.b, inner, factors)?);
    let (scale, shift) = (&affine.scale, &affine.shift);
    edits.extend(new_addend(
        context,
        node,
        &gemm,
        Some(scale),
        |column, addend| addend * scale[column] + shift[column],
    )?);
    Ok(Absorption::whole(edits, 0, &affine))
}

fn before(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Absorption> {
    if slot != 0 {
        return refuse(
            "weight-not-constant",
            "the affine computes B or C of a Gemm",
        );
    }
    if context.int(node, "transA", 0)? != 0 {
        return refuse(
            "channel-axis",
            format!(
                "{} reads its data transposed, so the channels are not what it sums over",
                context.model.describe(node)
            ),
        );
    }
    let gemm = read(context, node)?;
    let affine = context.expect(node, affine, 1, gemm.rows())?;
    let inner = if gemm.transposed { 1 } else { gemm.inner };
    let mut edits = Vec::new();
    let factors = affine.scale.clone();
    edits.extend(scale_weight(context, node, 1, &gemm.b, inner, factors)?);
    if !affine.has_no_shift() {
        let mut sums = vec![0.0; gemm.columns()];
        context.model.for_each_chunk(&gemm.b, |start, elements| {
            for (element, weight) in (start..).zip(elements) {
                let (first, second) = (element / gemm.inner, element % gemm.inner);
                let (row, column) = if gemm.transposed {
                    (second, first)
                } else {
                    (first, second)
                };
                sums[column] += weight * affine.shift[row];
            }
            Ok(())
        })?;
        edits.extend(new_addend(context, node, &gemm, None, |column, addend| {
            addend + gemm.alpha * sums[column]
        })?);
    } else if let Some(value) = context.model.node(node).input(2)
        && context.with_defaults().constants().is_constant(value)
    {
        // It stays as it is; but what it makes of the sum must be known. One that is computed may be anything.
        let addend = addend(&context.with_defaults(), node, &gemm)?;
        if addend.is_some_and(|addend| !is_finite(&addend)) {
            return refuse("range", "C has NaN or infinite elements");
        }
    }
    debug_assert_eq!(gemm.outer * gemm.inner, gemm.b.len());
    Ok(Absorption::whole(edits, 0, &affine))
}

/// The shape of C as rows and columns, each of which may be 1 for all.
fn rows_and_columns(dims: &[usize]) -> Answer<(usize, usize)> {
    match *dims {
        [] => Ok((1, 1)),
        [width] if width > 0 => Ok((1, width)),
        [rows, width] if rows > 0 && width > 0 => Ok((rows, width)),
        _ => refuse("broadcast", format!("C has shape {dims:?}")),
    }
}

/// The constant C, which has to fit the product even where beta is 0 and nobody reads its elements.
fn addend(context: &Context<'_>, node: NodeId, gemm: &Gemm) -> Answer<Option<Dense<f64>>> {
    let Some(addend) = quantised::bias(context, node, 2)? else {
        return Ok(None);
    };
    let (dims, columns) = (&addend.dims, gemm.columns());
    let (rows, width) = rows_and_columns(dims)?;
    if width != 1 && width != columns {
        let what = format!("has a C of shape {dims:?}, expected {columns} columns");
        return Err(mismatch(context, node, what));
    }
    let data = context.input(node, 0)?;
    match context.types.dim(data, gemm.row_axis) {
        Some(count) if rows != 1 && rows as u64 != count => {
            let what = format!("has a C of shape {dims:?}, expected {count} rows");
            Err(mismatch(context, node, what))
        }
        _ => Ok(Some(addend)),
    }
}

/// C' = f(column, beta·C), as a row unless C varies with M; beta becomes 1.
fn new_addend(
    context: &Context<'_>,
    node: NodeId,
    gemm: &Gemm,
    weight_factors: Option<&[f64]>,
    f: impl Fn(usize, f64) -> f64,
) -> Answer<Vec<Edit>> {
    let columns = gemm.columns();
    // With beta = 0 its elements are not read, whatever they are.
    let old = addend(context, node, gemm)?.filter(|_| gemm.beta != 0.0);
    let (dims, values) = match &old {
        None => (vec![], vec![0.0]),
        Some(old) => (old.dims.clone(), old.values.clone()),
    };
    let (rows, width) = rows_and_columns(&dims)?;
    let at = |row: usize, column: usize| {
        gemm.beta * values[row * width + if width == 1 { 0 } else { column }]
    };
    let result: Vec<f64> = (0..rows)
        .flat_map(|row| (0..columns).map(move |column| (row, column)))
        .map(|(row, column)| f(column, at(row, column)))
        .collect();
    if old.is_none() && result.iter().all(|&value| value == 0.0) {
        return Ok(Vec::new());
    }
    if !result.iter().all(|value| value.is_finite()) {
        return refuse("range", "C has NaN or infinite elements");
    }
    // Before opset 7 C is broadcast only if an attribute says so; else it has the shape of the output, and keeps it.
    let broadcasts = context.opset(node) >= 7 || context.int(node, "broadcast", 0)? != 0;
    let whole = vec![rows, columns];
    if !broadcasts && old.as_ref().is_none_or(|old| old.dims != whole) {
        let what = format!("{} does not broadcast its C", context.model.describe(node));
        return refuse("broadcast", what);
    }
    let dims = match rows == 1 && broadcasts {
        true => vec![columns],
        false => whole,
    };
    let mut edits = put_bias(
        context,
        node,
        (gemm.b.dtype, dims, result),
        weight_factors,
        &context.bias_name(node, 1),
    )?;
    if gemm.beta != 1.0 {
        edits.push(Edit::RemoveAttribute {
            node,
            name: "beta".to_owned(),
        });
    }
    Ok(edits)
}

#[cfg(test)]
mod tests;
