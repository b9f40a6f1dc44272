//! Train mode: each BatchNorm normalises with the batch that it sees, or with statistics given for it, and tells what it saw.
//!
//! A batch-1 plan is several times faster per sample than a whole-batch plan (no huge temporaries), so samples run side by side,
//! each in a plan for one, and meet at every BatchNorm ([`run`]). That is right only if nothing but BatchNorm mixes samples. Where the graph does not prove
//! it ([`independence`]), two samples of the first batch also run as one, and a model that mixes them runs whole from then on
//! ([`mixing`]).
//!
//! Everything else is as in eval mode. Dropout stays off unless a seed turns it on. BatchNorms in the branches of an If take part as
//! long as all samples take the same branch; in the body of a loop they are refused.

mod activations;
mod dropout;
mod independence;
mod mixing;
mod operators;
mod program;
mod run;
mod totals;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bnkit_model::Tensor;
use tract_onnx::pb::{GraphProto, ModelProto};
use tract_onnx::prelude::*;

pub(crate) use operators::{DROPOUT, NORM};

use crate::apart::Weights;
use crate::buffers::Buffers;
use crate::compile::{declutter, optimize};
use crate::constant::from_tract;
use crate::convolve::{self, Which};
use crate::error::node_name;
use crate::normalise::{Context, Mode, normalise, opset};
use crate::quiet::catch;
use crate::session::{self, Input};
use crate::{EngineError, Moments, Precision, Result, spec};
use mixing::Way;
use program::Program;
use run::Pass;

/// Mean and population variance of each BatchNorm, by [`Norm::output`].
pub type GivenStatistics = HashMap<String, (Vec<f64>, Vec<f64>)>;

/// The inputs of one sample, by name.
pub type Sample = Vec<(String, Tensor)>;

/// A BatchNormalization of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Norm {
    /// Its first output, after functions have been inlined: unique in the model.
    pub output: String,
    /// The node's name, or its first output.
    pub node: String,
    /// How many channels it has.
    pub channels: usize,
}

/// What every BatchNorm normalises with. What it sees is observed either way.
#[derive(Debug, Clone, Copy)]
pub enum Statistics<'a> {
    /// The mean and population variance of the batch: train mode.
    Batch,
    /// These: eval mode with statistics of the caller's choice.
    Given(&'a GivenStatistics),
}

/// How to load a model for train mode.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrainOptions<'a> {
    /// The shape of each input of *one* sample: the leading dimension is 1. An input whose declared shape is all numbers, or
    /// all but the leading one, may be left out.
    pub input_dims: &'a [(String, Vec<usize>)],
    /// The folder that external data is looked for in.
    pub model_dir: Option<&'a Path>,
    /// The seed of Dropout; without one it does nothing.
    pub dropout: Option<u64>,
    /// Values of the main graph to give out beside its outputs.
    pub extra_outputs: &'a [String],
}

/// What one batch showed.
#[derive(Debug, Clone)]
pub struct BatchRun {
    /// What went into each BatchNorm, in the order of [`Trainer::norms`]; `None` if it never ran (a branch not taken).
    pub observed: Vec<Option<Moments>>,
    /// The outputs of each sample, if they were wanted. An output without a batch dimension is the same for all.
    pub outputs: Vec<Vec<(String, Tensor)>>,
}

/// A model in train mode. It can be shared by threads; [`Trainer::run`] uses the threads of rayon's current pool.
#[derive(Debug)]
pub struct Trainer {
    norms: Vec<Norm>,
    /// Of one sample.
    inputs: Vec<Input>,
    outputs: Vec<String>,
    dropout: Option<u64>,
    batches: AtomicU64,
    way: Mutex<Way>,
}

impl Trainer {
    /// Loads a serialized ONNX model.
    ///
    /// # Errors
    /// `Unsupported` if the engine cannot compute it as ONNX says, or cannot see all its BatchNorms; `Model` if the model or the given
    /// shapes are wrong.
    pub fn load(model: &[u8], options: &TrainOptions) -> Result<Self> {
        catch(|| load(model, options))
            .unwrap_or_else(|panic| Err(EngineError::unsupported_model(panic)))
    }

    /// The BatchNorms of the model, in file order.
    pub fn norms(&self) -> &[Norm] {
        &self.norms
    }

    /// The names of the outputs: the model's own, then the extra ones.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// Runs a batch. Calls are numbered from 0 for the masks of Dropout; where batches run out of order, number them with
    /// [`Trainer::run_numbered`].
    ///
    /// # Errors
    /// If an input is missing, unknown, or of another shape or kind of type; if the batch has fewer than two elements per channel of a
    /// BatchNorm; or if the computation fails.
    pub fn run(
        &self,
        batch: &[Sample],
        statistics: &Statistics,
        want_outputs: bool,
    ) -> Result<BatchRun> {
        let number = self.batches.fetch_add(1, Ordering::Relaxed);
        self.run_numbered(number, batch, statistics, want_outputs)
    }

    /// Runs the batch of this number, which decides what Dropout drops.
    ///
    /// # Errors
    /// As [`Trainer::run`].
    pub fn run_numbered(
        &self,
        number: u64,
        batch: &[Sample],
        statistics: &Statistics,
        want_outputs: bool,
    ) -> Result<BatchRun> {
        if batch.is_empty() {
            return Err(EngineError::run("the batch has no samples"));
        }
        let values = batch
            .iter()
            .map(|sample| self.values(sample))
            .collect::<Result<Vec<_>>>()?;
        let program = mixing::choose(self, &values)?;
        let whole = program.whole;
        let mut pass = self.pass(number, statistics);
        let inputs = if whole {
            pass.rows = values.len();
            vec![mixing::stack(&self.inputs, &values)?]
        } else {
            values
        };
        let outputs = run::run(&program.program, &mut pass, inputs, want_outputs)?;
        let outputs = if whole && want_outputs {
            mixing::split(&outputs[0], batch.len())?
        } else {
            outputs
        };
        let named = |values: TVec<TValue>| -> Result<Vec<(String, Tensor)>> {
            self.outputs
                .iter()
                .zip(values)
                .map(|(name, value)| Ok((name.clone(), from_tract(&value.into_arc_tensor())?)))
                .collect()
        };
        Ok(BatchRun {
            observed: pass.observed,
            outputs: outputs.into_iter().map(named).collect::<Result<_>>()?,
        })
    }

    fn pass<'a>(&'a self, number: u64, statistics: &'a Statistics<'a>) -> Pass<'a> {
        Pass {
            norms: &self.norms,
            statistics,
            seed: dropout::mix(self.dropout.unwrap_or_default()) ^ number,
            rows: 1,
            observed: vec![None; self.norms.len()],
        }
    }

    fn values(&self, sample: &Sample) -> Result<TVec<TValue>> {
        if let Some((name, _)) = sample
            .iter()
            .find(|(name, _)| self.inputs.iter().all(|input| input.name != *name))
        {
            return Err(EngineError::run(format!("the model has no input {name:?}")));
        }
        self.inputs
            .iter()
            .map(|input| input.value(sample))
            .collect()
    }
}

fn load(model: &[u8], options: &TrainOptions) -> Result<Trainer> {
    let mut proto = spec::decode(model)?;
    let context = Context {
        opset: opset(&proto),
        precision: Precision::F32,
        model_dir: options.model_dir,
        perturbation: None,
        mode: Mode::Train {
            dropout: options.dropout.is_some(),
        },
    };
    if let Some(graph) = proto.graph.as_mut() {
        session::add_outputs(graph, options.extra_outputs);
    }
    normalise(&mut proto, &context)?;
    let graph = spec::graph(&proto)?;
    let outputs = graph
        .output
        .iter()
        .map(|output| output.name.clone())
        .collect();
    let mut inputs = vec![];
    let mut declared = vec![];
    for input in spec::true_inputs(graph) {
        let mut spec = spec::spec(input)?;
        let first = spec.dims.as_mut().and_then(|dims| dims.first_mut());
        declared.push(first.as_deref().cloned());
        if let Some(first) = first {
            *first = spec::Dim::Fixed(1);
        }
        inputs.push(session::resolve(spec, options.input_dims)?);
    }
    let norms = norms(graph)?;
    let (way, norms) = mixing::load(proto, &inputs, &declared, norms)?;
    Ok(Trainer {
        norms,
        inputs,
        outputs,
        dropout: options.dropout,
        batches: AtomicU64::new(0),
        way: Mutex::new(way),
    })
}

/// The BatchNorms of a normalised graph and of the graphs in it, in file order. Their channels are known where the scale is a constant,
/// 0 otherwise.
fn norms(graph: &GraphProto) -> Result<Vec<Norm>> {
    fn visit<'a>(graph: &'a GraphProto, sizes: &mut HashMap<&'a str, usize>, out: &mut Vec<Norm>) {
        for tensor in &graph.initializer {
            let size = tensor.dims.first().copied().unwrap_or_default();
            sizes.insert(&tensor.name, usize::try_from(size).unwrap_or_default());
        }
        for node in &graph.node {
            if node.op_type == NORM {
                let channels = sizes.get(node.input[1].as_str()).copied();
                out.push(Norm {
                    output: node.output[0].clone(),
                    node: node_name(node).to_owned(),
                    channels: channels.unwrap_or_default(),
                });
            }
            for attribute in &node.attribute {
                for inner in attribute.g.iter().chain(&attribute.graphs) {
                    visit(inner, sizes, out);
                }
            }
        }
    }
    let mut out = vec![];
    visit(graph, &mut HashMap::new(), &mut out);
    let mut names = std::collections::HashSet::new();
    match out.iter().find(|norm| !names.insert(&norm.output)) {
        Some(norm) => Err(EngineError::unsupported_model(format!(
            "two BatchNormalizations compute {:?}",
            norm.output
        ))),
        None => Ok(out),
    }
}

/// Infers the types and shapes of a normalised model from those of its inputs.
fn parse(proto: &ModelProto, inputs: &[Input]) -> Result<TypedModel> {
    let mut onnx = crate::operators::registry(Precision::F32);
    operators::register(&mut onnx);
    session::parse(onnx, proto, inputs, Weights::new())
}

/// Compiles a model that was parsed from `proto`, of which only the names of nodes are read. Sets the channels of the BatchNorms that
/// it finds.
fn compile(proto: &ModelProto, mut typed: TypedModel, norms: &mut [Norm]) -> Result<Program> {
    let blame = |error: TractError| session::blame(proto, &session::explain(&error));
    if let Some(node) = crate::operators::negative_padding(&typed) {
        return Err(EngineError::unsupported_model(format!(
            "node {node} pads by a negative number"
        )));
    }
    let places: HashMap<String, usize> = norms
        .iter()
        .enumerate()
        .map(|(place, norm)| (norm.output.clone(), place))
        .collect();
    let mut always = vec![];
    for (name, channels, inside) in program::sites(&typed, false).map_err(blame)? {
        let place = places[&name];
        norms[place].channels = channels;
        if !inside {
            always.push(place);
        }
    }
    let mut met = vec![0; norms.len()];
    let buffers = Buffers::default();
    // tract simplifies here as it does in eval mode, and gets the same wrong.
    let program = crate::operators::hide_slices(&mut typed)
        .and_then(|()| crate::operators::hide_reversed(&mut typed))
        .and_then(|()| convolve::exchange::<f32>(&mut typed, Which::SinglePixels, &buffers))
        .and_then(|()| declutter(&mut typed))
        .and_then(|()| convolve::exchange::<f32>(&mut typed, Which::All, &buffers))
        .and_then(|()| activations::exchange(&mut typed, &buffers))
        .and_then(|()| declutter(&mut typed))
        .and_then(|()| optimize(&mut typed))
        .and_then(|()| Program::new(typed, &places, &mut met, &buffers))
        .map_err(blame)?;
    let lost = always.into_iter().find(|&place| met[place] != 1);
    let twice = (0..norms.len()).find(|&place| met[place] > 1 || norms[place].channels == 0);
    match lost.or(twice) {
        Some(place) => Err(EngineError::Unsupported {
            operator: "BatchNormalization".into(),
            node: norms[place].node.clone(),
            reason: "the engine cannot see what goes into it".into(),
        }),
        None => Ok(program),
    }
}
