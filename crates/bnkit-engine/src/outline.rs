//! What a serialized model says of itself, without its weights: a proof asks many questions, and decoding a large model for each
//! would take longer than running it.

use std::collections::HashSet;

use bnkit_model::DType;
use tract_onnx::pb::{GraphProto, ModelProto};

use crate::constant::constants_of;
use crate::error::Result;
use crate::flow::{self, Jump};
use crate::normalise::for_each_graph;
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
        let ModelProto { graph, .. } = spec::decode(model)?;
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

    /// Name and element type of the constants of the graph and of its bodies: initializers, and Constant nodes by the name of their
    /// output.
    pub fn constant_types(&self) -> impl Iterator<Item = (&str, DType)> {
        let constants = constants_of(&self.graph).into_iter();
        constants.map(|(name, tensor)| (name, DType::from_onnx(tensor.data_type)))
    }
}
