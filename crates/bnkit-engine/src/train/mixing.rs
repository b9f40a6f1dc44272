//! Whether anything but BatchNorm mixes the samples of a batch, and the way to run that follows.
//!
//! Where the graph does not prove it ([`independence`]), it is tried: two different samples of the first batch run side by side and as one batch, the second
//! time with the statistics that the first run found, so that nothing amplifies rounding. If any BatchNorm sees, or any output
//! shows, something else, the samples mix. A model for batches of exactly one has no other meaning than one by one, and a model that
//! cannot run as a batch of two has none either.

use std::collections::HashMap;
use std::sync::Arc;

use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

use super::program::Program;
use super::run::run;
use super::{GivenStatistics, Norm, Statistics, Trainer, compile, independence, parse};
use crate::quiet::catch;
use crate::session::Input;
use crate::spec::Dim;
use crate::{EngineError, Moments, Result};

/// How batches run.
#[derive(Debug)]
pub(super) enum Way {
    /// Side by side.
    Apart(Arc<Program>),
    /// Side by side, as long as no two different samples were seen.
    Untried(Arc<Program>, Box<ModelProto>),
    /// As one; a plan for each size of batch.
    Whole {
        proto: Box<ModelProto>,
        plans: HashMap<usize, Arc<Program>>,
        /// The only size that the model declares.
        fixed: Option<usize>,
    },
}

/// A program, and whether it runs a batch as one.
pub(super) struct Choice {
    pub(super) program: Arc<Program>,
    pub(super) whole: bool,
}

/// How far what a BatchNorm sees may differ, relative to its standard deviation: rounding is far below, other samples far above.
const TOLERANCE: f64 = 1e-2;

/// Plans of different batch sizes that are kept.
const PLANS: usize = 2;

/// The way to begin with, and the BatchNorms with their channels.
pub(super) fn load(
    mut proto: ModelProto,
    inputs: &[Input],
    declared: &[Option<Dim>],
    mut norms: Vec<Norm>,
) -> Result<(Way, Vec<Norm>)> {
    let batched: Vec<&Option<Dim>> = declared
        .iter()
        .zip(inputs)
        .filter_map(|(dim, input)| stacked(input).then_some(dim))
        .collect();
    let fixed = batched.iter().find_map(|dim| match dim {
        Some(Dim::Fixed(size)) if *size > 1 => Some(*size),
        _ => None,
    });
    if let Some(size) = fixed {
        let program = compile(&proto, parse(&proto, &resized(inputs, size))?, &mut norms)?;
        forget_weights(&mut proto);
        let way = Way::Whole {
            proto: Box::new(proto),
            plans: HashMap::from([(size, Arc::new(program))]),
            fixed,
        };
        return Ok((way, norms));
    }
    let one = batched.iter().all(|dim| **dim == Some(Dim::Fixed(1)));
    let graph = crate::spec::graph(&proto)?;
    let ranks: Vec<(&str, usize)> = inputs
        .iter()
        .filter(|input| stacked(input))
        .map(|input| (input.name.as_str(), input.dims.len()))
        .collect();
    let apart = one || independence::proven(graph, &ranks);
    let typed = parse(&proto, inputs)?;
    if apart {
        forget_weights(&mut proto);
    }
    let program = Arc::new(compile(&proto, typed, &mut norms)?);
    let way = if apart {
        Way::Apart(program)
    } else {
        Way::Untried(program, Box::new(proto))
    };
    Ok((way, norms))
}

/// Frees the weights, of which a typed model has a copy: a third of all memory.
fn forget_weights(proto: &mut ModelProto) {
    for tensor in proto
        .graph
        .iter_mut()
        .flat_map(|graph| &mut graph.initializer)
    {
        tensor.raw_data = vec![];
    }
}

/// The program for a batch.
pub(super) fn choose(trainer: &Trainer, batch: &[TVec<TValue>]) -> Result<Choice> {
    let mut way = trainer
        .way
        .lock()
        .map_err(|_| EngineError::run("an earlier run failed"))?;
    if let Way::Untried(program, proto) = &*way {
        let Some(pair) = different(batch) else {
            return Ok(Choice {
                program: program.clone(),
                whole: false,
            });
        };
        let next = if mixes(trainer, program, proto, &pair)? {
            Way::Whole {
                proto: proto.clone(),
                plans: HashMap::new(),
                fixed: None,
            }
        } else {
            Way::Apart(program.clone())
        };
        *way = next;
    }
    match &mut *way {
        Way::Apart(program) | Way::Untried(program, _) => Ok(Choice {
            program: program.clone(),
            whole: false,
        }),
        Way::Whole {
            proto,
            plans,
            fixed,
        } => {
            let size = batch.len();
            if let Some(fixed) = fixed.filter(|&fixed| fixed != size) {
                return Err(EngineError::run(format!(
                    "the model is made for batches of exactly {fixed}, found {size} samples"
                )));
            }
            if !plans.contains_key(&size) {
                let inputs = resized(&trainer.inputs, size);
                let program =
                    caught(|| compile(proto, parse(proto, &inputs)?, &mut trainer.norms.clone()))?;
                if plans.len() >= PLANS {
                    plans.clear();
                }
                plans.insert(size, Arc::new(program));
            }
            Ok(Choice {
                program: plans[&size].clone(),
                whole: true,
            })
        }
    }
}

fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch(work).unwrap_or_else(|panic| Err(EngineError::unsupported_model(panic)))
}

/// Whether samples of this input are stacked to make a batch; others must be the same for all samples.
fn stacked(input: &Input) -> bool {
    input.dims.first() == Some(&1)
}

/// The inputs of a batch.
fn resized(inputs: &[Input], size: usize) -> Vec<Input> {
    let mut inputs = inputs.to_vec();
    for input in inputs.iter_mut().filter(|input| stacked(input)) {
        input.dims[0] = size;
    }
    inputs
}

/// Two samples that differ: of equal ones nothing can be learned.
fn different(batch: &[TVec<TValue>]) -> Option<[TVec<TValue>; 2]> {
    let first = batch.first()?;
    let other = batch.iter().find(|other| {
        other
            .iter()
            .zip(first)
            .any(|(a, b)| a.as_bytes() != b.as_bytes())
    })?;
    Some([first.clone(), other.clone()])
}

fn mixes(
    trainer: &Trainer,
    program: &Program,
    proto: &ModelProto,
    pair: &[TVec<TValue>; 2],
) -> Result<bool> {
    let mut apart = trainer.pass(0, &Statistics::Batch);
    // What fails here fails in the run itself, which then says so.
    let Ok(apart_outputs) = run(program, &mut apart, pair.to_vec(), true) else {
        return Ok(false);
    };
    let given: GivenStatistics = trainer
        .norms
        .iter()
        .zip(&apart.observed)
        .filter_map(|(norm, seen)| {
            let seen = seen.as_ref()?;
            Some((norm.output.clone(), (seen.mean.clone(), seen.variance())))
        })
        .collect();
    let inputs = resized(&trainer.inputs, 2);
    let Ok(whole_program) =
        caught(|| compile(proto, parse(proto, &inputs)?, &mut trainer.norms.clone()))
    else {
        return Ok(false);
    };
    let Ok(stack) = stack(&trainer.inputs, pair) else {
        return Ok(false);
    };
    let statistics = Statistics::Given(&given);
    let mut whole = trainer.pass(0, &statistics);
    whole.rows = 2;
    let Ok(whole_outputs) = run(&whole_program, &mut whole, vec![stack], true) else {
        return Ok(false);
    };
    let seen_otherwise = apart
        .observed
        .iter()
        .zip(&whole.observed)
        .any(|pair| match pair {
            (Some(apart), Some(whole)) => differ(apart, whole),
            (apart, whole) => apart.is_some() != whole.is_some(),
        });
    Ok(seen_otherwise || outputs_differ(&apart_outputs, &split(&whole_outputs[0], 2)?))
}

/// Whether two observations of the same data differ by more than rounding.
fn differ(a: &Moments, b: &Moments) -> bool {
    a.count != b.count
        || (0..a.channels()).any(|channel| {
            let spread = (a.m2[channel] / a.count as f64).sqrt();
            let other = (b.m2[channel] / b.count as f64).sqrt();
            let scale = spread.max(other) + 1e-3 * a.mean[channel].abs() + 1e-12;
            (a.mean[channel] - b.mean[channel]).abs() > TOLERANCE * scale
                || (spread - other).abs() > TOLERANCE * scale
        })
}

fn outputs_differ(apart: &[TVec<TValue>], whole: &[TVec<TValue>]) -> bool {
    apart.iter().zip(whole).any(|(apart, whole)| {
        apart
            .iter()
            .zip(whole)
            .any(|(a, b)| a.shape() != b.shape() || far(a, b).unwrap_or(true))
    })
}

fn far(a: &Tensor, b: &Tensor) -> TractResult<bool> {
    if !a.datum_type().is_float() {
        return Ok(false);
    }
    let (a, b) = (a.cast_to::<f64>()?, b.cast_to::<f64>()?);
    let (a, b) = (a.try_as_plain_ram()?, b.try_as_plain_ram()?);
    let (a, b) = (a.as_slice::<f64>()?, b.as_slice::<f64>()?);
    let range = a.iter().fold(0f64, |range, x| range.max(x.abs()));
    Ok(a.iter()
        .zip(b)
        .any(|(a, b)| (a - b).abs() > TOLERANCE * range.max(1e-12)))
}

/// The inputs of a batch from those of its samples.
pub(super) fn stack(inputs: &[Input], batch: &[TVec<TValue>]) -> Result<TVec<TValue>> {
    let mut out = tvec![];
    for (position, input) in inputs.iter().enumerate() {
        let mut parts = batch.iter().map(|sample| &sample[position]);
        if stacked(input) {
            let parts: Vec<&Tensor> = parts.map(|part| &**part).collect();
            let stacked = Tensor::stack_tensors(0, &parts)
                .map_err(|error| EngineError::run(error.to_string()))?;
            out.push(stacked.into_tvalue());
        } else {
            let first = &batch[0][position];
            if !parts.all(|part| part.as_bytes() == first.as_bytes()) {
                return Err(EngineError::run(format!(
                    "input {:?} has no batch dimension and differs between the samples of a batch",
                    input.name
                )));
            }
            out.push(first.clone());
        }
    }
    Ok(out)
}

/// The outputs of each sample from those of its batch.
pub(super) fn split(outputs: &[TValue], size: usize) -> Result<Vec<TVec<TValue>>> {
    (0..size)
        .map(|sample| {
            outputs
                .iter()
                .map(|output| {
                    if output.shape().first() == Some(&size) {
                        Ok(output.slice(0, sample, sample + 1)?.into_tvalue())
                    } else {
                        Ok(output.clone())
                    }
                })
                .collect()
        })
        .collect::<TractResult<_>>()
        .map_err(|error| EngineError::run(error.to_string()))
}
