//! MatMul with a constant matrix on one side. It has no bias: a shift needs an Add behind it.

use std::sync::Arc;

use bnkit_model::onnx::{Edit, NewTensor, NodeId, Operand, TensorDef, Use};

use super::quantised::scale_weight;
use super::{Absorber, Absorption, rule};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::fold::operands::{require_declared, require_size, require_type};
use crate::refusal::{Answer, refuse};

pub(super) const MATMUL: Absorber = Absorber {
    op_type: "MatMul",
    slots: (2, 1),
    rule: rule(
        "into-matmul",
        "into the constant matrix of a MatMul",
        "\
Before: `MatMul (→ Add) → BatchNorm`, or `BatchNorm → MatMul`. After: `MatMul` with another matrix, and an `Add` for the
shift unless an Add by a constant already follows, which then takes it.

The constant has two axes. On the right (x @ W) its columns are the last axis of the result, its rows the last axis of x;
on the left (W @ x) its rows are the last axis but one of the result, its columns the last axis but one of x.
Behind: `W'[k,n] = W[k,n]·s[n]`. Before: `W'[k,n] = W[k,n]·s[k]`, and `Σ_k W[k,n]·t[k]` is added.

BatchNorm's channel is axis 1: that is the last axis only for two axes, or where a Transpose on the way brings it
there. Sizes that happen to agree prove nothing.

Conditions: the matrix is a constant of a float type; the rank is known; the result fits the type.",
    ),
    output: behind,
    input: before,
};

struct MatMul {
    matrix: Arc<TensorDef>,
    matrix_slot: usize,
    data_slot: usize,
    rank: usize,
}

fn read(context: &Context<'_>, node: NodeId, data_slot: Option<usize>) -> Answer<MatMul> {
    let constants = context.constants();
    let matrix_slot = match data_slot {
        // There are two operands, whatever the file says.
        Some(slot) => usize::from(slot == 0),
        None if context
            .model
            .node(node)
            .input(1)
            .is_some_and(|value| constants.is_constant(value)) =>
        {
            1
        }
        None => 0,
    };
    let matrix = context.weight(node, matrix_slot)?;
    require_declared(context, node, matrix_slot, &matrix)?;
    let data_slot = 1 - matrix_slot;
    let data = context.input(node, data_slot)?;
    if matrix.dims.len() != 2 {
        return refuse(
            "channel-axis",
            format!(
                "the constant of {} has {} axes, not two",
                context.model.describe(node),
                matrix.dims.len()
            ),
        );
    }
    let Some(rank) = context.types.rank(data) else {
        return refuse(
            "unknown-shape",
            format!(
                "the rank of what {} multiplies is not known",
                context.model.describe(node)
            ),
        );
    };
    if rank < 2 {
        return refuse(
            "channel-axis",
            format!("{} multiplies a vector", context.model.describe(node)),
        );
    }
    let (axis, count) = match matrix_slot {
        1 => (rank - 1, matrix.dims[0]),
        _ => (rank - 2, matrix.dims[1]),
    };
    require_size(context, node, data, (axis, count))?;
    require_type(context, node, data, matrix.dtype)?;
    Ok(MatMul {
        matrix,
        matrix_slot,
        data_slot,
        rank,
    })
}

fn behind(context: &Context<'_>, node: NodeId, affine: &Affine) -> Answer<Absorption> {
    let matmul = read(context, node, None)?;
    let (rows, columns) = (matmul.matrix.dims[0], matmul.matrix.dims[1]);
    let right = matmul.matrix_slot == 1;
    let (axis, count, inner) = if right {
        (matmul.rank - 1, columns, 1)
    } else {
        (matmul.rank - 2, rows, columns)
    };
    let affine = context.expect(node, affine, axis, count)?;
    let mut edits = Vec::new();
    edits.extend(scale_weight(
        context,
        node,
        matmul.matrix_slot,
        &matmul.matrix,
        inner,
        affine.scale.clone(),
    )?);
    if !affine.has_no_shift() {
        edits.extend(add_shift(context, node, &matmul, affine.shift.clone())?);
    }
    Ok(Absorption::whole(edits, matmul.data_slot, &affine))
}

fn before(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Absorption> {
    let matmul = read(context, node, Some(slot))?;
    let (rows, columns) = (matmul.matrix.dims[0], matmul.matrix.dims[1]);
    let right = matmul.matrix_slot == 1;
    let (axis, count, inner) = if right {
        (matmul.rank - 1, rows, columns)
    } else {
        (matmul.rank - 2, columns, 1)
    };
    let affine = context.expect(node, affine, axis, count)?;
    let mut edits = Vec::new();
    edits.extend(scale_weight(
        context,
        node,
        matmul.matrix_slot,
        &matmul.matrix,
        inner,
        affine.scale.clone(),
    )?);
    if !affine.has_no_shift() {
        let mut sums = vec![0.0; if right { columns } else { rows }];
        context
            .model
            .for_each_chunk(&matmul.matrix, |start, elements| {
                for (element, weight) in (start..).zip(elements) {
                    let (row, column) = (element / columns, element % columns);
                    let (sum, summed) = if right { (column, row) } else { (row, column) };
                    sums[sum] += weight * affine.shift[summed];
                }
                Ok(())
            })?;
        edits.extend(add_shift(context, node, &matmul, sums)?);
    }
    Ok(Absorption::whole(edits, matmul.data_slot, &affine))
}

/// Into the Add that an earlier shift put behind the MatMul, or into a new one, which takes over the name of its output.
fn add_shift(
    context: &Context<'_>,
    node: NodeId,
    matmul: &MatMul,
    shift: Vec<f64>,
) -> Answer<Vec<Edit>> {
    if let Some(add) = own_addition(context, node) {
        return add_to(context, add, &shift);
    }
    let describe = || context.model.describe(node);
    if !context.may_add_nodes {
        return refuse(
            "no-absorber",
            format!(
                "{} has no bias, and an Add by a constant is already there",
                describe()
            ),
        );
    }
    if context.opset(node) < 7 {
        return refuse(
            "old-opset",
            format!(
                "{} has no bias, and Add before opset 7 does not broadcast",
                describe()
            ),
        );
    }
    let output = context.model.node(node).output(0);
    let output =
        output.ok_or_else(|| bnkit_model::Error::invalid("has no output").at(describe()))?;
    let scope = context.model.node(node).scope;
    let right = matmul.matrix_slot == 1;
    let dims = if right {
        vec![shift.len()]
    } else {
        vec![shift.len(), 1]
    };
    let tensor: NewTensor = context.dense(matmul.matrix.dtype, dims, shift)?;
    let constant = context
        .model
        .fresh_name(&context.bias_name(node, matmul.matrix_slot));
    let product = context
        .model
        .fresh_name(&format!("{}_product", context.model.value(output).name));
    let label = context.model.label(node);
    Ok(vec![
        Edit::AddConstant {
            scope,
            name: constant.clone(),
            tensor,
        },
        Edit::SetOutput {
            node,
            slot: 0,
            value: Operand::New(product.clone()),
        },
        Edit::AddNode {
            after: node,
            op_type: "Add",
            name: context.fresh_node_name(label, "bias"),
            inputs: vec![Operand::New(product), Operand::New(constant)],
            outputs: vec![output.into()],
        },
    ])
}

/// The Add that an earlier shift put behind the MatMul, if nothing else reads the product. (One that was there before is
/// an operator of its own, with a record of its own.)
fn own_addition(context: &Context<'_>, node: NodeId) -> Option<NodeId> {
    let output = context.model.node(node).output(0)?;
    match context.model.value(output).only_use() {
        Some(Use::Node(add, 0)) => {
            let info = context.model.node(add);
            (info.is_new() && info.is("Add")).then_some(add)
        }
        _ => None,
    }
}

/// Adds to the constant of an Add that [`add_shift`] made.
fn add_to(context: &Context<'_>, add: NodeId, shift: &[f64]) -> Answer<Vec<Edit>> {
    let tensor = context.weight(add, 1)?;
    let old = context.model.read_f64(&tensor)?;
    if old.len() != shift.len() {
        let describe = context.model.describe(add);
        return Err(
            bnkit_model::Error::invalid("has another shape than its product")
                .at(describe)
                .into(),
        );
    }
    let sums = old.iter().zip(shift).map(|(c, t)| c + t).collect();
    let new = context.dense(tensor.dtype, tensor.dims.clone(), sums)?;
    Ok(context.put(add, 1, new, ""))
}

#[cfg(test)]
mod tests {
    use crate::fold::{Options, plan};
    use crate::verify::algebra;
    use crate::verify::nets::Net;

    fn norm(net: Net, prefix: &str, x: &str, y: &str) -> Net {
        let names = ["g", "b", "m", "v"].map(|name| format!("{prefix}{name}"));
        let net = net
            .constant(&names[0], &[2], &[1.5, 4.0])
            .constant(&names[1], &[2], &[0.5, 0.25])
            .constant(&names[2], &[2], &[0.25, 1.0])
            .constant(&names[3], &[2], &[3.0, 2.0]);
        let [g, b, m, v] = names.each_ref().map(String::as_str);
        net.node("BatchNormalization", &[x, g, b, m, v], y)
    }

    #[test]
    fn two_shifts_share_one_addition() {
        // The first waits until the Mul is gone, so the second is there before it.
        let net = norm(Net::new("x", &[3, 2]), "first", "x", "n")
            .constant("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])
            .node("MatMul", &["n", "w"], "p");
        let net = norm(net, "second", "p", "y")
            .constant("c", &[2], &[2.0, 3.0])
            .node("Mul", &["n", "c"], "q")
            .constant("u", &[2, 2], &[5.0, 6.0, 7.0, 8.0])
            .node("MatMul", &["q", "u"], "z")
            .output("y")
            .output("z");
        let original = net.model();
        let plan = plan(&original, &Options::default()).unwrap();
        assert_eq!(plan.summary.folded, 2, "{:?}", plan.sites);
        let mut left: Vec<&str> = plan
            .apply()
            .nodes()
            .map(|(_, node)| node.op_type.as_str())
            .collect();
        left.sort_unstable();
        assert_eq!(left, ["Add", "Add", "MatMul", "MatMul"]);
        let checked = algebra::check(&original, plan.apply(), &plan.routes).unwrap();
        assert!(checked.failures.is_empty(), "{:?}", checked.failures);
        // The proof misses what one of the two adds.
        for route in 0..plan.routes.len() {
            let mut routes = plan.routes.clone();
            routes.remove(route);
            let checked = algebra::check(&original, plan.apply(), &routes).unwrap();
            assert!(!checked.failures.is_empty());
        }
    }
}
