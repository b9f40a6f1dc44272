//! Running a program in lock-step.
//!
//! Every seat (a sample, or a whole batch) has a value table of its own. Seats run a stage in parallel, each up to the BatchNorm
//! that ends it and the moments of what goes in; the moments are merged in the order of the seats, so the number of threads
//! changes nothing; normalising is the first thing that each seat does in the next stage. Parallel work returns its error as a value and
//! no seat waits for another inside a stage, so a seat that fails cannot block the rest.

use rayon::prelude::*;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::OutletId;
use tract_onnx::tract_core::model::TypedSimpleState;

use super::program::{End, Program, Stage, Step};
use super::{Norm, Statistics, dropout};
use crate::buffers::Buffers;
use crate::kernels::{self, Affine};
use crate::quiet::catch;
use crate::session::explain;
use crate::{EngineError, Moments, Result};

/// One batch on its way through a model.
pub(super) struct Pass<'a> {
    pub(super) norms: &'a [Norm],
    pub(super) statistics: &'a Statistics<'a>,
    /// Seed of this batch's Dropout.
    pub(super) seed: u64,
    /// Samples in each seat.
    pub(super) rows: usize,
    /// What each BatchNorm saw.
    pub(super) observed: Vec<Option<Moments>>,
}

type Seat = TypedSimpleState;

/// Runs `program`, a seat for each of `inputs`. Without `outputs` it ends after the last BatchNorm has seen its input.
pub(super) fn run(
    program: &Program,
    pass: &mut Pass,
    inputs: Vec<TVec<TValue>>,
    outputs: bool,
) -> Result<Vec<TVec<TValue>>> {
    let mut seats = inputs
        .into_iter()
        .map(|inputs| {
            let mut seat = program.plan.spawn()?;
            seat.set_inputs(inputs)?;
            Ok(seat)
        })
        .collect::<TractResult<Vec<Seat>>>()
        .map_err(|error| failed(&error))?;
    let mut pending: Option<(&Step, Affine)> = None;
    for stage in &program.stages {
        if stage.end.is_none() && !outputs {
            return Ok(vec![]);
        }
        let (seed, rows) = (pass.seed, pass.rows);
        let seen = each(&mut seats, |index, seat| {
            if let Some((step, affine)) = &pending {
                normalise(seat, step, affine, &program.buffers)?;
            }
            for step in &stage.steps {
                if outputs || step.wanted {
                    compute(seat, step, (seed, index * rows, rows))?;
                }
            }
            match &stage.end {
                Some(End::Norm { step, .. }) => moments(seat, step).map(Some),
                _ => Ok(None),
            }
        })?;
        pending = meet(stage, pass, &mut seats, seen, outputs)?;
    }
    seats
        .iter()
        .map(|seat| {
            (0..program.plan.model().output_outlets()?.len())
                .map(|output| seat.output(output).cloned())
                .collect()
        })
        .collect::<TractResult<_>>()
        .map_err(|error| failed(&error))
}

/// What happens at the end of a stage, to all seats together. Returns the normalisation that the next stage begins with.
fn meet<'a>(
    stage: &'a Stage,
    pass: &mut Pass,
    seats: &mut [Seat],
    seen: Vec<Option<Moments>>,
    outputs: bool,
) -> Result<Option<(&'a Step, Affine)>> {
    match &stage.end {
        None => Ok(None),
        Some(End::Norm {
            step,
            site,
            epsilon,
            channels,
        }) => {
            let mut all = Moments::empty(*channels);
            for seen in seen.iter().flatten() {
                all.merge(seen)?;
            }
            let affine = if outputs || step.wanted {
                let affine = affine(pass, seats, step, *site, *epsilon, &all)?;
                Some((step, affine))
            } else {
                check(&pass.norms[*site], pass.statistics, &all)?;
                None
            };
            pass.observed[*site] = Some(all);
            Ok(affine)
        }
        Some(End::Branch { step, branches }) => {
            let taken = seats
                .iter()
                .map(|seat| get(seat, step.inputs[0])?.cast_to_scalar::<bool>())
                .collect::<TractResult<Vec<bool>>>()
                .map_err(|error| failed(&error))?;
            let Some(&first) = taken.first() else {
                return Ok(None);
            };
            if taken.iter().any(|&other| other != first) {
                return Err(EngineError::Unsupported {
                    operator: "If".into(),
                    node: name(seats, step),
                    reason: "the samples of a batch take different branches, and there is a \
                        BatchNormalization in one"
                        .into(),
                });
            }
            let (places, body) = &branches[usize::from(!first)];
            let inputs = seats
                .iter_mut()
                .map(|seat| {
                    let inputs = places
                        .iter()
                        .map(|&place| get(seat, step.inputs[place]).cloned())
                        .collect();
                    drop_dead(seat, step);
                    inputs
                })
                .collect::<TractResult<Vec<_>>>()
                .map_err(|error| failed(&error))?;
            for (seat, values) in seats.iter_mut().zip(run(body, pass, inputs, true)?) {
                put(seat, step, values);
            }
            Ok(None)
        }
    }
}

/// Runs `work` on each seat, in parallel; the first error by the seats' order.
fn each<T: Send>(
    seats: &mut [Seat],
    work: impl Fn(usize, &mut Seat) -> TractResult<T> + Sync,
) -> Result<Vec<T>> {
    let results: Vec<Result<T>> = seats
        .par_iter_mut()
        .with_max_len(1)
        .enumerate()
        .map(|(index, seat)| {
            catch(|| work(index, seat))
                .map_err(EngineError::run)?
                .map_err(|error| failed(&error))
        })
        .collect();
    results.into_iter().collect()
}

fn failed(error: &TractError) -> EngineError {
    EngineError::run(explain(error))
}

fn name(seats: &[Seat], step: &Step) -> String {
    seats[0].model().node(step.node).name.clone()
}

fn get(seat: &Seat, outlet: OutletId) -> TractResult<&TValue> {
    seat.turn_state.values[outlet.node]
        .as_ref()
        .and_then(|values| values.get(outlet.slot))
        .ok_or_else(|| {
            TractError::msg(format!(
                "no value of {}",
                seat.model().node(outlet.node).name
            ))
        })
}

fn drop_dead(seat: &mut Seat, step: &Step) {
    for &dead in &step.dead {
        seat.turn_state.values[dead] = None;
    }
}

fn put(seat: &mut Seat, step: &Step, values: TVec<TValue>) {
    seat.turn_state.values[step.node] = (!step.unread).then_some(values);
}

/// Takes the inputs of a step, leaving only what is still read later.
fn take(seat: &mut Seat, step: &Step) -> TractResult<TVec<TValue>> {
    let inputs = step
        .inputs
        .iter()
        .map(|&input| get(seat, input).cloned())
        .collect();
    drop_dead(seat, step);
    inputs
}

fn compute(seat: &mut Seat, step: &Step, dropping: (u64, usize, usize)) -> TractResult<()> {
    let mut inputs = take(seat, step)?;
    if let Some(op) = &step.dropout {
        let ratio = match inputs.get(1) {
            Some(ratio) => ratio.cast_to_scalar::<f64>()?,
            None => op.ratio.into(),
        };
        let mut data = inputs.swap_remove(0).into_tensor();
        dropout::apply(&mut data, &op.name, ratio, dropping)?;
        put(seat, step, tvec!(data.into_tvalue()));
    } else {
        seat.compute_one_with_inputs(step.node, inputs)?;
        if step.unread {
            seat.turn_state.values[step.node] = None;
        }
    }
    Ok(())
}

/// Batch, channels and elements per plane.
fn planes(shape: &[usize]) -> (usize, usize, usize) {
    (shape[0], shape[1], shape[2..].iter().product())
}

fn moments(seat: &Seat, step: &Step) -> TractResult<Moments> {
    let x = get(seat, step.inputs[0])?;
    let (outer, channels, inner) = planes(x.shape());
    let view = x.try_as_plain_ram()?;
    Ok(if x.datum_type() == DatumType::F64 {
        Moments::of_planes(view.as_slice::<f64>()?, outer, channels, inner)
    } else {
        Moments::of_planes(view.as_slice::<f32>()?, outer, channels, inner)
    })
}

fn normalise(seat: &mut Seat, step: &Step, affine: &Affine, buffers: &Buffers) -> TractResult<()> {
    let x = take(seat, step)?.swap_remove(0);
    let (_, _, inner) = planes(x.shape());
    let normal = if x.datum_type() == DatumType::F64 {
        let mut x = x.into_tensor();
        let mut view = x.try_as_plain_ram_mut()?;
        kernels::normalise_double(view.as_slice_mut::<f64>()?, inner, affine);
        x
    } else if x.is_exclusive() {
        let mut x = x.into_tensor();
        let mut view = x.try_as_plain_ram_mut()?;
        kernels::normalise(view.as_slice_mut::<f32>()?, inner, affine, step.bounds);
        x
    } else {
        let mut normal = buffers.take::<f32>(x.shape())?;
        kernels::normalise_into(
            x.try_as_plain_ram()?.as_slice::<f32>()?,
            normal.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?,
            inner,
            affine,
            step.bounds,
        );
        normal
    };
    put(seat, step, tvec!(normal.into_tvalue()));
    Ok(())
}

/// Whether these statistics can normalise.
fn check(norm: &Norm, statistics: &Statistics, seen: &Moments) -> Result<()> {
    match statistics {
        Statistics::Batch if seen.count < 2 => Err(EngineError::run(format!(
            "BatchNormalization {:?}: {} element(s) per channel in the batch, at least 2 are needed for a variance: give more samples",
            norm.node, seen.count
        ))),
        Statistics::Batch => Ok(()),
        Statistics::Given(given) => match given.get(&norm.output) {
            Some((mean, variance)) if [mean.len(), variance.len()] == [norm.channels; 2] => Ok(()),
            Some((mean, variance)) => Err(EngineError::run(format!(
                "BatchNormalization {:?}: expected statistics of {} channels, found {} means and {} variances",
                norm.node,
                norm.channels,
                mean.len(),
                variance.len()
            ))),
            None => Err(EngineError::run(format!(
                "BatchNormalization {:?}: its statistics are not given",
                norm.node
            ))),
        },
    }
}

/// What a BatchNorm does to each channel.
fn affine(
    pass: &Pass,
    seats: &[Seat],
    step: &Step,
    site: usize,
    epsilon: f64,
    seen: &Moments,
) -> Result<Affine> {
    let norm = &pass.norms[site];
    check(norm, pass.statistics, seen)?;
    let (mean, variance) = match pass.statistics {
        Statistics::Batch => (seen.mean.clone(), seen.variance()),
        Statistics::Given(given) => given[&norm.output].clone(),
    };
    let parameter = |outlet: OutletId| -> Result<Vec<f64>> {
        let values = seats
            .iter()
            .map(|seat| get(seat, outlet))
            .collect::<TractResult<Vec<&TValue>>>()
            .map_err(|error| failed(&error))?;
        let first = values[0];
        let same = |other: &&TValue| {
            std::ptr::eq::<Tensor>(&***other, &**first) || other.as_bytes() == first.as_bytes()
        };
        if !values.iter().all(same) {
            return Err(EngineError::Unsupported {
                operator: "BatchNormalization".into(),
                node: norm.node.clone(),
                reason: "its scale or bias is computed from the data and differs between samples"
                    .into(),
            });
        }
        let wide = first.cast_to::<f64>().map_err(|error| failed(&error))?;
        let view = wide.try_as_plain_ram().map_err(|error| failed(&error))?;
        let slice = view.as_slice::<f64>().map_err(|error| failed(&error))?;
        Ok(slice.to_vec())
    };
    let gamma = parameter(step.inputs[1])?;
    Ok(Affine {
        scale: gamma
            .iter()
            .zip(&variance)
            .map(|(gamma, variance)| gamma / (variance + epsilon).sqrt())
            .collect(),
        centre: mean,
        shift: parameter(step.inputs[2])?,
    })
}
