//! The modules of a checkpoint, as far as names tell: the node `/layer1/0/conv1/Conv` stands in layer1, 0, conv1, and so does the
//! tensor `layer1.0.conv1.weight` of a state dict.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use bnkit_model::onnx::{Model, NodeId, ScopeId};
use serde::Serialize;

use crate::Result;
use crate::checkpoint::{Checkpoint, Content, Entry};
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

/// A module: what stands in it, and the modules inside it, in the order of the graph or of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Module {
    /// Its name; empty for the whole checkpoint.
    pub name: String,
    /// Of a graph: nodes in it and below.
    #[serde(skip_serializing_if = "is_zero")]
    pub nodes: usize,
    /// Of a state dict: tensors in it and below.
    #[serde(skip_serializing_if = "is_zero")]
    pub tensor_count: usize,
    /// Elements of its tensors. Of a graph: of the constants that its nodes read; one that several read counts where it is read
    /// first.
    pub parameters: u64,
    /// The bytes that these take.
    pub bytes: u64,
    /// The operators that stand in it itself, with the shape of the weight where there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<String>,
    /// The tensors of a state dict that stand in it itself, with their types and shapes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<String>,
    /// The modules inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<Module>,
}

// serde's skip_serializing_if passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Looks at the modules of a checkpoint.
///
/// # Errors
/// If it cannot be read.
pub fn tree(path: &Path) -> Result<TreeReport> {
    let checkpoint = Checkpoint::open(path)?;
    Ok(TreeReport {
        schema: "bnkit.tree/1",
        tool: Tool::default(),
        input: checkpoint.describe(),
        root: match &checkpoint.content {
            Content::Onnx(model) => modules(model)?,
            Content::StateDict(_) => of_tensors(&checkpoint.entries()),
        },
    })
}

/// What is counted for each module that a leaf stands in.
struct Leaf<'a> {
    text: &'a str,
    is_node: bool,
    parameters: u64,
    bytes: u64,
}

/// The modules of a state dict: the parts of the names, at slashes if there are any, else at dots.
fn of_tensors(entries: &[Entry]) -> Module {
    let mut root = Module::default();
    for entry in entries {
        let separator = if entry.name.contains('/') { '/' } else { '.' };
        let mut path: Vec<&str> = entry
            .name
            .split(separator)
            .filter(|part| !part.is_empty())
            .collect();
        let name = path.pop().unwrap_or("");
        let shape: Vec<String> = entry.dims.iter().map(usize::to_string).collect();
        let leaf = Leaf {
            text: &format!("{name}  {} [{}]", entry.dtype.name, shape.join("×")),
            is_node: false,
            parameters: entry.len(),
            bytes: entry.bytes,
        };
        insert(&mut root, &path, &leaf);
    }
    root
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
            let (parameters, bytes, shape) = constants(model, node, &mut seen);
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
                None => operator.to_string(),
            };
            let leaf = Leaf {
                text: &operator,
                is_node: true,
                parameters,
                bytes,
            };
            insert(&mut root, &parts, &leaf);
        }
    }
    Ok(root)
}

fn insert(module: &mut Module, path: &[&str], leaf: &Leaf<'_>) {
    module.nodes += usize::from(leaf.is_node);
    module.tensor_count += usize::from(!leaf.is_node);
    module.parameters += leaf.parameters;
    module.bytes += leaf.bytes;
    let Some((first, rest)) = path.split_first() else {
        let leaves = if leaf.is_node {
            &mut module.operators
        } else {
            &mut module.tensors
        };
        leaves.push(leaf.text.to_owned());
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
    insert(&mut module.modules[at], rest, leaf);
}

/// The elements of the constants that a node is the first to read, their bytes, and the shape of its weight.
fn constants(
    model: &Model,
    node: NodeId,
    seen: &mut HashSet<bnkit_model::onnx::ValueId>,
) -> (u64, u64, Option<String>) {
    let (mut count, mut bytes) = (0, 0);
    let mut shapes = BTreeMap::new();
    for (slot, value) in model.node(node).inputs.iter().enumerate() {
        let Some(value) = value else { continue };
        let Some(tensor) = &model.value(*value).tensor else {
            continue;
        };
        if seen.insert(*value) {
            count += tensor.len() as u64;
            bytes += tensor.dtype.byte_len(tensor.len() as u64).unwrap_or(0);
        }
        shapes.insert(slot, format!("{:?}", tensor.dims).replace(", ", "×"));
    }
    (count, bytes, shapes.remove(&1))
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
        assert_eq!((conv.parameters, conv.bytes), (216, 864));
        let inner: u64 = root.modules.iter().map(|module| module.parameters).sum();
        assert!(root.parameters >= inner && root.nodes >= root.modules.len());
    }
}
