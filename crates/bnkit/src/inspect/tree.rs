//! The modules of a model, as far as the names of its nodes tell: `/layer1/0/conv1/Conv` stands in layer1, 0, conv1.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use bnkit_model::onnx::{Model, NodeId, ScopeId};
use serde::Serialize;

use crate::Result;
use crate::pipeline::describe_input;
use crate::report::{InputFile, Tool};

/// The outcome of `inspect --tree`: schema `bnkit.tree/1`.
#[derive(Debug, Clone, Serialize)]
pub struct TreeReport {
    /// "bnkit.tree/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read.
    pub input: InputFile,
    /// The whole model.
    pub root: Module,
}

/// A module: what stands in it, and the modules inside it, in the order of the graph.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Module {
    /// Its name; empty for the whole model.
    pub name: String,
    /// Nodes in it and below.
    pub nodes: usize,
    /// Elements of the constants that they read; one that several read counts where it is read first.
    pub parameters: u64,
    /// The operators that stand in it itself, with the shape of the weight where there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<String>,
    /// The modules inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<Module>,
}

/// Looks at the modules of a model.
///
/// # Errors
/// If the model cannot be read.
pub fn tree(path: &Path) -> Result<TreeReport> {
    let model = Model::open(path)?;
    Ok(TreeReport {
        schema: "bnkit.tree/1",
        tool: Tool::default(),
        input: describe_input(&model, path),
        root: modules(&model)?,
    })
}

fn modules(model: &Model) -> Result<Module> {
    let mut root = Module::default();
    let mut seen = HashSet::new();
    let scopes: Vec<ScopeId> = model.scopes().map(|(scope, _)| scope).collect();
    for scope in scopes {
        let scope_path = model.scope_path(scope);
        for node in model.topological_order(scope)? {
            if model.node(node).is("Constant") {
                continue;
            }
            let (parameters, shape) = constants(model, node, &mut seen);
            let mut parts: Vec<&str> = model
                .label(node)
                .split('/')
                .filter(|part| !part.is_empty())
                .collect();
            // Exporters end the name of a node with its operator.
            parts.pop();
            if !scope_path.is_empty() {
                parts.insert(0, &scope_path);
            }
            let operator = &model.node(node).op_type;
            let operator = match shape {
                Some(shape) => format!("{operator} {shape}"),
                None => operator.clone(),
            };
            insert(&mut root, &parts, &operator, parameters);
        }
    }
    Ok(root)
}

fn insert(module: &mut Module, path: &[&str], operator: &str, parameters: u64) {
    module.nodes += 1;
    module.parameters += parameters;
    let Some((first, rest)) = path.split_first() else {
        module.operators.push(operator.to_owned());
        return;
    };
    let at = module
        .modules
        .iter()
        .position(|inner| inner.name == *first)
        .unwrap_or_else(|| {
            module.modules.push(Module {
                name: (*first).to_owned(),
                ..Module::default()
            });
            module.modules.len() - 1
        });
    insert(&mut module.modules[at], rest, operator, parameters);
}

/// The elements of the constants that a node is the first to read, and the shape of its weight.
fn constants(
    model: &Model,
    node: NodeId,
    seen: &mut HashSet<bnkit_model::onnx::ValueId>,
) -> (u64, Option<String>) {
    let mut count = 0;
    let mut shapes = BTreeMap::new();
    for (slot, value) in model.node(node).inputs.iter().enumerate() {
        let Some(value) = value else { continue };
        let Some(tensor) = &model.value(*value).tensor else {
            continue;
        };
        if seen.insert(*value) {
            count += tensor.len() as u64;
        }
        shapes.insert(slot, format!("{:?}", tensor.dims).replace(", ", "×"));
    }
    (count, shapes.remove(&1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_follow_the_names() {
        let model = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../testdata/models/tiny_resnet.onnx"
        );
        let root = tree(Path::new(model)).unwrap().root;
        let names: Vec<&str> = root
            .modules
            .iter()
            .map(|module| module.name.as_str())
            .collect();
        assert!(names.starts_with(&["conv1", "bn1"]), "{names:?}");
        let conv = &root.modules[0];
        assert_eq!(
            (conv.nodes, conv.operators.as_slice()),
            (1, ["Conv [8×3×3×3]".to_owned()].as_slice())
        );
        let inner: u64 = root.modules.iter().map(|module| module.parameters).sum();
        assert!(root.parameters >= inner && root.nodes >= root.modules.len());
    }
}
