//! BatchNorms, and Mul, Add, Sub and Div by constants.

use bnkit_model::DType;

use super::super::constants::Role;
use super::super::net::{Net, Value, declared, float, int};
use super::super::tape::Tape;

pub(super) fn batch_norm(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let Some(&channels) = x.dims.get(1) else {
        return;
    };
    // From opset 14 on the statistics, from 15 on all parameters may be of another type.
    let own = |from: i64, tape: &mut Tape<'_>| {
        let other = net.opset >= from && x.dtype == DType::F16 && tape.once_in(3);
        if other { DType::F32 } else { x.dtype }
    };
    let (affine, statistics) = (own(15, tape), own(14, tape));
    let dims = [channels];
    // A BatchNorm that only scales passes more than others do.
    let centred = tape.once_in(5);
    let vector = |net: &mut Net, tape: &mut Tape<'_>, dtype: DType| {
        if centred {
            net.given(tape, Role::Vector, dtype, &dims, vec![0.0; channels])
        } else {
            net.constant(tape, Role::Vector, dtype, &dims, 1)
        }
    };
    let role = if tape.once_in(8) {
        Role::Vector
    } else {
        Role::Scale
    };
    let gamma = net.constant(tape, role, affine, &dims, 1);
    let beta = vector(net, tape, affine);
    let mean = vector(net, tape, statistics);
    let variance = net.constant(tape, Role::Variance, statistics, &dims, 1);
    let mut attributes = vec![];
    if tape.once_in(2) {
        attributes.push(float("epsilon", tape.of(&[1e-3, 1e-5, 0.1])));
    }
    let training = tape.once_in(6);
    if training && net.opset >= 14 {
        attributes.push(int("training_mode", 1));
    }
    let inputs = [x.name.as_str(), &gamma, &beta, &mean, &variance];
    net.push(
        "BatchNormalization",
        &inputs,
        attributes,
        x.dtype,
        x.dims.clone(),
    );
    if !training {
        return;
    }
    let extra = if net.opset >= 14 { 2 } else { 4 };
    let names: Vec<String> = (0..extra).map(|_| net.fresh("training")).collect();
    if tape.once_in(3) {
        net.graph
            .output
            .push(declared(&names[0], statistics, &[Some(channels)]));
    }
    let node = net.graph.node.last_mut().expect("the BatchNorm");
    if net.opset < 14 || tape.once_in(2) {
        node.output.extend(names);
    } else {
        let read = net
            .graph
            .output
            .iter()
            .any(|output| output.name() == names[0]);
        node.output.extend(names.into_iter().filter(|_| read));
    }
}

/// The shapes that a constant may have against `dims`, plain ones first.
fn forms(dims: &[usize]) -> Vec<Vec<usize>> {
    let rank = dims.len();
    let along = |axis: usize, of: usize| {
        let mut form = vec![1; of];
        form[axis] = dims[axis];
        form
    };
    let mut forms = vec![vec![1; rank], vec![], vec![1]];
    if rank >= 2 {
        for _ in 0..3 {
            forms.push(along(1, rank));
            // [C, 1, …], aligned from the right.
            forms.push(along(1, rank)[1..].to_vec());
        }
        forms.push(vec![dims[rank - 1]]);
        forms.push(along(0, rank));
        forms.push(along(rank - 1, rank));
    }
    if rank >= 4 {
        forms.push(vec![dims[rank - 2], 1]);
    }
    forms.push(dims.to_vec());
    forms.push(
        std::iter::once(1)
            .chain(along(rank.min(2) - 1, rank))
            .collect(),
    );
    // Widening.
    forms.push(
        dims.iter()
            .map(|&dim| if dim == 1 { 2 } else { 1 })
            .collect(),
    );
    forms
}

/// The shape of two operands together.
fn broadcast(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], axis: usize| {
        (axis + dims.len())
            .checked_sub(rank)
            .map_or(1, |axis| dims[axis])
    };
    (0..rank).map(|axis| at(a, axis).max(at(b, axis))).collect()
}

pub(super) fn by_constant(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    if x.dims.is_empty() {
        return;
    }
    let op_type = tape.of(&["Mul", "Add", "Sub", "Div"]);
    let forms = forms(&x.dims);
    let form = forms[tape.below(forms.len())].clone();
    let first = op_type != "Div" && tape.once_in(3);
    apply(net, tape, x, op_type, &form, first);
}

fn apply(
    net: &mut Net,
    tape: &mut Tape<'_>,
    x: &Value,
    op_type: &str,
    form: &[usize],
    first: bool,
) -> bool {
    let dims = broadcast(&x.dims, form);
    if !super::fits(&dims) || x.dtype == DType::I64 {
        return false;
    }
    let role = match op_type {
        "Mul" | "Div" => Role::Factor,
        _ => Role::Vector,
    };
    let constant = net.constant(tape, role, x.dtype, form, 1);
    let inputs = if first {
        [constant.as_str(), &x.name]
    } else {
        [x.name.as_str(), &constant]
    };
    net.push(op_type, &inputs, vec![], x.dtype, dims);
    true
}

/// A normalisation in four operators.
pub(super) fn decomposed(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let rank = x.dims.len();
    if rank < 2 {
        return;
    }
    let mut form = vec![1; rank];
    form[1] = x.dims[1];
    let form = &form[tape.below(2)..];
    let mut x = x.clone();
    for op_type in ["Sub", "Div", "Mul", "Add"] {
        if !apply(net, tape, &x, op_type, form, false) {
            return;
        }
        x = net.values.last().expect("just made").clone();
    }
}
