//! What a fold takes away, found by comparing the graph before it with the graph after it.
//!
//! Both are edits of one model, so nodes and values with the same id are the same. What the comparison finds does not
//! depend on which rules moved what where. A constant that was multiplied is not stored again: its recipe says by what,
//! and dividing gives it back, but for channels that were multiplied by 0 or lost digits. Whether dividing does give it
//! back is tried out, element by element.

use std::collections::{BTreeMap, BTreeSet};

use bnkit_model::Tensor;
use bnkit_model::onnx::{Constants, Model, Name, NodeId, Origin, Types, ValueId};
use sha2::{Digest, Sha256};

use super::record::*;
use crate::report::{Decision, Site};
use crate::{Error, Result};

/// The file's bytes for what lies between `before` and `after`, an edited clone of it.
///
/// # Errors
/// If the fold did something that cannot be undone, naming the node, or a tensor cannot be read.
pub(crate) fn kept(before: &Model, after: &Model, sites: &[Site]) -> Result<Vec<u8>> {
    let (old_types, new_types) = (Types::derive(before), Types::derive(after));
    let mut keeper = Keeper {
        before,
        after,
        old: Constants::new(before, &old_types, true),
        new: Constants::new(after, &new_types, true),
        tensors: BTreeMap::new(),
        wanted: BTreeSet::new(),
        readers: BTreeMap::new(),
    };
    let record = keeper.record(sites)?;
    encode(&record, &keeper.tensors)
}

fn quantised(node: impl std::fmt::Display) -> Error {
    Error::Request(format!(
        "--keep-stats: {node} holds a quantised weight that a BatchNorm was folded into, and cannot be brought back: \
         leave out --keep-stats, or the BatchNorm (--skip)"
    ))
}

/// The SHA-256 of a tensor's elements.
pub(super) fn fingerprint(tensor: &Tensor) -> String {
    let digest = Sha256::digest(tensor.data());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) struct Keeper<'m> {
    before: &'m Model,
    pub(super) after: &'m Model,
    old: Constants<'m>,
    pub(super) new: Constants<'m>,
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// Constants of the original that have to be restored.
    wanted: BTreeSet<ValueId>,
    /// For each of those, a node that reads it in both models.
    pub(super) readers: BTreeMap<ValueId, (NodeId, usize)>,
}

impl Keeper<'_> {
    fn record(&mut self, sites: &[Site]) -> Result<Record> {
        let gone = |site: &&Site| !matches!(site.decision, Decision::Kept | Decision::Skipped);
        let decision = |site: &Site| {
            let word = serde_json::to_value(site.decision).unwrap_or_default();
            word.as_str().unwrap_or_default().to_owned()
        };
        let batch_norms = sites.iter().filter(gone).map(|site| Norm {
            node: site.node.to_string(),
            scope: site.scope.to_string(),
            decision: decision(site),
            into: site.into.iter().map(Name::to_string).collect(),
            via: site.via.iter().map(Name::to_string).collect(),
        });
        let mut record = Record {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            batch_norms: batch_norms.collect(),
            removed: Vec::new(),
            added: Vec::new(),
            changed: Vec::new(),
            constants: Vec::new(),
            witnesses: Vec::new(),
        };
        let standing = |model: &Model, id: NodeId| model.node(id).alive;
        let scopes: Vec<_> = self.before.scopes().map(|(id, _)| id).collect();
        for scope in scopes {
            let nodes: Vec<NodeId> = self.before.nodes_of(scope).collect();
            for (at, &id) in nodes.iter().enumerate() {
                if self.computes_constants(id) {
                    self.is_not_requantised(id)?;
                    continue;
                }
                if standing(self.after, id) {
                    self.survivor(id, &mut record)?;
                    continue;
                }
                let next = nodes[at..].iter().find(|&&next| standing(self.after, next));
                let before = next.map(|&next| self.node_ref(next));
                let removed = self.removed(id, before)?;
                record.removed.push(removed);
            }
        }
        for (id, node) in self.after.nodes() {
            if id.index() >= self.before.node_count() && node.is("DequantizeLinear") {
                return Err(quantised(self.after.describe(id)));
            }
            if id.index() >= self.before.node_count() && !node.is("Constant") {
                record.added.push(self.node_ref(id));
                self.witness(id, &mut record)?;
            }
        }
        for value in std::mem::take(&mut self.wanted) {
            let constant = self.constant(value)?;
            record.constants.push(constant);
        }
        Ok(record)
    }

    /// Scales and integers take an affine by roundings of their own, which dividing does not undo.
    fn is_not_requantised(&self, id: NodeId) -> Result<()> {
        let (was, is) = (self.before.node(id), self.after.node(id));
        let touched = |value: &ValueId| self.has_changed(*value);
        let changed =
            !is.alive || was.inputs != is.inputs || was.inputs.iter().flatten().any(touched);
        if was.is("DequantizeLinear") && changed {
            return Err(quantised(self.before.describe(id)));
        }
        Ok(())
    }

    /// Whether a node of the original is part of an expression of constants: it is restored as a constant, if at all.
    fn computes_constants(&self, id: NodeId) -> bool {
        let outputs = &self.before.node(id).outputs;
        !outputs.is_empty()
            && outputs
                .iter()
                .flatten()
                .all(|&value| self.old.is_constant(value))
    }

    pub(super) fn node_ref(&self, id: NodeId) -> NodeRef {
        let node = self.after.node(id);
        let output = node.outputs.iter().flatten().next();
        NodeRef {
            scope: self.after.scope_path(node.scope),
            output: output.map_or_else(String::new, |&value| {
                self.after.value(value).name.to_string()
            }),
            node: self.after.label(id).to_string(),
            operator: node.op_type.to_string(),
        }
    }

    fn value_ref(&self, value: ValueId) -> ValueRef {
        let info = self.before.value(value);
        ValueRef {
            scope: self.before.scope_path(info.scope),
            name: info.name.to_string(),
        }
    }

    /// What a node of the original reads; constants that are not what they were are wanted.
    fn inputs(&mut self, id: NodeId) -> Vec<Option<ValueRef>> {
        let inputs = self.before.node(id).inputs.clone();
        let survives = self.after.node(id).alive;
        for (slot, &value) in inputs.iter().enumerate() {
            let Some(value) = value.filter(|&value| self.has_changed(value)) else {
                continue;
            };
            self.wanted.insert(value);
            if survives {
                self.readers.entry(value).or_insert((id, slot));
            }
        }
        let inputs = inputs.into_iter();
        inputs
            .map(|value| value.map(|value| self.value_ref(value)))
            .collect()
    }

    /// Whether a constant of the original is gone, or has another content.
    fn has_changed(&self, value: ValueId) -> bool {
        let (was, is) = (self.before.value(value), self.after.value(value));
        if was.origin == is.origin
            && was.tensor.is_none()
            && is.tensor.is_none()
            && !matches!(was.origin, Origin::Node(node, _) if self.before.node(node).is("Constant"))
        {
            return false;
        }
        if !self.old.is_constant(value) {
            return false;
        }
        if is.origin == Origin::Removed {
            return true;
        }
        match (self.old.tensor(value), self.new.tensor(value)) {
            (Ok(was), Ok(is)) => !was.is_same(&is),
            _ => true,
        }
    }

    fn removed(&mut self, id: NodeId, before: Option<NodeRef>) -> Result<Removed> {
        let node = self.before.node(id);
        let cannot = |why: &str| {
            Error::Request(format!(
                "--keep-stats: {} cannot be brought back: {why}",
                self.before.describe(id)
            ))
        };
        if !node.domain.is_empty() || node.calls_function {
            return Err(cannot("it is no operator of ONNX's own"));
        }
        let mut attributes = Vec::new();
        for attribute in &node.attributes {
            let value = Attribute::of(&attribute.value)
                .ok_or_else(|| cannot(&format!("attribute \"{}\"", attribute.name)))?;
            attributes.push((attribute.name.to_string(), value));
        }
        let outputs = node.outputs.iter().map(|value| {
            let name = |&value: &ValueId| self.before.value(value).name.to_string();
            value.as_ref().map_or_else(String::new, name)
        });
        Ok(Removed {
            scope: self.before.scope_path(node.scope),
            name: node.name.to_string(),
            operator: node.op_type.to_string(),
            outputs: outputs.collect(),
            attributes,
            before,
            inputs: self.inputs(id),
        })
    }

    fn survivor(&mut self, id: NodeId, record: &mut Record) -> Result<()> {
        let (was, is) = (self.before.node(id), self.after.node(id));
        let mut attributes = Vec::new();
        let names = was.attributes.iter().chain(&is.attributes);
        for name in names.map(|attribute| attribute.name.as_str()) {
            let of = |node: &bnkit_model::onnx::Node| {
                let attribute = node.attribute(name);
                attribute.and_then(|attribute| Attribute::of(&attribute.value))
            };
            let known = attributes.iter().any(|(other, _)| other == name);
            if !known && of(was) != of(is) {
                attributes.push((name.to_owned(), of(was)));
            }
        }
        let changed_constant = |slot: usize| {
            let value = was.input(slot);
            value.is_some_and(|value| self.has_changed(value))
        };
        let other_constants = (0..was.inputs.len()).any(changed_constant);
        let rewired = was.inputs != is.inputs || was.outputs != is.outputs;
        if !rewired && attributes.is_empty() && !other_constants {
            return Ok(());
        }
        let name = |model: &Model, value: ValueId| model.value(value).name.to_string();
        let reads = is
            .inputs
            .iter()
            .map(|value| value.map(|value| name(self.after, value)));
        let reads = reads.collect();
        let outputs = was
            .outputs
            .iter()
            .map(|value| value.map_or_else(String::new, |value| name(self.before, value)));
        let outputs = outputs.collect();
        let changed = Changed {
            node: self.node_ref(id),
            reads,
            inputs: self.inputs(id),
            outputs,
            attributes,
        };
        record.changed.push(changed);
        self.witness(id, record)
    }

    /// Notes what the constants of a node of the folded model are.
    fn witness(&self, id: NodeId, record: &mut Record) -> Result<()> {
        for slot in 0..self.after.node(id).inputs.len() {
            let Some(value) = self.after.node(id).input(slot) else {
                continue;
            };
            let Ok(tensor) = self.new.tensor(value) else {
                continue;
            };
            record.witnesses.push(Witness {
                reader: self.node_ref(id),
                slot,
                tensor: self.after.value(value).name.to_string(),
                sha256: fingerprint(&self.after.read_tensor(&tensor)?),
            });
        }
        Ok(())
    }

    fn constant(&mut self, value: ValueId) -> Result<Constant> {
        let reference = self.value_ref(value);
        let unreadable = |why: bnkit_model::onnx::NotConstant| {
            let why = why.explain(self.before);
            Error::Request(format!("--keep-stats: \"{}\": {why}", reference.name))
        };
        let was = self.old.tensor(value).map_err(unreadable)?;
        let key = match reference.scope.as_str() {
            "" => reference.name.clone(),
            scope => format!("{scope}/{}", reference.name),
        };
        let original = self.before.read_tensor(&was)?;
        let content = match self.scaled(value, &was, &original, &key)? {
            Some(content) => content,
            None => {
                self.tensors.insert(key.clone(), original);
                Content::Stored { tensor: key }
            }
        };
        Ok(Constant {
            value: reference,
            dims: was.dims.to_vec(),
            content,
        })
    }
}
