//! Each rule with a checkpoint that trips it and one that nearly does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bnkit_model::onnx::AttributeValue;
use bnkit_model::proto::tensor_proto::DataLocation;
use bnkit_model::proto::{ModelProto, StringStringEntryProto};
use prost::Message;
use serde_json::json;

use super::{CheckJob, CheckReport, Level, check, rules, suppress};
use crate::pipeline::Quiet;
use crate::verify::nets::{Net, attribute};

const CHANNELS: usize = 4;

/// A Conv and a BatchNorm with these numbers, and what stands around them.
struct Parts {
    weight: Vec<f64>,
    gamma: Vec<f64>,
    mean: Vec<f64>,
    variance: Vec<f64>,
    epsilon: f32,
    more: fn(Net) -> Net,
    edit: fn(&mut ModelProto),
}

impl Parts {
    /// Nothing to object to.
    fn healthy() -> Self {
        let mut weight = vec![0.25; CHANNELS * CHANNELS];
        weight[5] = -0.5;
        Self {
            weight,
            gamma: vec![1.0, 0.9, 1.1, 0.8],
            mean: vec![0.1, -0.2, 0.3, 0.4],
            variance: vec![1.1, 0.9, 0.8, 1.2],
            epsilon: 1e-5,
            more: |net| net,
            edit: |_| (),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let net = Net::new("x", &[1, CHANNELS as i64, 4, 4])
            .constant("w", &[CHANNELS, CHANNELS, 1, 1], &self.weight)
            .constant("g", &[CHANNELS], &self.gamma)
            .constant("be", &[CHANNELS], &[0.1, 0.2, 0.3, 0.4])
            .constant("m", &[CHANNELS], &self.mean)
            .constant("v", &[CHANNELS], &self.variance)
            .node("Conv", &["x", "w"], "c")
            .node("BatchNormalization", &["c", "g", "be", "m", "v"], "y")
            .with(attribute("epsilon", AttributeValue::Float(self.epsilon)))
            .output("y");
        let mut model = ModelProto::decode((self.more)(net).bytes().as_slice()).unwrap();
        (self.edit)(&mut model);
        model.encode_to_vec()
    }

    fn checked(&self) -> CheckReport {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.onnx");
        fs::write(&path, self.bytes()).unwrap();
        check(&CheckJob::new(path), &Quiet).unwrap()
    }
}

fn codes(report: &CheckReport) -> BTreeSet<&'static str> {
    report.findings.iter().map(|finding| finding.code).collect()
}

/// A second Conv and BatchNorm behind the first, with another mean, unless `mean` is the first one's.
fn second(net: Net, mean: &str, epsilon: f32, name: &str) -> Net {
    let conv = format!("{name}_c");
    let before = match name {
        "z" => "y",
        _ => "z",
    };
    net.constant(&format!("{name}_m"), &[CHANNELS], &[0.5, 0.6, 0.7, 0.75])
        .node("Conv", &[before, "w"], &conv)
        .node("BatchNormalization", &[&conv, "g", "be", mean, "v"], name)
        .with(attribute("epsilon", AttributeValue::Float(epsilon)))
        .output(name)
}

fn int(name: &str, value: i64) -> bnkit_model::proto::AttributeProto {
    attribute(name, AttributeValue::Int(value))
}

/// A rule of models: what trips it, and what comes close and does not.
type Rule = (&'static str, fn(&mut Parts), fn(&mut Parts));

const RULES: [Rule; 25] = [
    (
        "bad-statistics",
        |it| it.variance[1] = f64::NAN,
        |it| it.variance[1] = 1e30,
    ),
    (
        "bad-statistics",
        |it| it.variance[1] = f64::INFINITY,
        |_| (),
    ),
    (
        "bad-statistics",
        |it| it.mean[3] = f64::NAN,
        |it| it.mean[3] = 1e6,
    ),
    (
        "bad-statistics",
        |it| it.mean[3] = f64::NEG_INFINITY,
        |_| (),
    ),
    // Not more than -ε; a little less is another rule's.
    (
        "bad-statistics",
        |it| it.variance[0] = -2e-5,
        |it| it.variance[0] = -9e-6,
    ),
    (
        "negative-variance",
        |it| it.variance[0] = -9e-6,
        |it| it.variance[0] = 0.0,
    ),
    ("statistics-never-updated", never_updated, |it| {
        never_updated(it);
        it.variance[3] = 1.0001;
    }),
    ("statistics-never-updated", never_updated, |it| {
        // An identity: γ is √(1 + ε).
        never_updated(it);
        it.gamma = vec![1.00001_f64.sqrt(); CHANNELS];
    }),
    (
        "tiny-variance",
        |it| it.variance[2] = 1e-12,
        |it| it.variance[2] = 1e-3,
    ),
    (
        "tiny-variance",
        |it| it.variance[2] = 1e-12,
        |it| {
            // A dead channel amplifies nothing.
            (it.variance[2], it.gamma[2]) = (1e-12, 0.0);
        },
    ),
    (
        "exploding-scale",
        |it| it.gamma[0] = 1e3,
        |it| it.gamma[0] = 90.0,
    ),
    (
        "exploding-scale",
        |it| it.gamma[0] = 1e3,
        |it| it.gamma = vec![1e3; CHANNELS],
    ),
    (
        "dead-channel",
        |it| it.gamma[0] = 1e-9,
        |it| it.gamma[0] = 1e-4,
    ),
    (
        "left-in-training",
        |it| it.edit = train,
        |it| it.more = |net| net.with(int("training_mode", 0)),
    ),
    (
        "left-in-training",
        |it| it.more = |net| dropout(net, Some(1.0)),
        |it| it.more = |net| dropout(net, Some(0.0)),
    ),
    (
        "dropout-training-mode",
        |it| it.more = |net| dropout(net, None),
        |it| it.more = |net| dropout(net, Some(0.0)),
    ),
    (
        "overridable-parameter",
        |it| it.edit = |model| list_as_inputs(model, 8),
        |it| it.edit = |model| list_as_inputs(model, 3),
    ),
    (
        "shared-statistics",
        |it| it.more = |net| second(net, "m", 1e-5, "z"),
        |it| it.more = |net| second(net, "z_m", 1e-5, "z"),
    ),
    (
        "odd-epsilon",
        |it| it.epsilon = 3e-4,
        |it| it.epsilon = 1e-3,
    ),
    (
        "mixed-epsilon",
        |it| it.more = |net| three(net, 1e-3),
        |it| it.more = |net| three(net, 1e-5),
    ),
    (
        "odd-momentum",
        |it| it.more = |net| net.with(attribute("momentum", AttributeValue::Float(0.1))),
        |it| it.more = |net| net.with(attribute("momentum", AttributeValue::Float(0.99))),
    ),
    (
        "old-opset",
        |it| it.edit = |model| opset(model, 6),
        |it| it.edit = |model| opset(model, 7),
    ),
    (
        "duplicate-node-names",
        |it| it.edit = |model| rename(model, "same"),
        |it| it.edit = |model| rename(model, ""),
    ),
    (
        "f16-overflow",
        |it| it.weight[0] = 9e4,
        |it| it.weight[0] = 6e4,
    ),
    (
        "range-growth",
        |it| it.gamma[0] = 40.0,
        |it| it.gamma[0] = 10.0,
    ),
];

/// The rest, which takes more nodes.
const OTHERS: [Rule; 3] = [
    (
        "negative-scale-max-pool",
        |it| pooled(it, -1.0),
        |it| pooled(it, 1.0),
    ),
    (
        "negative-scale-max-pool",
        |it| pooled(it, -1.0),
        |it| it.gamma[1] = -1.0,
    ),
    ("not-folded", |it| it.more = |net| net.output("c"), |_| ()),
];

fn never_updated(parts: &mut Parts) {
    parts.mean = vec![0.0; CHANNELS];
    parts.variance = vec![1.0; CHANNELS];
}

/// γ of a channel, in front of a Relu and a MaxPool.
fn pooled(parts: &mut Parts, gamma: f64) {
    parts.gamma[1] = gamma;
    parts.more = |net| {
        net.node("Relu", &["y"], "r")
            .node("MaxPool", &["r"], "p")
            .with(attribute("kernel_shape", AttributeValue::Ints(vec![2, 2])))
            .output("p")
    };
}

/// A Dropout whose mode is a constant, or a graph input.
fn dropout(net: Net, mode: Option<f64>) -> Net {
    use bnkit_model::DType;
    let net = net.typed("ratio", DType::F32, &[], &[0.5]);
    let net = match mode {
        Some(mode) => net.typed("mode", DType::Bool, &[], &[mode]),
        None => net.input("mode", Some(&[])),
    };
    net.node("Dropout", &["y", "ratio", "mode"], "d")
        .output("d")
}

fn three(net: Net, last: f32) -> Net {
    let net = second(net, "z_m", 1e-5, "z");
    second(net, "u_m", last, "u")
        .constant("u_m", &[CHANNELS], &[0.9, 0.8, 0.7, 0.6])
        .without_repeated_constants()
}

fn train(model: &mut ModelProto) {
    let graph = model.graph.as_mut().unwrap();
    let norm = &mut graph.node[1];
    norm.attribute.push(int("training_mode", 1));
    norm.output.extend(["new_m".to_owned(), "new_v".to_owned()]);
}

fn list_as_inputs(model: &mut ModelProto, version: i64) {
    model.ir_version = Some(version);
    let graph = model.graph.as_mut().unwrap();
    let like = graph.input[0].clone();
    for tensor in &graph.initializer {
        let mut input = like.clone();
        input.name.clone_from(&tensor.name);
        input.r#type = None;
        graph.input.push(input);
    }
}

fn opset(model: &mut ModelProto, version: i64) {
    model.opset_import[0].version = Some(version);
    let norm = &mut model.graph.as_mut().unwrap().node[1];
    if version < 7 {
        norm.attribute.push(int("is_test", 1));
    }
}

fn rename(model: &mut ModelProto, name: &str) {
    for node in &mut model.graph.as_mut().unwrap().node {
        node.name = Some(name.to_owned());
    }
}

#[test]
fn a_healthy_model_has_no_findings() {
    let report = Parts::healthy().checked();
    assert_eq!(report.findings, [], "{:?}", codes(&report));
    assert_eq!((report.batch_norms, report.channels), (1, CHANNELS));
}

#[test]
fn each_rule_finds_what_it_is_for_and_not_what_comes_close() {
    for (code, trips, nearly) in RULES.into_iter().chain(OTHERS) {
        let mut parts = Parts::healthy();
        trips(&mut parts);
        let report = parts.checked();
        assert!(
            codes(&report).contains(code),
            "{code}: {:?}",
            report.findings
        );
        let mut parts = Parts::healthy();
        nearly(&mut parts);
        let report = parts.checked();
        assert!(
            !codes(&report).contains(code),
            "{code}: {:?}",
            report.findings
        );
    }
}

/// A BatchNorm of a state dict with `num_batches_tracked`; without a variance it is half a BatchNorm.
fn state_dict(path: &Path, batches: i64, variance: bool) {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    let mut add = |name: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>| {
        let offsets = [data.len(), data.len() + bytes.len()];
        data.extend(bytes);
        header.insert(
            format!("bn.{name}"),
            json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}),
        );
    };
    let floats = |values: [f32; 2]| values.into_iter().flat_map(f32::to_le_bytes).collect();
    add("weight", "F32", &[2], floats([1.0, 0.9]));
    add("bias", "F32", &[2], floats([0.0, 0.1]));
    add("running_mean", "F32", &[2], floats([0.5, -0.5]));
    if variance {
        add("running_var", "F32", &[2], floats([0.7, 1.5]));
    }
    add(
        "num_batches_tracked",
        "I64",
        &[],
        batches.to_le_bytes().to_vec(),
    );
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    fs::write(path, file).unwrap();
}

#[test]
fn the_rules_of_state_dicts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let found = |batches, variance| {
        state_dict(&path, batches, variance);
        codes(&check(&CheckJob::new(&path), &Quiet).unwrap())
    };
    assert_eq!(found(7, true), BTreeSet::new());
    assert_eq!(found(0, true), ["batches-not-counted"].into());
    assert_eq!(found(7, false), ["incomplete-group"].into());
}

#[test]
fn external_data_stays_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let bytes = Parts::healthy().bytes();
    let found = |location: &str| {
        let mut model = ModelProto::decode(bytes.as_slice()).unwrap();
        let tensor = &mut model.graph.as_mut().unwrap().initializer[0];
        let data = tensor.raw_data.take().unwrap();
        for folder in [folder.path(), &inner] {
            fs::write(folder.join("w.bin"), &data).unwrap();
            fs::write(folder.join("short.bin"), &data[..4]).unwrap();
        }
        tensor.data_location = Some(DataLocation::External as i32);
        tensor.external_data = vec![StringStringEntryProto {
            key: Some("location".to_owned()),
            value: Some(location.to_owned()),
        }];
        let path = inner.join("net.onnx");
        fs::write(&path, model.encode_to_vec()).unwrap();
        check(&CheckJob::new(path), &Quiet).unwrap()
    };
    assert_eq!(found("w.bin").findings, []);
    let absolute = folder.path().join("w.bin").display().to_string();
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path().join("w.bin"), inner.join("link.bin")).unwrap();
    #[cfg(not(unix))]
    fs::write(inner.join("link.bin"), b"").unwrap();
    for location in [
        "../w.bin",
        &absolute,
        "short.bin",
        "missing.bin",
        "link.bin",
    ] {
        let report = found(location);
        assert_eq!(codes(&report), ["external-data"].into(), "{location}");
        let asked = |code: &str| {
            report
                .rules
                .iter()
                .any(|rule| rule.code == code && rule.checked)
        };
        assert!(!asked("bad-statistics") && asked("old-opset"), "{location}");
    }
}

#[test]
fn an_exception_that_matches_nothing_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    let mut parts = Parts::healthy();
    parts.gamma[0] = 0.0;
    fs::write(&path, parts.bytes()).unwrap();
    let found = |glob: &str| {
        let mut job = CheckJob::new(&path);
        job.options.suppressions = vec![super::Suppression {
            code: "dead-channel".to_owned(),
            node: glob.to_owned(),
            reason: "pruned on purpose".to_owned(),
        }];
        check(&job, &Quiet).unwrap()
    };
    let report = found("y");
    assert_eq!(report.findings, []);
    assert_eq!(report.suppressed[0].reason, "pruned on purpose");
    assert_eq!(
        codes(&found("other*")),
        ["dead-channel", suppress::CODE].into()
    );
}

/// Every rule is in one of the tests above.
#[test]
fn no_rule_is_untested() {
    let of_models = RULES.iter().chain(&OTHERS).map(|(code, ..)| *code);
    let others = [
        "batches-not-counted",
        "incomplete-group",
        "external-data",
        suppress::CODE,
    ];
    let tested: BTreeSet<&str> = of_models.chain(others).collect();
    let known: BTreeSet<&str> = rules().iter().map(|rule| rule.code).collect();
    assert_eq!(tested, known);
    assert!(rules().iter().all(|rule| rule.level != Level::Allow));
}
