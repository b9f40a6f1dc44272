//! New nodes: where they stand among the nodes of a scope, and what they read and write.

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
        let id = self.new_node(scope, op_type, name);
        match self.node(after).alive {
            true => self.link_behind(id, Some(after)),
            false => self.link_in_front(id, None),
        }
        let inputs: Vec<Option<Operand>> = inputs.iter().cloned().map(Some).collect();
        self.connect(id, &inputs, outputs)
    }

    /// A node that stands nowhere yet.
    pub(super) fn new_node(&mut self, scope: ScopeId, op_type: &str, name: &str) -> NodeId {
        let id = NodeId::new(self.nodes.len());
        self.nodes.push(Node {
            scope,
            name: name.into(),
            op_type: op_type.into(),
            domain: Default::default(),
            inputs: Slots::new(),
            outputs: Slots::new(),
            attributes: Vec::new(),
            alive: true,
            calls_function: false,
            neighbours: Default::default(),
            span: None,
            dirty: true,
        });
        self.scopes[scope.index()].dirty = true;
        self.take_node_name(id);
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
        let id = self.new_node(scope, op_type, name);
        // A node of another scope, or one that was removed, has no place here.
        let stands = |&node: &NodeId| self.node(node).alive && self.node(node).scope == scope;
        let before = before.filter(stands);
        self.link_in_front(id, before);
        id
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
