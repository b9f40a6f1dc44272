//! The modules whose statistics are estimated: BatchNorm nodes, those of one module taken together.
//!
//! Two kinds of sharing look alike in a file and mean the opposite. Exporters merge *equal* tensors: two fresh BatchNorms end up with
//! one mean, but reach it under names of their own (one of them through an Identity) or have a γ or β of their own. Those are
//! modules of their own, and get statistics of their own. Nodes that read the *same names* for all of γ, β, mean and variance are one
//! module called several times, and so is a node in a local function that is called several times: one set of statistics.

use std::collections::HashMap;

use bnkit_model::DType;
use bnkit_model::onnx::{AttributeValue, Model, NodeId, Types, ValueId};

use super::calls;
use super::options::Selection;
use super::report::LayerName;
use crate::fold::Context;
use crate::glob::Choice;
use crate::refusal::Stop;
use crate::report::{Finding, Refusal};
use crate::site::{Parameters, is_batch_norm, is_training};
use crate::{Error, Result};

/// A module: one or several BatchNorm nodes with one set of statistics.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    /// How to speak of it.
    pub name: LayerName,
    /// Its nodes, in graph order.
    pub nodes: Vec<NodeId>,
    /// The values that its calls compute, named as the engine names them, in the order of the calls.
    pub outputs: Vec<String>,
    /// Whether the user wants it.
    pub chosen: bool,
    /// Whether the file has one of its nodes in training mode.
    pub training: bool,
    /// Its running statistics, or why it has none that can be replaced.
    pub stored: std::result::Result<Stored, Refusal>,
}

/// Running statistics as they are in the file.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// The running mean, one per channel.
    pub mean: Vec<f64>,
    /// The running variance, one per channel.
    pub variance: Vec<f64>,
    /// γ, one per channel.
    pub scale: Vec<f64>,
    /// β, one per channel.
    pub bias: Vec<f64>,
    /// ε.
    pub epsilon: f64,
    /// The weight of the history, as stored.
    pub momentum: f64,
    /// Where mean and variance are read from.
    pub values: [ValueId; 2],
    /// The types that mean and variance are stored in.
    pub dtypes: [DType; 2],
    /// What no data can be compared with: NaN, a variance that is not positive.
    pub findings: Vec<Finding>,
}

impl Module {
    /// The running statistics of a module that is to get new ones.
    pub(crate) fn target(&self) -> Option<&Stored> {
        self.stored.as_ref().ok().filter(|_| self.chosen)
    }
}

/// All modules of a model, in graph order of their first nodes.
///
/// # Errors
/// If the model is broken, or a glob is malformed.
pub(crate) fn survey(model: &Model, selection: &Selection) -> Result<Vec<Module>> {
    let choice = Choice::new(&selection.only, &selection.skip)?;
    let types = Types::derive(model);
    let context = Context::new(model, &types, selection.assume_constant);
    let calls = calls::outputs(model);
    let mut modules: Vec<Module> = Vec::new();
    let mut places: HashMap<[ValueId; 4], usize> = HashMap::new();
    for (scope, _) in model.scopes() {
        for node in model.topological_order(scope)? {
            if !is_batch_norm(model, node) {
                continue;
            }
            let label = model.label(node).to_string();
            let chosen = choice.takes(&label);
            let outputs = calls.get(&node).cloned().unwrap_or_default();
            let training = is_training(model, node);
            let key = sources(model, node);
            if let Some(&place) = key.as_ref().and_then(|key| places.get(key)) {
                let module = &mut modules[place];
                module.name.calls.push(label);
                module.nodes.push(node);
                module.outputs.extend(outputs);
                module.chosen &= chosen;
                module.training |= training;
                continue;
            }
            if let Some(key) = key {
                places.insert(key, modules.len());
            }
            let stored = stored(&context, node)?;
            modules.push(Module {
                name: LayerName {
                    node: label,
                    calls: Vec::new(),
                    scope: model.scope_path(scope),
                    channels: stored.as_ref().map_or(0, |stored| stored.mean.len()),
                },
                nodes: vec![node],
                outputs,
                chosen,
                training,
                stored,
            });
        }
    }
    Ok(modules)
}

/// The names that γ, β, mean and variance are read under.
fn sources(model: &Model, node: NodeId) -> Option<[ValueId; 4]> {
    let node = model.node(node);
    Some([
        node.input(1)?,
        node.input(2)?,
        node.input(3)?,
        node.input(4)?,
    ])
}

fn stored(context: &Context<'_>, node: NodeId) -> Result<std::result::Result<Stored, Refusal>> {
    let parameters = match Parameters::read(context, node) {
        Ok(parameters) => parameters,
        Err(Stop::Refused(refusal)) => return Ok(Err(*refusal)),
        Err(Stop::Broken(error)) => return Err(error.into()),
    };
    let input = |slot| {
        context.model.node(node).input(slot).ok_or_else(|| {
            Error::Request(format!(
                "{}: input {slot} is missing",
                context.model.describe(node)
            ))
        })
    };
    let values = [input(3)?, input(4)?];
    let dtype = |value| {
        let dense = context.constants().f64(value);
        dense.map_or(parameters.dtype, |dense| dense.dtype)
    };
    Ok(Ok(Stored {
        dtypes: values.map(dtype),
        values,
        momentum: momentum(context.model, node),
        epsilon: parameters.epsilon,
        scale: parameters.gamma,
        bias: parameters.beta,
        mean: parameters.mean,
        variance: parameters.variance,
        findings: parameters.findings,
    }))
}

/// The weight of the history as the node says it; ONNX's default is 0.9 in every opset.
pub(crate) fn momentum(model: &Model, node: NodeId) -> f64 {
    match model.node(node).attribute("momentum").map(|it| &it.value) {
        Some(AttributeValue::Float(value)) => f64::from(*value),
        _ => f64::from(0.9f32),
    }
}
