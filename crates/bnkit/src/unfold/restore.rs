//! Bringing back what a fold took away, into a model that was read from a file.
//!
//! Everything that is to be changed is looked up first, and has to be as the fold left it: another weight, or another
//! wiring, would give a model that nobody ever had.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bnkit_model::Tensor;
use bnkit_model::onnx::{
    Constants, Edit, Model, NewTensor, NodeId, Operand, Origin, ScopeId, TensorDef, Types, ValueId,
};

use super::keep::fingerprint;
use super::record::*;
use super::sound;
use crate::{Error, Result};

/// Undoes the fold in `model`.
///
/// # Errors
/// If a node is missing, or a constant is not the one that the fold wrote.
pub(super) fn restore(
    model: &mut Model,
    record: &Record,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<()> {
    let mut restorer = Restorer::new(model, tensors)?;
    sound::nodes(&restorer, record)?;
    let mut nodes = HashMap::new();
    let added = record.added.iter();
    for node in added.chain(record.changed.iter().map(|changed| &changed.node)) {
        nodes.insert(node, restorer.node(node)?);
    }
    record
        .changed
        .iter()
        .try_for_each(|changed| restorer.is_wired(nodes[&changed.node], changed))?;
    restorer.witnesses(&record.witnesses)?;
    let constants = record
        .constants
        .iter()
        .map(|constant| Ok((&constant.value, restorer.tensor(constant)?)))
        .collect::<Result<Vec<_>>>()?;
    // Outputs may get other names, so all nodes are looked up before.
    let next = record.removed.iter().map(|removed| {
        let next = removed.before.as_ref();
        next.map(|node| restorer.node(node)).transpose()
    });
    let next = next.collect::<Result<Vec<_>>>()?;
    let read: Vec<ValueId> = nodes.values().flat_map(|&id| restorer.reads(id)).collect();

    for node in &record.added {
        let remove = Edit::RemoveNode { node: nodes[node] };
        restorer.model.apply(&[remove])?;
    }
    for changed in &record.changed {
        restorer.outputs(nodes[&changed.node], changed)?;
    }
    for (value, tensor) in constants {
        restorer.constant(value, tensor)?;
    }
    for (removed, next) in record.removed.iter().zip(next) {
        restorer.insert(removed, next)?;
    }
    for changed in &record.changed {
        restorer.inputs(nodes[&changed.node], changed)?;
    }
    restorer.sweep(read)?;
    sound::model(restorer.model)
}

pub(super) struct Restorer<'m> {
    pub(super) model: &'m mut Model,
    pub(super) tensors: &'m BTreeMap<String, Tensor>,
    /// Of the model as it was read.
    types: Types,
    scopes: HashMap<String, ScopeId>,
    values: HashMap<ValueRef, ValueId>,
}

impl<'m> Restorer<'m> {
    fn new(model: &'m mut Model, tensors: &'m BTreeMap<String, Tensor>) -> Result<Self> {
        let mut scopes = HashMap::new();
        for (id, _) in model.scopes() {
            let path = model.scope_path(id);
            if scopes.insert(path.clone(), id).is_some() {
                return Err(Error::Request(format!(
                    "two bodies of the model are called \"{path}\""
                )));
            }
        }
        let mut values = HashMap::new();
        for index in 0..model.value_count() {
            let id = model.value_id(index);
            let value = model.value(id);
            if value.origin != Origin::Removed {
                let reference = ValueRef {
                    scope: model.scope_path(value.scope),
                    name: value.name.to_string(),
                };
                values.insert(reference, id);
            }
        }
        Ok(Self {
            types: Types::derive(model),
            model,
            tensors,
            scopes,
            values,
        })
    }

    fn scope(&self, path: &str) -> Result<ScopeId> {
        let found = self.scopes.get(path).copied();
        found.ok_or_else(|| Error::Request(format!("the model has no body \"{path}\"")))
    }

    pub(super) fn node(&self, node: &NodeRef) -> Result<NodeId> {
        let missing = || {
            Error::Request(format!(
                "node \"{}\" ({}), which writes \"{}\", is not in the model: it is not the one that was folded",
                node.node, node.operator, node.output
            ))
        };
        let reference = ValueRef {
            scope: node.scope.clone(),
            name: node.output.clone(),
        };
        let value = self.values.get(&reference).ok_or_else(missing)?;
        let (id, _) = self.model.producer(*value).ok_or_else(missing)?;
        match self.model.node(id).op_type == node.operator {
            true => Ok(id),
            false => Err(missing()),
        }
    }

    fn reads(&self, id: NodeId) -> Vec<ValueId> {
        self.model
            .node(id)
            .inputs
            .iter()
            .flatten()
            .copied()
            .collect()
    }

    /// Checks that a node reads what it read when the fold was done.
    fn is_wired(&self, id: NodeId, changed: &Changed) -> Result<()> {
        let inputs = self.model.node(id).inputs.iter();
        let inputs: Vec<Option<&str>> = inputs
            .map(|value| value.map(|value| self.model.value(value).name.as_str()))
            .collect();
        let expected: Vec<Option<&str>> = changed.reads.iter().map(Option::as_deref).collect();
        if inputs == expected {
            return Ok(());
        }
        let list = |names: &[Option<&str>]| {
            let names: Vec<String> = names
                .iter()
                .map(|name| format!("\"{}\"", name.unwrap_or("")))
                .collect();
            names.join(", ")
        };
        Err(Error::Request(format!(
            "{} reads {}, and after the fold it read {}",
            self.model.describe(id),
            list(&inputs),
            list(&expected)
        )))
    }

    fn witnesses(&self, witnesses: &[Witness]) -> Result<()> {
        for witness in witnesses {
            let id = self.node(&witness.reader)?;
            let found = self
                .model
                .read_tensor(&*self.read_constant(id, witness.slot)?)?;
            if fingerprint(&found) != witness.sha256 {
                return Err(Error::Request(format!(
                    "{}: tensor \"{}\" is not what the fold wrote: it has been changed since",
                    self.model.describe(id),
                    witness.tensor
                )));
            }
        }
        Ok(())
    }

    pub(super) fn read_constant(&self, id: NodeId, slot: usize) -> Result<Arc<TensorDef>> {
        let constants = Constants::new(self.model, &self.types, true);
        let value = self.model.node(id).input(slot);
        let tensor = value.and_then(|value| constants.tensor(value).ok());
        tensor.ok_or_else(|| {
            Error::Request(format!(
                "{}: input {slot} is no constant",
                self.model.describe(id)
            ))
        })
    }

    /// The value that a node is to write: an orphan of this name, or a fresh one.
    fn target(&self, reference: &ValueRef) -> Result<Operand> {
        match self.values.get(reference) {
            None => Ok(Operand::New(reference.name.clone())),
            Some(&value) if self.model.value(value).origin == Origin::Removed => Ok(value.into()),
            Some(_) => Err(Error::Request(format!(
                "the model has a value \"{}\" already",
                reference.name
            ))),
        }
    }

    fn known(&self, reference: &ValueRef) -> Result<ValueId> {
        let found = self.values.get(reference).copied();
        found
            .ok_or_else(|| Error::Request(format!("the model has no value \"{}\"", reference.name)))
    }

    /// Notes what a node writes now.
    fn note_outputs(&mut self, id: NodeId) {
        let scope = self.model.scope_path(self.model.node(id).scope);
        for value in self.model.node(id).outputs.iter().flatten() {
            let reference = ValueRef {
                scope: scope.clone(),
                name: self.model.value(*value).name.to_string(),
            };
            self.values.insert(reference, *value);
        }
    }

    fn outputs(&mut self, id: NodeId, changed: &Changed) -> Result<()> {
        for (slot, name) in changed.outputs.iter().enumerate() {
            let current = self.model.node(id).output(slot);
            let current = current.map(|value| self.model.value(value).name.as_str());
            if name.is_empty() || current == Some(name) {
                continue;
            }
            let value = self.target(&ValueRef {
                scope: changed.node.scope.clone(),
                name: name.clone(),
            })?;
            let edit = Edit::SetOutput {
                node: id,
                slot,
                value,
            };
            self.model.apply(&[edit])?;
        }
        self.note_outputs(id);
        Ok(())
    }

    fn constant(&mut self, reference: &ValueRef, tensor: NewTensor) -> Result<()> {
        let stands = |value: &&ValueId| self.model.value(**value).origin != Origin::Removed;
        if let Some(&value) = self.values.get(reference).filter(stands) {
            sound::constant(self.model, value)?;
            return Ok(self.model.apply(&[Edit::SetConstant { value, tensor }])?);
        }
        let scope = self.scope(&reference.scope)?;
        let name = self.model.fresh_name(&reference.name);
        self.model.apply(&[Edit::AddConstant {
            scope,
            name,
            tensor,
        }])?;
        let newest = self.model.value_id(self.model.value_count() - 1);
        self.values.insert(reference.clone(), newest);
        Ok(())
    }

    fn insert(&mut self, removed: &Removed, before: Option<NodeId>) -> Result<()> {
        let scope = self.scope(&removed.scope)?;
        let mut inputs = Vec::new();
        for input in &removed.inputs {
            let input = input.as_ref().map(|input| self.known(input)).transpose()?;
            inputs.push(input.map(Operand::from));
        }
        let mut outputs = Vec::new();
        for name in &removed.outputs {
            outputs.push(self.target(&ValueRef {
                scope: removed.scope.clone(),
                name: name.clone(),
            })?);
        }
        let attributes = removed.attributes.iter();
        self.model.apply(&[Edit::InsertNode {
            scope,
            before,
            op_type: removed.operator.clone(),
            name: removed.name.clone(),
            inputs,
            outputs,
            attributes: attributes
                .map(|(name, value)| (name.clone(), value.value()))
                .collect(),
        }])?;
        let newest = self.model.newest_node();
        self.note_outputs(newest.expect("one was added"));
        Ok(())
    }

    fn inputs(&mut self, id: NodeId, changed: &Changed) -> Result<()> {
        let mut edits = Vec::new();
        for slot in (0..changed.inputs.len().max(self.model.node(id).inputs.len())).rev() {
            let wanted = changed.inputs.get(slot).and_then(Option::as_ref);
            let wanted = wanted.map(|value| self.known(value)).transpose()?;
            let current = self.model.node(id).input(slot);
            match wanted {
                _ if wanted == current => {}
                Some(value) => edits.push(Edit::SetInput {
                    node: id,
                    slot,
                    value: value.into(),
                }),
                None => edits.push(Edit::RemoveInput { node: id, slot }),
            }
        }
        for (name, value) in &changed.attributes {
            edits.push(match value {
                Some(value) => Edit::SetAttribute {
                    node: id,
                    name: name.clone(),
                    value: value.value(),
                },
                None => Edit::RemoveAttribute {
                    node: id,
                    name: name.clone(),
                },
            });
        }
        Ok(self.model.apply(&edits)?)
    }

    /// Drops constants that only the fold needed.
    fn sweep(&mut self, mut read: Vec<ValueId>) -> Result<()> {
        read.sort_unstable();
        read.dedup();
        let mut values = Vec::new();
        for value in read {
            let info = self.model.value(value);
            if !info.uses.is_empty() {
                continue;
            }
            let promised = info.origin == Origin::Input && self.model.ir_version >= 4;
            match info.origin {
                Origin::Node(node, _) if self.model.node(node).is("Constant") => {
                    self.model.apply(&[Edit::RemoveNode { node }])?;
                }
                Origin::Initializer | Origin::Input if info.tensor.is_some() && !promised => {
                    values.push(value);
                }
                _ => {}
            }
        }
        Ok(self.model.apply(&[Edit::DropConstants { values }])?)
    }
}
