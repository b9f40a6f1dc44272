//! What stands in the place of an affine: plans of half folds and lowered BatchNorms, and mutations of them.

use std::sync::Arc;

use bnkit_model::DType;
use bnkit_model::onnx::{AttributeValue, Edit, Model, NewTensor, NodeId, Recipe};

use super::super::{Algebra, check};
use super::norm;
use crate::fold::{Options, Plan, plan};
use crate::report::Decision;
use crate::route::{Part, Rest, Route};
use crate::verify::nets::{Net, attribute};

struct Planned {
    original: Model,
    plan: Plan,
}

impl Planned {
    fn new(net: Net) -> Self {
        let options = Options {
            aggressive: true,
            lower: true,
            ..Options::default()
        };
        let original = net.model();
        let plan = plan(&original, &options).unwrap();
        Self { original, plan }
    }

    #[track_caller]
    fn decided(self, decision: Decision) -> Self {
        let site = &self.plan.sites[0];
        assert_eq!(site.decision, decision, "{:?}", site.refusal);
        assert_eq!(self.check(&self.plan.routes).failures.len(), 0);
        self
    }

    fn check(&self, routes: &[Route]) -> Algebra {
        check(&self.original, self.plan.apply(), routes).unwrap()
    }

    /// The values of the constant in slot 1 of a node.
    fn constant(&self, node: NodeId) -> Vec<f64> {
        let model = self.plan.apply();
        let value = model.node(node).input(1).unwrap();
        let tensor = model.value(value).tensor.clone().unwrap();
        model.read_f64(&tensor).unwrap()
    }

    /// Whether the proof objects when the constant of a node is another one.
    fn catches(&self, node: NodeId, values: &[f64]) -> bool {
        let mut folded = self.plan.apply().clone();
        let value = folded.node(node).input(1).unwrap();
        let dims = folded.value(value).tensor.as_ref().unwrap().dims.clone();
        let recipe = Arc::new(Recipe::values(values.to_vec()));
        let tensor = NewTensor {
            dtype: DType::F32,
            dims,
            recipe,
        };
        folded
            .apply(&[Edit::SetConstant { value, tensor }])
            .unwrap();
        let algebra = check(&self.original, &folded, &self.plan.routes).unwrap();
        !algebra.failures.is_empty()
    }

    #[track_caller]
    fn rejects(&self, change: impl Fn(&mut Route), what: &str) {
        let mut routes = self.plan.routes.clone();
        change(&mut routes[0]);
        let failures = self.check(&routes).failures;
        let named = |reason: &Option<String>| reason.as_ref().is_some_and(|r| r.contains(what));
        assert!(
            failures.iter().any(|failure| named(&failure.reason)),
            "{what}: {failures:?}"
        );
    }
}

/// Conv → Relu → BatchNorm with s = (0.5, 2), t = (0.5, −1.75).
fn behind_relu() -> Planned {
    let net = Net::new("x", &[1, 1, 2, 2])
        .constant("w", &[2, 1, 1, 1], &[2.0, 3.0])
        .node("Conv", &["x", "w"], "c")
        .node("Relu", &["c"], "r");
    Planned::new(norm(net, "r", "y").output("y")).decided(Decision::HalfFolded)
}

/// The same BatchNorm before a Conv that pads.
fn before_padding() -> Planned {
    let net = norm(Net::new("x", &[1, 2, 3, 3]), "x", "n")
        .constant("w", &[1, 2, 3, 3], &[1.0; 18])
        .node("Conv", &["n", "w"], "y")
        .with(attribute("pads", AttributeValue::Ints(vec![1; 4])));
    Planned::new(net.output("y")).decided(Decision::HalfFolded)
}

fn lowered() -> Planned {
    let net = norm(Net::new("x", &[1, 2, 3, 3]), "x", "y");
    Planned::new(net.output("y")).decided(Decision::Lowered)
}

#[test]
fn behind_a_relu_the_shift_stays() {
    let planned = behind_relu();
    let Rest::Shift { add } = planned.plan.routes[0].rest else {
        panic!("{:?}", planned.plan.routes[0]);
    };
    assert_eq!(planned.constant(add), [0.5, -1.75]);
    let conv = planned.plan.routes[0].absorbed[0].node;
    assert_eq!(planned.constant(conv), [1.0, 6.0]);
    // Not scaled, t/s instead of t, the wrong sign, the wrong order, no mean, and a scale that stayed at home.
    for wrong in [
        [0.25, -3.5],
        [1.0, -0.875],
        [-0.5, 1.75],
        [-1.75, 0.5],
        [0.5, 0.25],
    ] {
        assert!(planned.catches(add, &wrong), "{wrong:?}");
    }
    assert!(planned.catches(conv, &[2.0, 3.0]));
    assert!(!planned.catches(add, &[0.5, -1.75]));
}

#[test]
fn before_padding_the_shift_stays() {
    let planned = before_padding();
    let Rest::ShiftBefore { add } = planned.plan.routes[0].rest else {
        panic!("{:?}", planned.plan.routes[0]);
    };
    // t/s = 0.5/0.5, −1.75/2
    assert_eq!(planned.constant(add), [1.0, -0.875]);
    for wrong in [[0.5, -1.75], [0.25, -3.5], [-1.0, 0.875], [0.0, 0.0]] {
        assert!(planned.catches(add, &wrong), "{wrong:?}");
    }
    assert!(!planned.catches(add, &[1.0, -0.875]));
}

#[test]
fn lowered_constants_are_recomputed() {
    let planned = lowered();
    let Rest::Lowered { mul, add } = planned.plan.routes[0].rest else {
        panic!("{:?}", planned.plan.routes[0]);
    };
    assert_eq!(planned.constant(mul), [0.5, 2.0]);
    assert_eq!(planned.constant(add), [0.5, -1.75]);
    assert!(planned.catches(mul, &[2.0, 0.5]));
    assert!(planned.catches(mul, &[1.0, 4.0]));
    assert!(planned.catches(add, &[0.5, 0.25]));
    assert!(!planned.catches(add, &[0.5, -1.75]));
    // The other way round: (x + t)·s is something else.
    planned.rejects(
        |route| route.rest = Rest::Lowered { mul: add, add: mul },
        "there is no new Mul",
    );
}

#[test]
fn routes_that_say_another_rest_are_caught() {
    let planned = behind_relu();
    let Rest::Shift { add } = planned.plan.routes[0].rest else {
        panic!("{:?}", planned.plan.routes[0]);
    };
    planned.rejects(|route| route.rest = Rest::Nothing, "absorbed the shift");
    planned.rejects(
        |route| route.rest = Rest::ShiftBefore { add },
        "went backwards",
    );
    planned.rejects(
        |route| route.rest = Rest::Shift { add: route.site },
        "there is no new Add",
    );
    planned.rejects(
        |route| {
            route.rest = Rest::Lowered {
                mul: route.absorbed[0].node,
                add,
            };
        },
        "said to stay and to be absorbed",
    );
    planned.rejects(
        |route| {
            route.absorbed[0].part = Part::Whole;
            route.absorbed[0].share = 1.0;
        },
        "absorbed too",
    );
    planned.rejects(|route| route.absorbed.clear(), "nothing absorbed");
    let planned = before_padding();
    let Rest::ShiftBefore { add } = planned.plan.routes[0].rest else {
        panic!("{:?}", planned.plan.routes[0]);
    };
    planned.rejects(|route| route.rest = Rest::Shift { add }, "went forwards");
    planned.rejects(|route| route.rest = Rest::Nothing, "absorbed the shift");
}
