//! Carriers: operators that an affine passes through, possibly changed. One file each, one line in [`CARRIERS`].
//!
//! A carrier says what the affine is on its other side; whether anybody else reads the values in between is the
//! business of the walk in `walk.rs`.

use bnkit_model::Limits;
use bnkit_model::onnx::{NodeId, ValueId};

use super::context::Context;
use crate::affine::Affine;
use crate::refusal::Answer;
use crate::report::Refusal;

mod branches;
mod cast;
mod concat;
mod depth_space;
mod gather;
mod identity;
mod pad;
mod pool;
mod rectifier;
mod reduce_mean;
mod reshape;
mod resize;
mod slice;
mod split;
mod transpose;
mod window;

pub(crate) use branches::joins_branches;

/// One way to pass: the slots on the other side, each with its affine. All of them must be absorbed.
pub(crate) type Way = Vec<(usize, Affine)>;

/// Asks a carrier about an affine at one of its slots.
pub(crate) type Pass = fn(&Context<'_>, NodeId, usize, &Affine) -> Answer<Vec<Way>>;

/// An operator that carries.
pub(crate) struct Carrier {
    /// The operator, of ONNX's own domain.
    pub op_type: &'static str,
    /// How many inputs and outputs it has at most.
    pub slots: (usize, usize),
    /// From an output slot to input slots: the ways to try, in order.
    pub backward: Pass,
    /// From an input slot to output slots.
    pub forward: Pass,
}

/// All carriers.
pub(crate) static CARRIERS: &[Carrier] = &[
    branches::ADD,
    branches::SUB,
    cast::CAST,
    concat::CONCAT,
    depth_space::DEPTH_TO_SPACE,
    depth_space::SPACE_TO_DEPTH,
    gather::GATHER,
    identity::IDENTITY,
    identity::DROPOUT,
    pad::PAD,
    pool::AVERAGE_POOL,
    pool::GLOBAL_AVERAGE_POOL,
    pool::GLOBAL_MAX_POOL,
    pool::MAX_POOL,
    rectifier::LEAKY_RELU,
    rectifier::PRELU,
    rectifier::RELU,
    reduce_mean::REDUCE_MEAN,
    reshape::FLATTEN,
    reshape::RESHAPE,
    reshape::SQUEEZE,
    reshape::UNSQUEEZE,
    resize::RESIZE,
    resize::UPSAMPLE,
    slice::SLICE,
    split::SPLIT,
    transpose::TRANSPOSE,
];

/// The carrier for a node.
pub(crate) fn carrier(context: &Context<'_>, node: NodeId) -> Option<&'static Carrier> {
    CARRIERS
        .iter()
        .find(|carrier| context.model.node(node).is(carrier.op_type))
}

/// The only way: `affine` at slot 0.
fn through(affine: Affine) -> Answer<Vec<Way>> {
    Ok(vec![vec![(0, affine)]])
}

/// Refuses more features than anybody has: a file may claim any number.
fn require_followed(
    context: &Context<'_>,
    node: NodeId,
    features: usize,
    axis: usize,
) -> Answer<()> {
    if features as u64 <= Limits::get().constant_elements {
        return Ok(());
    }
    let what = format!("has {features} features on axis {axis}, more than are followed");
    stop(context, node, "channel-axis", what)
}

/// A refusal that names the node.
fn stop<T>(
    context: &Context<'_>,
    node: NodeId,
    code: &'static str,
    what: impl std::fmt::Display,
) -> Answer<T> {
    let message = format!("{} {what}", context.model.describe(node));
    Err(Refusal::new(code, message)
        .with("node", context.model.label(node))
        .into())
}

/// Refuses an affine at any slot but that of the data.
fn require_data(context: &Context<'_>, node: NodeId, slot: usize) -> Answer<()> {
    match slot {
        0 => Ok(()),
        _ => stop(
            context,
            node,
            "no-absorber",
            "has the affine in a parameter",
        ),
    }
}

/// Refuses an affine whose channels lie on one of the spatial axes, from 2 on.
fn require_not_spatial(context: &Context<'_>, node: NodeId, affine: &Affine) -> Answer<()> {
    match affine.axis {
        Some(axis @ 2..) => stop(
            context,
            node,
            "channel-axis",
            format!("works along axis {axis}, where the channels lie"),
        ),
        _ => Ok(()),
    }
}

/// Refuses a negative scale, which would exchange the larger and the smaller.
fn require_no_negative_scale(context: &Context<'_>, node: NodeId, affine: &Affine) -> Answer<()> {
    // Not `any(s < 0)`: NaN has to be refused too.
    if affine.scale.iter().all(|&scale| scale >= 0.0) {
        return Ok(());
    }
    let negative = affine.scale.iter().filter(|&&scale| scale < 0.0).count();
    stop(
        context,
        node,
        "negative-scale",
        format!(
            "does not commute with a negative scale ({negative} of {} channels)",
            affine.len()
        ),
    )
}

/// The rank of what a node reads in slot 0.
fn rank(context: &Context<'_>, node: NodeId) -> Answer<usize> {
    match context.types.rank(context.input(node, 0)?) {
        Some(rank) => Ok(rank),
        None => stop(context, node, "unknown-shape", "reads data of unknown rank"),
    }
}

/// The size of a value along an axis, for one who has to know it.
fn size(context: &Context<'_>, node: NodeId, value: ValueId, axis: usize) -> Answer<usize> {
    let size = context.types.dim(value, axis);
    match size.and_then(|size| usize::try_from(size).ok()) {
        Some(size) => {
            require_followed(context, node, size, axis)?;
            Ok(size)
        }
        None => {
            let name = &context.model.value(value).name;
            let what = format!("is about axis {axis} of \"{name}\", whose size is not known");
            stop(context, node, "unknown-shape", what)
        }
    }
}

/// The size of the data along an axis; the affine must have as many features there.
fn features(context: &Context<'_>, node: NodeId, value: ValueId, affine: &Affine) -> Answer<()> {
    let Some(axis) = affine.axis else {
        return Ok(());
    };
    let size = size(context, node, value, axis)?;
    if size == affine.len() {
        return Ok(());
    }
    let what = format!(
        "has {size} features on axis {axis}, the affine has {}",
        affine.len()
    );
    stop(context, node, "channel-axis", what)
}

/// An axis, counted from the front.
fn normal_axis(context: &Context<'_>, node: NodeId, axis: i64, rank: usize) -> Answer<usize> {
    let from_front = if axis < 0 {
        axis.saturating_add(i64::try_from(rank).unwrap_or(i64::MAX))
    } else {
        axis
    };
    match usize::try_from(from_front) {
        Ok(found) if found < rank => Ok(found),
        _ => {
            let what = format!("names index {axis}, of {rank}");
            stop(context, node, "channel-axis", what)
        }
    }
}

/// Axes, counted from the front; none may come twice.
fn normal_axes(
    context: &Context<'_>,
    node: NodeId,
    axes: &[i64],
    rank: usize,
) -> Answer<Vec<usize>> {
    let mut found = Vec::with_capacity(axes.len().min(rank));
    for &axis in axes {
        let axis = normal_axis(context, node, axis, rank)?;
        if found.contains(&axis) {
            let what = format!("names axis {axis} twice");
            return stop(context, node, "channel-axis", what);
        }
        found.push(axis);
    }
    Ok(found)
}

/// Integers that are an attribute before opset `since` and a constant input from then on; `None` if not given.
fn ints(
    context: &Context<'_>,
    node: NodeId,
    name: &str,
    slot: usize,
    since: i64,
) -> Answer<Option<Vec<i64>>> {
    if context.opset(node) < since {
        return Ok(context.ints(node, name)?.map(<[i64]>::to_vec));
    }
    let Some(value) = context.model.node(node).input(slot) else {
        return Ok(None);
    };
    let what = format!("\"{}\"", context.model.value(value).name);
    match context.constants().ints(value) {
        Ok(ints) => Ok(Some(ints.values)),
        Err(reason) => Err(context.not_constant(reason, "weight-not-constant", &what)),
    }
}
