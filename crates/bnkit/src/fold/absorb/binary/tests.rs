//! A constant that its graph input declares otherwise than it is.

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
