//! Tiny models: a right fold passes, wrong ones do not, and neither does rounding count as wrong.

use bnkit_model::DType;
use prost::Message;
use tract_onnx::pb::{AttributeProto, ModelProto, attribute_proto::AttributeType};

mod case;
mod single;

use super::*;
use case::{CHANNELS, Case, model, node, tensor};

/// Two models of which nothing else is known.
fn compare(original: &[u8], shipped: &[u8], samples: &[Sample]) -> Result<EndToEnd, Error> {
    let subject = Subject::unrelated((original, None), (shipped, None));
    run(&subject, samples, &Options::default())
}

fn right(_: &mut Vec<f64>, _: &mut Vec<f64>) {}

#[test]
fn a_right_fold_passes_in_every_type() {
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
        let result = Case::new(dtype).verify(right);
        assert!(result.pass, "{dtype}: {result:#?}");
        assert!(result.double.max_rel < 1e-13, "{dtype}: {result:#?}");
        assert_eq!(result.samples, 3);
        assert_eq!(result.outputs[0].name, "y");
        assert!(result.outputs[0].noise_floor > 0.0);
    }
}

#[test]
fn wrong_folds_fail_on_both_levels() {
    type Fault = fn(&mut Vec<f64>, &mut Vec<f64>);
    let faults: [(&str, Fault); 4] = [
        ("the mean dropped", |_, bias| {
            bias.copy_from_slice(&[0.1, -0.2, 0.3])
        }),
        ("beta doubled", |_, bias| bias[0] += 0.1),
        ("channels swapped", |weight, _| weight.rotate_left(27)),
        ("the scale on the wrong axis", |weight, _| {
            weight[1] *= 1.001
        }),
    ];
    for (name, fault) in faults {
        let result = Case::new(DType::F32).verify(fault);
        assert!(!result.double.pass, "{name}: {result:#?}");
        assert!(!result.outputs[0].pass, "{name}: {result:#?}");
        assert!(!result.pass);
    }
}

#[test]
fn a_constant_stored_wrongly_fails_though_the_exact_one_is_right() {
    let case = Case::new(DType::F32);
    let shipped = case.folded(DType::F32, |_, bias| bias[1] += 1e-3);
    let result = case.verify_with(&shipped, Some(&case.folded(DType::F64, right)));
    assert!(result.double.pass);
    assert!(!result.outputs[0].pass && !result.pass, "{result:#?}");
}

#[test]
fn without_exact_constants_rounding_is_told_from_faults() {
    for dtype in [DType::F32, DType::F16] {
        let case = Case::new(dtype);
        let result = case.verify_with(&case.folded(dtype, right), None);
        assert!(result.pass, "{dtype}: {result:#?}");
        let wrong = case.folded(dtype, |_, bias| bias[1] += 0.05);
        let result = case.verify_with(&wrong, None);
        assert!(
            !result.double.pass && !result.outputs[0].pass,
            "{dtype}: {result:#?}"
        );
    }
}

#[test]
fn identical_models_pass() {
    let case = Case::new(DType::F32);
    let original = case.original();
    let result = compare(&original, &original, &case.samples()).unwrap();
    assert!(result.pass);
    assert_eq!(result.double.max_rel, 0.0);
    assert_eq!(result.outputs[0].metrics.max_abs, 0.0);
}

#[test]
fn where_the_original_cancels_the_better_model_passes() {
    // A mean a million times the deviation: x·w − μ loses most digits in f32.
    let mut case = Case::new(DType::F32);
    case.weight = vec![0.0; CHANNELS * CHANNELS * 9];
    for c in 0..CHANNELS {
        case.weight[(c * CHANNELS + c) * 9 + 4] = 1.0;
    }
    case.mean = vec![1e5; 3];
    case.var = vec![DType::F32.round(1e-4); 3];
    let samples: Vec<Sample> = case
        .samples()
        .into_iter()
        .map(|sample| {
            let (name, tensor) = &sample[0];
            let values: Vec<f64> = tensor
                .to_f64()
                .unwrap()
                .iter()
                .map(|x| 1e5 + x * 0.1)
                .collect();
            vec![(
                name.clone(),
                Tensor::from_f64(DType::F32, tensor.dims().to_vec(), &values).unwrap(),
            )]
        })
        .collect();
    let (shipped, exact) = (
        case.folded(DType::F32, right),
        case.folded(DType::F64, right),
    );
    let subject = Subject {
        original: &case.original(),
        shipped: &shipped,
        exact: Some(&exact),
        model_dir: None,
        shipped_dir: None,
    };
    let result = run(&subject, &samples, &Options::default()).unwrap();
    assert!(result.pass, "{result:#?}");
}

#[test]
fn an_explicit_tolerance_replaces_the_derived_one() {
    let case = Case::new(DType::F32);
    let (original, shipped) = (
        case.original(),
        case.folded(DType::F32, |_, bias| bias[0] += 0.01),
    );
    let subject = Subject::unrelated((&original, None), (&shipped, None));
    let judge =
        |options: Options| run(&subject, &case.samples(), &options).unwrap().outputs[0].pass;
    assert!(!judge(Options::default()));
    assert!(judge(Options {
        atol: Some(0.02),
        ..Options::default()
    }));
    assert!(!judge(Options {
        atol: Some(0.005),
        ..Options::default()
    }));
    assert!(judge(Options {
        rtol: Some(0.1),
        ..Options::default()
    }));
}

#[test]
fn an_output_behind_a_jump_is_compared_in_front_of_it() {
    let mut case = Case::new(DType::F32);
    let mut argmax = node("ArgMax", &["y"], "label");
    argmax.attribute.push(AttributeProto {
        name: "axis".into(),
        r#type: AttributeType::Int as i32,
        i: 1,
        ..Default::default()
    });
    case.tail = vec![argmax];
    let result = case.verify(right);
    assert!(result.pass, "{result:#?}");
    assert_eq!(result.outputs.len(), 1);
    assert_eq!(result.outputs[0].name, "y");
    assert_eq!(result.jumping[0].operator, "ArgMax");
    assert_eq!(result.jumping[0].outputs, ["label"]);
    assert_eq!(result.jumping[0].compared, ["y"]);
    assert_eq!(result.jumping[0].agreement, Some(1.0));
    assert!(!case.verify(|_, bias| bias[0] += 0.1).pass);
}

#[test]
fn what_overflows_in_single_precision_is_said_to_be_proved_in_double_alone() {
    let mut case = Case::new(DType::F32);
    assert_eq!(case.verify(right).outputs[0].gap(), None);
    case.gamma = vec![DType::F32.round(1e25); CHANNELS];
    case.beta = case.gamma.clone();
    case.tail = vec![node("Mul", &["y", "y"], "squared")];
    let result = case.verify(right);
    assert!(result.pass && result.everything(), "{result:#?}");
    let output = &result.outputs[0];
    assert_eq!(output.finite_in_double, 1.0);
    assert!(output.finite < 0.1, "{output:?}");
    let gap = output.gap().unwrap();
    assert!(gap.contains("not finite in single precision"), "{gap}");
    assert!(!case.verify(|_, bias| bias[0] *= 1.01).pass);
}

#[test]
fn where_nothing_is_finite_nothing_is_shown() {
    let mut case = Case::new(DType::F32);
    case.tail = vec![
        node("Abs", &["y"], "size"),
        node("Neg", &["size"], "below"),
        node("Sqrt", &["below"], "root"),
    ];
    for fault in [0.0, 0.5] {
        let result = case.verify(|_, bias| bias[0] += fault);
        assert!(result.pass && !result.everything(), "{result:#?}");
        let gap = result.outputs[0].gap().unwrap();
        assert!(gap.contains("nothing was shown"), "{gap}");
    }
}

#[test]
fn different_inputs_and_outputs_are_an_error_that_names_them() {
    let case = Case::new(DType::F32);
    let mut other = ModelProto::decode(case.original().as_slice()).unwrap();
    let graph = other.graph.as_mut().unwrap();
    graph.input[0].name = "image".into();
    graph.node[0].input[0] = "image".into();
    let renamed = other.encode_to_vec();
    let original = case.original();
    let error = compare(&original, &renamed, &case.samples());
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("\"x\" (float32)") && text.contains("\"image\""),
        "{text}"
    );

    let mut other = ModelProto::decode(case.original().as_slice()).unwrap();
    let graph = other.graph.as_mut().unwrap();
    graph.node[1].output[0] = "z".into();
    graph.output[0].name = "z".into();
    let renamed = other.encode_to_vec();
    let error = compare(&original, &renamed, &case.samples());
    assert!(error.unwrap_err().to_string().contains("different outputs"));
}

#[test]
fn a_model_that_cannot_run_is_no_verdict_but_a_broken_fold_is() {
    let mut case = Case::new(DType::F32);
    let good = case.folded(DType::F32, right);
    let broken = model(
        vec![node("Conv", &["x", "w2"], "y")],
        vec![tensor("w2", &[3, 2, 3, 3], DType::F32, &[0.0; 54])],
        DType::F32,
    );
    let original = case.original();
    let samples = case.samples();
    let error = compare(&original, &broken, &samples);
    assert!(matches!(error, Err(Error::Broken(_))), "{error:?}");
    // What the engine does not know may be right.
    let mut unknown = Case::new(DType::F32);
    unknown.tail = vec![node("NoSuchOperator", &["y"], "z")];
    let error = compare(&original, &unknown.original(), &samples);
    assert!(matches!(error, Err(Error::Unsupported(_))), "{error:?}");
    case.tail = vec![node("NoSuchOperator", &["y"], "z")];
    let error = compare(&case.original(), &good, &samples);
    assert!(matches!(error, Err(Error::Unsupported(_))), "{error:?}");
}

#[test]
fn the_report_has_the_fields_of_the_contract() {
    let report = serde_json::to_value(Case::new(DType::F32).verify(right)).unwrap();
    assert_eq!(report["engine"], "tract");
    assert!(report["f64"]["max_rel"].is_number());
    for field in [
        "name",
        "max_abs",
        "max_rel",
        "rms",
        "snr_db",
        "argmax_agreement",
        "noise_floor",
        "tolerance",
    ] {
        assert!(!report["outputs"][0][field].is_null(), "{field}: {report}");
    }
}
