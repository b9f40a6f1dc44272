//! What a plan remembers of the model as it was. The model itself may be as large as all else, and a plan changes it.

use std::collections::{HashMap, HashSet};

use bnkit_model::onnx::{Model, Name, Node, NodeId};

/// The model before its first edit, as far as a plan asks for it later.
#[derive(Debug)]
pub(crate) struct Before {
    /// How many nodes stood in it.
    pub nodes: usize,
    /// What unnamed nodes are called: by what they write first, which an edit may rename.
    labels: HashMap<NodeId, Name>,
    /// Nodes of which nobody read anything.
    unread: HashSet<NodeId>,
    /// The size of the arena: nodes from here on are those of edits.
    known: usize,
}

impl Before {
    /// Looks at a model that no edit has changed.
    pub(crate) fn of(model: &Model) -> Self {
        let is_unread = |node: &Node| {
            let mut outputs = node.outputs.iter().flatten();
            outputs.all(|&value| model.value(value).uses.is_empty())
        };
        let nodes = || model.nodes();
        Self {
            nodes: nodes().count(),
            labels: nodes()
                .filter(|(_, node)| node.name.is_empty())
                .map(|(id, _)| (id, model.label(id).clone()))
                .collect(),
            unread: nodes()
                .filter(|(_, node)| is_unread(node))
                .map(|(id, _)| id)
                .collect(),
            known: model.node_count(),
        }
    }

    /// The name of a node for people and reports, as the input calls it if it is one of its own.
    pub(crate) fn label<'m>(&'m self, changed: &'m Model, node: NodeId) -> &'m Name {
        self.labels
            .get(&node)
            .unwrap_or_else(|| changed.label(node))
    }

    /// Whether the node was there, and somebody read what it computed.
    pub(crate) fn was_read(&self, node: NodeId) -> bool {
        node.index() < self.known && !self.unread.contains(&node)
    }
}
