//! Weights and biases behind DequantizeLinear.

use super::*;
use crate::fold::{Options, plan};

/// W = 0.5·(2, 3) and 0.25·(−4, 5), b = 0.125·(8, −8), all quantised; a BatchNorm behind, whose second channel has the
/// scale −2 instead of 2.
fn conv() -> Case {
    let net = Net::new("x", &[1, 2, 4, 4])
        .typed("q", DType::I8, &[2, 2, 1, 1], &[2.0, 3.0, -4.0, 5.0])
        .constant("c", &[2], &[0.5, 0.25])
        .typed("z", DType::I8, &[2], &[0.0, 1.0])
        .node("DequantizeLinear", &["q", "c", "z"], "w")
        .with(attribute("axis", AttributeValue::Int(0)))
        .typed("bq", DType::I32, &[2], &[8.0, -8.0])
        .constant("bc", &[2], &[0.125, 0.125])
        .node("DequantizeLinear", &["bq", "bc"], "b")
        .with(attribute("axis", AttributeValue::Int(0)))
        .node("Conv", &["x", "w", "b"], "y")
        .constant("g", &[2], &[1.0, -4.0])
        .constant("be", &[2], &[0.5, 0.25])
        .constant("m", &[2], &[0.0, 1.0])
        .constant("v", &[2], &[3.0, 3.0])
        .node("BatchNormalization", &["y", "g", "be", "m", "v"], "n")
        .with(attribute("epsilon", AttributeValue::Float(1.0)))
        .output("n");
    let mut case = Case::new(net);
    let absorbed = case.absorbed("y", OUT, &[0, 1]);
    case.route("n", None, vec![absorbed]);
    // s = (0.5, −2), t = (0.5, 2.25): scales times |s|, integers of the second channel reflected about 1.
    case.set("c", &[2], &[0.25, 0.5]);
    case.typed("q", DType::I8, &[2, 2, 1, 1], &[2.0, 3.0, 6.0, -3.0]);
    // b' = (1·0.5 + 0.5, −1·−2 + 2.25) = (1, 4.25) = 0.0625·16 and 0.25·17
    case.set("bc", &[2], &[0.0625, 0.25]);
    case.typed("bq", DType::I32, &[2], &[16.0, 17.0]);
    case
}

#[test]
fn a_quantised_conv_before_norm() {
    let case = conv();
    case.accepts();
    assert_eq!(case.check().max_ulp, 0.0);
}

#[test]
fn a_scale_that_is_not_scaled_is_caught() {
    conv().set("c", &[2], &[0.25, 0.25]).rejects("w");
    conv().set("c", &[2], &[0.5, 0.25]).rejects("w");
    conv()
        .set("c", &[2], &[0.5, 0.25].map(|c: f64| c * 1.0001))
        .rejects("w");
}

#[test]
fn exchanged_scales_are_caught() {
    conv().set("c", &[2], &[0.5, 0.25]).rejects("w");
}

#[test]
fn a_scale_that_is_a_few_ulp_away_is_caught() {
    let ulp = f64::from(f32::EPSILON) / 4.0;
    conv().set("c", &[2], &[0.25 + ulp, 0.5]).accepts();
    conv().set("c", &[2], &[0.25 + 4.0 * ulp, 0.5]).rejects("w");
}

#[test]
fn integers_of_the_wrong_sign_are_caught() {
    let mut case = conv();
    case.typed("q", DType::I8, &[2, 2, 1, 1], &[2.0, 3.0, -4.0, 5.0])
        .rejects("w");
    // Reflected about 0 instead of the zero point.
    let mut case = conv();
    case.typed("q", DType::I8, &[2, 2, 1, 1], &[2.0, 3.0, 4.0, -5.0])
        .rejects("w");
    // The other channel.
    let mut case = conv();
    case.typed("q", DType::I8, &[2, 2, 1, 1], &[-2.0, -3.0, -4.0, 5.0])
        .rejects("w");
}

#[test]
fn a_single_wrong_integer_is_caught() {
    let mut case = conv();
    case.typed("q", DType::I8, &[2, 2, 1, 1], &[2.0, 3.0, 6.0, -2.0])
        .rejects("w");
}

#[test]
fn another_zero_point_is_caught() {
    let mut case = conv();
    case.typed("z", DType::I8, &[2], &[1.0, 1.0]).rejects("w");
}

#[test]
fn a_negative_scale_is_caught() {
    // Numerically right: the integers as they were, times −0.5.
    let mut case = conv();
    case.set("c", &[2], &[0.25, -0.5]);
    case.typed("q", DType::I8, &[2, 2, 1, 1], &[2.0, 3.0, -4.0, 5.0])
        .rejects("not positive");
}

#[test]
fn another_axis_is_caught() {
    let mut case = conv();
    let node = case.node("w");
    let axis = AttributeValue::Int(1);
    case.apply(Edit::SetAttribute {
        node,
        name: "axis".to_owned(),
        value: axis,
    });
    case.rejects("w");
}

#[test]
fn a_weight_that_became_a_float_is_caught() {
    conv()
        .add_input("y", 1, &[2, 2, 1, 1], &[0.5, 0.75, 2.5, -2.0])
        .rejects("is no more");
}

#[test]
fn integers_of_another_type_are_caught() {
    let mut case = conv();
    case.typed("z", DType::I16, &[2], &[0.0, 1.0]);
    case.typed("q", DType::I16, &[2, 2, 1, 1], &[2.0, 3.0, 6.0, -3.0])
        .rejects("another type");
}

#[test]
fn a_wrong_bias_is_caught() {
    // Without t, without s, without the sign of s.
    for wrong in [[8.0, 8.0], [24.0, 5.0], [16.0, 1.0]] {
        let mut case = conv();
        case.typed("bq", DType::I32, &[2], &wrong).rejects("b");
    }
    // In units of the scale before.
    conv().set("bc", &[2], &[0.125, 0.125]).rejects("b");
}

#[test]
fn a_bias_may_be_rounded_to_a_unit() {
    // 0.17 and 0.25 are no multiples of 1/3.
    let mut case = conv();
    case.set("bc", &[2], &[1.0 / 3.0, 1.0 / 3.0]);
    case.typed("bq", DType::I32, &[2], &[3.0, 13.0]).accepts();
    case.typed("bq", DType::I32, &[2], &[3.0, 15.0])
        .rejects("b");
}

/// One scale for the tensor: (2, 3) and (−4, 5), half of it.
#[test]
fn one_scale_that_became_several() {
    let net = Net::new("x", &[3, 2])
        .typed("q", DType::I8, &[2, 2], &[2.0, 3.0, -4.0, 5.0])
        .constant("c", &[], &[0.5])
        .node("DequantizeLinear", &["q", "c"], "w")
        .node("MatMul", &["x", "w"], "p");
    let mut case = Case::new(norm(net, "p", "y").output("y"));
    let absorbed = case.absorbed("p", OUT, &[0, 1]);
    case.route("y", None, vec![absorbed]);
    case.add_behind("p", &[2], &[0.5, -1.75]);
    case.rejects("w");
    case.set("c", &[2], &[0.25, 1.0]);
    let node = case.node("w");
    for (axis, right) in [(0, false), (1, true), (-1, true)] {
        let value = AttributeValue::Int(axis);
        case.apply(Edit::SetAttribute {
            node,
            name: "axis".to_owned(),
            value,
        });
        match right {
            true => case.accepts(),
            false => case.rejects("w"),
        }
    }
}

/// Scales that an operator computes are taken as they are by the plan, and by the proof: a rounding on one side only would be a
/// difference where there is none.
#[test]
fn computed_scales_are_not_rounded_on_the_way() {
    const CHANNELS: usize = 200;
    let numbers = |factor: f64| -> Vec<f64> {
        let each = (0..CHANNELS).map(|n| 0.01 + factor * ((n * 37 % 101) as f64));
        each.collect()
    };
    let net = Net::new("x", &[1, 1, 4, 4])
        .typed("q", DType::I8, &[CHANNELS, 1, 1, 1], &vec![127.0; CHANNELS])
        .constant("c", &[CHANNELS], &numbers(0.000_7))
        .constant("d", &[CHANNELS], &numbers(0.001_3))
        .node("Div", &["c", "d"], "s")
        .node("DequantizeLinear", &["q", "s"], "w")
        .with(attribute("axis", AttributeValue::Int(0)))
        .node("Conv", &["x", "w"], "y")
        .constant("g", &[CHANNELS], &numbers(0.017))
        .constant("be", &[CHANNELS], &vec![0.0; CHANNELS])
        .constant("v", &[CHANNELS], &numbers(0.019))
        .node("BatchNormalization", &["y", "g", "be", "be", "v"], "n")
        .output("n");
    let original = net.model();
    let plan = plan(&original, &Options::default()).unwrap();
    assert_eq!(plan.summary.folded, 1, "{:?}", plan.sites);
    let proof = check(&original, plan.apply(), &plan.routes).unwrap();
    assert!(proof.failures.is_empty(), "{proof:?}");
}
