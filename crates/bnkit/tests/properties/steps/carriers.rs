//! Operators without weights: what an affine passes, and what it must not.

use bnkit_model::DType;

use super::super::net::{Net, Value, declared, float, int, ints, tensor, text};
use super::super::tape::Tape;

pub(super) fn identity(net: &mut Net, _: &mut Tape<'_>, x: &Value) {
    net.push("Identity", &[&x.name], vec![], x.dtype, x.dims.clone());
}

pub(super) fn dropout(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    if net.opset < 12 {
        let ratio = float("ratio", 0.3);
        net.push("Dropout", &[&x.name], vec![ratio], x.dtype, x.dims.clone());
        return;
    }
    let ratio = net.fresh("ratio");
    net.initializer(tensor(&ratio, DType::F32, &[], &[0.3]));
    let mode = match tape.below(3) {
        0 => None,
        on => {
            let mode = net.fresh("mode");
            net.initializer(tensor(&mode, DType::Bool, &[], &[(on - 1) as f64]));
            Some(mode)
        }
    };
    let mut inputs = vec![x.name.as_str(), &ratio];
    inputs.extend(mode.as_deref());
    net.push("Dropout", &inputs, vec![], x.dtype, x.dims.clone());
}

pub(super) fn flatten(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let axis = tape.of(&[1, 1, 1, 1, 0, 2]).min(x.dims.len());
    let dims = vec![
        x.dims[..axis].iter().product(),
        x.dims[axis..].iter().product(),
    ];
    let attributes = if axis == 1 && tape.once_in(2) {
        vec![]
    } else {
        vec![int("axis", axis as i64)]
    };
    net.push("Flatten", &[&x.name], attributes, x.dtype, dims);
}

pub(super) fn transpose(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let rank = x.dims.len();
    let mut perm: Vec<usize> = (0..rank).collect();
    match tape.below(5) {
        0 if rank > 1 => perm.swap(1, rank - 1),
        1 if rank > 2 => perm[1..].rotate_left(1),
        2 if rank > 2 => perm[1..].rotate_right(1),
        3 => {
            for at in (1..rank).rev() {
                perm.swap(at, tape.below(at + 1));
            }
        }
        _ => perm.reverse(),
    }
    let dims = perm.iter().map(|&from| x.dims[from]).collect();
    let backwards = perm.iter().rev().copied().eq(0..rank);
    let attributes = if backwards && tape.once_in(2) {
        vec![]
    } else {
        vec![ints("perm", &perm)]
    };
    net.push("Transpose", &[&x.name], attributes, x.dtype, dims);
}

pub(super) fn reshape(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let rank = x.dims.len();
    if rank < 2 {
        return;
    }
    let mut to = x.dims.clone();
    match tape.below(6) {
        // The spatial axes become one.
        0 if rank > 2 => to = vec![x.dims[0], x.dims[1], x.dims[2..].iter().product()],
        // The channel axis splits in two.
        1 | 2 => {
            if let Some(by) = (2..=x.dims[1]).find(|by| x.dims[1].is_multiple_of(*by)) {
                let by = if tape.once_in(2) { by } else { x.dims[1] / by };
                to.splice(1..2, [x.dims[1] / by, by]);
            }
        }
        // Channel and what follows become one.
        3 if rank > 2 => {
            to.splice(1..3, [x.dims[1] * x.dims[2]]);
        }
        // The batch swallows the channel.
        4 => {
            to.splice(0..2, [x.dims[0] * x.dims[1]]);
        }
        5 => to = vec![x.dims[0], x.dims[1..].iter().product()],
        _ => to.push(1),
    }
    if to.len() > 5 {
        return;
    }
    let mut shape: Vec<i64> = to.iter().map(|&dim| dim as i64).collect();
    match tape.below(4) {
        1 => {
            let last = shape.len() - 1;
            shape[last] = -1;
        }
        2 if to[0] == x.dims[0] => shape[0] = 0,
        3 if to[0] == x.dims[0] => shape[0] = -1,
        _ => {}
    }
    let shape = net.integers(&shape);
    net.push("Reshape", &[&x.name, &shape], vec![], x.dtype, to);
}

/// Squeeze where there is something to squeeze, Unsqueeze elsewhere.
pub(super) fn squeeze(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let rank = x.dims.len();
    let single: Vec<usize> = (0..rank).filter(|&axis| x.dims[axis] == 1).collect();
    let mut dims = x.dims.clone();
    let (op_type, axis) = if rank > 2 && !single.is_empty() && tape.below(3) > 0 {
        let axis = single[tape.below(single.len())];
        dims.remove(axis);
        ("Squeeze", axis)
    } else if rank < 5 {
        let axis = tape.below(rank + 1);
        dims.insert(axis, 1);
        ("Unsqueeze", axis)
    } else {
        return;
    };
    if net.opset < 13 {
        let axes = ints("axes", &[axis]);
        net.push(op_type, &[&x.name], vec![axes], x.dtype, dims);
    } else {
        let axes = net.integers(&[axis as i64]);
        net.push(op_type, &[&x.name, &axes], vec![], x.dtype, dims);
    }
}

pub(super) fn pad(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let rank = x.dims.len();
    if rank < 3 {
        return;
    }
    let mode = tape.of(&["reflect", "constant", "edge"]);
    let (mut begin, mut end) = (vec![0; rank], vec![0; rank]);
    let first = if tape.once_in(8) { 1 } else { 2 };
    for axis in first..rank {
        let most = match mode {
            "reflect" => x.dims[axis].min(3),
            _ => 3,
        };
        (begin[axis], end[axis]) = (tape.below(most), tape.below(most));
    }
    let dims: Vec<usize> = (0..rank)
        .map(|axis| x.dims[axis] + begin[axis] + end[axis])
        .collect();
    if !super::fits(&dims) {
        return;
    }
    let pads = [begin, end].concat();
    let constant = tape.of(&[0.0, 0.0, 1.0, -0.5]);
    let mut attributes = vec![text("mode", mode)];
    if net.opset < 11 {
        attributes.push(ints("pads", &pads));
        if mode == "constant" {
            attributes.push(float("value", constant));
        }
        net.push("Pad", &[&x.name], attributes, x.dtype, dims);
        return;
    }
    let pads = net.shape(&pads);
    let mut inputs = vec![x.name.as_str(), &pads];
    let value = net.fresh("padding");
    if mode == "constant" && (constant != 0.0 || tape.once_in(2)) {
        net.initializer(tensor(&value, x.dtype, &[], &[f64::from(constant)]));
        inputs.push(&value);
    }
    net.push("Pad", &inputs, attributes, x.dtype, dims);
}

pub(super) fn activation(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let op_type = tape.of(&["Relu", "Relu", "LeakyRelu", "Sigmoid", "Neg", "Tanh"]);
    net.push(op_type, &[&x.name], vec![], x.dtype, x.dims.clone());
}

pub(super) fn pool(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    if !(3..=5).contains(&x.dims.len()) {
        return;
    }
    let op_type = tape.of(&["MaxPool", "AveragePool"]);
    let ceil = net.opset >= 10 && tape.once_in(5);
    let mut dims = x.dims[..2].to_vec();
    let (mut kernel, mut strides, mut begin, mut end) = (vec![], vec![], vec![], vec![]);
    for &size in &x.dims[2..] {
        let k = 1 + tape.below(3);
        let stride = (1 + tape.below(2)).min(k);
        let (a, b) = if ceil || k == 1 {
            (0, 0)
        } else {
            (tape.below(2), tape.below(2))
        };
        if size + a + b < k {
            return;
        }
        let room = size + a + b - k;
        dims.push(
            if ceil {
                room.div_ceil(stride)
            } else {
                room / stride
            } + 1,
        );
        kernel.push(k);
        strides.push(stride);
        begin.push(a);
        end.push(b);
    }
    begin.extend(&end);
    let mut attributes = vec![
        ints("kernel_shape", &kernel),
        ints("strides", &strides),
        ints("pads", &begin),
    ];
    if ceil {
        attributes.push(int("ceil_mode", 1));
    }
    if op_type == "AveragePool" && tape.once_in(2) {
        attributes.push(int("count_include_pad", 1));
    }
    net.push(op_type, &[&x.name], attributes, x.dtype, dims);
}

pub(super) fn global_pool(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let rank = x.dims.len();
    if rank < 3 {
        return;
    }
    let mut dims = x.dims[..2].to_vec();
    match tape.below(4) {
        0 => {
            dims.resize(rank, 1);
            let op_type = tape.of(&["GlobalAveragePool", "GlobalMaxPool"]);
            net.push(op_type, &[&x.name], vec![], x.dtype, dims);
        }
        kind => {
            let axes: Vec<usize> = if kind == 3 {
                vec![rank - 1]
            } else {
                (2..rank).collect()
            };
            let keep = kind != 2;
            let mut dims = x.dims.clone();
            for &axis in axes.iter().rev() {
                if keep {
                    dims[axis] = 1;
                } else {
                    dims.remove(axis);
                }
            }
            let mut attributes = vec![int("keepdims", i64::from(keep))];
            if net.opset < 18 {
                attributes.push(ints("axes", &axes));
                net.push("ReduceMean", &[&x.name], attributes, x.dtype, dims);
            } else {
                let axes = net.shape(&axes);
                net.push("ReduceMean", &[&x.name, &axes], attributes, x.dtype, dims);
            }
        }
    }
}

/// Another value of the same shape, or x itself.
fn partner(net: &Net, tape: &mut Tape<'_>, x: &Value) -> Value {
    let others: Vec<&Value> = (net.values.iter().rev())
        .filter(|value| value.dims == x.dims && value.dtype == x.dtype && value.name != x.name)
        .collect();
    match tape.below(4) {
        3 => x.clone(),
        choice => others
            .get(choice % others.len().max(1))
            .map_or(x, |value| value)
            .clone(),
    }
}

/// A residual: two values of one shape.
pub(super) fn branches(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let other = partner(net, tape, x);
    let op_type = tape.of(&["Add", "Add", "Sub", "Mul"]);
    let (a, b) = if tape.once_in(2) {
        (x, &other)
    } else {
        (&other, x)
    };
    net.push(
        op_type,
        &[&a.name, &b.name],
        vec![],
        x.dtype,
        x.dims.clone(),
    );
}

pub(super) fn concat(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let other = partner(net, tape, x);
    let axis = tape.of(&[1, 1, 1, 0, 2]).min(x.dims.len() - 1);
    let mut dims = x.dims.clone();
    dims[axis] *= 2;
    if !super::fits(&dims) || dims[axis] > 12 {
        return;
    }
    let axis = int("axis", axis as i64);
    net.push("Concat", &[&x.name, &other.name], vec![axis], x.dtype, dims);
}

/// Split in two; both parts go on.
pub(super) fn split(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let axis = tape.of(&[1, 1, 1, 2]).min(x.dims.len().saturating_sub(1));
    if x.dims.is_empty() || x.dims[axis] < 2 {
        return;
    }
    let first = 1 + tape.below(x.dims[axis] - 1);
    let parts = [first, x.dims[axis] - first];
    let mut attributes = vec![int("axis", axis as i64)];
    let mut dims = x.dims.clone();
    dims[axis] = parts[0];
    if net.opset < 13 {
        attributes.push(ints("split", &parts));
        net.push("Split", &[&x.name], attributes, x.dtype, dims.clone());
    } else {
        let sizes = net.shape(&parts);
        net.push(
            "Split",
            &[&x.name, &sizes],
            attributes,
            x.dtype,
            dims.clone(),
        );
    }
    dims[axis] = parts[1];
    let name = net.fresh("Split");
    net.graph
        .node
        .last_mut()
        .expect("the Split")
        .output
        .push(name.clone());
    let dtype = x.dtype;
    net.values.push(Value { name, dims, dtype });
}

pub(super) fn cast(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    if net.opset < 13 {
        return;
    }
    let to = tape.of(&[DType::F32, DType::F64]);
    let attribute = int("to", i64::from(to.to_onnx()));
    net.push("Cast", &[&x.name], vec![attribute], to, x.dims.clone());
}

/// Somebody reads the shape, and no element.
pub(super) fn shape_reader(net: &mut Net, _: &mut Tape<'_>, x: &Value) {
    let shape = net.node("Shape", &[&x.name], vec![]);
    net.graph
        .output
        .push(declared(&shape, DType::I64, &[Some(x.dims.len())]));
}

/// The value is an output, and goes on.
pub(super) fn output(net: &mut Net, _: &mut Tape<'_>, x: &Value) {
    let known = |name: &str, list: &[bnkit_model::proto::ValueInfoProto]| {
        list.iter().any(|info| info.name() == name)
    };
    if known(&x.name, &net.graph.output) || known(&x.name, &net.graph.input) {
        return;
    }
    let dims: Vec<Option<usize>> = x.dims.iter().map(|&dim| Some(dim)).collect();
    net.graph.output.push(declared(&x.name, x.dtype, &dims));
}
