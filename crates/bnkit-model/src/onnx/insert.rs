//! New nodes: where they stand among the nodes of a scope and among the items of its file, and what they read and write.

use super::edit::Operand;
use super::model::*;
use crate::Result;

impl Model {
    pub(super) fn add_node(
        &mut self,
        after: NodeId,
        op_type: &str,
        name: &str,
        inputs: &[Operand],
        outputs: &[Operand],
    ) -> Result<()> {
        let scope = self.node(after).scope;
        let place = self.place_of(scope, after);
        let (node_at, item_at) = place.map_or_else(|| self.end_of(scope), |(n, i)| (n + 1, i + 1));
        let id = self.new_node(scope, (node_at, item_at), op_type, name);
        let inputs: Vec<Option<Operand>> = inputs.iter().cloned().map(Some).collect();
        self.connect(id, &inputs, outputs)
    }

    /// Where a node stands: among the nodes of its scope, and among the items of its file.
    fn place_of(&self, scope: ScopeId, node: NodeId) -> Option<(usize, usize)> {
        let scope = self.scope(scope);
        let node_at = scope.nodes.iter().position(|&other| other == node)?;
        let kind = ItemKind::Node(node);
        Some((
            node_at,
            scope.items.iter().position(|item| item.kind == kind)?,
        ))
    }

    /// The place behind all nodes of a scope.
    fn end_of(&self, scope: ScopeId) -> (usize, usize) {
        let scope = self.scope(scope);
        let is_node = |item: &Item| matches!(item.kind, ItemKind::Node(_));
        let last = scope.items.iter().rposition(is_node);
        (
            scope.nodes.len(),
            last.map_or(scope.items.len(), |at| at + 1),
        )
    }

    fn new_node(
        &mut self,
        scope: ScopeId,
        (node_at, item_at): (usize, usize),
        op_type: &str,
        name: &str,
    ) -> NodeId {
        let id = NodeId::new(self.nodes.len());
        self.nodes.push(Node {
            scope,
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            domain: String::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            attributes: Vec::new(),
            alive: true,
            calls_function: false,
            span: None,
            dirty: true,
        });
        let item = Item {
            kind: ItemKind::Node(id),
            span: None,
        };
        let scope = &mut self.scopes[scope.index()];
        scope.nodes.insert(node_at, id);
        scope.items.insert(item_at, item);
        scope.dirty = true;
        id
    }

    /// A node in front of another of its scope, or behind all of them; it is not connected yet.
    pub(super) fn insert_node(
        &mut self,
        scope: ScopeId,
        before: Option<NodeId>,
        op_type: &str,
        name: &str,
    ) -> NodeId {
        let place = before.and_then(|node| self.place_of(scope, node));
        let place = place.unwrap_or_else(|| self.end_of(scope));
        self.new_node(scope, place, op_type, name)
    }

    pub(super) fn connect(
        &mut self,
        id: NodeId,
        inputs: &[Option<Operand>],
        outputs: &[Operand],
    ) -> Result<()> {
        let scope = self.node(id).scope;
        for (slot, operand) in inputs.iter().enumerate() {
            if let Some(operand) = operand {
                let value = self.operand(scope, operand)?;
                self.set_input(id, slot, Some(value));
            }
        }
        for (slot, operand) in outputs.iter().enumerate() {
            self.set_output(id, slot, operand)?;
        }
        Ok(())
    }
}
