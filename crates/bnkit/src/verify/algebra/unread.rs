//! Operators whose results nobody reads: they may go, whatever they absorbed.

use bnkit_model::onnx::Edit;

use crate::fold::{Options, plan};
use crate::verify::algebra;
use crate::verify::nets::Net;

/// A BatchNorm before an Add, that a Mul reads, that `last` reads. What `last` makes is an output, or nobody reads it.
fn net(last: &str, is_output: bool) -> Net {
    let net = Net::new("x", &[1, 2, 4, 4])
        .constant("one", &[2], &[1.0, 1.0])
        .constant("shift", &[2], &[0.5, 0.25])
        .constant("zero", &[2], &[0.0, 0.0])
        .constant("var", &[2], &[0.99999, 0.99999])
        .constant("c", &[2, 1, 1], &[1.0, 2.0])
        .constant("two", &[], &[2.0])
        .node(
            "BatchNormalization",
            &["x", "one", "shift", "zero", "var"],
            "n",
        )
        .node("Sub", &["n", "c"], "s")
        .node("Add", &["s", "c"], "a")
        .node("Mul", &["a", "two"], "m")
        .node(last, &["m"], "d")
        .node("Relu", &["x"], "y")
        .output("y");
    if is_output { net.output("d") } else { net }
}

#[test]
fn what_nobody_needs_may_go_with_what_it_absorbed() {
    for last in ["Dropout", "Identity", "Relu"] {
        let original = net(last, false).model();
        let plan = plan(&original, &Options::default()).unwrap();
        assert!(!plan.routes.is_empty());
        let proof = algebra::check(&original, plan.apply(), &plan.routes).unwrap();
        assert!(proof.failures.is_empty(), "{last}: {:?}", proof.failures);
    }
}

#[test]
fn what_an_output_needs_may_not() {
    let original = net("Relu", true).model();
    let plan = plan(&original, &Options::default()).unwrap();
    let mut folded = plan.apply().clone();
    let absorbed = plan.routes.iter().flat_map(|route| &route.absorbed);
    let node = absorbed.last().expect("something moved").node;
    let (input, output) = (folded.node(node).input(0), folded.node(node).output(0));
    let (value, by) = (output.unwrap(), input.unwrap());
    folded
        .apply(&[Edit::ReplaceUses { value, by }, Edit::RemoveNode { node }])
        .unwrap();
    let proof = algebra::check(&original, &folded, &plan.routes).unwrap();
    let reasons: Vec<&str> = (proof.failures.iter())
        .filter_map(|failure| failure.reason.as_deref())
        .collect();
    assert!(
        reasons.contains(&"it absorbed an affine, and is gone"),
        "{reasons:?}"
    );
}
