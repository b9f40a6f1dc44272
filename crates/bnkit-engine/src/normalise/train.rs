//! BatchNormalization as an operator of our own, which sees what flows through it; Dropout as one, if it is wanted.
//!
//! Running statistics play no part in train mode, so the operator does not read them: a BatchNorm whose mean and variance are computed
//! from the data runs like any other.

use std::collections::HashSet;

use tract_onnx::pb::{GraphProto, NodeProto};

use super::{Context, Mode, attribute, float, remove};
use crate::train::{DROPOUT, NORM};
use crate::{EngineError, Result};

/// Puts every Dropout of a graph into train mode, if the mode says so. Comes before what makes them Identity.
pub(super) fn dropout(graph: &mut GraphProto, context: &Context) -> Result<()> {
    if context.mode != (Mode::Train { dropout: true }) {
        return Ok(());
    }
    let mut masks = HashSet::new();
    for node in &mut graph.node {
        if node.op_type == "Dropout" && super::is_onnx(&node.domain) {
            node.op_type = DROPOUT.into();
            node.input.truncate(2);
            if node.input.get(1).is_some_and(String::is_empty) {
                node.input.truncate(1);
            }
            for name in ["is_test", "seed", "consumed_inputs"] {
                remove(node, name);
            }
            masks.extend(node.output.drain(1.min(node.output.len())..));
        }
    }
    let reads = |node: &&NodeProto| node.input.iter().any(|name| masks.contains(name));
    match graph.node.iter().find(reads) {
        Some(node) => Err(EngineError::unsupported(
            node,
            "it reads the mask of a Dropout",
        )),
        None => Ok(()),
    }
}

/// Puts every BatchNormalization of a graph into train mode. Comes after the clean-up that eval mode does, too.
pub(super) fn norms(graph: &mut GraphProto, context: &Context) -> Result<()> {
    if !matches!(context.mode, Mode::Train { .. }) {
        return Ok(());
    }
    for node in &mut graph.node {
        if node.op_type != "BatchNormalization" {
            continue;
        }
        if node.input.len() < 3 || node.output.len() != 1 {
            return Err(EngineError::unsupported(
                node,
                "expected input, scale, bias, and an output",
            ));
        }
        if attribute(node, "epsilon").is_none_or(|given| !given.f.is_finite()) {
            let epsilon = float(node, "epsilon", 1e-5);
            super::set_float(node, "epsilon", epsilon);
        }
        node.op_type = NORM.into();
        node.input.truncate(3);
    }
    Ok(())
}
