//! Sites: the BatchNorm nodes of a model, of every opset, with their parameters and what is wrong with them.

use bnkit_model::onnx::{AttributeValue, Model, NodeId, ValueId};
use bnkit_model::{DType, Error};

use crate::affine::Affine;
use crate::fold::Context;
use crate::fold::operands::require_slots;
use crate::refusal::{Answer, Stop};
use crate::report::{Finding, Refusal, Warning};

mod health;

/// The operator that this crate exists for.
pub const BATCH_NORMALIZATION: &str = "BatchNormalization";

/// Whether a node is a BatchNorm of ONNX's own domain (and no call of a model-local function of that name).
pub fn is_batch_norm(model: &Model, node: NodeId) -> bool {
    model.node(node).is(BATCH_NORMALIZATION)
}

/// Whether the file has a BatchNorm in training mode, by the rules of its opset.
///
/// Opset 1 and 6: is_test = 0 (the default). Opset 7 and 9: more than one output. From 14 on: training_mode = 1.
pub fn is_training(model: &Model, node: NodeId) -> bool {
    let opset = model
        .scope(model.node(node).scope)
        .onnx_opset()
        .unwrap_or(1);
    // In a function, an attribute that each caller sets may be anything.
    let by_caller = |name: &str| {
        let attribute = model
            .node(node)
            .attribute(name)
            .map(|attribute| &attribute.value);
        matches!(attribute, Some(AttributeValue::Reference(_)))
    };
    let flag = |name: &str| match model
        .node(node)
        .attribute(name)
        .map(|attribute| &attribute.value)
    {
        Some(AttributeValue::Int(value)) => *value != 0,
        _ => false,
    };
    match opset {
        ..7 => !flag("is_test"),
        7..14 => model.node(node).outputs.len() > 1,
        _ => flag("training_mode") || by_caller("training_mode"),
    }
}

/// The parameters of a BatchNorm, as they are at this point of the plan, in f64.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// γ, one per channel.
    pub gamma: Vec<f64>,
    /// β, one per channel.
    pub beta: Vec<f64>,
    /// The running mean μ, one per channel.
    pub mean: Vec<f64>,
    /// The running variance σ², one per channel.
    pub variance: Vec<f64>,
    /// ε, the stored f32 widened.
    pub epsilon: f64,
    /// The type that γ and β are stored in.
    pub dtype: DType,
    /// Whether the node is in training mode.
    pub training: bool,
    /// Errors in the values.
    pub findings: Vec<Finding>,
    /// What a person should know about the values.
    pub warnings: Vec<Warning>,
}

/// Input slots of the operator and what they hold.
pub const ROLES: [(usize, &str); 4] = [(1, "scale"), (2, "bias"), (3, "mean"), (4, "variance")];

impl Parameters {
    /// Reads the parameters of a BatchNorm.
    pub(crate) fn read(context: &Context<'_>, node: NodeId) -> Answer<Self> {
        if context.opset(node) < 9 && context.int(node, "spatial", 1)? == 0 {
            let message =
                "spatial = 0: one mean and variance for each position, not for each channel";
            return Err(Refusal::new("per-activation", message).into());
        }
        let training = is_training(context.model, node);
        let mut vectors = Vec::with_capacity(4);
        for (slot, role) in ROLES {
            vectors.push(vector(context, node, slot, role, training)?);
        }
        let [gamma, beta, mean, variance] =
            <[(DType, Vec<f64>); 4]>::try_from(vectors).expect("four roles");
        let channels = gamma.1.len();
        for ((_, values), (_, role)) in [&gamma, &beta, &mean, &variance].into_iter().zip(ROLES) {
            if values.len() != channels {
                let message = format!(
                    "{role}: expected {channels} channels, found {}",
                    values.len()
                );
                return Err(Error::invalid(message)
                    .at(context.model.describe(node))
                    .into());
            }
        }
        let data = context.input(node, 0)?;
        if context.types.rank(data).is_some_and(|rank| rank < 2) {
            return Err(
                Refusal::new("rank", "the data has one axis: there is no channel axis 1").into(),
            );
        }
        require_slots(context, node, (5, 5))?;
        match context.types.dtype(data) {
            Some(dtype) if !dtype.is_float() => {
                let message = format!("the data is {dtype}, not a float type");
                return Err(Refusal::new("dtype", message).into());
            }
            _ => {}
        }
        if let Some(size) = context.types.dim(data, 1)
            && size != channels as u64
        {
            let message = format!("its data has {size} channels, its parameters have {channels}");
            return Err(Error::invalid(message)
                .at(context.model.describe(node))
                .into());
        }
        let mut parameters = Self {
            dtype: gamma.0,
            gamma: gamma.1,
            beta: beta.1,
            mean: mean.1,
            variance: variance.1,
            epsilon: context.float(node, "epsilon", 1e-5)?,
            training,
            findings: Vec::new(),
            warnings: Vec::new(),
        };
        let tensor = |slot: usize| {
            let value = context.model.node(node).input(slot);
            value.map_or("", |value| context.model.value(value).name.as_str())
        };
        parameters.examine(context.model.label(node), tensor);
        Ok(parameters)
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.gamma.len()
    }

    /// The affine that the BatchNorm is in eval mode.
    pub(crate) fn affine(&self) -> Affine {
        Affine::batch_norm(
            &self.gamma,
            &self.beta,
            &self.mean,
            &self.variance,
            self.epsilon,
        )
    }
}

fn vector(
    context: &Context<'_>,
    node: NodeId,
    slot: usize,
    role: &str,
    training: bool,
) -> Answer<(DType, Vec<f64>)> {
    let value: ValueId = context.input(node, slot)?;
    context.require_not_annotated(value)?;
    let name = &context.model.value(value).name;
    let code = if training && slot >= 3 {
        "no-running-statistics"
    } else {
        "parameter-not-constant"
    };
    let what = format!("{role} \"{name}\"");
    let dense = context
        .constants()
        .f64(value)
        .map_err(|reason| context.not_constant(reason, code, &what))?;
    let tensor_error = |message: String| -> Stop {
        Error::invalid(message)
            .at(format!("tensor \"{name}\""))
            .at(context.model.describe(node))
            .into()
    };
    if !dense.dtype.is_float() {
        return Err(tensor_error(format!(
            "{role} is {}, expected a float type",
            dense.dtype
        )));
    }
    if dense.dims.len() != 1 {
        return Err(tensor_error(format!(
            "{role} has shape {:?}, expected one axis",
            dense.dims
        )));
    }
    Ok((dense.dtype, dense.values))
}
