//! What an operator has to say about itself before a rule believes it: attributes that go together, operands that fit one
//! another. No engine loads a model that fails here; but a fold of it would be no proof of anything, and would be written.
//!
//! Where a shape or type is not known, nothing is refused: the rules ask for what they need to know. Signs and sizes that
//! only decide what is computed at run time (negative pads, say) are no contradictions.

use bnkit_model::DType;
use bnkit_model::onnx::{Dense, Dim, NodeId, Payload, TensorDef, ValueId};

use super::context::Context;
use crate::refusal::{Answer, Stop};
use crate::report::Refusal;

/// The refusal of an operator that contradicts itself.
pub(crate) fn malformed(context: &Context<'_>, node: NodeId, what: impl std::fmt::Display) -> Stop {
    let message = format!("{} {what}", context.model.describe(node));
    Refusal::new("malformed-operator", message)
        .with("node", context.model.label(node))
        .into()
}

/// The refusal of an operand whose shape does not fit the others.
pub(crate) fn mismatch(context: &Context<'_>, node: NodeId, what: impl std::fmt::Display) -> Stop {
    let message = format!("{} {what}", context.model.describe(node));
    Refusal::new("shape-mismatch", message)
        .with("node", context.model.label(node))
        .into()
}

/// Refuses a node with more inputs or outputs than its operator has.
pub(crate) fn require_slots(
    context: &Context<'_>,
    node: NodeId,
    (inputs, outputs): (usize, usize),
) -> Answer<()> {
    let info = context.model.node(node);
    let (reads, writes) = (info.inputs.len(), info.outputs.len());
    if reads <= inputs && writes <= outputs {
        return Ok(());
    }
    let what = format!("has {reads} inputs and {writes} outputs, more than its operator");
    Err(malformed(context, node, what))
}

/// Refuses an operand of another type than `dtype`, as far as types are known.
pub(crate) fn require_type(
    context: &Context<'_>,
    node: NodeId,
    value: ValueId,
    dtype: DType,
) -> Answer<()> {
    match context.types.dtype(value) {
        Some(found) if found != dtype => {
            let name = &context.model.value(value).name;
            let message = format!(
                "{} reads \"{name}\" of {found} beside a constant of {dtype}",
                context.model.describe(node)
            );
            Err(Refusal::new("dtype", message)
                .with("node", context.model.label(node))
                .with("value", name.as_str())
                .into())
        }
        _ => Ok(()),
    }
}

/// Refuses an operand whose size along `axis` is known and another than `count`.
pub(crate) fn require_size(
    context: &Context<'_>,
    node: NodeId,
    value: ValueId,
    (axis, count): (usize, usize),
) -> Answer<()> {
    match context.types.dim(value, axis) {
        Some(size) if size != count as u64 => {
            let name = &context.model.value(value).name;
            let what = format!("wants {count} on axis {axis} of \"{name}\", which has {size}");
            Err(mismatch(context, node, what))
        }
        _ => Ok(()),
    }
}

/// Refuses a weight that a graph input of its name declares with other dimensions than are stored: shapes were derived from
/// the declaration.
pub(crate) fn require_declared(
    context: &Context<'_>,
    node: NodeId,
    slot: usize,
    weight: &TensorDef,
) -> Answer<()> {
    let Some(value) = context.model.node(node).input(slot) else {
        return Ok(());
    };
    // What a fold put there is declared as it is; the types are those of the model before it.
    let own = context.model.value(value).tensor.as_ref();
    if own.is_some_and(|own| matches!(own.payload, Payload::Computed(_))) {
        return Ok(());
    }
    let Some(declared) = context.types.dims(value) else {
        return Ok(());
    };
    let differs = |(dim, &size): (&Dim, &usize)| dim.known().is_some_and(|dim| dim != size as u64);
    if declared.len() == weight.dims.len() && !declared.iter().zip(weight.dims.iter()).any(differs)
    {
        return Ok(());
    }
    let name = &context.model.value(value).name;
    let what = format!(
        "reads \"{name}\", which is declared otherwise than its {:?}",
        weight.dims
    );
    Err(mismatch(context, node, what))
}

/// Whether all elements are numbers that their type can hold: an expression is not rounded before it is stored.
pub(crate) fn is_finite(constant: &Dense<f64>) -> bool {
    let values = &constant.values;
    (values.iter()).all(|&value| constant.dtype.round(value).is_finite())
}

/// Refuses a list attribute of another length than `count`, or with an element below `least`.
fn require_list(
    context: &Context<'_>,
    node: NodeId,
    name: &'static str,
    (count, least): (usize, i64),
) -> Answer<()> {
    match context.ints(node, name)? {
        Some(list) if list.len() != count || list.iter().any(|&value| value < least) => {
            let what = format!("has {name} {list:?}, expected {count} numbers from {least} on");
            Err(malformed(context, node, what))
        }
        _ => Ok(()),
    }
}

/// The shape of a weight \[first, second, …kernel\] in groups, and all that is checked about the operator around it.
pub(crate) struct Convolution {
    /// The first axis: outputs of a Conv, inputs of a ConvTranspose.
    pub first: usize,
    /// The second axis: one group's share of the other.
    pub second: usize,
    /// The groups.
    pub groups: usize,
    /// The taps along each spatial axis.
    pub kernel: Vec<usize>,
}

/// Checks a Conv or ConvTranspose: weight, groups, attributes, and the bias and the data as far as they are known.
pub(crate) fn convolution(
    context: &Context<'_>,
    node: NodeId,
    weight: &TensorDef,
) -> Answer<Convolution> {
    let transposed = context.model.node(node).is("ConvTranspose");
    require_slots(context, node, (3, 1))?;
    require_declared(context, node, 1, weight)?;
    let [first, second, kernel @ ..] = &*weight.dims else {
        let what = format!("has a weight of shape {:?}", weight.dims);
        return Err(mismatch(context, node, what));
    };
    if kernel.is_empty() {
        let what = format!("has a weight of shape {:?}, no kernel", weight.dims);
        return Err(mismatch(context, node, what));
    }
    let groups = context.int(node, "group", 1)?;
    let Some(groups) = usize::try_from(groups)
        .ok()
        .filter(|&groups| groups > 0 && first % groups == 0)
    else {
        // Nothing at all can be said of the channels: the model is broken, and the job ends.
        let message = format!("{first} channels do not divide into {groups} groups");
        return Err(bnkit_model::Error::invalid(message)
            .at(context.model.describe(node))
            .into());
    };
    require_window(context, node, Some(kernel))?;
    let other = second.saturating_mul(groups);
    let (inputs, outputs) = match transposed {
        false => (other, *first),
        true => (*first, other),
    };
    let data = context.input(node, 0)?;
    if let Some(rank) = context.types.rank(data)
        && rank != weight.dims.len()
    {
        let what = format!(
            "has a weight of {} axes for data of {rank}",
            weight.dims.len()
        );
        return Err(mismatch(context, node, what));
    }
    require_size(context, node, data, (1, inputs))?;
    require_type(context, node, data, weight.dtype)?;
    if let Some(bias) = context.model.node(node).input(2) {
        if let Some(rank) = context.types.rank(bias)
            && rank != 1
        {
            let what = format!("has a bias of {rank} axes, expected one");
            return Err(mismatch(context, node, what));
        }
        require_size(context, node, bias, (0, outputs))?;
        require_type(context, node, bias, weight.dtype)?;
    }
    Ok(Convolution {
        first: *first,
        second: *second,
        groups,
        kernel: kernel.to_vec(),
    })
}

/// Checks the attributes that say where a window looks, of a Conv, a ConvTranspose or a pool. A Conv's `kernel` is known from
/// its weight; a pool's is its kernel_shape.
pub(crate) fn require_window(
    context: &Context<'_>,
    node: NodeId,
    kernel: Option<&[usize]>,
) -> Answer<()> {
    let stated = context.ints(node, "kernel_shape")?;
    let axes = match (kernel, stated) {
        (Some(kernel), Some(stated)) => {
            let same = kernel.len() == stated.len()
                && (kernel.iter().zip(stated)).all(|(&k, &s)| i64::try_from(k) == Ok(s));
            if !same {
                let what = format!("has kernel_shape {stated:?} and a weight with {kernel:?}");
                return Err(malformed(context, node, what));
            }
            kernel.len()
        }
        (Some(kernel), None) => kernel.len(),
        (None, Some(stated)) => {
            require_list(context, node, "kernel_shape", (stated.len().max(1), 1))?;
            stated.len()
        }
        (None, None) => return Err(malformed(context, node, "has no kernel_shape")),
    };
    require_list(context, node, "strides", (axes, 1))?;
    require_list(context, node, "dilations", (axes, 1))?;
    require_list(context, node, "pads", (2 * axes, i64::MIN))?;
    require_list(context, node, "output_padding", (axes, 0))?;
    let auto_pad = context.text(node, "auto_pad", "NOTSET")?;
    if !matches!(
        auto_pad,
        "NOTSET" | "" | "SAME_UPPER" | "SAME_LOWER" | "VALID"
    ) {
        let what = format!("has auto_pad \"{}\"", auto_pad.escape_debug());
        return Err(malformed(context, node, what));
    }
    let data = context.input(node, 0)?;
    if let Some(rank) = context.types.rank(data)
        && rank != axes + 2
    {
        let what =
            format!("looks along {axes} axes of data with {rank}, batch and channel included");
        return Err(mismatch(context, node, what));
    }
    Ok(())
}
