//! What the golden graphs do not show: limits, what the report says, and that the proof names a merge that is wrong.

use bnkit_model::onnx::{AttributeValue, Edit, Model, NewTensor, Recipe, ValueId};

use crate::calibrate::Interrupt;
use crate::fold::{Options, Plan, plan, plan_without};
use crate::report::{Decision, Verdict};
use crate::verify::nets::{Net, attribute};
use crate::verify::{self, VerifyOptions, algebra, local};

fn options() -> Options {
    Options {
        merge_branches: true,
        ..Options::default()
    }
}

fn merged(model: &Model) -> Plan {
    plan(model, &options()).unwrap()
}

/// 3×3 + BatchNorm + x, of two channels.
fn block() -> Net {
    let weight: Vec<f64> = (0..36).map(|at| f64::from(at % 7) - 3.0).collect();
    Net::new("x", &[1, 2, 4, 5])
        .constant("w", &[2, 2, 3, 3], &weight)
        .constant("g", &[2], &[2.0, -1.0])
        .constant("b", &[2], &[0.5, 1.0])
        .constant("m", &[2], &[1.0, 0.25])
        .constant("v", &[2], &[0.75, 3.0])
        .node("Conv", &["x", "w"], "c")
        .with(attribute("pads", AttributeValue::Ints(vec![1; 4])))
        .node("BatchNormalization", &["x", "g", "b", "m", "v"], "n")
        .node("Add", &["n", "x"], "a")
        .node("Add", &["a", "c"], "s")
        .node("Relu", &["s"], "y")
        .output("y")
}

/// Adds a little to one element of a constant.
fn nudge(model: &mut Model, value: ValueId, at: usize) {
    let tensor = model.value(value).tensor.clone().unwrap();
    let mut numbers = model.read_f64(&tensor).unwrap();
    numbers[at] += 0.01;
    let tensor = NewTensor {
        dtype: tensor.dtype,
        dims: tensor.dims.clone(),
        recipe: Recipe::values(numbers).into(),
    };
    model.apply(&[Edit::SetConstant { value, tensor }]).unwrap();
}

/// Adds a little to one weight of the Conv that is left.
fn spoiled(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    let mut folded = plan.apply().clone();
    let conv = folded.nodes().find(|(_, node)| node.is("Conv")).unwrap().1;
    let value = conv.input(1).unwrap();
    nudge(&mut folded, value, 4);
    plan.replace_folded(folded);
    plan
}

#[test]
fn the_report_counts_parameters_and_work() {
    let model = block().model();
    let plan = merged(&model);
    assert_eq!(plan.sites[0].decision, Decision::Merged);
    assert_eq!((plan.summary.merged, plan.summary.kept), (1, 0));
    let [merge] = plan.merged.as_slice() else {
        panic!("{:?}", plan.merged);
    };
    assert_eq!((merge.rule, merge.into.as_str()), ("merge-branches", "c"));
    assert_eq!(merge.merged, ["n", "s", "a"]);
    // 36 weights and four vectors of 2; 36 weights and 2 biases. 20 positions.
    assert_eq!((merge.parameters_before, merge.parameters_after), (44, 38));
    assert_eq!(merge.macs_before, Some(20 * 38));
    assert_eq!(merge.macs_after, Some(20 * 36));
    assert_eq!(plan.apply().nodes().count(), 2);
}

#[test]
fn a_merge_can_be_left_out() {
    let model = block().model();
    let plan = merged(&model);
    let left_out = [plan.merges[0].at].into();
    let part = plan_without(&model, &options(), &left_out).unwrap();
    assert!(part.merges.is_empty());
    assert_eq!(part.apply().nodes().count(), 5);
}

#[test]
fn the_proof_names_a_wrong_merge() {
    let model = block().model();
    let plan = merged(&model);
    let prove =
        |plan: &Plan| verify::prove(&model, plan, &options(), &VerifyOptions::default()).unwrap();
    assert_eq!(prove(&plan).verdict, Verdict::Equivalent);
    let proof = prove(&spoiled(&plan));
    assert_eq!(proof.verdict, Verdict::NotEquivalent);
    assert_eq!(proof.culprit.as_deref(), Some("c"));
}

#[test]
fn the_neighbourhood_of_a_merge_shows_that_it_is_wrong() {
    let model = block().model();
    let distance = |a: &[u8], b: &[u8]| verify::distance_in_f64(a, b, 0);
    let check = |plan: &Plan| {
        let all = local::neighbourhoods_merged(&model, plan.apply(), &plan.routes, &plan.merges);
        assert_eq!(all.len(), 1);
        local::check(&all, &distance, &Interrupt::default()).unwrap()
    };
    let plan = merged(&model);
    let right = check(&plan);
    assert_eq!((right.ran, right.failures.len()), (1, 0), "{right:?}");
    assert_eq!(check(&spoiled(&plan)).failures.len(), 1);
}

/// Two branches of one input and the input itself, in sums that add constants, too: they move up when the others leave.
fn sums() -> Net {
    let weight: Vec<f64> = (0..36).map(|at| f64::from(at % 5) - 2.0).collect();
    Net::new("x", &[1, 2, 4, 5])
        .constant("w", &[2, 2, 3, 3], &weight)
        .constant("u", &[2, 2, 1, 1], &[1.0, 0.5, -0.5, 1.0])
        .constant("k", &[1, 2, 1, 1], &[0.25, -4.0])
        .constant("l", &[5], &[1.0, 2.0, 3.0, 4.0, 5.0])
        .constant("p", &[1, 2, 1, 1], &[3.0, -1.5])
        .constant("g", &[2], &[2.0, -1.0])
        .constant("b", &[2], &[0.5, 1.0])
        .constant("m", &[2], &[1.0, 0.25])
        .constant("v", &[2], &[0.75, 3.0])
        .node("Conv", &["x", "w"], "c")
        .with(attribute("pads", AttributeValue::Ints(vec![1; 4])))
        .node("Conv", &["x", "u"], "d")
        .node("Add", &["d", "p"], "e")
        .node("BatchNormalization", &["e", "g", "b", "m", "v"], "n")
        .node("Sum", &["x", "k", "l"], "a")
        .node("Add", &["a", "c"], "s")
        .node("Add", &["s", "n"], "t")
        .node("Relu", &["t"], "y")
        .output("y")
}

#[test]
fn sums_keep_the_constants_they_add() {
    let model = sums().model();
    let plan = merged(&model);
    assert_eq!(plan.merges.len(), 1, "{:?}", plan.merges_refused);
    let convs = plan.apply().nodes().filter(|(_, node)| node.is("Conv"));
    assert_eq!(convs.count(), 1);
    let proof = verify::prove(&model, &plan, &options(), &VerifyOptions::default()).unwrap();
    assert_eq!(proof.verdict, Verdict::Equivalent, "{proof:?}");
}

#[test]
fn the_proof_sees_that_a_sum_adds_something_else() {
    let model = sums().model();
    for name in ["k", "l"] {
        let plan = merged(&model);
        let mut folded = plan.apply().clone();
        let sums = folded
            .nodes()
            .filter(|(_, node)| node.is("Add") || node.is("Sum"));
        let value = sums
            .flat_map(|(_, node)| node.inputs.iter().flatten().copied())
            .find(|&value| folded.value(value).name.starts_with(name))
            .expect("it is added");
        nudge(&mut folded, value, 1);
        let found = algebra::check_merged(&model, &folded, &plan.routes, &plan.merges).unwrap();
        assert_eq!(found.failures.len(), 2, "{name}: {:?}", found.failures);
    }
}

/// As [`sums`], with one constant: what is left is a Conv and an Add, which goes into it.
#[test]
fn a_constant_that_moved_up_is_folded_then() {
    let weight: Vec<f64> = (0..36).map(|at| f64::from(at % 5) - 2.0).collect();
    let model = Net::new("x", &[1, 2, 4, 5])
        .constant("w", &[2, 2, 3, 3], &weight)
        .constant("k", &[1, 2, 1, 1], &[0.25, -4.0])
        .node("Conv", &["x", "w"], "c")
        .with(attribute("pads", AttributeValue::Ints(vec![1; 4])))
        .node("Add", &["x", "k"], "a")
        .node("Add", &["c", "a"], "s")
        .node("Relu", &["s"], "y")
        .output("y")
        .model();
    let plan = merged(&model);
    assert_eq!(plan.merges.len(), 1, "{:?}", plan.merges_refused);
    let proof = verify::prove(&model, &plan, &options(), &VerifyOptions::default()).unwrap();
    assert_eq!(proof.verdict, Verdict::Equivalent, "{proof:?}");
    assert_eq!(plan.apply().nodes().count(), 2);
}

#[test]
fn a_long_chain_is_merged_only_so_often() {
    let mut net = Net::new("x", &[1, 2, 3, 3]).constant("w", &[2, 2, 1, 1], &[1.0, 0.5, -0.5, 1.0]);
    let mut last = "x".to_owned();
    for number in 0..100 {
        let next = format!("c{number}");
        net = net.node("Conv", &[&last, "w"], &next);
        last = next;
    }
    let model = net.node("Relu", &[&last], "y").output("y").model();
    let plan = merged(&model);
    assert_eq!(plan.merges.len(), 94);
    assert!(
        plan.merges_refused
            .iter()
            .all(|merge| merge.refusal.code == "merge-cost")
    );
    let found = algebra::check_merged(&model, plan.apply(), &plan.routes, &plan.merges).unwrap();
    assert!(found.failures.is_empty(), "{:?}", found.failures);
}

#[test]
fn nothing_is_merged_unasked() {
    let model = block().model();
    let plain = plan(&model, &Options::default()).unwrap();
    assert!(plain.merges.is_empty() && plain.merges_refused.is_empty());
    assert_eq!(plain.sites[0].decision, Decision::Kept);
}

#[test]
fn a_constant_that_is_added_is_no_branch() {
    // The Conv of k could take k along, but what it computes is a constant, and the sum would lose a term that it has.
    let ones: Vec<f64> = vec![1.0; 8];
    let model = Net::new("x", &[1, 2, 2, 2])
        .constant("k", &[1, 2, 2, 2], &ones)
        .constant("w", &[2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0])
        .node("Conv", &["k", "w"], "c")
        .node("Add", &["c", "k"], "a")
        .node("Add", &["a", "x"], "s")
        .node("Relu", &["s"], "y")
        .output("y")
        .model();
    let plan = merged(&model);
    assert!(plan.merged.is_empty(), "{:?}", plan.merged);
    assert_eq!(plan.apply().nodes().count(), 4);
}

#[test]
fn sums_that_nobody_reads_are_left_alone() {
    let net = |is_read: bool| {
        let net = Net::new("x", &[1, 1, 2, 2])
            .constant("w", &[1, 1, 1, 1], &[2.0])
            .constant("c", &[], &[1.0])
            .node("Conv", &["x", "w"], "a")
            .node("Add", &["a", "x"], "s")
            .node("Add", &["s", "c"], "t")
            .node("Dropout", &["t"], "d")
            .node("Relu", &["x"], "y")
            .output("y");
        if is_read { net.output("d") } else { net }
    };
    for (is_read, merges) in [(true, 1), (false, 0)] {
        let model = net(is_read).model();
        let plan = merged(&model);
        assert_eq!(plan.merged.len(), merges);
        let proof = algebra::check_merged(&model, plan.apply(), &plan.routes, &plan.merges);
        let failures = proof.unwrap().failures;
        assert!(failures.is_empty(), "{failures:?}");
    }
}
