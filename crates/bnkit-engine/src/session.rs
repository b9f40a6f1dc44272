//! Load and run.
//!
//! Loading is: decode, normalise a copy, parse by tract, give every input its shape, let tract infer the rest, optimise. Declared
//! output and inner shapes are ignored: models declare wrong ones, and with concrete inputs tract finds all of them itself.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use bnkit_model::{
    DType, Limits, Tensor,
    tensor::{decode_f64, element_count, encode_f64},
};
use tract_onnx::Onnx;
use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::bail;
use tract_onnx::tract_core::model::TypedRunnableModel;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::plan::eval;

use crate::apart::{Apart, Weights};
use crate::compile::compile;
use crate::constant::{datum_type, from_tract, to_tract};
use crate::error::node_name;
use crate::kernels;
use crate::normalise::{Context, Mode, normalise, opset};
use crate::operators::registry;
use crate::quiet::catch;
use crate::spec::{self, Dim, InputSpec};
use crate::{EngineError, Perturbation, Result};

/// What floats are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As the model says, but f16 and bf16 as f32. (A model that computes in nothing but doubles is computed as [`Self::F64`]:
    /// tract's own doubles lack many operators.)
    F32,
    /// Every float is a double.
    F64,
}

/// How to load a model.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions<'a> {
    /// What floats are computed in.
    pub precision: Precision,
    /// The shape of each input; inputs whose declared shape is all numbers may be left out.
    pub input_dims: &'a [(String, Vec<usize>)],
    /// The folder that external data is looked for in.
    pub model_dir: Option<&'a Path>,
    /// Values of the main graph to give out beside its outputs.
    pub extra_outputs: &'a [String],
    /// A change to some constants, to see what it does to the outputs.
    pub perturbation: Option<&'a Perturbation>,
}

/// A model, ready to run on inputs of fixed shapes. It can be shared by threads.
#[derive(Debug)]
pub struct Session {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<Input>,
    outputs: Vec<String>,
}

/// An input of a loaded model.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<usize>,
}

impl Session {
    /// Loads a serialized ONNX model.
    ///
    /// # Errors
    /// `Unsupported` if the engine cannot compute it as ONNX says, `Model` if the model or the given shapes are wrong.
    pub fn load(model: &[u8], options: &LoadOptions) -> Result<Self> {
        catch(|| load(model, options))
            .unwrap_or_else(|panic| Err(EngineError::unsupported_model(panic)))
    }

    /// The names of the outputs, in the order in which [`Session::run`] gives them: the model's own, then the extra ones.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// The type that the input of this name is computed in.
    pub fn input_dtype(&self, name: &str) -> Option<DType> {
        Some(self.inputs.iter().find(|input| input.name == name)?.dtype)
    }

    /// Computes the outputs. Floats may be given in any float type; they are cast to what the session computes in.
    ///
    /// # Errors
    /// If an input is missing, unknown, or of another shape or kind of type; or if the computation fails.
    pub fn run(&self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        self.run_while(inputs, &|| true)
    }

    /// As [`Session::run`], for as long as `go_on` says so: it is asked before each operator, as one run of a large network in doubles
    /// takes seconds.
    ///
    /// # Errors
    /// As [`Session::run`], and [`EngineError::Run`] if it was told to stop.
    pub fn run_while(
        &self,
        inputs: &[(String, Tensor)],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<(String, Tensor)>> {
        if let Some((name, _)) = inputs
            .iter()
            .find(|(name, _)| self.inputs.iter().all(|input| input.name != *name))
        {
            return Err(EngineError::run(format!("the model has no input {name:?}")));
        }
        let values = self
            .inputs
            .iter()
            .map(|input| input.value(inputs))
            .collect::<Result<TVec<TValue>>>()?;
        let outputs = catch(|| {
            let mut state = self.plan.spawn()?;
            state.run_plan_with_eval(values, |context, state, node, inputs| match go_on() {
                true => eval(context, state, node, inputs),
                false => bail!("it was told to stop"),
            })
        });
        kernels::clean_registers();
        let outputs = outputs
            .map_err(EngineError::run)?
            .map_err(|error| EngineError::run(explain(&error)))?;
        self.outputs
            .iter()
            .zip(outputs)
            .map(|(name, value)| Ok((name.clone(), from_tract(&value.into_arc_tensor())?)))
            .collect()
    }
}

impl Input {
    /// Its value among those that a caller gave.
    pub(crate) fn value(&self, given: &[(String, Tensor)]) -> Result<TValue> {
        let tensor = self.tensor(given)?;
        if tensor.dims() != self.dims {
            return Err(self.wrong(format!(
                "expected shape {:?}, found {:?}",
                self.dims,
                tensor.dims()
            )));
        }
        Ok(to_tract(&tensor)?.into_tvalue())
    }

    /// Its value among those that a caller gave, of any shape, in the type that it is computed in: floats are cast.
    pub(crate) fn tensor<'g>(&self, given: &'g [(String, Tensor)]) -> Result<Cow<'g, Tensor>> {
        let found = given.iter().find(|(name, _)| *name == self.name);
        let (_, tensor) = found.ok_or_else(|| self.wrong("not given".into()))?;
        if tensor.dtype() == self.dtype {
            return Ok(Cow::Borrowed(tensor));
        }
        if !tensor.dtype().is_float() || !self.dtype.is_float() {
            return Err(self.wrong(format!("expected {}, found {}", self.dtype, tensor.dtype())));
        }
        let cast = || -> bnkit_model::Result<Tensor> {
            let values = decode_f64(tensor.dtype(), tensor.data())?;
            let mut bytes = vec![];
            encode_f64(self.dtype, &values, &mut bytes)?;
            Tensor::new(self.dtype, tensor.dims().to_vec(), bytes)
        };
        let cast = cast().map_err(|error| self.wrong(error.to_string()))?;
        Ok(Cow::Owned(cast))
    }

    /// What is wrong with its value.
    pub(crate) fn wrong(&self, what: String) -> EngineError {
        EngineError::run(format!("input {:?}: {what}", self.name))
    }
}

fn load(model: &[u8], options: &LoadOptions) -> Result<Session> {
    let mut apart = Apart::decode(model)?;
    let precision = match options.precision {
        Precision::F32 if all_doubles(&apart.model) => Precision::F64,
        asked => asked,
    };
    let context = Context {
        opset: opset(&apart.model),
        precision,
        model_dir: options.model_dir,
        perturbation: options.perturbation,
        mode: Mode::Eval,
    };
    if let Some(graph) = apart.model.graph.as_mut() {
        add_outputs(graph, options.extra_outputs);
    }
    normalise(&mut apart.model, &context)?;
    let graph = spec::graph(&apart.model)?;
    let outputs: Vec<String> = graph
        .output
        .iter()
        .map(|output| output.name.clone())
        .collect();
    let inputs = spec::true_inputs(graph)
        .map(|input| resolve(spec::spec(input)?, options.input_dims))
        .collect::<Result<Vec<_>>>()?;
    let weights = apart.take_weights(&context)?;
    let proto = apart.model;
    let typed = parse(registry(precision), &proto, &inputs, weights)?;
    let plan = compile(typed, precision).map_err(|error| blame(&proto, &explain(&error)))?;
    Ok(Session {
        plan,
        inputs,
        outputs,
    })
}

/// Whether every float input is a double, and nothing is cast to less: then all that is computed from them is double, too.
fn all_doubles(model: &ModelProto) -> bool {
    let Some(graph) = &model.graph else {
        return false;
    };
    let casts = (graph.node.iter())
        .filter(|node| node.op_type == "Cast")
        .flat_map(|node| &node.attribute)
        .filter(|attribute| attribute.name == "to")
        .filter_map(|attribute| i32::try_from(attribute.i).ok());
    let inputs = spec::true_inputs(graph)
        .filter_map(|input| Some(spec::spec(input).ok()?.dtype))
        .filter(|dtype| dtype.is_float());
    let mut inputs = inputs.peekable();
    inputs.peek().is_some()
        && inputs
            .chain(casts.map(DType::from_onnx).filter(|dtype| dtype.is_float()))
            .all(|dtype| dtype == DType::F64)
}

/// Makes values of the main graph outputs of the model.
pub(crate) fn add_outputs(graph: &mut GraphProto, names: &[String]) {
    for name in names {
        if graph.output.iter().all(|output| output.name != *name) {
            graph.output.push(ValueInfoProto {
                name: name.clone(),
                ..Default::default()
            });
        }
    }
}

/// An input with the shape that the caller or the model says.
pub(crate) fn resolve(spec: InputSpec, given: &[(String, Vec<usize>)]) -> Result<Input> {
    let wrong = |what: String| EngineError::model(format!("input {:?}: {what}", spec.name));
    let dims = match given.iter().find(|(name, _)| *name == spec.name) {
        Some((_, dims)) => dims.clone(),
        None => spec
            .dims
            .as_ref()
            .and_then(|dims| {
                dims.iter()
                    .map(|dim| match dim {
                        Dim::Fixed(size) => Some(*size),
                        _ => None,
                    })
                    .collect()
            })
            .ok_or_else(|| wrong("its shape is not fixed in the model and was not given".into()))?,
    };
    Ok(Input {
        dtype: spec.dtype,
        name: spec.name,
        dims,
    })
}

/// Reads a normalised model and infers all types and shapes from those of its inputs. `weights` are further inputs, and constant.
pub(crate) fn parse(
    onnx: Onnx,
    proto: &ModelProto,
    inputs: &[Input],
    weights: Weights,
) -> Result<TypedModel> {
    let blame = |error: TractError| blame(proto, &explain(&error));
    let parsed = onnx.parse(proto, None).map_err(blame)?;
    if !parsed.unresolved_inputs.is_empty() {
        return Err(EngineError::model(format!(
            "nothing computes the values {:?}",
            parsed.unresolved_inputs
        )));
    }
    let mut model = parsed.model;
    fill(&mut model, weights).map_err(blame)?;
    let kinds = inputs
        .iter()
        .map(|input| {
            datum_type(input.dtype).ok_or_else(|| {
                EngineError::unsupported_model(format!(
                    "input {:?} is of {}",
                    input.name, input.dtype
                ))
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let prepare = |model: &mut InferenceModel| -> TractResult<()> {
        for (position, input) in inputs.iter().enumerate() {
            let fact = InferenceFact::dt_shape(kinds[position], input.dims.clone());
            model.set_input_fact(position, fact)?;
        }
        for position in 0..model.output_outlets()?.len() {
            model.set_output_fact(position, InferenceFact::default())?;
        }
        Ok(())
    };
    prepare(&mut model).map_err(blame)?;
    // A model whose shapes do not fit is no matter of what tract can do.
    model
        .analyse(false)
        .map_err(|error| blame(error).into_misfit())?;
    let typed = model.into_typed().map_err(blame)?;
    check_sizes(&typed)?;
    Ok(typed)
}

/// Makes constants of the inputs that `weights` names.
fn fill(model: &mut InferenceModel, mut weights: Weights) -> TractResult<()> {
    let mut inputs = vec![];
    for input in model.input_outlets()?.to_vec() {
        let node = model.node_mut(input.node);
        match weights.remove(&node.name) {
            Some(weight) => {
                node.outputs[0].fact = TypedFact::try_from(&weight)?.into();
                node.op = Box::new(Const::new(weight)?);
            }
            None => inputs.push(input),
        }
    }
    model.set_input_outlets(&inputs)
}

/// Refuses a model that computes a value larger than the limit `value_elements`: allocating it ends the process.
fn check_sizes(model: &TypedModel) -> Result<()> {
    let most = Limits::get().value_elements;
    for node in &model.nodes {
        for output in &node.outputs {
            let Some(dims) = output.fact.shape.as_concrete() else {
                continue;
            };
            let count = element_count(dims);
            if count.is_none_or(|count| count > most) {
                return Err(EngineError::Unsupported {
                    operator: node.op.name().into_owned(),
                    node: node.name.clone(),
                    reason: format!("a value of shape {dims:?} has more than {most} elements"),
                });
            }
        }
    }
    Ok(())
}

/// The error that names the node: tract quotes its name somewhere in its chain of reasons.
pub(crate) fn blame(model: &ModelProto, text: &str) -> EngineError {
    let nodes = model.graph.iter().flat_map(|graph| &graph.node);
    let culprit = nodes
        .filter(|node| {
            let name = node_name(node);
            !name.is_empty()
                && (text.contains(&format!("\"{name}\""))
                    || text.contains(&format!("node {name} ")))
        })
        .max_by_key(|node| node_name(node).len());
    match culprit {
        Some(node) => EngineError::unsupported(node, text),
        None => EngineError::unsupported_model(text),
    }
}

/// tract's chain of reasons on one line.
pub(crate) fn explain(error: &TractError) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let first = cause.lines().next().unwrap_or_default();
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.extend(first.chars().take(200));
    }
    text
}
