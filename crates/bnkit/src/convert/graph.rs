//! The weights of an ONNX graph, by name.
//!
//! * Initializers of the main graph, and defaults of its inputs: all of them.
//! * What Constant nodes hold, as far as it can be a weight: at least one axis, and a type in which weights are stored. Paddle keeps all
//!   parameters there. Scalars, shapes, axes and the like are constants of the operators, not of the network.
//! * Names behind an Identity: exporters merge equal tensors (two fresh biases) and let an Identity bear the other's name.
//!   Each such name is a weight of its own, which may differ in another checkpoint.
//!
//! Bodies (If, Loop, Scan) and functions have namespaces of their own; their initializers are named as left out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bnkit_model::DType;
use bnkit_model::onnx::{Constants, Model, NodeId, Origin, ScopeKind, TensorDef, Types, ValueId};

use super::names;
use super::report::LeftOut;
use crate::site::is_batch_norm;
use crate::{Error, Result};

/// A weight of the main graph.
#[derive(Debug, Clone)]
pub(super) struct Weight {
    pub(super) value: ValueId,
    pub(super) name: String,
    pub(super) tensor: TensorDef,
    /// The weight that an Identity makes this one of.
    pub(super) same_as: Option<ValueId>,
    /// Whether it is the running mean or variance of a BatchNorm.
    pub(super) statistic: bool,
}

/// The weights of a graph, in the order of the file, and what is none.
#[derive(Debug, Default)]
pub(super) struct Weights {
    pub(super) list: Vec<Weight>,
    pub(super) left_out: Vec<LeftOut>,
}

const SPARSE: &str = "sparse tensors are not read";
const INSIDE: &str = "it belongs to a body or function, which has names of its own";
const OPERAND: &str = "a constant of an operator, no weight";

/// Finds the weights of a model.
pub(super) fn weights(model: &Model) -> Weights {
    let types = Types::derive(model);
    let constants = Constants::new(model, &types, true);
    let statistics = statistics(model);
    let mut found = Weights::default();
    let mut known = HashSet::new();
    let main = model.scope(model.main());
    let mut add = |found: &mut Weights, value, tensor: &TensorDef, same_as| {
        if known.insert(value) {
            found.list.push(Weight {
                value,
                name: model.value(value).name.to_string(),
                tensor: tensor.clone(),
                same_as,
                statistic: statistics.contains(&value),
            });
        }
    };
    // Defaults of inputs are initializers, too.
    for &value in main.initializers.iter().chain(&main.inputs) {
        match (&model.value(value).tensor, model.value(value).origin) {
            (Some(tensor), _) => add(&mut found, value, tensor, None),
            (None, Origin::Initializer) => found.left_out.push(LeftOut {
                name: model.value(value).name.to_string(),
                dtype: types.dtype(value).map_or(String::new(), |t| t.to_string()),
                shape: Vec::new(),
                why: SPARSE,
                matters: true,
            }),
            (None, _) => {}
        }
    }
    for id in model.nodes_of(model.main()) {
        let node = model.node(id);
        let (Some(value), true) = (node.output(0), node.is("Constant") || node.is("Identity"))
        else {
            continue;
        };
        let Ok(tensor) = constants.tensor(value) else {
            if node.is("Constant") {
                let what = left_out(model, value, types.dtype(value), Vec::new());
                found.left_out.push(what);
            }
            continue;
        };
        if node.is("Identity") {
            let root = root(model, id);
            let is_weight = found.list.iter().any(|weight| Some(weight.value) == root);
            if is_weight && !model.value(value).is_output() {
                add(&mut found, value, &tensor, root);
            }
        } else if is_weight(&tensor) {
            add(&mut found, value, &tensor, None);
        } else {
            let what = left_out(model, value, Some(tensor.dtype), tensor.dims.to_vec());
            found.left_out.push(what);
        }
    }
    for (_, scope) in model.scopes() {
        if scope.kind == ScopeKind::Main {
            continue;
        }
        for &value in &scope.initializers {
            if let Some(tensor) = &model.value(value).tensor {
                found.left_out.push(LeftOut {
                    why: INSIDE,
                    matters: true,
                    ..left_out(model, value, Some(tensor.dtype), tensor.dims.to_vec())
                });
            }
        }
    }
    found
}

/// Whether a Constant node may hold a weight.
fn is_weight(tensor: &TensorDef) -> bool {
    let other = [DType::I64, DType::U64, DType::Bool, DType::String];
    !tensor.dims.is_empty() && !other.contains(&tensor.dtype)
}

fn left_out(model: &Model, value: ValueId, dtype: Option<DType>, shape: Vec<usize>) -> LeftOut {
    LeftOut {
        name: model.value(value).name.to_string(),
        dtype: dtype.map_or("unknown".to_owned(), |dtype| dtype.to_string()),
        shape,
        why: OPERAND,
        matters: false,
    }
}

/// What stands at the beginning of a chain of Identity nodes.
fn root(model: &Model, mut node: NodeId) -> Option<ValueId> {
    let mut seen = HashSet::new();
    loop {
        let input = model.node(node).input(0)?;
        match model.producer(input) {
            Some((next, _)) if model.node(next).is("Identity") && seen.insert(next) => node = next,
            _ => return Some(input),
        }
    }
}

/// What BatchNorms read as running mean or variance.
fn statistics(model: &Model) -> HashSet<ValueId> {
    let norms = model.nodes().filter(|&(id, _)| is_batch_norm(model, id));
    let slots = norms.flat_map(|(_, node)| [node.input(3), node.input(4)]);
    slots.flatten().collect()
}

/// The running means and variances of all BatchNorms of the main graph, under the names that a state dict has for them.
///
/// # Errors
/// If one is not constant, or two different ones have one name.
pub(super) fn statistics_by_name(model: &Model) -> Result<Vec<(String, TensorDef)>> {
    let types = Types::derive(model);
    let constants = Constants::new(model, &types, true);
    let mut named: Vec<(String, TensorDef)> = Vec::new();
    let mut origin: HashMap<String, ValueId> = HashMap::new();
    for node in model.topological_order(model.main())? {
        if !is_batch_norm(model, node) {
            continue;
        }
        for (slot, role) in [(3, "running_mean"), (4, "running_var")] {
            let wrong = |why: String| {
                let message = format!("{}: {role}: {why}", model.describe(node));
                Error::Model(bnkit_model::Error::invalid(message))
            };
            let value = model.node(node).input(slot);
            let value = value.ok_or_else(|| wrong("the input is missing".to_owned()))?;
            let tensor = constants
                .tensor(value)
                .map_err(|reason| wrong(reason.explain(model)))?;
            let own = &model.value(value).name;
            let scale = model.node(node).input(1);
            let scale = scale.map_or("", |scale| model.value(scale).name.as_str());
            let name = match names::is_statistic(own) {
                true => own.to_string(),
                false => names::beside(scale, role).unwrap_or_else(|| own.to_string()),
            };
            match origin.insert(name.clone(), value) {
                None => named.push((name, Arc::unwrap_or_clone(tensor))),
                Some(other) if other == value => {}
                Some(_) => {
                    return Err(wrong(format!(
                        "another tensor would be called \"{name}\", too"
                    )));
                }
            }
        }
    }
    Ok(named)
}
