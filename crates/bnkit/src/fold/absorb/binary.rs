//! Add, Sub, Mul and Div by a constant: an affine themselves, and absorbers of the part that is their own.

use bnkit_model::onnx::{Edit, NodeId};

use super::quantised::require_plain;
use super::{Absorber, Absorption, rule};
use crate::affine::Affine;
use crate::explain::Explanation;
use crate::fold::context::Context;
use crate::fold::operands::{is_finite, require_declared, require_slots, require_type};
use crate::refusal::{Answer, refuse};
use crate::report::Refusal;
use crate::route::Part;

const RULE: Explanation = rule(
    "into-constant",
    "into the constant of an Add, Sub, Mul or Div",
    "\
Before: `x + c`, `x − c`, `c − x`, `x·c` or `x/c` beside the affine. After: the same operator with another constant.

Behind an Add, `s·(x + c) + t = s·x + (s·c + t)`: the constant takes the shift, the scale goes on to x (Sub likewise).
Behind a Mul or Div with t = 0: `c' = c·s`, or `c' = c/s` for s ≠ 0. Before an Add or Sub with s = 1 the constant takes t;
before a Mul or Div with t = 0 it takes s. `c / x` is no affine.

Conditions: the constant is of a float type and has one value, or one for each feature of the affine's axis: aligned
from the right, every other size is 1. A constant `[C]` against NCHW acts on the width, even when W = C.",
);

macro_rules! absorber {
    ($name:ident, $op:literal) => {
        pub(super) const $name: Absorber = Absorber {
            op_type: $op,
            slots: (2, 1),
            rule: RULE,
            output: behind,
            input: before,
        };
    };
}
absorber!(ADD, "Add");
absorber!(SUB, "Sub");
absorber!(MUL, "Mul");
absorber!(DIV, "Div");

/// An operator with a constant on one side.
struct Binary {
    data_slot: usize,
    dtype: bnkit_model::DType,
    values: Vec<f64>,
    dims: Vec<usize>,
    /// The axis of the data that the values lie along; `None` for a single value.
    axis: Option<usize>,
    rank: Option<usize>,
}

impl Binary {
    fn constant_slot(&self) -> usize {
        1 - self.data_slot
    }
}

fn read(context: &Context<'_>, node: NodeId, data_slot: Option<usize>) -> Answer<Binary> {
    require_slots(context, node, (2, 1))?;
    let constants = context.constants();
    let is_constant = |slot| {
        context
            .model
            .node(node)
            .input(slot)
            .is_some_and(|value| constants.is_constant(value))
    };
    let data_slot = match data_slot {
        // A third input is no operand.
        Some(slot @ (0 | 1)) if is_constant(1 - slot) => slot,
        None if is_constant(1) => 0,
        None if is_constant(0) => 1,
        _ => {
            return unfit(context, node, "combines two values, none of them constant");
        }
    };
    // What nobody reads, and a step on the way to a constant (what reads the result evaluates it), may be gone when all is done:
    // an affine in it would be lost.
    let output = context.model.node(node).output(0);
    if output.is_none_or(|output| context.model.value(output).uses.is_empty()) {
        return unfit(context, node, "is read by nobody");
    }
    if is_constant(data_slot) {
        return unfit(context, node, "is constant itself");
    }
    let constant_slot = 1 - data_slot;
    let tensor = context.weight(node, constant_slot)?;
    require_declared(context, node, constant_slot, &tensor)?;
    let dtype = tensor.dtype;
    let Some(constant) = context.optional(node, constant_slot)? else {
        return refuse("weight-not-constant", "a side is missing");
    };
    let data = context.input(node, data_slot)?;
    require_type(context, node, data, dtype)?;
    let rank = context.types.rank(data);
    let describe = || context.model.describe(node);
    let first = first_axis(context, node, constant_slot, constant.dims.len(), rank)?;
    let wide: Vec<usize> = (0..constant.dims.len())
        .filter(|&at| constant.dims[at] != 1)
        .collect();
    let axis = match *wide.as_slice() {
        [] => None,
        [at] => {
            let Some(first) = first else {
                return refuse(
                    "unknown-shape",
                    format!("the rank of what {} reads is not known", describe()),
                );
            };
            let axis = first + at;
            match context.types.dim(data, axis) {
                Some(size) if size == constant.dims[at] as u64 => Some(axis),
                Some(size) => {
                    let message = format!(
                        "the constant of {} has shape {:?}, axis {axis} of its data has size {size}",
                        describe(),
                        constant.dims
                    );
                    return refuse("broadcast", message);
                }
                None => {
                    return refuse(
                        "unknown-shape",
                        format!(
                            "the size of axis {axis} of what {} reads is not known",
                            describe()
                        ),
                    );
                }
            }
        }
        _ => {
            return refuse(
                "broadcast",
                format!(
                    "the constant of {} has shape {:?}: no single axis",
                    describe(),
                    constant.dims
                ),
            );
        }
    };
    if !is_finite(&constant) {
        return refuse(
            "range",
            format!(
                "the constant of {} has NaN or infinite elements",
                describe()
            ),
        );
    }
    Ok(Binary {
        data_slot,
        dtype,
        values: constant.values,
        dims: constant.dims,
        axis,
        rank,
    })
}

/// The refusal of a node that absorbs nothing.
fn unfit<T>(context: &Context<'_>, node: NodeId, why: &str) -> Answer<T> {
    let message = format!("{} {why}", context.model.describe(node));
    let refusal = Refusal::new("no-absorber", message);
    Err(refusal.with("node", context.model.label(node)).into())
}

/// The axis of the data that the constant's first axis is aligned with; `None` if the rank is not known.
fn first_axis(
    context: &Context<'_>,
    node: NodeId,
    constant_slot: usize,
    axes: usize,
    rank: Option<usize>,
) -> Answer<Option<usize>> {
    let describe = || context.model.describe(node);
    if axes == 0 {
        return Ok(rank);
    }
    let Some(rank) = rank else {
        return refuse(
            "unknown-shape",
            format!("the rank of what {} reads is not known", describe()),
        );
    };
    let aligned_right = rank.checked_sub(axes);
    let first = if context.opset(node) >= 7 {
        aligned_right
    } else {
        // Before opset 7 the second operand is broadcast along `axis`, and only if `broadcast` says so.
        if context.int(node, "broadcast", 0)? != 1 || constant_slot != 1 {
            return refuse(
                "broadcast",
                format!("{} does not broadcast its constant", describe()),
            );
        }
        match context.int(node, "axis", -1)? {
            -1 => aligned_right,
            axis => usize::try_from(axis)
                .ok()
                .filter(|axis| axis + axes <= rank),
        }
    };
    match first {
        Some(first) => Ok(Some(first)),
        None => refuse(
            "broadcast",
            format!("the constant of {} has more axes than its data", describe()),
        ),
    }
}

/// The affine that the node itself is, and the slot of its data.
pub(crate) fn constant_affine(context: &Context<'_>, node: NodeId) -> Answer<(usize, Affine)> {
    let binary = read(context, node, None)?;
    let first_is_data = binary.data_slot == 0;
    let of = |f: &dyn Fn(f64) -> (f64, f64)| {
        let (scale, shift): (Vec<f64>, Vec<f64>) = binary.values.iter().map(|&c| f(c)).unzip();
        match binary.axis {
            Some(axis) => Affine::per_channel(scale, shift, axis),
            None => Affine::uniform(scale[0], shift[0]),
        }
    };
    let affine = match (context.model.node(node).op_type.as_str(), first_is_data) {
        ("Add", _) => of(&|c| (1.0, c)),
        ("Sub", true) => of(&|c| (1.0, -c)),
        ("Sub", false) => of(&|c| (-1.0, c)),
        ("Mul", _) => of(&|c| (c, 0.0)),
        ("Div", true) if binary.values.iter().all(|&c| c != 0.0) => of(&|c| (1.0 / c, 0.0)),
        _ => {
            return refuse(
                "no-absorber",
                format!("{} is no affine", context.model.describe(node)),
            );
        }
    };
    Ok((binary.data_slot, affine))
}

/// Brings the constant and the affine to the same features: (values, affine, axis).
fn align(
    context: &Context<'_>,
    node: NodeId,
    binary: &Binary,
    affine: &Affine,
) -> Answer<(Vec<f64>, Affine)> {
    match (binary.axis, affine.axis) {
        (None, _) => Ok((vec![binary.values[0]; affine.len()], affine.clone())),
        (Some(axis), _) => {
            let affine = context.expect(node, affine, axis, binary.values.len())?;
            Ok((binary.values.clone(), affine))
        }
    }
}

fn put(
    context: &Context<'_>,
    node: NodeId,
    binary: &Binary,
    affine: &Affine,
    values: Vec<f64>,
) -> Answer<Vec<Edit>> {
    if values == binary.values {
        return Ok(Vec::new());
    }
    require_plain(context, node, binary.constant_slot())?;
    let dims = if values.len() == binary.values.len() {
        binary.dims.clone()
    } else {
        // One value becomes one for each feature: [C, 1, …] aligned from the right.
        let (Some(axis), Some(rank)) = (affine.axis, binary.rank) else {
            return refuse(
                "unknown-shape",
                format!(
                    "the rank of what {} reads is not known",
                    context.model.describe(node)
                ),
            );
        };
        if context.opset(node) < 7 || axis >= rank {
            return refuse(
                "old-opset",
                format!(
                    "{} does not broadcast by today's rules",
                    context.model.describe(node)
                ),
            );
        }
        let mut dims = vec![1; rank - axis];
        dims[0] = values.len();
        dims
    };
    let new = context.dense(binary.dtype, dims, values)?;
    Ok(context.put(node, binary.constant_slot(), new, ""))
}

fn behind(context: &Context<'_>, node: NodeId, affine: &Affine) -> Answer<Absorption> {
    let binary = read(context, node, None)?;
    let (constant, affine) = align(context, node, &binary, affine)?;
    let (scale, shift) = (&affine.scale, &affine.shift);
    let zip = |f: &dyn Fn(f64, f64, f64) -> f64| -> Vec<f64> {
        (constant.iter().zip(scale).zip(shift))
            .map(|((&c, &s), &t)| f(c, s, t))
            .collect()
    };
    let (values, part) = match (context.model.node(node).op_type.as_str(), binary.data_slot) {
        ("Add", _) | ("Sub", 1) => (zip(&|c, s, t| s * c + t), Part::Shift),
        ("Sub", _) => (zip(&|c, s, t| s * c - t), Part::Shift),
        _ => (
            scaled(context, node, &binary, &constant, &affine)?,
            Part::Scale,
        ),
    };
    let edits = put(context, node, &binary, &affine, values)?;
    let rest = (part == Part::Shift && !affine.has_no_scale()).then(|| affine.scale_only());
    Ok(Absorption {
        edits,
        part,
        data_slot: binary.data_slot,
        channels: affine.channels,
        rest,
    })
}

/// The constant of a Mul or Div times s, for an affine without a shift.
fn scaled(
    context: &Context<'_>,
    node: NodeId,
    binary: &Binary,
    constant: &[f64],
    affine: &Affine,
) -> Answer<Vec<f64>> {
    let describe = || context.model.describe(node);
    if !affine.has_no_shift() {
        return Err(Refusal::new(
            "nonzero-shift",
            format!("{} takes a scale, not a shift", describe()),
        )
        .with("node", context.model.label(node))
        .into());
    }
    let pairs = constant.iter().zip(&affine.scale);
    match (context.model.node(node).op_type.as_str(), binary.data_slot) {
        ("Mul", _) => Ok(pairs.map(|(c, s)| c * s).collect()),
        ("Div", 0)
            if affine.scale.iter().all(|&s| s != 0.0) && constant.iter().all(|&c| c != 0.0) =>
        {
            Ok(pairs.map(|(c, s)| c / s).collect())
        }
        _ => refuse(
            "no-absorber",
            format!("{} divides by what would be scaled, or by 0", describe()),
        ),
    }
}

fn before(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Absorption> {
    let binary = read(context, node, Some(slot))?;
    let (constant, affine) = align(context, node, &binary, affine)?;
    let describe = || context.model.describe(node);
    let shifted = |sign: f64| {
        constant
            .iter()
            .zip(&affine.shift)
            .map(|(c, t)| c + sign * t)
            .collect()
    };
    let (values, part): (Vec<f64>, Part) = match (context.model.node(node).op_type.as_str(), slot) {
        ("Add" | "Sub", _) if !affine.has_no_scale() => {
            return refuse(
                "no-absorber",
                format!("{} takes a shift, not a scale", describe()),
            );
        }
        ("Add", _) => (shifted(1.0), Part::Shift),
        ("Sub", _) => (shifted(-1.0), Part::Shift),
        _ => (
            scaled(context, node, &binary, &constant, &affine)?,
            Part::Scale,
        ),
    };
    let edits = put(context, node, &binary, &affine, values)?;
    Ok(Absorption {
        edits,
        part,
        data_slot: slot,
        channels: affine.channels,
        rest: None,
    })
}

#[cfg(test)]
mod tests;
