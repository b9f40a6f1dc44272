//! New statistics into a model, as edits: every tensor keeps its name where nobody else reads it, and is copied where somebody does.
//!
//! Values are rounded once, to the type that the tensor is stored in. An expression (an Identity of a merged tensor, say) becomes the
//! tensor itself, under the name that its result has; in a local function, which has no tensors, a Constant node does.

use std::sync::Arc;

use bnkit_model::DType;
use bnkit_model::onnx::{
    Edit, Model, NewTensor, NodeId, Operand, Origin, Recipe, ScopeKind, Use, ValueId,
};

use super::modules::{Module, Stored};
use crate::{Error, Result};

/// The mean and variance of one module.
pub(crate) type Statistics = (Vec<f64>, Vec<f64>);

/// A copy of the model with new statistics: one entry for each module, `None` leaves it as it is.
///
/// # Errors
/// If a value is not finite or does not fit its type, or a variance is negative.
pub(crate) fn apply(
    model: &Model,
    modules: &[Module],
    new: &[Option<Statistics>],
) -> Result<Model> {
    let mut changed = model.clone();
    for (module, new) in modules.iter().zip(new) {
        if let (Some(stored), Some(new)) = (module.target(), new) {
            put(&mut changed, module, stored, new)?;
        }
    }
    Ok(changed)
}

fn put(model: &mut Model, module: &Module, stored: &Stored, new: &Statistics) -> Result<()> {
    for (role, values) in [&new.0, &new.1].into_iter().enumerate() {
        check(model, module, stored, role, values)?;
        let (slot, value, dtype) = (3 + role, stored.values[role], stored.dtypes[role]);
        let tensor = NewTensor {
            dtype,
            dims: vec![values.len()],
            recipe: Arc::new(Recipe::values(values.clone())),
        };
        if owns(model, value, &module.nodes, slot) {
            let read = inputs(model, value);
            model.apply(&[Edit::SetConstant { value, tensor }])?;
            for read in read {
                drop_unread(model, read)?;
            }
            continue;
        }
        // Where the old one stands, all its readers see the new one.
        let scope = model.value(value).scope;
        let wanted = format!("{}_{}", model.value(value).name, ["mean", "variance"][role]);
        let name = model.fresh_name(&wanted);
        let mut edits = vec![Edit::AddConstant {
            scope,
            name: name.clone(),
            tensor,
        }];
        edits.extend(module.nodes.iter().map(|&node| Edit::SetInput {
            node,
            slot,
            value: Operand::New(name.clone()),
        }));
        model.apply(&edits)?;
        drop_unread(model, value)?;
    }
    Ok(())
}

/// Refuses what no BatchNorm can use.
fn check(
    model: &Model,
    module: &Module,
    stored: &Stored,
    role: usize,
    values: &[f64],
) -> Result<()> {
    let dtype: DType = stored.dtypes[role];
    let limit = dtype.max_finite().unwrap_or(0.0);
    let bad = |value: &f64| {
        !value.is_finite() || dtype.round(*value).abs() > limit || (role == 1 && *value < 0.0)
    };
    match values.iter().position(|value| bad(value)) {
        None => Ok(()),
        Some(channel) => Err(Error::Request(format!(
            "{}: tensor \"{}\": the new {} of channel {channel} is {}, which {dtype} cannot hold or no BatchNorm can use: do the activations overflow?",
            model.describe(module.nodes[0]),
            model.value(stored.values[role]).name,
            ["mean", "variance"][role],
            values[channel],
        ))),
    }
}

/// Whether nobody but these nodes reads `value`, and it can get another content under its name.
fn owns(model: &Model, value: ValueId, nodes: &[NodeId], slot: usize) -> bool {
    let info = model.value(value);
    let in_function = matches!(model.scope(info.scope).kind, ScopeKind::Function { .. });
    let replaceable = match info.origin {
        Origin::Initializer | Origin::Input => info.tensor.is_some(),
        Origin::Node(node, _) => {
            model.node(node).is("Constant")
                || !in_function
                    && model.node(node).outputs.len() == 1
                    && model.bodies(node).next().is_none()
        }
        Origin::Removed => false,
    };
    let ours =
        |user: &Use| matches!(user, Use::Node(node, at) if *at == slot && nodes.contains(node));
    replaceable && info.uses.iter().all(ours)
}

/// What the node reads that computes `value`.
fn inputs(model: &Model, value: ValueId) -> Vec<ValueId> {
    match model.producer(value) {
        Some((node, _)) => model.node(node).inputs.iter().copied().flatten().collect(),
        None => Vec::new(),
    }
}

/// Drops a constant that nobody reads any more, and what only it was made of.
fn drop_unread(model: &mut Model, value: ValueId) -> Result<()> {
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        let info = model.value(value);
        if !info.uses.is_empty() {
            continue;
        }
        match info.origin {
            Origin::Initializer => model.apply(&[Edit::DropConstant { value }])?,
            // Later an input is a promise to callers.
            Origin::Input if info.tensor.is_some() && model.ir_version < 4 => {
                model.apply(&[Edit::DropConstant { value }])?;
            }
            Origin::Node(node, _) => {
                let unread = |value: &ValueId| model.value(*value).uses.is_empty();
                let gone = model.node(node).outputs.iter().flatten().all(unread);
                if gone && model.bodies(node).next().is_none() {
                    left.extend(inputs(model, value));
                    model.apply(&[Edit::RemoveNode { node }])?;
                }
            }
            Origin::Input | Origin::Removed => {}
        }
    }
    Ok(())
}
