//! Level 3 alone, on tract in single precision: any engine will do to see what is accepted.

use bnkit_engine::Tract;
use tract_onnx::pb::NodeProto;

use super::*;
use crate::verify::end_to_end::single::{self, Shipped};

fn compared(case: &Case, shipped: &[u8], options: &Options) -> Result<Shipped, Error> {
    let original = case.original();
    let subject = Subject::unrelated((&original, None), (shipped, None));
    single::run(&Tract, &subject, &case.samples(), options)
}

#[test]
fn a_right_fold_passes_and_its_noise_floor_is_of_the_size_of_rounding() {
    for (dtype, unit) in [
        (DType::F32, 2f64.powi(-23)),
        (DType::F16, 2f64.powi(-10)),
        (DType::BF16, 2f64.powi(-7)),
    ] {
        let case = Case::new(dtype);
        let found = compared(&case, &case.folded(dtype, right), &Options::default()).unwrap();
        assert!(found.pass && found.gaps.is_empty(), "{dtype}: {found:#?}");
        assert_eq!((found.samples, found.outputs.len()), (3, 1));
        let y = &found.outputs[0];
        assert!(y.max_abs > 0.0, "{dtype}: {y:#?}");
        assert_eq!(y.tolerance, 8.0 * y.noise_floor);
        // The outputs reach 1 to 3.
        assert!(
            (unit / 4.0..16.0 * unit).contains(&y.noise_floor),
            "{dtype}: {y:#?}"
        );
    }
}

#[test]
fn wrong_constants_fail() {
    let case = Case::new(DType::F32);
    type Fault = fn(&mut Vec<f64>, &mut Vec<f64>);
    let faults: [(&str, Fault); 4] = [
        ("the mean dropped", |_, bias| {
            bias.copy_from_slice(&[0.1, -0.2, 0.3])
        }),
        ("one bias a thousandth off", |_, bias| bias[0] *= 1.001),
        ("channels swapped", |weight, _| weight.rotate_left(27)),
        ("one weight a thousandth off", |weight, _| {
            weight[1] *= 1.001
        }),
    ];
    for (name, fault) in faults {
        let shipped = case.folded(DType::F32, fault);
        let found = compared(&case, &shipped, &Options::default()).unwrap();
        assert!(
            !found.pass && !found.outputs[0].within,
            "{name}: {found:#?}"
        );
    }
}

#[test]
fn a_tolerance_of_ones_own_wins() {
    let case = Case::new(DType::F32);
    let shipped = case.folded(DType::F32, |_, bias| bias[0] += 0.01);
    let with = |atol| {
        let options = Options {
            atol: Some(atol),
            ..Options::default()
        };
        compared(&case, &shipped, &options).unwrap()
    };
    let (wide, narrow) = (with(0.011), with(0.009));
    assert!(wide.pass && !narrow.pass);
    assert_eq!(wide.outputs[0].tolerance, 0.011);
    assert!((wide.outputs[0].max_abs - 0.01).abs() < 1e-5);
}

#[test]
fn an_output_that_jumps_is_compared_at_what_enters() {
    let mut case = Case::new(DType::F32);
    case.tail = vec![node("Round", &["y"], "z")];
    let found = compared(&case, &case.folded(DType::F32, right), &Options::default()).unwrap();
    assert!(found.pass, "{found:#?}");
    assert_eq!(found.outputs.len(), 1);
    assert_eq!(found.outputs[0].name, "y");
    assert_eq!(found.jumping[0].outputs, ["z"]);
    let wrong = case.folded(DType::F32, |_, bias| bias[0] += 0.01);
    let found = compared(&case, &wrong, &Options::default()).unwrap();
    assert!(!found.pass, "{found:#?}");
}

#[test]
fn where_nothing_is_finite_nothing_is_said() {
    let mut case = Case::new(DType::F32);
    case.tail = vec![
        node("Sub", &["y", "y"], "zero"),
        node("Div", &["zero", "zero"], "z"),
    ];
    let found = compared(&case, &case.folded(DType::F32, right), &Options::default()).unwrap();
    assert!(found.outputs.is_empty(), "{found:#?}");
    assert!(found.gaps[0].contains("100.000 %"), "{found:#?}");
}

#[test]
fn what_a_model_reads_as_a_shape_is_not_moved() {
    let mut case = Case::new(DType::F32);
    // 6 × 2 is 12; a scale that is a unit smaller makes 11 of it.
    case.tail = vec![
        NodeProto {
            attribute: vec![AttributeProto {
                name: "value_floats".into(),
                r#type: AttributeType::Floats as i32,
                floats: vec![1.0, 1.0, 2.0, 2.0],
                ..Default::default()
            }],
            ..node("Constant", &[], "scales")
        },
        node("Resize", &["y", "", "scales"], "z"),
    ];
    let found = compared(&case, &case.folded(DType::F32, right), &Options::default()).unwrap();
    assert!(found.pass && found.gaps.is_empty(), "{found:#?}");
    assert_eq!(found.outputs[0].name, "z");
}
