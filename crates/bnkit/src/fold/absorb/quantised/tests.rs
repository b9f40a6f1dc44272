//! What a quantised constant has to be, and what copies of shared ones are called.

use bnkit_model::DType;
use bnkit_model::onnx::{AttributeValue, Model, Precision};

use crate::fold::{Options, plan};
use crate::verify::algebra;
use crate::verify::nets::{Net, attribute};

/// Conv and BatchNorm, both constants of the Conv behind a DequantizeLinear with zero points of these types.
fn net(weight: DType, bias: DType) -> Net {
    Net::new("x", &[1, 1, 4, 4])
        .typed("wq", DType::I8, &[2, 1, 1, 1], &[2.0, 3.0])
        .typed("bq", DType::I32, &[2], &[20.0, 30.0])
        .constant("scale", &[], &[0.5])
        .typed("wz", weight, &[], &[0.0])
        .typed("bz", bias, &[], &[0.0])
        .node("DequantizeLinear", &["wq", "scale", "wz"], "w")
        .node("DequantizeLinear", &["bq", "scale", "bz"], "b")
        .constant("two", &[2], &[2.0; 2])
        .node("Conv", &["x", "w", "b"], "c")
        .node(
            "BatchNormalization",
            &["c", "two", "two", "two", "two"],
            "y",
        )
        .output("y")
}

#[test]
fn a_scale_of_both_constants_is_copied_twice() {
    let original = Net::new("x", &[1, 1, 4, 4])
        .typed("wq", DType::I8, &[2, 1, 1, 1], &[2.0, 3.0])
        .typed("bq", DType::I32, &[2], &[20.0, 30.0])
        .constant("scale", &[2], &[0.5, 0.25])
        .node("DequantizeLinear", &["wq", "scale"], "w")
        .with(attribute("axis", AttributeValue::Int(0)))
        .node("DequantizeLinear", &["bq", "scale"], "b")
        .with(attribute("axis", AttributeValue::Int(0)))
        .constant("two", &[2], &[2.0; 2])
        .node("Conv", &["x", "w", "b"], "c")
        .node(
            "BatchNormalization",
            &["c", "two", "two", "two", "two"],
            "y",
        )
        .output("y")
        .model();
    let plan = plan(&original, &Options::default()).unwrap();
    assert_eq!(plan.summary.folded, 1, "{:?}", plan.sites);
    let written = plan.apply().to_bytes(Precision::Stored).unwrap();
    let folded = Model::from_bytes(written).unwrap();
    let initializers = &folded.scope(folded.main()).initializers;
    let names = initializers.iter().map(|&id| &folded.value(id).name);
    let scales: Vec<_> = names.filter(|name| name.starts_with("scale")).collect();
    assert_eq!(scales, ["scale_folded", "scale_folded_bias"]);
    let proof = algebra::check(&original, plan.apply(), &plan.routes).unwrap();
    assert!(proof.failures.is_empty(), "{:?}", proof.failures);
}

#[test]
fn a_zero_point_has_the_type_of_its_integers() {
    for (weight, bias, message) in [
        (DType::I8, DType::I32, ""),
        (
            DType::U8,
            DType::I32,
            "\"w\" has a zero point of uint8 for int8",
        ),
        (
            DType::F32,
            DType::I32,
            "\"w\" has a zero point of float32 for int8",
        ),
        (
            DType::I8,
            DType::I8,
            "\"b\" has a zero point of int8 for int32",
        ),
    ] {
        let original = net(weight, bias).model();
        let plan = plan(&original, &Options::default()).unwrap();
        match &plan.sites[0].refusal {
            Some(refusal) => {
                let found = (refusal.code, refusal.message.as_str());
                assert_eq!(found, ("quantised-weight", message));
            }
            None => {
                assert_eq!(message, "");
                let proof = algebra::check(&original, plan.apply(), &plan.routes).unwrap();
                assert!(proof.failures.is_empty(), "{:?}", proof.failures);
            }
        }
    }
}
