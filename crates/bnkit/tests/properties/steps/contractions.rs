//! Operators with weights: Conv, ConvTranspose, Gemm, MatMul.

use super::super::constants::Role;
use super::super::net::{Net, Value, float, int, ints, text};
use super::super::tape::Tape;

fn divisors(count: usize) -> Vec<usize> {
    (1..=count)
        .filter(|group| count.is_multiple_of(*group))
        .collect()
}

/// A bias, or `None`; `Some("")` is an absent one that is written.
fn bias(net: &mut Net, tape: &mut Tape<'_>, x: &Value, channels: usize) -> Option<String> {
    match tape.below(6) {
        0..3 => Some(net.constant(tape, Role::Vector, x.dtype, &[channels], 1)),
        3 | 4 => None,
        _ => Some(String::new()),
    }
}

pub(super) fn conv(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let Some(spatial) = x
        .dims
        .len()
        .checked_sub(2)
        .filter(|rank| (1..=3).contains(rank))
    else {
        return;
    };
    let groups = divisors(x.dims[1]);
    let group = groups[tape.below(groups.len())];
    let channels = group * (1 + tape.below(3)).min((8 / group).max(1));
    let plain = tape.below(3) == 0;
    let mut kernel = vec![];
    let (mut strides, mut dilations) = (vec![], vec![]);
    let (mut begin, mut end) = (vec![], vec![]);
    let mode = if tape.once_in(4) {
        tape.of(&["VALID", "SAME_UPPER", "SAME_LOWER"])
    } else {
        "NOTSET"
    };
    let mut dims = vec![x.dims[0], channels];
    for &size in &x.dims[2..] {
        let (k, stride) = (1 + tape.below(3), 1 + tape.below(2) * usize::from(!plain));
        let same = mode.starts_with("SAME");
        let dilation = if plain || same { 1 } else { 1 + tape.below(2) };
        let pads = if plain || mode != "NOTSET" {
            (0, 0)
        } else {
            (tape.below(2), tape.below(2))
        };
        let extent = (k - 1) * dilation + 1;
        if !same && size + pads.0 + pads.1 < extent {
            return;
        }
        dims.push(if same {
            size.div_ceil(stride)
        } else {
            (size + pads.0 + pads.1 - extent) / stride + 1
        });
        kernel.push(k);
        strides.push(stride);
        dilations.push(dilation);
        begin.push(pads.0);
        end.push(pads.1);
    }
    if !super::fits(&dims) {
        return;
    }
    let mut attributes = vec![];
    if mode != "NOTSET" {
        attributes.push(text("auto_pad", mode));
    } else if !plain {
        begin.extend(&end);
        attributes.push(ints("pads", &begin));
    }
    if group > 1 || tape.once_in(2) {
        attributes.push(int("group", group as i64));
    }
    if !plain {
        attributes.push(ints("strides", &strides));
        attributes.push(ints("dilations", &dilations));
    }
    if !tape.once_in(4) {
        attributes.push(ints("kernel_shape", &kernel));
    }
    let mut form = vec![channels, x.dims[1] / group];
    form.extend(&kernel);
    let fan = form[1..].iter().product();
    let weight = net.constant(tape, Role::Weight, x.dtype, &form, fan);
    let bias = bias(net, tape, x, channels);
    let mut inputs = vec![x.name.as_str(), &weight];
    inputs.extend(bias.as_deref());
    debug_assert_eq!(dims.len(), spatial + 2);
    net.push("Conv", &inputs, attributes, x.dtype, dims);
}

pub(super) fn conv_transpose(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    if !(3..=5).contains(&x.dims.len()) {
        return;
    }
    let groups = divisors(x.dims[1]);
    let group = groups[tape.below(groups.len())];
    let each = (1 + tape.below(2)).min((8 / group).max(1));
    let channels = group * each;
    let plain = tape.below(3) == 0;
    let mut dims = vec![x.dims[0], channels];
    let (mut kernel, mut strides, mut dilations) = (vec![], vec![], vec![]);
    let (mut begin, mut end, mut extra) = (vec![], vec![], vec![]);
    for &size in &x.dims[2..] {
        let k = 1 + tape.below(3);
        let stride = if plain { 1 } else { 1 + tape.below(2) };
        let dilation = if plain { 1 } else { 1 + tape.below(2) };
        let extent = (k - 1) * dilation + 1;
        let output_padding = if stride > 1 { tape.below(2) } else { 0 };
        let full = stride * (size - 1) + extent + output_padding;
        // Up to the whole kernel is cut off: then every output sees every tap.
        let most = if plain { 0 } else { extent };
        let (a, b) = (tape.below(most + 1), tape.below(most + 1));
        if full < a + b + 1 {
            return;
        }
        dims.push(full - a - b);
        kernel.push(k);
        strides.push(stride);
        dilations.push(dilation);
        extra.push(output_padding);
        begin.push(a);
        end.push(b);
    }
    if !super::fits(&dims) {
        return;
    }
    let mut attributes = vec![ints("kernel_shape", &kernel)];
    if group > 1 {
        attributes.push(int("group", group as i64));
    }
    if !plain {
        begin.extend(&end);
        attributes.push(ints("pads", &begin));
        attributes.push(ints("strides", &strides));
        attributes.push(ints("dilations", &dilations));
        attributes.push(ints("output_padding", &extra));
    }
    let mut form = vec![x.dims[1], each];
    form.extend(&kernel);
    let fan = x.dims[1] / group * kernel.iter().product::<usize>();
    let weight = net.constant(tape, Role::Weight, x.dtype, &form, fan);
    let bias = bias(net, tape, x, channels);
    let mut inputs = vec![x.name.as_str(), &weight];
    inputs.extend(bias.as_deref());
    net.push("ConvTranspose", &inputs, attributes, x.dtype, dims);
}

pub(super) fn gemm(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let [a, b] = *x.dims.as_slice() else { return };
    let on_the_right = tape.once_in(8);
    let (turn_a, turn_b) = (tape.once_in(6), tape.once_in(2));
    let other = 1 + tape.below(5);
    let turned = |dims: [usize; 2], turn: bool| if turn { [dims[1], dims[0]] } else { dims };
    // x is A, or (rarely) B.
    let (m, k, n) = if on_the_right {
        let [k, n] = turned([a, b], turn_b);
        (other, k, n)
    } else {
        let [m, k] = turned([a, b], turn_a);
        (m, k, other)
    };
    let mut attributes = vec![];
    if turn_a {
        attributes.push(int("transA", 1));
    }
    if turn_b {
        attributes.push(int("transB", 1));
    }
    if tape.once_in(3) {
        attributes.push(float("alpha", tape.of(&[0.5, -1.5, 0.0])));
    }
    if tape.once_in(3) {
        attributes.push(float("beta", tape.of(&[2.0, -0.25, 0.0])));
    }
    let form = if on_the_right {
        turned([m, k], turn_a)
    } else {
        turned([k, n], turn_b)
    };
    let weight = net.constant(tape, Role::Weight, x.dtype, &form, k);
    let addends: [Option<&[usize]>; 10] = [
        Some(&[n]),
        None,
        Some(&[n]),
        Some(&[]),
        Some(&[1]),
        Some(&[1, n]),
        Some(&[1, 1]),
        Some(&[m, 1]),
        Some(&[m, n]),
        Some(&[n]),
    ];
    let choice = tape.below(addends.len());
    let addend = match addends[choice] {
        Some(form) => Some(net.constant(tape, Role::Vector, x.dtype, form, 1)),
        // C must be there before opset 11.
        None if net.opset < 11 => Some(net.constant(tape, Role::Vector, x.dtype, &[n], 1)),
        None if tape.once_in(2) => Some(String::new()),
        None => None,
    };
    let mut inputs = if on_the_right {
        vec![weight.as_str(), &x.name]
    } else {
        vec![x.name.as_str(), &weight]
    };
    inputs.extend(addend.as_deref());
    net.push("Gemm", &inputs, attributes, x.dtype, vec![m, n]);
}

pub(super) fn matmul(net: &mut Net, tape: &mut Tape<'_>, x: &Value) {
    let rank = x.dims.len();
    if rank < 2 {
        return;
    }
    // One feature alone could become several by what is added to it; that is not followed to the end.
    let other = 2 + tape.below(4);
    let left = tape.once_in(3);
    let mut dims = x.dims.clone();
    let mut form = if left {
        dims[rank - 2] = other;
        vec![other, x.dims[rank - 2]]
    } else {
        dims[rank - 1] = other;
        vec![x.dims[rank - 1], other]
    };
    let fan = if left { form[1] } else { form[0] };
    match tape.below(8) {
        6 if rank > 2 => form.insert(0, 1),
        7 if rank == 3 => form.insert(0, x.dims[0]),
        _ => {}
    }
    if !super::fits(&dims) {
        return;
    }
    let weight = net.constant(tape, Role::Weight, x.dtype, &form, fan);
    let inputs = if left {
        [weight.as_str(), &x.name]
    } else {
        [x.name.as_str(), &weight]
    };
    net.push("MatMul", &inputs, vec![], x.dtype, dims.clone());
    if tape.once_in(2) {
        let bias = net.constant(tape, Role::Vector, x.dtype, &dims[rank - 1..], 1);
        let product = net.values.last().expect("just made").name.clone();
        let inputs = if tape.once_in(3) {
            [bias.as_str(), &product]
        } else {
            [product.as_str(), &bias]
        };
        net.push("Add", &inputs, vec![], x.dtype, dims);
    }
}
