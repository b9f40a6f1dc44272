//! From a typed graph to one that runs: operators of ours where tract has none, computes something else, or is slow; then tract's own
//! simplifications and its choice of kernels, as far as they are right and end by themselves.

use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::bail;
use tract_onnx::tract_core::model::{TypedNode, TypedRunnableModel};
use tract_onnx::tract_core::ops::{logic::IfThenElse, scan::Scan};
use tract_onnx::tract_core::optim::Optimizer;

use crate::Precision;
use crate::buffers::Buffers;
use crate::convolve::{self, Which};
use crate::operators::{
    exchange, exchange_bounds, hide_reversed, hide_slices, negative_padding, single_step,
};
use crate::parts::in_parts;
use crate::quiet::catch;

/// What runs a graph in eval mode.
///
/// # Errors
/// If it has an operator that is not computed as it should be, or tract fails at it.
pub(crate) fn compile(
    mut typed: TypedModel,
    precision: Precision,
) -> TractResult<Arc<TypedRunnableModel>> {
    if let Some(node) = negative_padding(&typed) {
        bail!("node {node} pads by a negative number");
    }
    hide_reversed(&mut typed)?;
    hide_slices(&mut typed)?;
    if precision == Precision::F64 {
        exchange(&mut typed)?;
        exchange_bounds(&mut typed)?;
        convolve::exchange::<f64>(&mut typed, Which::All, &Buffers::default())?;
    }
    let simplified = simplify(&typed, precision);
    if simplified.is_err()
        && precision == Precision::F64
        && let Some(step) = single_step(&typed)?
    {
        bail!("node {step} is computed in single precision only");
    }
    // Where tract trips over its own rewrites, the graph as it was read still runs; it is only slower.
    simplified.or_else(|error| {
        guarded(|| {
            let mut plain = typed.clone();
            optimize(&mut plain)?;
            in_double(&plain, precision)?;
            plain.into_runnable()
        })
        .or_else(|_| guarded(|| typed.into_runnable()))
        .map_err(|_| error)
    })
}

/// The graph simplified and with kernels chosen; an error too if tract fails at it, or brings in operators that compute in f32 where
/// doubles are asked for.
fn simplify(typed: &TypedModel, precision: Precision) -> TractResult<Arc<TypedRunnableModel>> {
    guarded(|| {
        let mut simplified = typed.clone();
        declutter(&mut simplified)?;
        in_double(&simplified, precision)?;
        optimize(&mut simplified)?;
        in_double(&simplified, precision)?;
        simplified.into_runnable()
    })
}

/// Refuses a graph in which tract's rewrites brought in operators that compute in f32, where doubles are asked for. Choosing kernels
/// simplifies, too.
fn in_double(model: &TypedModel, precision: Precision) -> TractResult<()> {
    if precision == Precision::F64
        && let Some(step) = single_step(model)?
    {
        bail!("node {step} is simplified to single precision");
    }
    Ok(())
}

/// A panic as an error like any other.
fn guarded<T>(work: impl FnOnce() -> TractResult<T>) -> TractResult<T> {
    catch(work).unwrap_or_else(|panic| bail!("{panic}"))
}

/// tract's simplifications, as far as they end by themselves.
pub(crate) fn declutter(model: &mut TypedModel) -> TractResult<()> {
    in_parts(model, |part| {
        let optimizer = Optimizer::declutter().stopping_at(steps(part));
        optimizer.optimize(part)
    })
}

/// tract's choice of kernels, as far as it ends by itself.
pub(crate) fn optimize(model: &mut TypedModel) -> TractResult<()> {
    in_parts(model, |part| {
        let optimizer = Optimizer::codegen().stopping_at(steps(part));
        part.optimize_with_session(&mut optimizer.session())
    })
}

/// Far more rewrites than a graph of this size needs. Some that tract makes undo each other (it takes what can be batched out of a
/// Scan's body again and again); each by itself is right, so that one can stop after any.
fn steps(model: &TypedModel) -> usize {
    1000 + 50 * size(model)
}

/// The number of nodes, with those in loop and branch bodies.
fn size(model: &TypedModel) -> usize {
    let inside = |node: &TypedNode| {
        if let Some(scan) = node.op_as::<Scan>() {
            size(&scan.body)
        } else if let Some(branch) = node.op_as::<IfThenElse>() {
            size(&branch.then_body) + size(&branch.else_body)
        } else {
            0
        }
    };
    model.nodes().iter().map(|node| 1 + inside(node)).sum()
}
