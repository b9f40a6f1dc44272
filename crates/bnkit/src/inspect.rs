//! What is in a checkpoint, and what `fold` would do with it.

mod scan;
pub(crate) mod state;
mod tensor;
mod tree;
pub(crate) mod values;

use std::collections::HashMap;
use std::path::Path;

use bnkit_model::onnx::{Model, NodeId, Origin, Types, ValueId};

use crate::fold::{self, Context, Options};
use crate::pipeline::describe_input;
use crate::report::{
    BatchNormInfo, DataNorm, InspectReport, OperatorCount, ParameterStats, Port, Site, Tool,
};
use crate::site::{Parameters, ROLES, is_batch_norm};
use crate::{Result, hash};

pub use crate::checkpoint::is_state_dict;
pub use scan::{EqualTensors, ScanReport, ScannedTensor, scan};
pub use state::{DtypeCount, StateBatchNorm, StateFile, StateReport, state};
pub use tensor::{TensorReport, tensor};
pub use tree::{Module, TreeReport, tree};
pub use values::{Ends, Histogram, Values};

/// Looks at a model.
///
/// # Errors
/// If the model cannot be read.
pub fn inspect(path: &Path, options: &Options, with_hash: bool) -> Result<InspectReport> {
    let model = Model::open(path)?;
    let plan = fold::plan(&model, options).map_err(|error| error.in_file(path))?;
    let types = Types::derive(&model);
    let order: Vec<NodeId> = batch_norms(&model)?;
    let batch_norms = order
        .iter()
        .zip(&plan.sites)
        .map(|(&node, site)| batch_norm(&model, &types, options, node, site))
        .collect::<Result<Vec<_>>>()?;
    let main = model.scope(model.main());
    let inputs = main
        .inputs
        .iter()
        .filter(|&&value| model.value(value).tensor.is_none());
    let mut input = describe_input(&model, path);
    if with_hash {
        input.sha256 = Some(hash::of_file(path)?);
    }
    Ok(InspectReport {
        schema: "bnkit.inspect/1",
        tool: Tool::default(),
        input,
        inputs: inputs.map(|&value| port(&model, value)).collect(),
        outputs: main
            .outputs
            .iter()
            .map(|&value| port(&model, value))
            .collect(),
        parameters: model.constants().map(|tensor| tensor.len() as u64).sum(),
        parameter_bytes: model
            .constants()
            .filter_map(|tensor| tensor.dtype.byte_len(tensor.len() as u64))
            .sum(),
        operators: operators(&model),
        nodes: model.nodes().count(),
        metadata: model.metadata().to_vec(),
        hints: if batch_norms.is_empty() {
            no_batch_norm_hints(&model, &plan.data_norms)
        } else {
            Vec::new()
        },
        batch_norms,
        chains: plan.chains,
        data_norms: plan.data_norms,
        profiles: Vec::new(),
    })
}

/// The BatchNorms in the order of the plan's sites.
pub(crate) fn batch_norms(model: &Model) -> Result<Vec<NodeId>> {
    let mut found = Vec::new();
    for (scope, _) in model.scopes() {
        found.extend(
            model
                .topological_order(scope)?
                .into_iter()
                .filter(|&node| is_batch_norm(model, node)),
        );
    }
    Ok(found)
}

fn port(model: &Model, value: ValueId) -> Port {
    let value = model.value(value);
    let dims = value
        .declared
        .as_ref()
        .and_then(|declared| declared.dims.as_ref());
    Port {
        name: value.name.to_string(),
        dtype: value
            .declared
            .as_ref()
            .map_or_else(|| "?".to_owned(), |declared| declared.dtype.to_string()),
        dims: dims.map(|dims| dims.iter().map(ToString::to_string).collect()),
    }
}

fn operators(model: &Model) -> Vec<OperatorCount> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for (_, node) in model.nodes() {
        let op = match node.domain.as_str() {
            "" => node.op_type.to_string(),
            domain => format!("{domain}::{}", node.op_type),
        };
        *counts.entry(op).or_default() += 1;
    }
    let mut operators: Vec<OperatorCount> = counts
        .into_iter()
        .map(|(op, count)| OperatorCount { op, count })
        .collect();
    operators.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.op.cmp(&b.op)));
    operators
}

fn batch_norm(
    model: &Model,
    types: &Types,
    options: &Options,
    node: NodeId,
    site: &Site,
) -> Result<BatchNormInfo> {
    let context = Context {
        may_add_nodes: true,
        through_branches: options.through_branches,
        per_channel_scales: options.per_channel_scales,
        ..Context::new(model, types, options.assume_constant)
    };
    let parameters = Parameters::read(&context, node).ok();
    let shape = model
        .node(node)
        .input(0)
        .and_then(|value| types.dims(value));
    let float = |name, default| {
        context
            .float(node, name, default)
            .unwrap_or(f64::from(default))
    };
    let tensors = ROLES
        .iter()
        .filter_map(|&(slot, role)| {
            let value = model.node(node).input(slot)?;
            let dense = context.constants().f64(value).ok()?;
            Some(stats(
                role,
                &origin_name(model, value),
                &dense.dtype.to_string(),
                &dense.values,
            ))
        })
        .collect();
    Ok(BatchNormInfo {
        site: site.clone(),
        epsilon: float("epsilon", 1e-5),
        momentum: float("momentum", 0.9),
        shape: shape.map(|dims| dims.iter().map(ToString::to_string).collect()),
        tensors,
        errors: parameters
            .map(|parameters| parameters.findings)
            .unwrap_or_default(),
    })
}

/// The name of the tensor behind a value: exporters put Identity nodes before shared ones.
pub(crate) fn origin_name(model: &Model, mut value: ValueId) -> String {
    for _ in 0..16 {
        match model.value(value).origin {
            Origin::Node(node, 0) if model.node(node).is("Identity") => {
                match model.node(node).input(0) {
                    Some(input) => value = input,
                    None => break,
                }
            }
            _ => break,
        }
    }
    model.value(value).name.to_string()
}

fn stats(role: &'static str, name: &str, dtype: &str, values: &[f64]) -> ParameterStats {
    // f64::min and max pass over NaN; the mean does not hide it.
    ParameterStats {
        role,
        name: name.to_owned(),
        dtype: dtype.to_owned(),
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        mean: values.iter().sum::<f64>() / values.len().max(1) as f64,
    }
}

/// What usually explains that there is no BatchNorm.
pub(crate) fn no_batch_norm_hints(model: &Model, data_norms: &[DataNorm]) -> Vec<String> {
    let has = |op: &str| model.nodes().any(|(_, node)| node.op_type == op);
    let mut hints = Vec::new();
    let mut kinds: Vec<&str> = data_norms.iter().map(|norm| norm.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        hints.push(format!("the model normalises with {kind}, which depends on the data at run time and cannot be folded"));
    }
    if has("Conv") || has("ConvTranspose") || has("Gemm") || has("MatMul") {
        hints.push(
            "the exporter usually folded it already: torch.onnx.export of a model in eval mode does (see \"Exporting so that \
             BatchNorm survives\" in the README)"
                .to_owned(),
        );
    }
    hints.push(
        "the model may never have had one, or may write it as Mul and Add, which fold like it"
            .to_owned(),
    );
    hints
}
