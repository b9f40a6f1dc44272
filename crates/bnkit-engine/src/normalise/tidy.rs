//! Absent inputs and outputs. tract panics on a trailing `""` input, counts outputs by list length, and numbers outputs by position
//! among the non-empty ones. An input that has no meaning in the node's mode goes, too, where tract would go by its presence.
//!
//! And names that are used twice: in ONNX nodes and values have names of their own each, and nodes are not told apart by theirs; in
//! tract a constant is a node, and no two have the same name.

use std::collections::HashSet;

use tract_onnx::pb::GraphProto;

use super::text;

/// Operators whose outputs tract finds through the node's own list of names, so that `""` may stay in the middle.
const FINDS_OUTPUTS: [&str; 4] = ["GRU", "LSTM", "RNN", "MaxPool"];

/// Drops trailing absent inputs and outputs, names absent outputs in the middle, and gives nodes names that nothing else has.
pub(super) fn tidy(graph: &mut GraphProto) {
    let mut taken: HashSet<String> = graph
        .initializer
        .iter()
        .map(|tensor| tensor.name.clone())
        .collect();
    for node in &mut graph.node {
        while !node.name.is_empty() && taken.contains(&node.name) {
            node.name.push('\'');
        }
        taken.insert(node.name.clone());
    }
    for (index, node) in graph.node.iter_mut().enumerate() {
        // tract pads with the constant if there is one, whatever the mode says.
        if node.op_type == "Pad" && text(node, "mode", "constant") != "constant" {
            node.input
                .iter_mut()
                .skip(2)
                .take(1)
                .for_each(String::clear);
        }
        while node.input.last().is_some_and(String::is_empty) {
            node.input.pop();
        }
        while node.output.last().is_some_and(String::is_empty) {
            node.output.pop();
        }
        if FINDS_OUTPUTS.contains(&node.op_type.as_str()) {
            continue;
        }
        for (position, output) in node.output.iter_mut().enumerate() {
            if output.is_empty() {
                *output = format!("bnkit/unread/{index}/{position}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalise::node;

    #[test]
    fn a_constant_is_not_read_when_padding_reflects() {
        let mut graph = GraphProto::default();
        graph
            .node
            .push(node("Pad", "pad", &["x", "pads", "value"], "y"));
        tidy(&mut graph);
        assert_eq!(graph.node[0].input.len(), 3);
        graph.node[0]
            .attribute
            .push(tract_onnx::pb::AttributeProto {
                name: "mode".into(),
                s: "reflect".into(),
                ..Default::default()
            });
        tidy(&mut graph);
        assert_eq!(graph.node[0].input, ["x", "pads"]);
    }

    #[test]
    fn a_node_with_the_name_of_a_constant_gets_another() {
        let mut graph = GraphProto::default();
        for name in ["shift", "shift'"] {
            graph.initializer.push(tract_onnx::pb::TensorProto {
                name: name.into(),
                ..Default::default()
            });
        }
        graph.node.push(node("Add", "shift", &["x", "shift"], "y"));
        tidy(&mut graph);
        assert_eq!(graph.node[0].name, "shift''");
        assert_eq!(graph.node[0].input, ["x", "shift"]);
    }

    #[test]
    fn nodes_of_one_name_get_names_of_their_own() {
        let mut graph = GraphProto::default();
        for output in ["a", "b", "c"] {
            graph.node.push(node("Relu", "same", &["x"], output));
        }
        tidy(&mut graph);
        let names: Vec<&str> = graph.node.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["same", "same'", "same''"]);
    }

    #[test]
    fn absent_names_go_or_get_a_name() {
        let mut graph = GraphProto::default();
        graph.node.push(node("Conv", "conv", &["x", "w", ""], "y"));
        graph.node.push(node("TopK", "top", &["y", "k"], ""));
        graph.node[1].output.push("indices".into());
        tidy(&mut graph);
        assert_eq!(graph.node[0].input, ["x", "w"]);
        assert_eq!(graph.node[1].output, ["bnkit/unread/1/0", "indices"]);
    }
}
