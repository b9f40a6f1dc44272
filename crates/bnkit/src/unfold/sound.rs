//! What statistics from anywhere may ask for, and whether what they made is a model.
//!
//! The file comes with the folded model, maybe from somebody else. What it names is looked up (`restore`); here is what it may do with
//! that, so that every edit is one that can be carried out, and what is written can be read again.

use std::collections::HashSet;

use bnkit_model::onnx::{Model, NodeId, Origin, ValueId};

use super::record::Record;
use super::restore::Restorer;
use crate::{Error, Result};

/// Refuses statistics that name a node twice, remove one with a body, or put something before one that they remove.
///
/// # Errors
/// Naming the node.
pub(super) fn nodes(restorer: &Restorer<'_>, record: &Record) -> Result<()> {
    let model = &*restorer.model;
    let wrong = |id: NodeId, why: &str| {
        let node = model.describe(id);
        Error::Request(format!("the statistics do not fit the model: {node} {why}"))
    };
    let mut gone = HashSet::new();
    for node in &record.added {
        let id = restorer.node(node)?;
        if model.bodies(id).next().is_some() {
            return Err(wrong(id, "has a body, and no fold makes such"));
        }
        if !gone.insert(id) {
            return Err(wrong(id, "is named twice"));
        }
    }
    let mut named = gone.clone();
    for changed in &record.changed {
        let id = restorer.node(&changed.node)?;
        if !named.insert(id) {
            return Err(wrong(id, "is named twice"));
        }
    }
    for before in record.removed.iter().filter_map(|one| one.before.as_ref()) {
        let id = restorer.node(before)?;
        if gone.contains(&id) {
            return Err(wrong(
                id,
                "is to be removed, and something to stand before it",
            ));
        }
    }
    Ok(())
}

/// Refuses to make a constant of what is none.
///
/// # Errors
/// Naming the value.
pub(super) fn constant(model: &Model, value: ValueId) -> Result<()> {
    let info = model.value(value);
    let is_constant = match info.origin {
        Origin::Initializer | Origin::Input => info.tensor.is_some(),
        Origin::Node(node, _) => model.node(node).is("Constant"),
        Origin::Removed => false,
    };
    match is_constant {
        true => Ok(()),
        false => Err(Error::Request(format!(
            "the statistics have a constant \"{}\", which is none in the model",
            info.name
        ))),
    }
}

/// Checks that every value is computed once, and visible and computed before where it is read.
///
/// # Errors
/// Naming the value, or a node of a cycle.
pub(super) fn model(model: &Model) -> Result<()> {
    let unfit = |value: ValueId, why: &str| {
        let name = &model.value(value).name;
        Error::Request(format!(
            "the statistics do not fit the model: nothing would compute \"{name}\"{why}"
        ))
    };
    if let Some(value) = model.dangling() {
        return Err(unfit(value, ""));
    }
    for (id, node) in model.nodes() {
        let hidden = node.inputs.iter().flatten();
        let mut hidden = hidden.filter(|&&value| !model.is_visible(value, node.scope));
        if let Some(&value) = hidden.next() {
            return Err(unfit(
                value,
                &format!(" where {} reads it", model.describe(id)),
            ));
        }
    }
    let mut written = HashSet::new();
    for (id, node) in model.nodes() {
        for &value in node.outputs.iter().flatten() {
            let name = model.value(value).name.as_str();
            if !written.insert((node.scope, name)) {
                let node = model.describe(id);
                return Err(Error::Request(format!(
                    "the statistics do not fit the model: {node} would compute \"{name}\" again"
                )));
            }
        }
    }
    for (scope, _) in model.scopes() {
        model.topological_order(scope)?;
    }
    Ok(())
}
