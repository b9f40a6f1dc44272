//! Branches that became one Conv: right merges are accepted, wrong ones are not.

use bnkit_model::onnx::{AttributeValue, Edit, Model, NewTensor, Recipe};

use super::super::{Algebra, check_merged};
use super::*;
use crate::fold::{Options, Plan, plan};
use crate::route::{Branch, Merged};

const NUMBERS: [f64; 16] = [
    0.5, -1.25, 2.0, 0.75, -0.5, 1.5, 3.0, -2.0, 0.25, 1.0, -0.75, 4.0, 2.5, -3.0, 0.125, 1.75,
];

fn values(count: usize, first: usize) -> Vec<f64> {
    (first..first + count).map(|at| NUMBERS[at % 16]).collect()
}

/// 1×3 (padded by 1) with a BatchNorm + 1×1 + a BatchNorm alone, of four channels in two groups.
fn block() -> Net {
    let channels = |net: Net, name: &str, first: usize| {
        let variance: Vec<f64> = values(4, first).iter().map(|v| v * v + 0.5).collect();
        net.constant(&format!("{name}.g"), &[4], &values(4, first))
            .constant(&format!("{name}.b"), &[4], &values(4, first + 4))
            .constant(&format!("{name}.m"), &[4], &values(4, first + 7))
            .constant(&format!("{name}.v"), &[4], &variance)
    };
    let net = Net::new("x", &[1, 4, 3, 6])
        .constant("w", &[4, 2, 1, 3], &values(24, 0))
        .constant("p", &[4, 2, 1, 1], &values(8, 5))
        .constant("pb", &[4], &values(4, 2));
    let group = || attribute("group", AttributeValue::Int(2));
    let pads = AttributeValue::Ints(vec![0, 1, 0, 1]);
    channels(channels(net, "n", 3), "i", 9)
        .node("Conv", &["x", "w"], "c")
        .with(group())
        .with(attribute("pads", pads))
        .node(
            "BatchNormalization",
            &["c", "n.g", "n.b", "n.m", "n.v"],
            "n",
        )
        .node("Conv", &["x", "p", "pb"], "q")
        .with(group())
        .node("Add", &["n", "q"], "a")
        .node(
            "BatchNormalization",
            &["x", "i.g", "i.b", "i.m", "i.v"],
            "i",
        )
        .node("Add", &["a", "i"], "s")
        .node("Relu", &["s"], "y")
        .output("y")
}

fn merged(net: Net, merges: usize) -> (Model, Plan) {
    let original = net.model();
    let options = Options {
        merge_branches: true,
        ..Options::default()
    };
    let plan = plan(&original, &options).unwrap();
    assert_eq!(plan.merges.len(), merges, "{:?}", plan.merges_refused);
    (original, plan)
}

fn examine(original: &Model, folded: &Model, plan: &Plan) -> Algebra {
    check_merged(original, folded, &plan.routes, &plan.merges).unwrap()
}

#[track_caller]
fn accepts(net: Net, merges: usize) {
    let (original, plan) = merged(net, merges);
    let found = examine(&original, plan.apply(), &plan);
    assert!(found.failures.is_empty(), "{:?}", found.failures);
    assert_eq!(found.checked, plan.routes.len() + merges);
    assert!(found.max_ulp <= 1.0);
}

/// Changes a constant input of the Conv that is left.
fn change(plan: &Plan, slot: usize, change: impl Fn(&mut Vec<usize>, &mut Vec<f64>)) -> Model {
    let mut folded = plan.apply().clone();
    let conv = folded.nodes().find(|(_, node)| node.is("Conv")).unwrap().1;
    let value = conv.input(slot).unwrap();
    let tensor = folded.value(value).tensor.clone().unwrap();
    let mut numbers = folded.read_f64(&tensor).unwrap();
    let mut dims = tensor.dims.to_vec();
    change(&mut dims, &mut numbers);
    let tensor = NewTensor {
        dtype: tensor.dtype,
        dims: dims.into(),
        recipe: Arc::new(Recipe::values(numbers)),
    };
    folded
        .apply(&[Edit::SetConstant { value, tensor }])
        .unwrap();
    folded
}

/// Sets an attribute of the Conv that is left.
fn set(plan: &Plan, name: &str, value: AttributeValue) -> Model {
    let mut folded = plan.apply().clone();
    let node = folded.nodes().find(|(_, node)| node.is("Conv")).unwrap().0;
    let name = name.to_owned();
    folded
        .apply(&[Edit::SetAttribute { node, name, value }])
        .unwrap();
    folded
}

#[test]
fn branches_are_recomputed() {
    accepts(block(), 1);
}

#[test]
fn every_element_of_a_merged_kernel_counts() {
    let (original, plan) = merged(block(), 1);
    let rejected = |folded: &Model| !examine(&original, folded, &plan).failures.is_empty();
    assert!(!rejected(plan.apply()));
    for at in 0..24 {
        let wrong = change(&plan, 1, |_, w| w[at] += 1e-5 * w[at].abs().max(0.1));
        assert!(rejected(&wrong), "weight {at}");
    }
    for at in 0..4 {
        let wrong = change(&plan, 2, |_, b| b[at] += 1e-5 * b[at].abs().max(0.1));
        assert!(rejected(&wrong), "bias {at}");
    }
}

#[test]
fn wrong_places_are_caught() {
    let (original, plan) = merged(block(), 1);
    let rejected = |folded: &Model| !examine(&original, folded, &plan).failures.is_empty();
    // What the BatchNorm alone has put onto the diagonal, which a wrong merge puts elsewhere.
    let scale = {
        let (g, v) = (NUMBERS[9], NUMBERS[9] * NUMBERS[9] + 0.5);
        g / (v + 1e-5f32 as f64).sqrt()
    };
    // Off by one tap; at the other input of the group.
    for wrong in [0, 2, 4] {
        let folded = change(&plan, 1, |_, w| {
            w[1] -= scale;
            w[wrong] += scale;
        });
        assert!(rejected(&folded), "{wrong}");
    }
    // All kernels moved by one tap, and the padding with them: another position after all.
    let folded = change(&plan, 1, |_, w| w.rotate_right(1));
    assert!(rejected(&folded));
    // A padding that is off by one, on one side, on both; another group, stride, dilation.
    for pads in [
        [0, 0, 0, 2],
        [0, 2, 0, 0],
        [0, 0, 0, 0],
        [0, 2, 0, 2],
        [1, 1, 1, 1],
    ] {
        let pads = AttributeValue::Ints(pads.to_vec());
        assert!(rejected(&set(&plan, "pads", pads.clone())), "{pads:?}");
    }
    assert!(rejected(&set(&plan, "group", AttributeValue::Int(1))));
    assert!(rejected(&set(
        &plan,
        "strides",
        AttributeValue::Ints(vec![1, 2])
    )));
    assert!(rejected(&set(
        &plan,
        "dilations",
        AttributeValue::Ints(vec![1, 2])
    )));
    let auto = AttributeValue::String(b"VALID".to_vec());
    assert!(rejected(&set(&plan, "auto_pad", auto)));
    // A kernel without its last tap, padded as before at the beginning.
    let short = change(&plan, 1, |dims, w| {
        dims[3] = 2;
        *w = w.chunks(3).flat_map(|taps| taps[..2].to_vec()).collect();
    });
    assert!(rejected(&short));
}

#[test]
fn a_wider_kernel_of_the_same_answer_is_the_same() {
    let (original, plan) = merged(block(), 1);
    let mut folded = change(&plan, 1, |dims, w| {
        dims[3] = 5;
        *w = w
            .chunks(3)
            .flat_map(|taps| [&[0.0], taps, &[0.0]].concat())
            .collect();
    });
    let node = plan.merges[0].into;
    let list = |name: &str, values: Vec<i64>| Edit::SetAttribute {
        node,
        name: name.to_owned(),
        value: AttributeValue::Ints(values),
    };
    folded.apply(&[list("pads", vec![0, 2, 0, 2])]).unwrap();
    let found = examine(&original, &folded, &plan);
    assert!(found.failures.is_empty(), "{:?}", found.failures);
}

#[test]
fn wrong_records_are_caught() {
    let (original, plan) = merged(block(), 1);
    let rejected = |change: &dyn Fn(&mut Vec<Branch>)| {
        let mut wrong = plan.clone();
        let Merged::Branches { branches, .. } = &mut wrong.merges[0].merged else {
            panic!("a merge of branches");
        };
        change(branches);
        !examine(&original, plan.apply(), &wrong).failures.is_empty()
    };
    assert!(!rejected(&|_| {}));
    assert!(rejected(&|branches| branches.truncate(2)));
    assert!(rejected(&|branches| branches.push(Branch::Input)));
    assert!(rejected(&|branches| branches[2] = Branch::Input));
    assert!(rejected(&|branches| branches[0] = branches[1]));
    // Before the BatchNorm behind the first branch was folded.
    let mut early = plan.clone();
    early.merges[0].after = 0;
    assert!(!examine(&original, plan.apply(), &early).failures.is_empty());
    // The merged Conv is named by no merge.
    let found = check(&original, plan.apply(), &plan.routes).unwrap();
    assert!(!found.failures.is_empty());
}

/// 1×1 before 1×3, in two groups.
fn sequence() -> Net {
    let group = || attribute("group", AttributeValue::Int(2));
    Net::new("x", &[1, 4, 3, 6])
        .constant("w", &[8, 2, 1, 1], &values(16, 0))
        .constant("wb", &[8], &values(8, 3))
        .constant("v", &[2, 4, 1, 3], &values(24, 5))
        .node("Conv", &["x", "w", "wb"], "c")
        .with(group())
        .node("Conv", &["c", "v"], "y")
        .with(group())
        .output("y")
}

#[test]
fn sequences_are_recomputed() {
    accepts(sequence(), 1);
    let (original, plan) = merged(sequence(), 1);
    let rejected = |folded: &Model| !examine(&original, folded, &plan).failures.is_empty();
    for at in 0..12 {
        let wrong = change(&plan, 1, |_, w| w[at] += 1e-5 * w[at].abs().max(0.1));
        assert!(rejected(&wrong), "weight {at}");
    }
    assert!(rejected(&change(&plan, 2, |_, b| b[1] *= 1.001)));
    let pads = AttributeValue::Ints(vec![0, 1, 0, 1]);
    assert!(rejected(&set(&plan, "pads", pads)));
}
