//! What rules look at: the BatchNorms of a checkpoint of any format, in one form, and the graph if there is one.

use std::path::Path;

use bnkit_model::DType;
use bnkit_model::onnx::{Model, NodeId};
use bnkit_model::safetensors::StateDict;

use super::graph::Graph;
use super::{CheckFormat, CheckOptions, CheckReport, CheckSummary};
use crate::Result;
use crate::checkpoint::{describe_state_dict, is_state_dict, of_state_dict};
use crate::inspect::state::{find, number, vector};
use crate::pipeline::{Phase, Progress, describe_input};
use crate::report::{InputFile, Tool};
use crate::site::{Parameters, ROLES};
use crate::state::groups::{BatchNormGroup, GroupProblem, Naming};

/// ε of PyTorch, flax and ONNX, if nobody says another one.
const EPSILON: f64 = 1e-5;
/// ε of Keras, if nobody says another one.
const KERAS_EPSILON: f64 = 1e-3;

/// A checkpoint.
pub(super) struct Subject {
    input: InputFile,
    format: CheckFormat,
    assumed_epsilon: Option<f64>,
    /// Its BatchNorms, in order.
    pub(super) norms: Vec<Norm>,
    /// Its graph, if it is a model.
    pub(super) graph: Option<Graph>,
    /// Tensors of a state dict that look like a BatchNorm's and do not fit together.
    pub(super) problems: Vec<GroupProblem>,
}

/// A BatchNorm.
pub(super) struct Norm {
    /// The name of its node, or of its module.
    pub(super) name: String,
    /// Its node, in a graph.
    pub(super) node: Option<NodeId>,
    /// The names of its tensors, in the order of [`ROLES`]; "" for one that is not there.
    pub(super) tensors: [String; 4],
    /// Its parameters; `None` if they are not constants, or cannot be read.
    pub(super) parameters: Option<Parameters>,
    /// How many batches it was trained on, if a state dict says so.
    pub(super) batches: Option<i64>,
}

impl Norm {
    /// The name of what is in an input slot of the operator.
    pub(super) fn tensor(&self, slot: usize) -> &str {
        let place = ROLES.iter().position(|(of_role, _)| *of_role == slot);
        place.map_or("", |place| &self.tensors[place])
    }
}

impl Subject {
    /// Opens a checkpoint and reads what rules look at.
    ///
    /// # Errors
    /// If it cannot be read or is broken.
    pub(super) fn open(
        path: &Path,
        options: &CheckOptions,
        progress: &dyn Progress,
    ) -> Result<Self> {
        if is_state_dict(path)? {
            return Self::of_state_dict(path, options.epsilon);
        }
        let model = Model::open(path)?;
        progress.begin(Phase::Planning, None);
        Self::of_model(model, path, options).map_err(|error| error.in_file(path))
    }

    /// What rules look at in a model.
    ///
    /// # Errors
    /// If it is broken.
    pub(super) fn of_model(model: Model, path: &Path, options: &CheckOptions) -> Result<Self> {
        let input = describe_input(&model, path);
        let graph = Graph::new(model, &options.fold)?;
        Ok(Self {
            input,
            format: CheckFormat::Onnx,
            assumed_epsilon: None,
            norms: graph.norms()?,
            graph: Some(graph),
            problems: Vec::new(),
        })
    }

    fn of_state_dict(path: &Path, epsilon: Option<f64>) -> Result<Self> {
        let dict = StateDict::open(path)?;
        let found = find(&dict);
        let keras = found.groups.first().map(|it| it.naming) == Some(Naming::Keras);
        let usual = if keras { KERAS_EPSILON } else { EPSILON };
        let epsilon = epsilon.unwrap_or(usual);
        let groups = found.groups.iter();
        Ok(Self {
            input: describe_state_dict(&dict, path),
            format: if dict.is_sharded() {
                CheckFormat::SafetensorsIndex
            } else {
                CheckFormat::Safetensors
            },
            assumed_epsilon: (!found.groups.is_empty()).then_some(epsilon),
            norms: groups
                .map(|group| of_group(&dict, group, epsilon))
                .collect::<Result<_>>()?,
            graph: None,
            problems: found.problems,
        })
    }

    /// The BatchNorms whose parameters are known.
    pub(super) fn known(&self) -> impl Iterator<Item = (&Norm, &Parameters)> {
        let known = |norm: &'_ Norm| norm.parameters.is_some();
        self.norms
            .iter()
            .filter(move |norm| known(norm))
            .filter_map(|norm| Some((norm, norm.parameters.as_ref()?)))
    }

    /// A report without findings.
    pub(super) fn report(&self, path: &Path) -> CheckReport {
        let channels = self.known().map(|(_, parameters)| parameters.channels());
        CheckReport {
            schema: "bnkit.check/1",
            tool: Tool::default(),
            input: InputFile {
                path: path.display().to_string(),
                ..self.input.clone()
            },
            format: self.format,
            assumed_epsilon: self.assumed_epsilon,
            batch_norms: self.norms.len(),
            channels: channels.sum(),
            summary: CheckSummary::default(),
            findings: Vec::new(),
            suppressed: Vec::new(),
            rules: Vec::new(),
            failure: None,
        }
    }
}

/// A BatchNorm of a state dict. Without γ it is 1, without β 0.
fn of_group(dict: &StateDict, group: &BatchNormGroup, epsilon: f64) -> Result<Norm> {
    let (_, mean) = vector(dict, &group.mean)?;
    let (_, variance) = vector(dict, &group.variance)?;
    let or = |name: &Option<String>, value: f64| match name {
        Some(name) => vector(dict, name).map(|(_, values)| values),
        None => Ok(vec![value; group.channels]),
    };
    let dtype = dict
        .tensor(&group.mean)
        .and_then(|tensor| of_state_dict(tensor).dtype.number());
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let tensors = [
        name(&group.gamma),
        name(&group.beta),
        group.mean.clone(),
        group.variance.clone(),
    ];
    let parameters = Parameters {
        gamma: or(&group.gamma, 1.0)?,
        beta: or(&group.beta, 0.0)?,
        mean,
        variance,
        epsilon,
        dtype: dtype.unwrap_or(DType::F32),
        training: false,
        findings: Vec::new(),
        warnings: Vec::new(),
    };
    let batches = match &group.batches {
        Some(name) => number(dict, name)?,
        None => None,
    };
    Ok(Norm {
        name: group.module.clone(),
        node: None,
        tensors,
        parameters: Some(parameters),
        batches,
    })
}
