//! Which outputs of a model hang on operators that jump.
//!
//! Round, ArgMax, TopK, comparisons … turn a difference of one rounding error into a whole step, so two correct models may differ
//! behind them by more than any tolerance. A proof compares what goes *into* the first such operator instead. Only operators whose
//! input carries rounding errors count: shape arithmetic, and data that was merely moved about, are the same in both models.

use std::collections::{BTreeSet, HashMap};

use tract_onnx::pb::{GraphProto, NodeProto};

use crate::error::{node_name, operator_name};
use crate::normalise::int;
use crate::spec::true_inputs;

/// An operator that jumps, the first on its way from the inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jump {
    /// The node's name, or its first output.
    pub node: String,
    /// Its operator type.
    pub operator: String,
    /// The values that it reads and that carry rounding errors: compare these.
    pub inputs: Vec<String>,
    /// The model outputs that hang on it.
    pub outputs: Vec<String>,
}

/// Which outputs of an operator jump.
fn jumping(node: &NodeProto, position: usize) -> bool {
    match node.op_type.as_str() {
        "ArgMax"
        | "ArgMin"
        | "BitShift"
        | "Ceil"
        | "Compress"
        | "DynamicQuantizeLinear"
        | "Equal"
        | "Floor"
        | "Greater"
        | "GreaterOrEqual"
        | "Hardmax"
        | "If"
        | "IsInf"
        | "IsNaN"
        | "Less"
        | "LessOrEqual"
        | "Loop"
        | "Mod"
        | "NonMaxSuppression"
        | "NonZero"
        | "QLinearConv"
        | "QLinearMatMul"
        | "QuantizeLinear"
        | "Round"
        | "Shrink"
        | "Sign"
        | "ThresholdedRelu"
        | "Unique" => true,
        // The values follow continuously, the indices jump.
        "TopK" | "MaxPool" => position == 1,
        // To an integer or bool.
        "Cast" => !matches!(int(node, "to", 1), 1 | 10 | 11 | 16),
        _ => false,
    }
}

/// Operators that move data, or compute it without any rounding.
fn exact(node: &NodeProto) -> bool {
    matches!(
        node.op_type.as_str(),
        "Abs"
            | "Cast"
            | "Clip"
            | "Concat"
            | "DepthToSpace"
            | "DequantizeLinear"
            | "Dropout"
            | "Expand"
            | "Flatten"
            | "Gather"
            | "GatherElements"
            | "GatherND"
            | "GlobalMaxPool"
            | "Identity"
            | "Max"
            | "MaxPool"
            | "Min"
            | "Neg"
            | "Pad"
            | "ReduceMax"
            | "ReduceMin"
            | "Relu"
            | "Reshape"
            | "Slice"
            | "SpaceToDepth"
            | "Split"
            | "Squeeze"
            | "Tile"
            | "TopK"
            | "Transpose"
            | "Unsqueeze"
            | "Where"
    ) || jumping(node, 0)
}

/// What is known of a value that depends on the model's inputs.
#[derive(Clone, Default)]
struct Flow {
    /// Whether it carries rounding errors.
    computed: bool,
    /// The jumps (by position in the result) that it hangs on.
    behind: BTreeSet<usize>,
}

/// The operators of a graph that jump, in file order.
pub(crate) fn find(graph: &GraphProto) -> Vec<Jump> {
    // Values that are not here are constants, or shapes.
    let mut flows: HashMap<&str, Flow> = true_inputs(graph)
        .map(|input| (input.name.as_str(), Flow::default()))
        .collect();
    let mut jumps: Vec<Jump> = vec![];
    for node in &graph.node {
        if matches!(node.op_type.as_str(), "Shape" | "Size") {
            continue;
        }
        let captured = captures(node);
        let inputs: Vec<(&str, Flow)> = node
            .input
            .iter()
            .map(String::as_str)
            .chain(captured.iter().copied())
            .filter_map(|name| Some((name, flows.get(name)?.clone())))
            .collect();
        if inputs.is_empty() {
            continue;
        }
        let mut flow = Flow {
            computed: !exact(node),
            ..Flow::default()
        };
        for (_, input) in &inputs {
            flow.computed |= input.computed;
            flow.behind.extend(&input.behind);
        }
        let read: BTreeSet<&str> = inputs
            .iter()
            .filter(|(_, input)| input.computed && input.behind.is_empty())
            .map(|(name, _)| *name)
            .collect();
        let mut number = None;
        for (position, output) in node.output.iter().enumerate() {
            let mut flow = flow.clone();
            if jumping(node, position) && !read.is_empty() {
                let number = *number.get_or_insert_with(|| {
                    jumps.push(Jump {
                        node: node_name(node).to_owned(),
                        operator: operator_name(node),
                        inputs: read.iter().map(|&name| name.to_owned()).collect(),
                        outputs: vec![],
                    });
                    jumps.len() - 1
                });
                flow.behind.insert(number);
            }
            flows.insert(output, flow);
        }
    }
    for output in &graph.output {
        for &jump in flows
            .get(output.name.as_str())
            .map_or(&BTreeSet::new(), |flow| &flow.behind)
        {
            jumps[jump].outputs.push(output.name.clone());
        }
    }
    jumps.retain(|jump| !jump.outputs.is_empty());
    jumps
}

/// Names that the bodies of a node use; those defined inside cannot be in the map of outer values, so they need no sorting out.
fn captures(node: &NodeProto) -> Vec<&str> {
    let mut names = vec![];
    let mut graphs: Vec<&GraphProto> = node
        .attribute
        .iter()
        .flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
        .collect();
    while let Some(graph) = graphs.pop() {
        for inner in &graph.node {
            names.extend(inner.input.iter().map(String::as_str));
            graphs.extend(
                inner
                    .attribute
                    .iter()
                    .flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)),
            );
        }
        names.extend(graph.output.iter().map(|output| output.name.as_str()));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalise::node;
    use tract_onnx::pb::ValueInfoProto;

    fn graph(nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
        let value = |name: &str| ValueInfoProto {
            name: name.into(),
            ..Default::default()
        };
        GraphProto {
            node: nodes,
            input: vec![value("x")],
            output: outputs.iter().map(|name| value(name)).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn an_output_behind_argmax_is_found_with_what_to_compare() {
        let graph = graph(
            vec![
                node("Conv", "conv", &["x", "w"], "logits"),
                node("ArgMax", "class", &["logits"], "label"),
                node("Relu", "relu", &["logits"], "features"),
            ],
            &["label", "features"],
        );
        let jumps = find(&graph);
        assert_eq!(jumps.len(), 1);
        assert_eq!(jumps[0].operator, "ArgMax");
        assert_eq!(jumps[0].inputs, ["logits"]);
        assert_eq!(jumps[0].outputs, ["label"]);
    }

    #[test]
    fn shape_arithmetic_and_unchanged_data_do_not_jump() {
        let graph = graph(
            vec![
                node("Shape", "shape", &["x"], "s"),
                node("Div", "half", &["s", "two"], "h"),
                node("Floor", "floor", &["h"], "f"),
                node("Reshape", "reshape", &["x", "f"], "r"),
                node("Equal", "pad", &["r", "zero"], "mask"),
                node("Where", "where", &["mask", "r", "r"], "y"),
            ],
            &["y"],
        );
        assert!(find(&graph).is_empty());
    }

    #[test]
    fn of_topk_only_the_indices_jump() {
        let mut top = node("TopK", "top", &["c", "k"], "values");
        top.output.push("indices".into());
        let graph = graph(
            vec![node("Conv", "conv", &["x", "w"], "c"), top],
            &["values", "indices"],
        );
        assert_eq!(find(&graph)[0].outputs, ["indices"]);
    }
}
