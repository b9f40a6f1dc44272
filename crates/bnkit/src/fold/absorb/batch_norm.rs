//! Another BatchNorm, one that stays: affine after affine is an affine.

use bnkit_model::onnx::NodeId;

use super::{Absorber, Absorption, rule};
use crate::affine::Affine;
use crate::fold::context::Context;
use crate::refusal::{Answer, refuse};
use crate::site::Parameters;

pub(super) const BATCH_NORM: Absorber = Absorber {
    op_type: "BatchNormalization",
    slots: (5, 1),
    rule: rule(
        "into-batch-norm",
        "into the scale and bias of another BatchNorm",
        "\
Before: `BatchNorm → BatchNorm`, or a `Mul`/`Add` by a constant beside a BatchNorm that stays. After: one BatchNorm.

Behind it: `γ' = γ·s`, `β' = β·s + t`. Before it, with a = γ/√(σ²+ε): `γ' = γ·s`, `β' = β + a·(t − μ + s·μ)`.
Mean and variance stay as they are.

Conditions: the parameters of the BatchNorm that stays are constants, and it is in eval mode.",
    ),
    output: behind,
    input: before,
};

fn parameters(context: &Context<'_>, node: NodeId) -> Answer<Parameters> {
    let parameters = Parameters::read(context, node)?;
    if parameters.training {
        return refuse(
            "training-mode",
            format!("{} is in training mode", context.model.describe(node)),
        );
    }
    if !parameters.findings.is_empty() {
        return refuse(
            "bad-statistics",
            format!("the statistics of {} are bad", context.model.describe(node)),
        );
    }
    Ok(parameters)
}

fn behind(context: &Context<'_>, node: NodeId, affine: &Affine) -> Answer<Absorption> {
    let parameters = parameters(context, node)?;
    let affine = context.expect(node, affine, 1, parameters.channels())?;
    let (scale, shift) = (&affine.scale, &affine.shift);
    let gamma = parameters
        .gamma
        .iter()
        .zip(scale)
        .map(|(gamma, s)| gamma * s)
        .collect();
    let beta = (parameters.beta.iter().zip(scale).zip(shift))
        .map(|((beta, s), t)| beta * s + t)
        .collect();
    replace(context, node, &parameters, gamma, beta, &affine)
}

fn before(context: &Context<'_>, node: NodeId, slot: usize, affine: &Affine) -> Answer<Absorption> {
    if slot != 0 {
        return refuse(
            "parameter-not-constant",
            "the affine computes a parameter of a BatchNorm",
        );
    }
    let parameters = parameters(context, node)?;
    let affine = context.expect(node, affine, 1, parameters.channels())?;
    let own = parameters.affine();
    let channels = 0..parameters.channels();
    let gamma = channels
        .clone()
        .map(|c| parameters.gamma[c] * affine.scale[c])
        .collect();
    let beta = channels
        .map(|c| {
            let mean = parameters.mean[c];
            parameters.beta[c] + own.scale[c] * (affine.shift[c] - mean + affine.scale[c] * mean)
        })
        .collect();
    replace(context, node, &parameters, gamma, beta, &affine)
}

fn replace(
    context: &Context<'_>,
    node: NodeId,
    parameters: &Parameters,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    affine: &Affine,
) -> Answer<Absorption> {
    let dims = vec![affine.len()];
    let gamma = context.dense(parameters.dtype, dims.clone(), gamma)?;
    let beta = context.dense(parameters.dtype, dims, beta)?;
    let mut edits = context.put(node, 1, gamma, "");
    edits.extend(context.put(node, 2, beta, ""));
    Ok(Absorption::whole(edits, 0, affine))
}
