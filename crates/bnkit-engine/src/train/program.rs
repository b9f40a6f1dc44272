//! An optimised graph, cut into stages that end at BatchNorms.
//!
//! All samples run one stage, each on its own; then they meet. Values are dropped after their last use, so that the last user
//! may compute in place. What no BatchNorm hangs on is marked, and left out when nobody asks for the outputs.

use std::collections::HashMap;
use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{DimLike, OutletId, bail};
use tract_onnx::tract_core::model::TypedRunnableModel;
use tract_onnx::tract_core::ops::{
    konst::Const, logic::IfThenElse, scan::Scan, source::TypedSource,
};

use super::operators::{Dropout, Norm};
use crate::buffers::Buffers;
use crate::kernels::Bounds;

/// A graph to run.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) plan: Arc<TypedRunnableModel>,
    pub(super) stages: Vec<Stage>,
    pub(super) buffers: Buffers,
}

/// What a sample does on its own, and what then happens to all of them.
#[derive(Debug, Default)]
pub(super) struct Stage {
    pub(super) steps: Vec<Step>,
    pub(super) end: Option<End>,
}

/// One node.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) node: usize,
    pub(super) inputs: Vec<OutletId>,
    /// Nodes whose values nobody reads after this one did.
    pub(super) dead: Vec<usize>,
    /// Whether nobody reads this node's own values.
    pub(super) unread: bool,
    /// Whether a BatchNorm hangs on it.
    pub(super) wanted: bool,
    pub(super) dropout: Option<Dropout>,
    /// Where a BatchNorm in single precision keeps what it gives.
    pub(super) bounds: Bounds,
}

/// Where all samples meet.
#[derive(Debug)]
pub(super) enum End {
    /// A BatchNorm; `site` is its place among the model's.
    Norm {
        step: Step,
        site: usize,
        epsilon: f64,
        channels: usize,
    },
    /// An If with BatchNorms in its branches: then and else, each with the places of its inputs among the node's.
    Branch {
        step: Step,
        branches: Box<[(Vec<usize>, Program); 2]>,
    },
}

/// The BatchNorms of a graph and of the branches in it: name, channels, whether it is in a branch.
pub(super) fn sites(model: &TypedModel, inside: bool) -> TractResult<Vec<(String, usize, bool)>> {
    let mut out = vec![];
    for node in model.nodes() {
        if let Some(norm) = node.op_as::<Norm>() {
            let shape = &node.outputs[0].fact.shape;
            out.push((norm.name.clone(), shape[1].to_usize()?, inside));
        } else if let Some(branch) = node.op_as::<IfThenElse>() {
            out.extend(sites(&branch.then_body, true)?);
            out.extend(sites(&branch.else_body, true)?);
        } else if let Some(scan) = node.op_as::<Scan>()
            && let Some((name, ..)) = sites(&scan.body, true)?.first()
        {
            bail!("BatchNormalization {name:?} is in the body of a loop");
        }
    }
    Ok(out)
}

impl Program {
    /// Cuts an optimised model, whose operators share `buffers`. `places` has the place of each BatchNorm; `met` counts how often each was found.
    pub(super) fn new(
        model: TypedModel,
        places: &HashMap<String, usize>,
        met: &mut [usize],
        buffers: &Buffers,
    ) -> TractResult<Self> {
        let plan = model.into_runnable()?;
        let model = plan.model();
        let order = plan.order_without_consts();
        let wanted = wanted(model, order)?;
        let mut last_use: HashMap<usize, usize> = HashMap::new();
        for &node in order {
            for input in &model.node(node).inputs {
                last_use.insert(input.node, node);
            }
        }
        let outputs: Vec<usize> = model.output_outlets()?.iter().map(|o| o.node).collect();
        let mut stages = vec![Stage::default()];
        for &index in order {
            let node = model.node(index);
            if node.op_is::<TypedSource>() {
                continue;
            }
            let mut dead: Vec<usize> = node.inputs.iter().map(|input| input.node).collect();
            dead.sort_unstable();
            dead.dedup();
            dead.retain(|from| {
                last_use[from] == index
                    && !outputs.contains(from)
                    && !model.node(*from).op_is::<Const>()
            });
            let step = Step {
                node: index,
                inputs: node.inputs.to_vec(),
                dead,
                unread: !last_use.contains_key(&index) && !outputs.contains(&index),
                wanted: wanted[index],
                dropout: node.op_as::<Dropout>().cloned(),
                bounds: node
                    .op_as::<Norm>()
                    .map_or(Bounds::NONE, |norm| norm.bounds),
            };
            let end = if let Some(norm) = node.op_as::<Norm>() {
                let Some(&site) = places.get(&norm.name) else {
                    bail!("BatchNormalization {:?} came from nowhere", norm.name);
                };
                met[site] += 1;
                End::Norm {
                    step,
                    site,
                    epsilon: norm.epsilon.into(),
                    channels: node.outputs[0].fact.shape[1].to_usize()?,
                }
            } else if let Some(branch) = node.op_as::<IfThenElse>().filter(|op| holds_norms(op)) {
                let mut body = |body: &TypedModel, mapping: &[usize]| -> TractResult<_> {
                    let body = body.clone().into_optimized()?;
                    Ok((mapping.to_vec(), Self::new(body, places, met, buffers)?))
                };
                let branches = Box::new([
                    body(&branch.then_body, &branch.then_input_mapping)?,
                    body(&branch.else_body, &branch.else_input_mapping)?,
                ]);
                End::Branch { step, branches }
            } else {
                stages.last_mut().expect("one at least").steps.push(step);
                continue;
            };
            stages.last_mut().expect("one at least").end = Some(end);
            stages.push(Stage::default());
        }
        Ok(Self {
            plan,
            stages,
            buffers: buffers.clone(),
        })
    }
}

fn holds_norms(branch: &IfThenElse) -> bool {
    [&branch.then_body, &branch.else_body]
        .into_iter()
        .any(|body| sites(body, true).is_ok_and(|sites| !sites.is_empty()))
}

/// Which nodes a BatchNorm hangs on, the BatchNorms without any behind them not counted.
fn wanted(model: &TypedModel, order: &[usize]) -> TractResult<Vec<bool>> {
    let mut wanted = vec![false; model.nodes().len()];
    for &index in order.iter().rev() {
        let node = model.node(index);
        let observes = node.op_is::<Norm>() || node.op_as::<IfThenElse>().is_some_and(holds_norms);
        if observes || wanted[index] {
            for input in &node.inputs {
                wanted[input.node] = true;
            }
        }
    }
    Ok(wanted)
}
