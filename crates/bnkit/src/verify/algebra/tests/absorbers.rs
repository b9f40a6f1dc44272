//! One operator after the other.

use super::*;

#[test]
fn a_grouped_conv_before_norm() {
    // Groups change nothing about outputs.
    let net = Net::new("x", &[1, 2, 4, 4])
        .constant("w", &[2, 1, 1, 2], &[2.0, 3.0, 4.0, 5.0])
        .node("Conv", &["x", "w"], "c")
        .with(attribute("group", AttributeValue::Int(2)));
    let mut case = Case::new(norm(net, "c", "y").output("y"));
    let absorbed = case.absorbed("c", OUT, &[0, 1]);
    case.route("y", None, vec![absorbed]);
    case.set("w", &[2, 1, 1, 2], &[1.0, 1.5, 8.0, 10.0]);
    case.add_input("c", 2, &[2], &[0.5, -1.75]).accepts();
}

/// A BatchNorm in front of a Conv with two groups of one input and one output, with this padding.
fn norm_grouped_conv(pad: i64) -> Case {
    let net = norm(Net::new("x", &[1, 2, 4, 4]), "x", "n")
        .constant("w", &[2, 1, 1, 2], &[2.0, 3.0, 4.0, 5.0])
        .constant("b", &[2], &[1.0, -1.0])
        .node("Conv", &["n", "w", "b"], "y")
        .with(attribute("group", AttributeValue::Int(2)))
        .with(attribute("pads", AttributeValue::Ints(vec![0, 0, 0, pad])))
        .output("y");
    let mut case = Case::new(net);
    let absorbed = case.absorbed("y", IN, &[0, 1]);
    case.route("n", None, vec![absorbed]);
    case.set("w", &[2, 1, 1, 2], &[1.0, 1.5, 8.0, 10.0]);
    // (2 + 3)·0.5 + 1 and (4 + 5)·(−1.75) − 1
    case.set("b", &[2], &[3.5, -16.75]);
    case
}

#[test]
fn norm_before_a_grouped_conv() {
    norm_grouped_conv(0).accepts();
    // The other group's channel.
    let mut case = norm_grouped_conv(0);
    case.set("w", &[2, 1, 1, 2], &[4.0, 6.0, 2.0, 2.5])
        .rejects("w");
    let mut case = norm_grouped_conv(0);
    case.set("b", &[2], &[-7.75, 3.5]).rejects("b");
}

#[test]
fn a_shift_in_front_of_a_padded_conv_is_caught() {
    norm_grouped_conv(1).rejects("because of the border");
}

#[test]
fn norm_before_a_conv_sums_over_its_inputs() {
    let net = norm(Net::new("x", &[1, 2, 4, 4]), "x", "n")
        .constant("w", &[1, 2, 1, 2], &[2.0, 3.0, 4.0, 5.0])
        .node("Conv", &["n", "w"], "y")
        .output("y");
    let mut case = Case::new(net);
    let absorbed = case.absorbed("y", IN, &[0, 1]);
    case.route("n", None, vec![absorbed]);
    case.set("w", &[1, 2, 1, 2], &[1.0, 1.5, 8.0, 10.0]);
    // 5·0.5 − 9·1.75
    case.add_input("y", 2, &[1], &[-13.25]).accepts();
    // The scaled weight must not be in the sum.
    case.set("new2", &[1], &[1.25 - 31.5]).rejects("new2");
}

#[test]
fn the_border_of_a_conv_with_same_padding() {
    for (size, stride, right) in [(4, 2, true), (5, 2, false), (4, 1, false)] {
        let net = norm(Net::new("x", &[1, 2, size, size]), "x", "n")
            .constant("w", &[1, 2, 2, 2], &[1.0; 8])
            .node("Conv", &["n", "w"], "y")
            .with(attribute(
                "auto_pad",
                AttributeValue::String(b"SAME_UPPER".to_vec()),
            ))
            .with(attribute("strides", AttributeValue::Ints(vec![stride; 2])))
            .output("y");
        let mut case = Case::new(net);
        let absorbed = case.absorbed("y", IN, &[0, 1]);
        case.route("n", None, vec![absorbed]);
        let weight = [0.5, 0.5, 0.5, 0.5, 2.0, 2.0, 2.0, 2.0];
        case.set("w", &[1, 2, 2, 2], &weight)
            .add_input("y", 2, &[1], &[-5.0]);
        match right {
            true => case.accepts(),
            false => case.rejects("because of the border"),
        }
    }
}

/// ConvTranspose with two groups: W is [4 inputs, 1 output of the group], and 2 outputs.
fn conv_transpose_norm() -> Case {
    let net = Net::new("x", &[1, 4, 4, 4])
        .constant("w", &[4, 1, 1, 1], &[1.0, 2.0, 3.0, 4.0])
        .node("ConvTranspose", &["x", "w"], "c")
        .with(attribute("group", AttributeValue::Int(2)));
    let mut case = Case::new(norm(net, "c", "y").output("y"));
    let absorbed = case.absorbed("c", OUT, &[0, 1]);
    case.route("y", None, vec![absorbed]);
    case.add_input("c", 2, &[2], &[0.5, -1.75]);
    case
}

#[test]
fn conv_transpose_before_norm() {
    let mut case = conv_transpose_norm();
    case.set("w", &[4, 1, 1, 1], &[0.5, 1.0, 6.0, 8.0])
        .accepts();
    // As if the first axis were the output, or went round in turn.
    case.set("w", &[4, 1, 1, 1], &[0.5, 4.0, 1.5, 8.0])
        .rejects("w");
    let net = Net::new("x", &[1, 2, 4, 4])
        .constant("w", &[2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0])
        .node("ConvTranspose", &["x", "w"], "c");
    let mut case = Case::new(norm(net, "c", "y").output("y"));
    let absorbed = case.absorbed("c", OUT, &[0, 1]);
    case.route("y", None, vec![absorbed]);
    case.add_input("c", 2, &[2], &[0.5, -1.75]);
    case.set("w", &[2, 2, 1, 1], &[0.5, 4.0, 1.5, 8.0])
        .accepts();
    case.set("w", &[2, 2, 1, 1], &[0.5, 1.0, 6.0, 8.0])
        .rejects("w");
}

#[test]
fn norm_before_conv_transpose() {
    for (kernel, pad, right) in [(1, 0, true), (2, 1, true), (2, 0, false)] {
        let net = norm(Net::new("x", &[1, 2, 4, 4]), "x", "n")
            .constant("w", &[2, 1, kernel, 1], &[1.0, 2.0, 3.0, 4.0][..2 * kernel])
            .node("ConvTranspose", &["n", "w"], "y")
            .with(attribute(
                "pads",
                AttributeValue::Ints(vec![pad, 0, pad, 0]),
            ))
            .output("y");
        let mut case = Case::new(net);
        let absorbed = case.absorbed("y", IN, &[0, 1]);
        case.route("n", None, vec![absorbed]);
        match kernel {
            1 => case
                .set("w", &[2, 1, 1, 1], &[0.5, 4.0])
                .add_input("y", 2, &[1], &[0.5 - 3.5]),
            _ => case
                .set("w", &[2, 1, 2, 1], &[0.5, 1.0, 6.0, 8.0])
                .add_input("y", 2, &[1], &[1.5 - 12.25]),
        };
        match right {
            true => case.accepts(),
            false => case.rejects("because of the border"),
        }
    }
}

/// Gemm with alpha 2, beta 3, transposed B and this addend, and a BatchNorm behind it.
fn gemm_norm(dims: &[usize], addend: &[f64]) -> Case {
    let net = Net::new("x", &[3, 2])
        .constant("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])
        .constant("c", dims, addend)
        .node("Gemm", &["x", "w", "c"], "p")
        .with(attribute("alpha", AttributeValue::Float(2.0)))
        .with(attribute("beta", AttributeValue::Float(3.0)))
        .with(attribute("transB", AttributeValue::Int(1)));
    let mut case = Case::new(norm(net, "p", "y").output("y"));
    let absorbed = case.absorbed("p", OUT, &[0, 1]);
    case.route("y", None, vec![absorbed]);
    case.set("w", &[2, 2], &[0.5, 1.0, 6.0, 8.0]);
    case.set_beta(1.0);
    case
}

impl Case {
    fn set_beta(&mut self, beta: f32) -> &mut Self {
        let edit = Edit::SetAttribute {
            node: self.routes[0].absorbed[0].node,
            name: "beta".to_owned(),
            value: AttributeValue::Float(beta),
        };
        self.apply(edit);
        self
    }
}

#[test]
fn gemm_before_norm() {
    let mut case = gemm_norm(&[2], &[1.0, 2.0]);
    case.set("c", &[2], &[3.0 * 0.5 + 0.5, 6.0 * 2.0 - 1.75])
        .accepts();
    // The same in another form.
    case.set("c", &[2], &[2.0 / 3.0, 10.25 / 3.0])
        .set_beta(3.0)
        .accepts();
    // Beta forgotten, or applied twice.
    case.set("c", &[2], &[1.0, 2.25]).set_beta(1.0).rejects("c");
    case.set("c", &[2], &[2.0, 10.25])
        .set_beta(3.0)
        .rejects("c");
    // The wrong side of B, or alpha in it.
    case.set("c", &[2], &[2.0, 10.25]).set_beta(1.0).accepts();
    case.set("w", &[2, 2], &[0.5, 4.0, 1.5, 8.0]).rejects("w");
    case.set("w", &[2, 2], &[1.0, 2.0, 12.0, 16.0]).rejects("w");
}

#[test]
fn addends_of_all_shapes() {
    gemm_norm(&[], &[1.0])
        .set("c", &[2], &[2.0, 4.25])
        .accepts();
    gemm_norm(&[1, 1], &[1.0])
        .set("c", &[1, 2], &[2.0, 4.25])
        .accepts();
    gemm_norm(&[1], &[1.0])
        .set("c", &[2], &[2.0, 2.0])
        .rejects("c");
    let mut case = gemm_norm(&[3, 1], &[1.0, 2.0, 0.0]);
    case.set("c", &[3, 2], &[2.0, 4.25, 3.5, 10.25, 0.5, -1.75])
        .accepts();
    case.set("c", &[1, 2], &[2.0, 4.25]).rejects("c");
    case.set("c", &[2, 2], &[2.0, 4.25, 3.5, 10.25])
        .rejects("c");
}

/// A BatchNorm in front of a Gemm with alpha 2 and beta 3.
fn norm_gemm(trans_a: i64) -> Case {
    let net = norm(Net::new("x", &[2, 2]), "x", "n")
        .constant("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .constant("c", &[3], &[1.0, 0.0, -1.0])
        .node("Gemm", &["n", "w", "c"], "y")
        .with(attribute("alpha", AttributeValue::Float(2.0)))
        .with(attribute("beta", AttributeValue::Float(3.0)))
        .with(attribute("transA", AttributeValue::Int(trans_a)))
        .output("y");
    let mut case = Case::new(net);
    let absorbed = case.absorbed("y", IN, &[0, 1]);
    case.route("n", None, vec![absorbed]);
    case.set("w", &[2, 3], &[0.5, 1.0, 1.5, 8.0, 10.0, 12.0]);
    // 3·c + 2·(0.5·row 0 − 1.75·row 1)
    case.set(
        "c",
        &[3],
        &[3.0 + 1.0 - 14.0, 2.0 - 17.5, -3.0 + 3.0 - 21.0],
    )
    .set_beta(1.0);
    case
}

#[test]
fn norm_before_gemm() {
    norm_gemm(0).accepts();
    norm_gemm(1).rejects("the data is transposed");
    // Alpha forgotten.
    let mut case = norm_gemm(0);
    case.set("c", &[3], &[3.0 + 0.5 - 7.0, 1.0 - 8.75, -3.0 + 1.5 - 10.5])
        .rejects("c");
}

#[test]
fn mat_mul_before_and_behind_norm() {
    let net = Net::new("x", &[3, 2])
        .constant("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])
        .node("MatMul", &["x", "w"], "p");
    let mut case = Case::new(norm(net, "p", "y").output("y"));
    let absorbed = case.absorbed("p", OUT, &[0, 1]);
    case.route("y", None, vec![absorbed]);
    case.set("w", &[2, 2], &[0.5, 4.0, 1.5, 8.0])
        .rejects("a new Add behind it");
    case.add_behind("p", &[2], &[0.5, -1.75]).accepts();
    case.set("shift", &[2, 1], &[0.5, -1.75]).rejects("shift");
    case.set("shift", &[2], &[-1.75, 0.5]).rejects("shift");

    let net = norm(Net::new("x", &[3, 2]), "x", "n")
        .constant("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])
        .node("MatMul", &["n", "w"], "y")
        .output("y");
    let mut case = Case::new(net);
    let absorbed = case.absorbed("y", IN, &[0, 1]);
    case.route("n", None, vec![absorbed]);
    case.set("w", &[2, 2], &[0.5, 1.0, 6.0, 8.0]);
    case.add_behind("y", &[2], &[0.5 - 5.25, 1.0 - 7.0])
        .accepts();
}

#[test]
fn mat_mul_with_the_weight_on_the_left() {
    let case = |rank: &[i64]| {
        let net = Net::new("x", rank)
            .constant("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])
            .node("MatMul", &["w", "x"], "p");
        let mut case = Case::new(norm(net, "p", "y").output("y"));
        let mut absorbed = case.absorbed("p", OUT, &[0, 1]);
        absorbed.data_slot = 1;
        case.route("y", None, vec![absorbed]);
        case.set("w", &[2, 2], &[0.5, 1.0, 6.0, 8.0]);
        case.add_behind("p", &[2, 1], &[0.5, -1.75]);
        case
    };
    case(&[5, 2, 7]).accepts();
    // Here the channel is the last axis.
    case(&[2, 2]).rejects("the channels lie on axis");
    case(&[5, 2, 7])
        .set("shift", &[2], &[0.5, -1.75])
        .rejects("shift");
}

#[test]
fn norm_before_and_behind_norm() {
    let two = || {
        let net = norm(Net::new("x", &[1, 2, 4]), "x", "first")
            .constant("g2", &[2], &[6.0, 8.0])
            .constant("b2", &[2], &[1.0, 2.0])
            .constant("m2", &[2], &[5.0, 7.0])
            .constant("v2", &[2], &[4.0, 16.0])
            .node(
                "BatchNormalization",
                &["first", "g2", "b2", "m2", "v2"],
                "y",
            )
            .with(attribute("epsilon", AttributeValue::Float(0.0)));
        Case::new(net.output("y"))
    };
    // The second: s = (3, 2), t = (1 − 15, 2 − 14).
    let mut case = two();
    let absorbed = case.absorbed("first", OUT, &[0, 1]);
    case.route("y", None, vec![absorbed]);
    case.set("g", &[2], &[3.0, 8.0])
        .set("be", &[2], &[1.5 - 14.0, 0.5 - 12.0])
        .accepts();
    case.set("be", &[2], &[1.5, 0.5]).rejects("be");
    // The first: s = (0.5, 2), t = (0.5, −1.75).
    let mut case = two();
    let absorbed = case.absorbed("y", IN, &[0, 1]);
    case.route("first", None, vec![absorbed]);
    let moved = [
        1.0 + 3.0 * (0.5 - 5.0 + 2.5),
        2.0 + 2.0 * (-1.75 - 7.0 + 14.0),
    ];
    case.set("g2", &[2], &[3.0, 16.0])
        .set("b2", &[2], &moved)
        .accepts();
    case.set("b2", &[2], &[1.0 + 1.5, 2.0 - 3.5]).rejects("b2");
    case.set("b2", &[2], &moved)
        .set("m2", &[2], &[5.0, 7.5])
        .rejects("m2");
}

#[test]
fn two_norms_into_one_conv() {
    let net = Net::new("x", &[1, 1, 4, 4])
        .constant("w", &[2, 1, 1, 1], &[2.0, 3.0])
        .node("Conv", &["x", "w"], "c");
    let net = norm(net, "c", "n")
        .node("BatchNormalization", &["n", "g", "be", "m", "v"], "y")
        .with(attribute("epsilon", AttributeValue::Float(1.0)))
        .output("y");
    let mut case = Case::new(net);
    // The second goes into the first, and this one into the Conv.
    let absorbed = case.absorbed("n", OUT, &[0, 1]);
    case.route("y", None, vec![absorbed]);
    let absorbed = case.absorbed("c", OUT, &[0, 1]);
    case.route("n", None, vec![absorbed]);
    case.set("w", &[2, 1, 1, 1], &[0.5, 12.0]);
    case.add_input("c", 2, &[2], &[0.25 + 0.5, -3.5 - 1.75])
        .accepts();
    case.set("new2", &[2], &[0.5, -1.75]).rejects("new2");
    assert_eq!(case.check().failures[0].route, 1);
}

/// x → op with a constant → BatchNorm or another constant.
fn elementwise(op: &str, inputs: [&str; 2], site: &str, constant: [f64; 2]) -> Case {
    let net = Net::new("x", &[1, 2, 4, 4])
        .constant("w", &[2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0])
        .node("Conv", &["x", "w"], "v")
        .constant("k", &[2, 1, 1], &[4.0, 8.0])
        .node(op, &inputs, "e")
        .constant("l", &[1, 2, 1, 1], &constant)
        .node(site, &["e", "l"], "y")
        .output("y");
    Case::new(net)
}

#[test]
fn products_absorb_scales() {
    for (op, constant) in [("Mul", [8.0, 32.0]), ("Div", [2.0, 2.0])] {
        let mut case = elementwise(op, ["v", "k"], "Mul", [2.0, 4.0]);
        let absorbed = case.absorbed("e", OUT, &[0, 1]);
        case.route("y", Some(1), vec![absorbed]);
        case.set("k", &[2, 1, 1], &constant).accepts();
        case.set("k", &[2], &constant).rejects("k");
        case.set("k", &[2, 1, 1], &[8.0, 8.0]).rejects("k");
    }
    // c / x is no product.
    let mut case = elementwise("Div", ["k", "v"], "Mul", [2.0, 4.0]);
    let absorbed = Absorbed {
        data_slot: 1,
        ..case.absorbed("e", OUT, &[0, 1])
    };
    case.route("y", Some(1), vec![absorbed]);
    case.set("k", &[2, 1, 1], &[8.0, 32.0]).rejects("no affine");
    // A product has no room for a shift.
    let mut case = elementwise("Mul", ["v", "k"], "Add", [2.0, 4.0]);
    let absorbed = case.absorbed("e", OUT, &[0, 1]);
    case.route("y", Some(1), vec![absorbed]);
    case.rejects("cannot absorb a shift");
}

#[test]
fn sums_absorb_shifts_while_the_scale_goes_further_back() {
    let cases = [
        ("Add", ["u", "k"], [4.0 * 0.5 + 0.5, 8.0 * 2.0 - 1.75]),
        ("Add", ["k", "u"], [4.0 * 0.5 + 0.5, 8.0 * 2.0 - 1.75]),
        ("Sub", ["u", "k"], [4.0 * 0.5 - 0.5, 8.0 * 2.0 + 1.75]),
        ("Sub", ["k", "u"], [4.0 * 0.5 + 0.5, 8.0 * 2.0 - 1.75]),
    ];
    for (op, inputs, constant) in cases {
        let net = Net::new("x", &[1, 2, 4, 4])
            .constant("w", &[2, 2, 1, 1], &[2.0, 3.0, 4.0, 5.0])
            .constant("b", &[2], &[1.0, -1.0])
            .node("Conv", &["x", "w", "b"], "u")
            .constant("k", &[2, 1, 1], &[4.0, 8.0])
            .node(op, &inputs, "e");
        let mut case = Case::new(norm(net, "e", "y").output("y"));
        let sum = Absorbed {
            part: Part::Shift,
            data_slot: inputs.iter().position(|&name| name == "u").unwrap(),
            ..case.absorbed("e", OUT, &[0, 1])
        };
        let conv = Absorbed {
            part: Part::Scale,
            ..case.absorbed("u", OUT, &[0, 1])
        };
        case.route("y", None, vec![sum, conv]);
        case.set("w", &[2, 2, 1, 1], &[1.0, 1.5, 8.0, 10.0])
            .set("b", &[2], &[0.5, -2.0]);
        case.set("k", &[2, 1, 1], &constant).accepts();
        case.set("k", &[2, 1, 1], &[-constant[0], -constant[1]])
            .rejects("k");
        case.set("k", &[2, 1, 1], &[2.0, 16.0]).rejects("k");
    }
}

#[test]
fn sums_absorb_what_comes_in() {
    // (x + l) into x + k, x − k and k − x.
    let cases = [
        ("Add", ["e", "k"], [5.0, 6.0]),
        ("Sub", ["e", "k"], [3.0, 10.0]),
        ("Sub", ["k", "e"], [3.0, 10.0]),
    ];
    for (op, inputs, constant) in cases {
        let net = Net::new("x", &[1, 2, 4, 4])
            .constant("l", &[2, 1, 1], &[1.0, -2.0])
            .node("Add", &["x", "l"], "e")
            .constant("k", &[1, 2, 1, 1], &[4.0, 8.0])
            .node(op, &inputs, "y")
            .output("y");
        let mut case = Case::new(net);
        let data_slot = inputs.iter().position(|&name| name == "e").unwrap();
        let absorbed = Absorbed {
            data_slot,
            ..case.absorbed("y", IN, &[0, 1])
        };
        case.route("e", Some(1), vec![absorbed]);
        case.set("k", &[1, 2, 1, 1], &constant).accepts();
        case.set("k", &[1, 2, 1, 1], &[4.0, 8.0]).rejects("k");
    }
}

#[test]
fn a_scalar_is_widened_along_the_channels_only() {
    let net = Net::new("x", &[1, 2, 2, 2])
        .constant("k", &[], &[4.0])
        .node("Mul", &["x", "k"], "e")
        .constant("l", &[1, 2, 1, 1], &[1.0, -2.0])
        .node("Mul", &["e", "l"], "y")
        .output("y");
    let mut case = Case::new(net);
    let absorbed = case.absorbed("e", OUT, &[0, 1]);
    case.route("y", Some(1), vec![absorbed]);
    case.set("k", &[2, 1, 1], &[4.0, -8.0]).accepts();
    case.set("k", &[1, 2], &[4.0, -8.0]).rejects("k");
    case.set("k", &[], &[4.0]).rejects("k");
}

#[test]
fn a_subtraction_that_turns_signs_is_an_affine() {
    // k − conv(x): the Conv is turned, and adds k.
    let net = Net::new("x", &[1, 1, 2, 2])
        .constant("w", &[2, 1, 1, 1], &[1.0, 2.0])
        .node("Conv", &["x", "w"], "c")
        .constant("k", &[2, 1, 1], &[4.0, 8.0])
        .node("Sub", &["k", "c"], "y")
        .output("y");
    let mut case = Case::new(net);
    let absorbed = case.absorbed("c", OUT, &[0, 1]);
    case.route("y", Some(0), vec![absorbed]);
    case.set("w", &[2, 1, 1, 1], &[-1.0, -2.0]);
    case.add_input("c", 2, &[2], &[4.0, 8.0]).accepts();
    case.set("w", &[2, 1, 1, 1], &[1.0, 2.0]).rejects("w");
}

#[test]
fn routes_that_make_no_sense_are_caught() {
    // The affine has gone already.
    let mut case = conv_norm();
    let again = case.routes[0].clone();
    case.routes.push(again);
    case.rejects("gone already");
    // Fewer features than the operator has.
    let mut case = conv_norm();
    case.routes[0].absorbed[0].channels = vec![0];
    case.rejects("features");
    let mut case = conv_norm();
    case.routes[0].absorbed[0].channels = vec![0, 2];
    case.rejects("channel 2");
    // An operator that absorbs nothing.
    let mut case = elementwise("Max", ["v", "k"], "Mul", [2.0, 4.0]);
    let absorbed = case.absorbed("e", OUT, &[0, 1]);
    case.route("y", Some(1), vec![absorbed]);
    case.rejects("Max absorbs no affine");
}
