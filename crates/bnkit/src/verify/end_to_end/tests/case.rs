//! A Conv with a BatchNorm behind it, folded by hand, rightly or wrongly.

use bnkit_model::DType;
use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_shape_proto::Dimension, tensor_shape_proto::dimension::Value as DimValue, type_proto,
};

use super::{EndToEnd, Options, Sample, Subject, run};
use crate::verify::inputs;

pub(super) const CHANNELS: usize = 3;

pub(super) fn node(op_type: &str, input: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        name: format!("{op_type}-{output}"),
        input: input.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

pub(super) fn tensor(name: &str, dims: &[i64], dtype: DType, values: &[f64]) -> TensorProto {
    let mut raw_data = vec![];
    bnkit_model::tensor::encode_f64(dtype, values, &mut raw_data).unwrap();
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: dtype.to_onnx(),
        raw_data,
        ..Default::default()
    }
}

pub(super) fn value(name: &str, dims: &[i64], dtype: DType) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|&size| Dimension {
            value: Some(DimValue::DimValue(size)),
            ..Default::default()
        })
        .collect();
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: dtype.to_onnx(),
                shape: Some(TensorShapeProto { dim }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(super) fn model(nodes: Vec<NodeProto>, constants: Vec<TensorProto>, dtype: DType) -> Vec<u8> {
    let output = nodes.last().unwrap().output[0].clone();
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: 17,
            ..Default::default()
        }],
        graph: Some(GraphProto {
            name: "g".into(),
            node: nodes,
            initializer: constants,
            input: vec![value("x", &[1, CHANNELS as i64, 6, 6], dtype)],
            output: vec![value(&output, &[], DType::F32)],
            ..Default::default()
        }),
        ..Default::default()
    }
    .encode_to_vec()
}

/// A Conv (3 → 3, 3×3) with a BatchNorm behind it, and the same folded by hand.
pub(super) struct Case {
    pub(super) dtype: DType,
    pub(super) weight: Vec<f64>,
    pub(super) gamma: Vec<f64>,
    pub(super) beta: Vec<f64>,
    pub(super) mean: Vec<f64>,
    pub(super) var: Vec<f64>,
    /// What follows on the BatchNorm's output `y`.
    pub(super) tail: Vec<NodeProto>,
}

pub(super) const EPSILON: f32 = 1e-5;

impl Case {
    pub(super) fn new(dtype: DType) -> Self {
        let round = |values: Vec<f64>| {
            values
                .into_iter()
                .map(|x| dtype.round(x))
                .collect::<Vec<f64>>()
        };
        Self {
            dtype,
            weight: round(
                (0..CHANNELS * CHANNELS * 9)
                    .map(|i| ((i * 37 % 101) as f64 / 101.0 - 0.5) / 3.0)
                    .collect(),
            ),
            gamma: round(vec![1.3, 0.7, -0.4]),
            beta: round(vec![0.1, -0.2, 0.3]),
            mean: round(vec![0.05, -0.03, 0.02]),
            var: round(vec![0.9, 0.4, 1.7]),
            tail: vec![],
        }
    }

    pub(super) fn original(&self) -> Vec<u8> {
        let mut batch_norm = node(
            "BatchNormalization",
            &["c", "gamma", "beta", "mean", "var"],
            "y",
        );
        batch_norm.attribute.push(AttributeProto {
            name: "epsilon".into(),
            r#type: AttributeType::Float as i32,
            f: EPSILON,
            ..Default::default()
        });
        let mut nodes = vec![node("Conv", &["x", "w"], "c"), batch_norm];
        nodes.extend(self.tail.clone());
        let vector = |name, values| tensor(name, &[CHANNELS as i64], self.dtype, values);
        model(
            nodes,
            vec![
                tensor("w", &[3, 3, 3, 3], self.dtype, &self.weight),
                vector("gamma", &self.gamma),
                vector("beta", &self.beta),
                vector("mean", &self.mean),
                vector("var", &self.var),
            ],
            self.dtype,
        )
    }

    /// The folded constants, which `fault` may spoil.
    pub(super) fn folded(
        &self,
        stored: DType,
        fault: impl Fn(&mut Vec<f64>, &mut Vec<f64>),
    ) -> Vec<u8> {
        let scale: Vec<f64> = (0..CHANNELS)
            .map(|c| self.gamma[c] / (self.var[c] + f64::from(EPSILON)).sqrt())
            .collect();
        let mut weight: Vec<f64> = self
            .weight
            .iter()
            .enumerate()
            .map(|(i, w)| w * scale[i / 27])
            .collect();
        let mut bias: Vec<f64> = (0..CHANNELS)
            .map(|c| self.beta[c] - self.mean[c] * scale[c])
            .collect();
        fault(&mut weight, &mut bias);
        let mut nodes = vec![node("Conv", &["x", "w2", "b2"], "y")];
        nodes.extend(self.tail.clone());
        let constants = vec![
            tensor("w2", &[3, 3, 3, 3], stored, &weight),
            tensor("b2", &[3], stored, &bias),
        ];
        model(nodes, constants, self.dtype)
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        let specs = bnkit_engine::inputs(&self.original()).unwrap();
        inputs::generate(&specs, &[], 3, 1, &mut |_| Ok(())).unwrap()
    }

    pub(super) fn verify(&self, fault: impl Fn(&mut Vec<f64>, &mut Vec<f64>)) -> EndToEnd {
        self.verify_with(
            &self.folded(self.dtype, &fault),
            Some(&self.folded(DType::F64, &fault)),
        )
    }

    pub(super) fn verify_with(&self, shipped: &[u8], exact: Option<&[u8]>) -> EndToEnd {
        let subject = Subject {
            original: &self.original(),
            shipped,
            exact,
            model_dir: None,
            shipped_dir: None,
        };
        run(&subject, &self.samples(), &Options::default()).unwrap()
    }
}
