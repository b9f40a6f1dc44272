//! A proof, from the graph alone, that samples do not mix: most networks consist of operators that keep the first dimension apart.
//!
//! It knows few operators and says "not proven" of everything else, of shape arithmetic above all (a Reshape to `[1, -1]` moves the batch
//! into the channels); the model is then tried ([`super::mixing`]), which takes a second plan and its memory. Reading a
//! compiled graph would not do: with one sample, tract simplifies a mean over the batch away.

use std::collections::HashMap;

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use crate::constant::make_raw;
use crate::normalise::{attribute, int};
use crate::train::{DROPOUT, NORM};

/// Operators of one batched input that keep its rank and its first dimension; further inputs are constants.
const KEEP: [&str; 33] = [
    NORM,
    DROPOUT,
    "Abs",
    "AveragePool",
    "Cast",
    "Clip",
    "Conv",
    "ConvTranspose",
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LRN",
    "LeakyRelu",
    "Log",
    "MaxPool",
    "Mish",
    "Neg",
    "Reciprocal",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tanh",
    "ThresholdedRelu",
];

/// Operators that broadcast.
const BROADCAST: [&str; 8] = ["Add", "Div", "Max", "Min", "Mul", "PRelu", "Pow", "Sub"];

/// What is known of a value.
#[derive(Clone, Copy)]
enum Value<'a> {
    /// The samples of a batch lie along its first dimension; its rank.
    Batched(usize),
    Constant(&'a TensorProto),
}

/// Whether `graph` (normalised) is known to treat each sample alone; `inputs` are the batched ones, with their ranks.
pub(super) fn proven(graph: &GraphProto, inputs: &[(&str, usize)]) -> bool {
    let mut values: HashMap<&str, Value> = HashMap::new();
    for tensor in &graph.initializer {
        values.insert(&tensor.name, Value::Constant(tensor));
    }
    for &(name, rank) in inputs {
        values.insert(name, Value::Batched(rank));
    }
    graph.node.iter().all(|node| {
        let value = match node.op_type.as_str() {
            "Constant" => attribute(node, "value")
                .and_then(|value| value.t.as_ref())
                .map(Value::Constant),
            _ => rank(node, &values).map(Value::Batched),
        };
        match (value, node.output.as_slice()) {
            (Some(value), [output]) => {
                values.insert(output, value);
                true
            }
            _ => false,
        }
    })
}

/// The rank of a node's output if it keeps samples apart.
fn rank(node: &NodeProto, values: &HashMap<&str, Value>) -> Option<usize> {
    let operands = node
        .input
        .iter()
        .filter(|name| !name.is_empty())
        .map(|name| values.get(name.as_str()).copied())
        .collect::<Option<Vec<Value>>>()?;
    let constants = |from: usize| {
        operands[from..]
            .iter()
            .all(|value| matches!(value, Value::Constant(_)))
    };
    let alone = match operands.first()? {
        Value::Batched(rank) if constants(1) => Some(*rank),
        _ => None,
    };
    match node.op_type.as_str() {
        op if KEEP.contains(&op) => alone,
        op if BROADCAST.contains(&op) => broadcast(&operands),
        "Flatten" => alone.filter(|_| int(node, "axis", 1) == 1).and(Some(2)),
        "Gemm" => alone.filter(|_| int(node, "transA", 0) == 0),
        "Concat" => {
            let rank = broadcast(&operands)?;
            let batched = |value: &Value| matches!(value, Value::Batched(other) if *other == rank);
            (int(node, "axis", 0) > 0 && operands.iter().all(batched)).then_some(rank)
        }
        "Softmax" | "LogSoftmax" => {
            let axis = int(node, "axis", -1);
            alone.filter(|&rank| axis > 0 || axis < 0 && axis + rank as i64 > 0)
        }
        "ReduceMean" | "ReduceMax" => {
            let rank = alone?;
            let axes = match operands.get(1) {
                Some(Value::Constant(axes)) => integers(axes)?,
                _ => attribute(node, "axes")?.ints.clone(),
            };
            let inner = |axis: &i64| *axis > 0 || *axis < 0 && *axis + rank as i64 > 0;
            let kept = if int(node, "keepdims", 1) == 1 {
                rank
            } else {
                rank.checked_sub(axes.len())?
            };
            (!axes.is_empty() && axes.iter().all(inner)).then_some(kept)
        }
        "Reshape" => {
            alone?;
            let Value::Constant(shape) = operands.get(1)? else {
                return None;
            };
            let shape = integers(shape)?;
            let (first, rest) = shape.split_first()?;
            // 0 keeps the batch; -1 is the batch if all else is said (that one sample becomes one, the plan for one has shown).
            let keeps = *first == 0 && int(node, "allowzero", 0) == 0;
            let counts = *first == -1 && rest.iter().all(|&dim| dim > 0);
            (keeps || counts).then_some(shape.len())
        }
        _ => None,
    }
}

/// The common rank of operands whose first dimensions meet.
fn broadcast(operands: &[Value]) -> Option<usize> {
    let rank = operands.iter().find_map(|value| match value {
        Value::Batched(rank) => Some(*rank),
        Value::Constant(_) => None,
    })?;
    let fits = |value: &Value| match value {
        Value::Batched(other) => *other == rank,
        Value::Constant(tensor) => {
            tensor.dims.len() < rank || tensor.dims.len() == rank && tensor.dims[0] == 1
        }
    };
    operands.iter().all(fits).then_some(rank)
}

fn integers(tensor: &TensorProto) -> Option<Vec<i64>> {
    let mut tensor = tensor.clone();
    make_raw(&mut tensor, None).ok()?;
    if tensor.data_type != 7 {
        return None;
    }
    let (words, []) = tensor.raw_data.as_chunks::<8>() else {
        return None;
    };
    Some(words.iter().map(|&word| i64::from_le_bytes(word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalise::{node, set_int};

    fn shape(name: &str, values: &[i64]) -> TensorProto {
        TensorProto {
            name: name.into(),
            dims: vec![values.len() as i64],
            data_type: 7,
            int64_data: values.to_vec(),
            ..Default::default()
        }
    }

    fn check(nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> bool {
        let graph = GraphProto {
            node: nodes,
            initializer: constants,
            ..Default::default()
        };
        proven(&graph, &[("x", 4)])
    }

    #[test]
    fn a_classifier_is_proven() {
        let mut concat = node("Concat", "cat", &["p", "s"], "cat");
        set_int(&mut concat, "axis", 1);
        let nodes = vec![
            node("Conv", "conv", &["x", "w"], "c"),
            node(NORM, "n", &["c", "w", "w"], "n"),
            node("Add", "add", &["n", "x"], "s"),
            node("Relu", "relu", &["s"], "p"),
            concat,
            node("Flatten", "flat", &["cat"], "f"),
            node("Gemm", "gemm", &["f", "w"], "y"),
        ];
        assert!(check(nodes, vec![shape("w", &[1])]));
    }

    #[test]
    fn shapes_that_keep_the_batch_are_proven_and_others_not() {
        for (target, proof) in [
            (vec![0, -1], true),
            (vec![-1, 12], true),
            (vec![1, -1], false),
            (vec![1, -1, 8, 8], false),
            (vec![-1, 0], false),
            (vec![12, -1], false),
        ] {
            let reshape = node("Reshape", "r", &["x", "shape"], "y");
            assert_eq!(check(vec![reshape], vec![shape("shape", &target)]), proof);
        }
    }

    #[test]
    fn what_looks_at_the_batch_is_not_proven() {
        let mut mean = node("ReduceMean", "mean", &["x", "axes"], "y");
        assert!(check(vec![mean.clone()], vec![shape("axes", &[2, -1])]));
        assert!(!check(vec![mean.clone()], vec![shape("axes", &[0])]));
        assert!(!check(vec![mean.clone()], vec![shape("axes", &[-4])]));
        mean.input.truncate(1);
        assert!(!check(vec![mean], vec![]));
        assert!(!check(vec![node("Shape", "s", &["x"], "y")], vec![]));
        assert!(!check(vec![node("Transpose", "t", &["x"], "y")], vec![]));
        assert!(!check(
            vec![node("Gemm", "g", &["w", "x"], "y")],
            vec![shape("w", &[1])]
        ));
        // A rank that differs puts the batch beside another dimension.
        let nodes = vec![
            node("Flatten", "f", &["x"], "f"),
            node("Add", "a", &["x", "f"], "y"),
        ];
        assert!(!check(nodes, vec![]));
    }
}
