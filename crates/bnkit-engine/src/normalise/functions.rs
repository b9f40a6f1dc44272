//! Model-local functions, written out: tract does not expand them.
//!
//! A function body sees nothing of its caller's scope, so every name in it but its formal inputs and outputs gets a prefix of its
//! own. Formal names become the caller's names; attribute references become the caller's attributes.

use std::collections::HashMap;

use bnkit_model::Limits;
use tract_onnx::pb::{FunctionProto, GraphProto, ModelProto, NodeProto};

use super::node;
use crate::error::node_name;
use crate::{EngineError, Result};

/// A function that calls functions that call functions … this deep is one that calls itself.
const MAX_DEPTH: usize = 64;

type Functions = HashMap<(String, String), FunctionProto>;

/// Replaces every call of a model-local function by its body.
pub(super) fn inline(model: &mut ModelProto) -> Result<()> {
    if model.functions.is_empty() {
        return Ok(());
    }
    let mut functions = Functions::new();
    for function in std::mem::take(&mut model.functions) {
        let key = (
            function.domain.clone().unwrap_or_default(),
            function.name.clone().unwrap_or_default(),
        );
        if let Some(previous) = functions.insert(key, function) {
            return Err(EngineError::unsupported_model(format!(
                "two functions are called {:?}; overloads cannot be told apart",
                previous.name()
            )));
        }
    }
    let mut inliner = Inliner {
        functions: &functions,
        calls: 0,
        nodes: 0,
    };
    match model.graph.as_mut() {
        Some(graph) => inliner.graph(graph, 0),
        None => Ok(()),
    }
}

struct Inliner<'a> {
    functions: &'a Functions,
    calls: usize,
    nodes: usize,
}

impl Inliner<'_> {
    fn graph(&mut self, graph: &mut GraphProto, depth: usize) -> Result<()> {
        let nodes = std::mem::take(&mut graph.node);
        graph.node = self.nodes(nodes, depth)?;
        Ok(())
    }

    fn nodes(&mut self, nodes: Vec<NodeProto>, depth: usize) -> Result<Vec<NodeProto>> {
        let mut out = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            let key = (node.domain.clone(), node.op_type.clone());
            if let Some(function) = self.functions.get(&key) {
                if depth >= MAX_DEPTH {
                    return Err(EngineError::unsupported(
                        &node,
                        "functions nested too deeply",
                    ));
                }
                let body = self.body(function, &node)?;
                out.extend(self.nodes(body, depth + 1)?);
                continue;
            }
            self.nodes += 1;
            // Calls that double at each level would fill the memory.
            if self.nodes as u64 > Limits::get().function_nodes {
                return Err(EngineError::unsupported(
                    &node,
                    "its functions write out to too many nodes",
                ));
            }
            for attribute in &mut node.attribute {
                for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                    self.graph(inner, depth)?;
                }
            }
            out.push(node);
        }
        Ok(out)
    }

    /// The body of `function` as `call` runs it.
    fn body(&mut self, function: &FunctionProto, call: &NodeProto) -> Result<Vec<NodeProto>> {
        let prefix = format!("{}/{}/", node_name(call), self.calls);
        self.calls += 1;
        let mut names = HashMap::new();
        for (position, formal) in function.input.iter().enumerate() {
            let actual = call.input.get(position).cloned().unwrap_or_default();
            names.insert(formal.clone(), actual);
        }
        let mut passed_through = vec![];
        for (formal, actual) in function.output.iter().zip(&call.output) {
            if actual.is_empty() {
                continue;
            }
            if let Some(source) = names.get(formal) {
                passed_through.push(node("Identity", actual, &[source], actual));
            } else {
                names.insert(formal.clone(), actual.clone());
            }
        }
        let scope = Scope {
            function,
            call,
            names,
            prefix,
        };
        let mut body = function.node.clone();
        for node in &mut body {
            scope.node(node)?;
        }
        body.extend(passed_through);
        Ok(body)
    }
}

struct Scope<'a> {
    function: &'a FunctionProto,
    call: &'a NodeProto,
    names: HashMap<String, String>,
    prefix: String,
}

impl Scope<'_> {
    fn rename(&self, name: &mut String) {
        if let Some(actual) = self.names.get(name.as_str()) {
            name.clone_from(actual);
        } else if !name.is_empty() {
            name.insert_str(0, &self.prefix);
        }
    }

    fn node(&self, node: &mut NodeProto) -> Result<()> {
        for name in node.input.iter_mut().chain(&mut node.output) {
            self.rename(name);
        }
        if !node.name.is_empty() {
            node.name.insert_str(0, &self.prefix);
        }
        let attributes = std::mem::take(&mut node.attribute);
        for mut attribute in attributes {
            if !attribute.ref_attr_name.is_empty() {
                let wanted = &attribute.ref_attr_name;
                let given = self
                    .call
                    .attribute
                    .iter()
                    .find(|given| given.name == *wanted);
                match given {
                    Some(given) => {
                        let name = attribute.name.clone();
                        attribute = given.clone();
                        attribute.name = name;
                        node.attribute.push(attribute);
                    }
                    // Declared without a default: absent here, too.
                    None if self.function.attribute.contains(wanted) => {}
                    None => {
                        return Err(EngineError::unsupported(
                            self.call,
                            format!("the function's default of attribute {wanted:?} is not read"),
                        ));
                    }
                }
                continue;
            }
            for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                self.graph(inner)?;
            }
            node.attribute.push(attribute);
        }
        Ok(())
    }

    fn graph(&self, graph: &mut GraphProto) -> Result<()> {
        for value in graph
            .input
            .iter_mut()
            .chain(&mut graph.output)
            .chain(&mut graph.value_info)
        {
            self.rename(&mut value.name);
        }
        for tensor in &mut graph.initializer {
            self.rename(&mut tensor.name);
        }
        for node in &mut graph.node {
            self.node(node)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalise::{attribute, set_float};
    use tract_onnx::pb::AttributeProto;

    fn call(op_type: &str, input: &str, output: &str) -> NodeProto {
        let mut call = node(op_type, output, &[input], output);
        call.domain = "local".into();
        call
    }

    fn function(name: &str, nodes: Vec<NodeProto>) -> FunctionProto {
        FunctionProto {
            name: Some(name.into()),
            domain: Some("local".into()),
            input: vec!["a".into()],
            output: vec!["b".into()],
            attribute: vec!["slope".into()],
            node: nodes,
            ..Default::default()
        }
    }

    fn model(functions: Vec<FunctionProto>, nodes: Vec<NodeProto>) -> ModelProto {
        ModelProto {
            functions,
            graph: Some(GraphProto {
                node: nodes,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn leaky() -> FunctionProto {
        let mut leaky = node("LeakyRelu", "act", &["t"], "b");
        leaky.attribute.push(AttributeProto {
            name: "alpha".into(),
            ref_attr_name: "slope".into(),
            ..Default::default()
        });
        function("Act", vec![node("Neg", "neg", &["a"], "t"), leaky])
    }

    #[test]
    fn bodies_get_names_of_their_own_and_the_callers_attributes() {
        let mut first = call("Act", "x", "y");
        set_float(&mut first, "slope", 0.5);
        let mut model = model(vec![leaky()], vec![first, call("Act", "y", "z")]);
        inline(&mut model).unwrap();
        let nodes = &model.graph.as_ref().unwrap().node;
        assert_eq!(nodes.len(), 4);
        assert_eq!(nodes[0].input, ["x"]);
        assert_eq!(nodes[1].output, ["y"]);
        assert_eq!(attribute(&nodes[1], "alpha").unwrap().f, 0.5);
        assert!(nodes[3].attribute.is_empty());
        assert_ne!(nodes[0].output, nodes[2].output);
        assert_eq!(nodes[3].output, ["z"]);
    }

    #[test]
    fn a_function_that_calls_itself_is_refused() {
        let body = vec![call("Act", "a", "b")];
        let mut model = model(vec![function("Act", body)], vec![call("Act", "x", "y")]);
        assert!(inline(&mut model).is_err());
    }

    #[test]
    fn doubling_calls_are_refused_before_they_fill_the_memory() {
        let mut functions = vec![function("F0", vec![node("Neg", "n", &["a"], "b")])];
        for level in 1..60 {
            let inner = format!("F{}", level - 1);
            functions.push(function(
                &format!("F{level}"),
                vec![call(&inner, "a", "t"), call(&inner, "t", "b")],
            ));
        }
        let mut model = model(functions, vec![call("F59", "x", "y")]);
        assert!(inline(&mut model).is_err());
    }
}
