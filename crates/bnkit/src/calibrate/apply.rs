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
    let mut left: Vec<Change<'_>> = Vec::new();
    for (module, new) in modules.iter().zip(new) {
        let (Some(stored), Some(new)) = (module.target(), new) else {
            continue;
        };
        for (role, values) in [&new.0, &new.1].into_iter().enumerate() {
            check(model, module, stored, role, values)?;
            left.push(Change {
                nodes: &module.nodes,
                role,
                value: stored.values[role],
                dtype: stored.dtypes[role],
                values,
            });
        }
    }
    let mut changed = model.clone();
    // A merged tensor belongs to its last reader when the others have left it: that one may keep the name.
    while !left.is_empty() {
        let before = left.len();
        let mut stuck = Vec::new();
        for change in left {
            if change.owns(&changed) {
                change.in_place(&mut changed)?;
            } else {
                stuck.push(change);
            }
        }
        if stuck.len() == before {
            stuck.remove(0).beside(&mut changed)?;
        }
        left = stuck;
    }
    Ok(changed)
}

/// A new mean (role 0) or variance (1) for the nodes of a module.
struct Change<'a> {
    nodes: &'a [NodeId],
    role: usize,
    value: ValueId,
    dtype: DType,
    values: &'a [f64],
}

impl Change<'_> {
    /// Whether nobody else reads the tensor, and it can get another content under its name.
    fn owns(&self, model: &Model) -> bool {
        let info = model.value(self.value);
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
        let slot = 3 + self.role;
        let ours = |user: &Use| matches!(user, Use::Node(node, at) if *at == slot && self.nodes.contains(node));
        replaceable && info.uses.iter().all(ours)
    }

    fn tensor(&self) -> NewTensor {
        NewTensor {
            dtype: self.dtype,
            dims: [self.values.len()].into(),
            recipe: Arc::new(Recipe::values(self.values.to_vec())),
        }
    }

    fn in_place(&self, model: &mut Model) -> Result<()> {
        let (value, tensor) = (self.value, self.tensor());
        let read = inputs(model, value);
        model.apply(&[Edit::SetConstant { value, tensor }])?;
        read.into_iter()
            .try_for_each(|read| drop_unread(model, read))
    }

    fn beside(&self, model: &mut Model) -> Result<()> {
        let old = model.value(self.value);
        // Where the old one stands, all its readers see the new one.
        let scope = old.scope;
        let name = model.fresh_name(&format!("{}_{}", old.name, ROLES[self.role]));
        let mut edits = vec![Edit::AddConstant {
            scope,
            name: name.clone(),
            tensor: self.tensor(),
        }];
        edits.extend(self.nodes.iter().map(|&node| Edit::SetInput {
            node,
            slot: 3 + self.role,
            value: Operand::New(name.clone()),
        }));
        model.apply(&edits)?;
        drop_unread(model, self.value)
    }
}

const ROLES: [&str; 2] = ["mean", "variance"];

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
    match values.iter().position(bad) {
        None => Ok(()),
        Some(channel) => Err(Error::Request(format!(
            "{}: tensor \"{}\": the new {} of channel {channel} is {}, which {dtype} cannot hold or no BatchNorm can use: do the activations overflow?",
            model.describe(module.nodes[0]),
            model.value(stored.values[role]).name,
            ROLES[role],
            values[channel],
        ))),
    }
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
            Origin::Initializer => model.apply(&[Edit::DropConstants {
                values: vec![value],
            }])?,
            // Later an input is a promise to callers.
            Origin::Input if info.tensor.is_some() && model.ir_version < 4 => {
                model.apply(&[Edit::DropConstants {
                    values: vec![value],
                }])?;
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
