//! Looking at a model: its scopes, nodes and values by their ids, and how to speak of them.

use std::collections::HashSet;

use super::model::*;
use super::name::Name;
use super::uses::Use;
use crate::source::Source;

impl Model {
    /// The main graph.
    pub fn main(&self) -> ScopeId {
        ScopeId::new(0)
    }

    /// A scope.
    pub fn scope(&self, id: ScopeId) -> &Scope {
        &self.scopes[id.index()]
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// All scopes: the main graph first, then bodies and functions in file order.
    pub fn scopes(&self) -> impl Iterator<Item = (ScopeId, &Scope)> {
        self.scopes
            .iter()
            .enumerate()
            .map(|(index, scope)| (ScopeId::new(index), scope))
    }

    /// All nodes that stand in the graph, those of the scopes in turn, in file order.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.scopes()
            .flat_map(|(scope, _)| self.nodes_of(scope))
            .map(|id| (id, self.node(id)))
    }

    /// The nodes that an output of a scope depends on, or something that is carried and not understood. What nobody needs may be
    /// dropped. A body is taken for needed, whether its node is or not.
    pub fn needed_nodes(&self) -> HashSet<NodeId> {
        let is_seen = |&value: &ValueId| {
            let uses = &self.value(value).uses;
            uses.iter().any(|user| !matches!(user, Use::Node(..)))
        };
        let mut open: Vec<NodeId> = self
            .nodes()
            .filter(|(_, node)| node.outputs.iter().flatten().any(is_seen))
            .map(|(id, _)| id)
            .collect();
        let mut needed = HashSet::new();
        while let Some(id) = open.pop() {
            if needed.insert(id) {
                let inputs = self.node(id).inputs.iter().flatten();
                open.extend(inputs.filter_map(|&value| self.producer(value).map(|(id, _)| id)));
            }
        }
        needed
    }

    /// The number of nodes, removed ones included: the size of a side table.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The node that was added last, by the file or by an edit.
    pub fn newest_node(&self) -> Option<NodeId> {
        self.nodes.len().checked_sub(1).map(NodeId::new)
    }

    /// The id of the value at `index`, which must be below [`Model::value_count`].
    pub fn value_id(&self, index: usize) -> ValueId {
        debug_assert!(index < self.values.len(), "there is no such value");
        ValueId::new(index)
    }

    /// The number of values, removed ones included: the size of a side table.
    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    /// The node that computes `value`, and the output slot.
    pub fn producer(&self, value: ValueId) -> Option<(NodeId, usize)> {
        match self.value(value).origin {
            Origin::Node(node, slot) => Some((node, slot)),
            _ => None,
        }
    }

    /// All constant tensors: initializers and defaults of inputs, and those in attributes of nodes.
    pub fn constants(&self) -> impl Iterator<Item = &TensorDef> {
        let values = self
            .values
            .iter()
            .filter(|value| value.origin != Origin::Removed);
        let attributes = self.nodes().flat_map(|(_, node)| &node.attributes);
        let in_attributes = attributes.filter_map(|attribute| match &attribute.value {
            AttributeValue::Tensor(tensor) => Some(&**tensor),
            _ => None,
        });
        values
            .filter_map(|value| value.tensor.as_deref())
            .chain(in_attributes)
    }

    /// The source file or bytes of the model.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The folder that external data is relative to.
    pub fn dir(&self) -> Option<&std::path::Path> {
        self.dir.as_deref()
    }

    /// Key and value pairs of `metadata_props`, in file order.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// A short way to speak of a node: its name, or its first output, and its operator.
    pub fn describe(&self, id: NodeId) -> String {
        format!("node \"{}\" ({})", self.label(id), self.node(id).op_type)
    }

    /// The name of a node for people and reports: its own, or that of its first output.
    pub fn label(&self, id: NodeId) -> &Name {
        let node = self.node(id);
        if !node.name.is_empty() {
            return &node.name;
        }
        let first = node.outputs.iter().flatten().next();
        // Without outputs, it has no name either way.
        first.map_or(&node.name, |&value| &self.value(value).name)
    }

    /// The path of a scope: empty for the main graph, else owner and attribute of each body, or the function.
    pub fn scope_path(&self, id: ScopeId) -> String {
        match &self.scope(id).kind {
            ScopeKind::Main => String::new(),
            ScopeKind::Function { domain, name } if domain.is_empty() => name.to_string(),
            ScopeKind::Function { domain, name } => format!("{domain}::{name}"),
            ScopeKind::Body { owner, attribute } => {
                let outer = self.scope_path(self.node(*owner).scope);
                let separator = if outer.is_empty() { "" } else { "/" };
                format!("{outer}{separator}{}:{attribute}", self.label(*owner))
            }
        }
    }
}
