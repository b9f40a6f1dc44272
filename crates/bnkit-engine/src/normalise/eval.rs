//! BatchNormalization and Dropout in eval mode, whatever the file says.
//!
//! tract runs `training_mode = 1` with one output as eval without a word and stumbles over the other outputs, so the mode is set
//! here, always. A BatchNorm whose statistics are computed from the data has nothing to normalise with in eval mode; tract refuses
//! it, because it wants constants there.

use std::collections::HashSet;

use tract_onnx::pb::GraphProto;

use super::{int, remove};
use crate::{EngineError, Result};

/// Drops graph outputs that show the running statistics of a BatchNorm in training mode: an eval-mode model has no such outputs.
pub(super) fn drop_training_outputs(graph: &mut GraphProto) {
    let training: HashSet<&String> = graph
        .node
        .iter()
        .filter(|node| node.op_type == "BatchNormalization" && super::is_onnx(&node.domain))
        .flat_map(|node| node.output.iter().skip(1))
        .filter(|name| !name.is_empty())
        .collect();
    if !training.is_empty() {
        graph
            .output
            .retain(|output| !training.contains(&output.name));
    }
}

/// Puts every BatchNormalization and Dropout of a graph into eval mode.
pub(super) fn eval(graph: &mut GraphProto) -> Result<()> {
    let mut gone = HashSet::new();
    for node in &mut graph.node {
        match node.op_type.as_str() {
            "BatchNormalization" => {
                if int(node, "spatial", 1) != 1 {
                    return Err(EngineError::unsupported(
                        node,
                        "spatial = 0 normalises each activation on its own",
                    ));
                }
                for name in [
                    "spatial",
                    "is_test",
                    "training_mode",
                    "momentum",
                    "consumed_inputs",
                ] {
                    remove(node, name);
                }
                gone.extend(node.output.drain(1.min(node.output.len())..));
            }
            "Dropout" => {
                node.input.truncate(1);
                for name in ["is_test", "ratio", "seed", "consumed_inputs"] {
                    remove(node, name);
                }
                if node.output.len() <= 1 {
                    node.op_type = "Identity".into();
                }
            }
            _ => {}
        }
    }
    let reader = graph
        .node
        .iter()
        .find(|node| node.input.iter().any(|name| gone.contains(name)));
    match reader {
        Some(node) => Err(EngineError::unsupported(
            node,
            "it reads the updated statistics of a BatchNormalization in training mode",
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalise::{node, set_int};

    fn batch_norm() -> GraphProto {
        let mut graph = GraphProto::default();
        graph.node.push(node(
            "BatchNormalization",
            "bn",
            &["x", "g", "b", "m", "v"],
            "y",
        ));
        graph.node[0].output.extend(["m1".into(), "v1".into()]);
        set_int(&mut graph.node[0], "training_mode", 1);
        graph
    }

    #[test]
    fn training_mode_becomes_eval() {
        let mut graph = batch_norm();
        eval(&mut graph).unwrap();
        assert_eq!(graph.node[0].output, ["y"]);
        assert!(graph.node[0].attribute.is_empty());
    }

    #[test]
    fn a_reader_of_updated_statistics_is_refused() {
        let mut graph = batch_norm();
        graph.node.push(node("Relu", "r", &["m1"], "z"));
        assert!(eval(&mut graph).is_err());
    }

    #[test]
    fn per_activation_statistics_are_refused() {
        let mut graph = batch_norm();
        set_int(&mut graph.node[0], "spatial", 0);
        assert!(
            eval(&mut graph)
                .unwrap_err()
                .to_string()
                .contains("spatial")
        );
    }

    #[test]
    fn dropout_becomes_identity() {
        let mut graph = GraphProto::default();
        graph
            .node
            .push(node("Dropout", "d", &["x", "ratio", "mode"], "y"));
        eval(&mut graph).unwrap();
        assert_eq!(graph.node[0].op_type, "Identity");
        assert_eq!(graph.node[0].input, ["x"]);
    }
}
