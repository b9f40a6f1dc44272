//! A small healthy model, and ways to spoil it.

use std::fs;

use bnkit_model::onnx::AttributeValue;
use bnkit_model::proto::ModelProto;
use prost::Message;

use crate::check::{CheckJob, CheckReport, check};
use crate::pipeline::Quiet;
use crate::verify::nets::{Net, attribute};

pub(super) const CHANNELS: usize = 4;

/// A Conv and a BatchNorm with these numbers, and what stands around them.
pub(super) struct Parts {
    pub(super) weight: Vec<f64>,
    pub(super) gamma: Vec<f64>,
    pub(super) mean: Vec<f64>,
    pub(super) variance: Vec<f64>,
    pub(super) epsilon: f32,
    pub(super) more: fn(Net) -> Net,
    pub(super) edit: fn(&mut ModelProto),
}

impl Parts {
    /// Nothing to object to.
    pub(super) fn healthy() -> Self {
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

    pub(super) fn bytes(&self) -> Vec<u8> {
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

    pub(super) fn checked(&self) -> CheckReport {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.onnx");
        fs::write(&path, self.bytes()).unwrap();
        check(&CheckJob::new(path), &Quiet).unwrap()
    }
}

/// A second Conv and BatchNorm behind the first, with another mean, unless `mean` is the first one's.
pub(super) fn second(net: Net, mean: &str, epsilon: f32, name: &str) -> Net {
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

pub(super) fn int(name: &str, value: i64) -> bnkit_model::proto::AttributeProto {
    attribute(name, AttributeValue::Int(value))
}

pub(super) fn never_updated(parts: &mut Parts) {
    parts.mean = vec![0.0; CHANNELS];
    parts.variance = vec![1.0; CHANNELS];
}

/// γ of a channel, in front of a Relu and a MaxPool.
pub(super) fn pooled(parts: &mut Parts, gamma: f64) {
    parts.gamma[1] = gamma;
    parts.more = |net| {
        net.node("Relu", &["y"], "r")
            .node("MaxPool", &["r"], "p")
            .with(attribute("kernel_shape", AttributeValue::Ints(vec![2, 2])))
            .output("p")
    };
}

/// A Dropout whose mode is a constant, or a graph input.
pub(super) fn dropout(net: Net, mode: Option<f64>) -> Net {
    use bnkit_model::DType;
    let net = net.typed("ratio", DType::F32, &[], &[0.5]);
    let net = match mode {
        Some(mode) => net.typed("mode", DType::Bool, &[], &[mode]),
        None => net.input("mode", Some(&[])),
    };
    net.node("Dropout", &["y", "ratio", "mode"], "d")
        .output("d")
}

pub(super) fn three(net: Net, last: f32) -> Net {
    let net = second(net, "z_m", 1e-5, "z");
    second(net, "u_m", last, "u")
        .constant("u_m", &[CHANNELS], &[0.9, 0.8, 0.7, 0.6])
        .without_repeated_constants()
}

pub(super) fn train(model: &mut ModelProto) {
    let graph = model.graph.as_mut().unwrap();
    let norm = &mut graph.node[1];
    norm.attribute.push(int("training_mode", 1));
    norm.output.extend(["new_m".to_owned(), "new_v".to_owned()]);
}

pub(super) fn list_as_inputs(model: &mut ModelProto, version: i64) {
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

pub(super) fn opset(model: &mut ModelProto, version: i64) {
    model.opset_import[0].version = Some(version);
    let norm = &mut model.graph.as_mut().unwrap().node[1];
    if version < 7 {
        norm.attribute.push(int("is_test", 1));
    }
}

pub(super) fn rename(model: &mut ModelProto, name: &str) {
    for node in &mut model.graph.as_mut().unwrap().node {
        node.name = Some(name.to_owned());
    }
}
