//! A constant that its graph input declares otherwise than it is.

use bnkit_model::onnx::{Model, Precision};

use crate::fold::{Options, plan};
use crate::verify::algebra;
use crate::verify::nets::Net;

/// MatMul, Add and BatchNorm; a caller may give another addend, of this shape.
fn net(declared: &[i64]) -> Net {
    Net::new("x", &[-1, 3])
        .input("c", Some(declared))
        .constant("w", &[3, 4], &[0.5; 12])
        .constant("c", &[4], &[1.0, 2.0, 3.0, 4.0])
        .constant("one", &[4], &[1.0; 4])
        .node("MatMul", &["x", "w"], "m")
        .node("Add", &["m", "c"], "a")
        .node(
            "BatchNormalization",
            &["a", "one", "one", "one", "one"],
            "y",
        )
        .output("y")
}

#[test]
fn a_constant_that_is_declared_otherwise_is_refused() {
    let options = Options {
        assume_constant: true,
        ..Options::default()
    };
    for (declared, folded) in [
        (&[4][..], true),
        (&[-1], true),
        (&[3], false),
        (&[1, 4], false),
        (&[2, -1, -1, 4], false),
    ] {
        let original = net(declared).model();
        let plan = plan(&original, &options).unwrap();
        match &plan.sites[0].refusal {
            None => {
                assert!(folded, "{declared:?}");
                let proof = algebra::check(&original, plan.apply(), &plan.routes).unwrap();
                assert!(proof.failures.is_empty(), "{:?}", proof.failures);
            }
            Some(refusal) => {
                assert!(!folded, "{declared:?}: {refusal:?}");
                let codes = ["shape-mismatch", "rank", "unknown-shape"];
                assert!(codes.contains(&refusal.code), "{declared:?}: {refusal:?}");
            }
        }
    }
}

#[test]
fn a_constant_that_a_fold_gave_another_shape_goes_on() {
    let channels = |net: Net, name| net.constant(name, &[2], &[2.0, 3.0]);
    let norm = |x| [x, "two", "two", "two", "two"];
    let original = channels(Net::new("x", &[2, 2, 5, 2]), "two")
        .constant("factor", &[1, 1, 1, 1], &[-0.5])
        .node("BatchNormalization", &norm("x"), "n")
        .node("Div", &["n", "factor"], "d")
        .node("BatchNormalization", &norm("d"), "y")
        .output("y")
        .model();
    let first = plan(&original, &Options::default()).unwrap();
    assert_eq!(first.routes.len(), 2, "{:?}", first.sites);
    let folded = first.apply().to_bytes(Precision::Stored).unwrap();
    let folded = Model::from_bytes(folded).unwrap();
    let second = plan(&folded, &Options::default()).unwrap();
    assert!(second.routes.is_empty(), "{:?}", second.routes);
}
