//! Which BatchNorms are one module, and what that means for their statistics.

use bnkit_model::onnx::Model;
use bnkit_model::proto::{FunctionProto, ModelProto, NodeProto, OperatorSetIdProto};
use prost::Message;

use super::super::apply;
use super::super::modules::survey;
use super::*;

const BN: &str = "BatchNormalization";

/// Two BatchNorms one behind the other; the second reads its parameters under these names.
fn two(second: [&str; 4], identities: &[(&str, &str)]) -> Net {
    let mut net = fresh(Net::new("x", &[-1, 2, 3]), "g", "b", "m", "v")
        .constant("g2", &[2], &[1.5, 0.5])
        .constant("b2", &[2], &[0.5, -1.0]);
    for (from, to) in identities {
        net = net.node("Identity", &[from], to);
    }
    let [g, b, m, v] = second;
    net.node(BN, &["x", "g", "b", "m", "v"], "first")
        .node(BN, &["first", g, b, m, v], "second")
        .output("second")
}

fn statistics(seed: f64) -> apply::Statistics {
    (vec![seed, -seed], vec![seed * 2.0, seed * 3.0])
}

/// Gives each module statistics of its own, and reads them back.
fn give(model: &Model) -> (Model, Vec<LayerStats>) {
    let modules = survey(model, &Selection::default()).unwrap();
    let new: Vec<_> = (0..modules.len())
        .map(|at| Some(statistics(at as f64 + 1.0)))
        .collect();
    let changed = reload(&apply::apply(model, &modules, &new).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.onnx");
    changed.save(&path, Default::default()).unwrap();
    (changed, read_stats(&path))
}

#[test]
fn what_an_exporter_merged_is_taken_apart_again() {
    let merged = [
        two(["g2", "b2", "m2", "v2"], &[("m", "m2"), ("v", "v2")]),
        // Even γ and β are merged, and all lies behind Identity.
        two(
            ["g3", "b3", "m2", "v2"],
            &[("g", "g3"), ("b", "b3"), ("m", "m2"), ("v", "v2")],
        ),
        // The tensors themselves, by nodes with other γ and β.
        two(["g2", "b2", "m", "v"], &[]),
    ];
    for (case, net) in merged.into_iter().enumerate() {
        let (changed, found) = give(&net.model());
        assert_eq!(found.len(), 2, "case {case}");
        for (at, layer) in found.iter().enumerate() {
            let expected = statistics(at as f64 + 1.0);
            assert_eq!((&layer.mean, &layer.variance), (&expected.0, &expected.1));
        }
        let identities = changed.nodes().filter(|(_, node)| node.is("Identity"));
        assert_eq!(
            identities.count(),
            if case == 1 { 2 } else { 0 },
            "case {case}"
        );
        let names: Vec<&str> = found.iter().map(|layer| layer.mean_name.as_str()).collect();
        assert_eq!(
            names,
            if case < 2 {
                ["m", "m2"]
            } else {
                ["m_mean", "m"]
            }
        );
    }
}

#[test]
fn one_tensor_for_mean_and_variance_becomes_two() {
    let net = Net::new("x", &[-1, 2, 3])
        .constant("g", &[2], &[1.0; 2])
        .constant("b", &[2], &[0.0; 2])
        .node(BN, &["x", "g", "b", "b", "g"], "y")
        .output("y");
    let (_, found) = give(&net.model());
    let expected = statistics(1.0);
    assert_eq!(
        (&found[0].mean, &found[0].variance),
        (&expected.0, &expected.1)
    );
}

#[test]
fn one_module_called_twice_has_one_set_of_statistics() {
    let values = data(8 * 6);
    let net = fresh(Net::new("x", &[-1, 2, 3]), "g", "b", "m", "v")
        .constant("two", &[], &[2.0])
        .node("Mul", &["x", "two"], "twice")
        .node(BN, &["x", "g", "b", "m", "v"], "first")
        .node(BN, &["twice", "g", "b", "m", "v"], "second")
        .output("first")
        .output("second");
    let case = Case::new(&net.bytes(), &[8, 2, 3], &values);
    let report = recalibrate(&case.job(Method::Precise), &Quiet).unwrap();
    assert_eq!(report.layers.len(), 1);
    assert_eq!(report.layers[0].layer.calls, ["second"]);
    assert_eq!(
        (report.layers[0].batches, report.layers[0].elements),
        (2, 48)
    );
    assert!(
        report
            .warnings
            .iter()
            .any(|warning| warning.code == "called-several-times")
    );
    let found = case.stats();
    for at in 0..2 {
        let mut all = channel(&values, at);
        all.extend(all.clone().iter().map(|x| 2.0 * x));
        let (mean, variance) = moments(&all);
        close(&[found[0].mean[at]], &[mean], 1e-7);
        close(&[found[0].variance[at]], &[variance], 1e-7);
    }
    // An exponential average takes the calls one after the other.
    let mut job = case.job(Method::Ema);
    job.method.momentum = Some(0.75);
    let report = recalibrate(&job, &Quiet).unwrap();
    assert_eq!(report.layers[0].history_weight, Some(0.75));
    let found = case.stats();
    for at in 0..2 {
        let mut running = (0.0, 1.0);
        for batch in values.chunks(4 * 6) {
            let once = channel(batch, at);
            let twice: Vec<f64> = once.iter().map(|x| 2.0 * x).collect();
            for (mean, variance) in [moments(&once), moments(&twice)] {
                running.0 = 0.75 * running.0 + 0.25 * mean;
                running.1 = 0.75 * running.1 + 0.25 * variance;
            }
        }
        close(&[found[0].mean[at]], &[running.0], 1e-6);
        close(&[found[0].variance[at]], &[running.1], 1e-6);
    }
}

/// A function with a BatchNorm whose mean hangs on a Constant node, called twice.
fn with_function() -> Vec<u8> {
    let node = |op: &str, domain: &str, inputs: &[&str], output: &str| NodeProto {
        op_type: Some(op.to_owned()),
        domain: Some(domain.to_owned()),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..Default::default()
    };
    let plain = Net::new("x", &[-1, 2, 3])
        .constant("g", &[2], &[1.5, 0.5])
        .constant("v", &[2], &[1.0; 2])
        .constant("b", &[2], &[0.0; 2])
        .node("Relu", &["x"], "y")
        .output("y")
        .bytes();
    let mut model = ModelProto::decode(plain.as_slice()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let mut body: Vec<NodeProto> = graph
        .initializer
        .drain(..)
        .map(|tensor| {
            let name = tensor.name().to_owned();
            let mut constant = node("Constant", "", &[], &name);
            constant.attribute.push(bnkit_model::proto::AttributeProto {
                name: Some("value".to_owned()),
                r#type: Some(4),
                t: Some(tensor),
                ..Default::default()
            });
            constant
        })
        .collect();
    body.push(node("Identity", "", &["b"], "m"));
    body.push(node(BN, "", &["a", "g", "b", "m", "v"], "n"));
    body.push(node("Relu", "", &["n"], "r"));
    graph.node = vec![node("F", "own", &["x"], "h"), node("F", "own", &["h"], "y")];
    let opset = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    model.opset_import.push(opset("own", 1));
    model.functions.push(FunctionProto {
        name: Some("F".to_owned()),
        domain: Some("own".to_owned()),
        input: vec!["a".to_owned()],
        output: vec!["r".to_owned()],
        node: body,
        opset_import: vec![opset("", 17)],
        ..Default::default()
    });
    model.encode_to_vec()
}

#[test]
fn a_node_in_a_function_is_one_module_however_often_it_is_called() {
    let values = data(8 * 6);
    let case = Case::new(&with_function(), &[8, 2, 3], &values);
    let report = recalibrate(&case.job(Method::Average), &Quiet).unwrap();
    assert_eq!(report.summary.layers, 1);
    // Two calls on two batches of 12 elements.
    assert_eq!(
        (report.layers[0].batches, report.layers[0].elements),
        (2, 48)
    );
    let found = &case.stats()[0];
    assert_ne!(found.mean, [0.0, 0.0]);
    assert_ne!(found.variance, [1.0, 1.0]);
    let exported = case.path("stats.safetensors");
    stats(&StatsJob {
        input: case.path("out.onnx"),
        output: Some(exported.clone()),
        force: false,
        hash: false,
        selection: Selection::default(),
    })
    .unwrap();
    let mut job = case.job(Method::Precise);
    job.input = case.path("out.onnx");
    job.output = Some(case.path("again.onnx"));
    job.source = Source::Stats(exported);
    recalibrate(&job, &Quiet).unwrap();
    assert_eq!(read_stats(&case.path("again.onnx"))[0].mean, found.mean);
}
