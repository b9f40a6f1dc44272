//! What a serialized model says of itself, without its weights: a proof asks many questions, and decoding a large model for each
//! would take longer than running it.

use std::collections::HashSet;

use bnkit_model::DType;
use tract_onnx::pb::{GraphProto, ModelProto};

use crate::apart::Apart;
use crate::constant::constants_of;
use crate::error::Result;
use crate::flow::{self, Jump};
use crate::normalise::{for_each_graph, int};
use crate::spec::{self, InputSpec};

/// A model's structure: inputs, outputs, nodes, and names and types of constants.
#[derive(Debug, Clone)]
pub struct Outline {
    graph: GraphProto,
}

impl Outline {
    /// Reads a serialized ONNX model once.
    ///
    /// # Errors
    /// If the bytes are no ONNX model, or it has no graph.
    pub fn read(model: &[u8]) -> Result<Self> {
        let ModelProto { graph, .. } = Apart::decode(model)?.model;
        let mut graph = graph.ok_or_else(spec::no_graph)?;
        for_each_graph(&mut graph, &mut |graph| {
            for tensor in &mut graph.initializer {
                tensor.raw_data = vec![];
            }
            Ok(())
        })?;
        Ok(Self { graph })
    }

    /// The inputs that a caller has to give: graph inputs that no initializer fills.
    ///
    /// # Errors
    /// If an input is not a tensor.
    pub fn inputs(&self) -> Result<Vec<InputSpec>> {
        spec::true_inputs(&self.graph).map(spec::spec).collect()
    }

    /// The names of the outputs.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.graph.output.iter().map(|output| output.name.as_str())
    }

    /// The operators of the main graph that jump, in file order; empty for most models.
    pub fn jumps(&self) -> Vec<Jump> {
        flow::find(&self.graph)
    }

    /// The names of all values that the main graph computes.
    pub fn value_names(&self) -> HashSet<&str> {
        let nodes = self.graph.node.iter();
        nodes
            .flat_map(|node| node.output.iter().map(String::as_str))
            .collect()
    }

    /// The names of the floats that values are computed with. Those that say a shape (the scales of a Resize, the ends of a Range) or
    /// become integers are not among them: another unit in the last place may make another model of it.
    pub fn coefficients(&self) -> HashSet<String> {
        let mut read_as_shape = HashSet::new();
        shapes(&self.graph, &mut read_as_shape);
        self.constant_types()
            .filter(|(name, dtype)| dtype.is_float() && !read_as_shape.contains(name))
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    /// Name and element type of the constants of the graph and of its bodies: initializers, and Constant nodes by the name of their
    /// output.
    pub fn constant_types(&self) -> impl Iterator<Item = (&str, DType)> {
        let constants = constants_of(&self.graph).into_iter();
        constants.map(|(name, tensor)| (name, DType::from_onnx(tensor.data_type)))
    }
}

/// What is read by operators whose inputs say a shape, or become integers, in a graph and in its bodies.
fn shapes<'a>(graph: &'a GraphProto, found: &mut HashSet<&'a str>) {
    for node in &graph.node {
        let says_shape = match node.op_type.as_str() {
            "Cast" => !DType::from_onnx(int(node, "to", 1) as i32).is_float(),
            "Range" | "Resize" | "Upsample" => true,
            _ => false,
        };
        if says_shape {
            found.extend(node.input.iter().map(String::as_str));
        }
        for attribute in &node.attribute {
            for body in attribute.g.iter().chain(&attribute.graphs) {
                shapes(body, found);
            }
        }
    }
}
