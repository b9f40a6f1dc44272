//! The one place that changes a model: it carries out edits, and keeps uses, names and the file order of things in step.

use std::collections::HashSet;
use std::sync::Arc;

use super::edit::{Edit, NewTensor, Operand};
use super::model::*;
use super::uses::Use;
use crate::{Error, Result};

impl Model {
    /// Applies edits in order.
    ///
    /// # Errors
    /// If an edit names a value that no edit made: a mistake of the caller, not of the model.
    pub fn apply(&mut self, edits: &[Edit]) -> Result<()> {
        edits.iter().try_for_each(|edit| self.apply_one(edit))
    }

    fn apply_one(&mut self, edit: &Edit) -> Result<()> {
        match edit {
            Edit::RemoveNode { node } => self.remove_node(*node),
            Edit::SetInput { node, slot, value } => {
                let value = self.operand(self.node(*node).scope, value)?;
                self.set_input(*node, *slot, Some(value));
            }
            Edit::RemoveInput { node, slot } => self.set_input(*node, *slot, None),
            Edit::SetOutput { node, slot, value } => self.set_output(*node, *slot, value)?,
            Edit::TruncateOutputs { node, keep } => {
                for slot in *keep..self.node(*node).outputs.len() {
                    self.orphan(*node, slot);
                }
                self.touch(*node).outputs.truncate(*keep);
            }
            Edit::SetAttribute { node, name, value } => {
                let attributes = &mut self.touch(*node).attributes;
                let attribute = Attribute {
                    name: name.into(),
                    value: value.clone(),
                    span: None,
                };
                match attributes
                    .iter_mut()
                    .find(|attribute| attribute.name == *name)
                {
                    Some(existing) => *existing = attribute,
                    None => attributes.push(attribute),
                }
            }
            Edit::RemoveAttribute { node, name } => {
                self.touch(*node)
                    .attributes
                    .retain(|attribute| attribute.name != *name);
            }
            Edit::ReplaceUses { value, by } => {
                let readers = self.value(*value).uses.clone();
                for user in &readers {
                    if let Use::Node(node, slot) = *user {
                        self.set_input(node, slot, Some(*by));
                    }
                }
            }
            Edit::SetConstant { value, tensor } => {
                self.set_constant(*value, tensor.clone().into_def());
            }
            Edit::BorrowConstant {
                value,
                dtype,
                dims,
                elements,
            } => {
                let tensor = TensorDef::borrowed(*dtype, dims.clone(), elements.clone());
                self.set_constant(*value, tensor);
            }
            Edit::AddConstant {
                scope,
                name,
                tensor,
            } => self.add_constant(*scope, name, tensor.clone()),
            Edit::DropConstants { values } => self.drop_constants(values),
            Edit::DropOutput { scope, slot } => self.drop_output(*scope, *slot),
            Edit::AddNode {
                after,
                op_type,
                name,
                inputs,
                outputs,
            } => {
                self.add_node(*after, op_type, name, inputs, outputs)?;
            }
            Edit::InsertNode {
                scope,
                before,
                op_type,
                name,
                inputs,
                outputs,
                attributes,
            } => {
                let id = self.insert_node(*scope, *before, op_type, name);
                self.connect(id, inputs, outputs)?;
                let attribute = |(name, value): &(String, AttributeValue)| Attribute {
                    name: name.into(),
                    value: value.clone(),
                    span: None,
                };
                self.touch(id).attributes = attributes.iter().map(attribute).collect();
            }
            Edit::SetMetadata { key, value } => {
                let entry = (key.clone(), value.clone());
                if self.metadata.contains(&entry) {
                    return Ok(());
                }
                self.metadata_dirty = true;
                match self
                    .metadata
                    .iter_mut()
                    .find(|(existing, _)| existing == key)
                {
                    Some(entry) => entry.1.clone_from(value),
                    None => self.metadata.push(entry),
                }
            }
        }
        Ok(())
    }

    fn touch(&mut self, node: NodeId) -> &mut Node {
        let scope = self.node(node).scope;
        self.scopes[scope.index()].dirty = true;
        let node = &mut self.nodes[node.index()];
        node.dirty = true;
        node
    }

    pub(super) fn operand(&self, scope: ScopeId, operand: &Operand) -> Result<ValueId> {
        match operand {
            Operand::Value(value) => Ok(*value),
            Operand::New(name) => self.meaning(scope, name).ok_or_else(|| {
                Error::invalid(format!("an edit reads \"{name}\", which no edit made"))
            }),
        }
    }

    fn define(
        &mut self,
        scope: ScopeId,
        name: &str,
        origin: Origin,
        tensor: Option<TensorDef>,
    ) -> ValueId {
        let id = ValueId::new(self.values.len());
        let mut value = Value::new(scope, name.into(), origin);
        value.tensor = tensor.map(Arc::new);
        push_tight(&mut self.values, value);
        self.bind(id);
        id
    }

    pub(super) fn set_input(&mut self, node: NodeId, slot: usize, value: Option<ValueId>) {
        let user = Use::Node(node, slot);
        if let Some(old) = self.node(node).input(slot) {
            self.no_longer_read(old, user);
        }
        if let Some(value) = value {
            self.values[value.index()].uses.push(user);
        }
        let inputs = &mut self.touch(node).inputs;
        if inputs.len() <= slot {
            inputs.resize(slot + 1, None);
        }
        inputs[slot] = value;
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
    }

    pub(super) fn set_output(&mut self, node: NodeId, slot: usize, value: &Operand) -> Result<()> {
        self.orphan(node, slot);
        let scope = self.node(node).scope;
        let origin = Origin::Node(node, slot);
        let id = match value {
            Operand::Value(id) => {
                if self.value(*id).origin == Origin::Removed {
                    self.bind(*id);
                }
                self.values[id.index()].origin = origin;
                *id
            }
            Operand::New(name) => self.define(scope, name, origin, None),
        };
        let outputs = &mut self.touch(node).outputs;
        if outputs.len() <= slot {
            outputs.resize(slot + 1, None);
        }
        outputs[slot] = Some(id);
        Ok(())
    }

    /// Takes the value that `node` writes in `slot` away from it.
    fn orphan(&mut self, node: NodeId, slot: usize) {
        let Some(id) = self.node(node).output(slot) else {
            return;
        };
        if self.value(id).origin == Origin::Node(node, slot) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: ValueId) {
        self.values[id.index()].origin = Origin::Removed;
        self.unbind(id);
    }

    fn remove_node(&mut self, id: NodeId) {
        debug_assert!(
            self.bodies(id).next().is_none(),
            "nodes with bodies are not removed"
        );
        for slot in 0..self.node(id).inputs.len() {
            let user = Use::Node(id, slot);
            if let Some(value) = self.node(id).input(slot) {
                self.no_longer_read(value, user);
            }
        }
        for slot in 0..self.node(id).outputs.len() {
            self.orphan(id, slot);
        }
        self.touch(id);
        self.nodes[id.index()].alive = false;
        self.unlink(id);
        self.free_node_name(id);
    }

    fn set_constant(&mut self, id: ValueId, tensor: TensorDef) {
        let scope = self.value(id).scope;
        let changed_shape = match (&self.value(id).tensor, &self.value(id).declared) {
            (Some(old), _) => old.dims != tensor.dims || old.dtype != tensor.dtype,
            (None, declared) => declared.is_some(),
        };
        self.scopes[scope.index()].dirty = true;
        if changed_shape {
            self.redeclare(id, &tensor);
        }
        if let Origin::Node(node, _) = self.value(id).origin {
            if !self.has_initializers(scope) {
                self.touch(node).attributes = vec![Attribute::constant(tensor)];
                return;
            }
            self.remove_node(node);
            let value = &mut self.values[id.index()];
            value.origin = Origin::Initializer;
            value.tensor = Some(tensor.into());
            self.bind(id);
            self.enlist(scope, id);
            return;
        }
        let value = &mut self.values[id.index()];
        let span = value.tensor.take().and_then(|old| old.span.clone());
        value.tensor = Some(TensorDef { span, ..tensor }.into());
    }

    /// Corrects what the file declares of a constant whose type or shape changes.
    fn redeclare(&mut self, id: ValueId, tensor: &TensorDef) {
        let value = &mut self.values[id.index()];
        let dims = tensor
            .dims
            .iter()
            .map(|&dim| Dim::Known(dim as u64))
            .collect();
        let declared = TensorType {
            dtype: tensor.dtype,
            dims: Some(dims),
        };
        value.declared = Some(declared.into());
        let scope = value.scope;
        self.scopes[scope.index()].outdated.insert(id);
    }

    /// Whether a scope may get new initializers: functions have none, and before IR version 4 each would have to be an
    /// input, which a body's owner knows nothing of.
    fn has_initializers(&self, scope: ScopeId) -> bool {
        match self.scope(scope).kind {
            ScopeKind::Main => true,
            ScopeKind::Body { .. } => self.ir_version >= 4,
            ScopeKind::Function { .. } => false,
        }
    }

    fn enlist(&mut self, scope: ScopeId, id: ValueId) {
        // Before IR version 4 every initializer of the main graph is an input too.
        let is_input = self.ir_version < 4 && self.scope(scope).kind == ScopeKind::Main;
        let scope = &mut self.scopes[scope.index()];
        scope.initializers.push(id);
        scope.added.push(Item::added(ItemKind::Initializer(id)));
        if is_input {
            scope.inputs.push(id);
            scope.added.push(Item::added(ItemKind::Input(id)));
            self.values[id.index()].origin = Origin::Input;
        }
    }

    fn add_constant(&mut self, scope: ScopeId, name: &str, tensor: NewTensor) {
        self.scopes[scope.index()].dirty = true;
        let def = tensor.into_def();
        if self.has_initializers(scope) {
            let id = self.define(scope, name, Origin::Initializer, Some(def));
            self.enlist(scope, id);
            return;
        }
        let node = self.new_node(scope, "Constant", name);
        let value = self.define(scope, name, Origin::Node(node, 0), None);
        self.link_behind(node, None);
        let node = &mut self.nodes[node.index()];
        node.outputs = Slots::from_slice(&[Some(value)]);
        node.attributes = vec![Attribute::constant(def)];
    }

    fn drop_constants(&mut self, ids: &[ValueId]) {
        let mut scopes = HashSet::new();
        for &id in ids {
            debug_assert!(
                self.value(id).uses.is_empty(),
                "only what nobody reads is dropped"
            );
            scopes.insert(self.value(id).scope);
            self.forget(id);
        }
        for scope in scopes {
            let (scope, values) = (&mut self.scopes[scope.index()], &self.values);
            let stands = |id: &ValueId| values[id.index()].origin != Origin::Removed;
            scope.initializers.retain(stands);
            scope.inputs.retain(stands);
            scope.dirty = true;
        }
    }

    /// Takes one of its readers off a value.
    fn no_longer_read(&mut self, value: ValueId, user: Use) {
        self.values[value.index()].uses.remove(user);
    }

    fn drop_output(&mut self, scope: ScopeId, slot: usize) {
        let id = self.scopes[scope.index()].outputs.remove(slot);
        let later = self.scopes[scope.index()].outputs[slot..].to_vec();
        self.values[id.index()]
            .uses
            .remove(Use::Output(scope, slot));
        for (slot, moved) in (slot..).zip(later) {
            let (old, new) = (Use::Output(scope, slot + 1), Use::Output(scope, slot));
            self.values[moved.index()].uses.replace(old, new);
        }
        let items = Arc::make_mut(&mut self.scopes[scope.index()].items);
        let outputs = items
            .iter()
            .enumerate()
            .filter(|(_, item)| matches!(item.kind, ItemKind::Output(_)));
        if let Some((at, _)) = outputs.into_iter().nth(slot) {
            items.remove(at);
        }
        self.scopes[scope.index()].dirty = true;
    }
}

/// Edits add little to what a file has, so that a list which doubled would be half empty.
fn push_tight<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 8 + 16);
    }
    list.push(item);
}
