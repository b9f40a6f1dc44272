//! `run`: what a network gives in train mode and in eval mode, and how far the modes are apart.

use bnkit_engine::{Moments, Statistics as Normalise};
use bnkit_model::onnx::Model;
use bnkit_model::{Error as ModelError, Tensor};

use super::recalibrate::{in_model, open, used};
use super::{Mode, RunJob};
use crate::accuracy::{AccuracyStage, Counter};
use crate::calibrate::files;
use crate::calibrate::modules::{Module, survey};
use crate::calibrate::network::Network;
use crate::calibrate::observe::Seen;
use crate::calibrate::options::{Selection, Shard};
use crate::calibrate::report::{Extremes, NormDistance, OutputDistance, OutputSummary, RunReport};
use crate::data;
use crate::pipeline::{Phase, Progress, describe_input};
use crate::report::Tool;
use crate::verify::metrics::Comparison;
use crate::{Error, Result, hash};

/// Runs a model in train mode, eval mode, or both.
///
/// # Errors
/// If something cannot be read, run or written; [`Error::Interrupted`] if the job was interrupted.
pub fn run(job: &RunJob, progress: &dyn Progress) -> Result<RunReport> {
    if let Some(output) = &job.output {
        files::check_free(output, job.force)?;
    }
    progress.begin(Phase::Reading, None);
    let model = Model::open(&job.input)?;
    let hashing = job.hash.then(|| hash::in_background(&job.input));
    let modules =
        survey(&model, &Selection::default()).map_err(|error| error.in_file(&job.input))?;
    let batches = open(&model, &job.input, &job.data, Shard::WHOLE)?;
    let dims = batches.sample_dims();
    let network = Network::load(&model, &modules, &dims, job.dropout, job.threads)
        .map_err(|error| in_model(error, &job.input))?;
    let stored = vec![None; modules.len()];
    let given = match job.mode {
        Mode::Train => None,
        Mode::Eval | Mode::Both => Some(network.given(&modules, &stored)?),
    };
    let keep = job.output.is_some();
    let mut train = (job.mode != Mode::Eval).then(|| Gathered::new("train", keep));
    let mut eval = given.is_some().then(|| Gathered::new("eval", keep));
    let mut distances: Vec<(String, Comparison)> = Vec::new();
    let mut norms: Vec<Distance> = modules.iter().map(|_| Distance::default()).collect();
    let mut samples = 0;
    progress.begin(Phase::Running, Some(batches.samples() as u64));
    for (number, batch) in batches.range.clone().zip(batches.iter()) {
        if job.interrupt.requested() {
            return Err(Error::Interrupted);
        }
        let batch = batch?;
        let trained = match &mut train {
            None => None,
            Some(gathered) => {
                let run = network
                    .run(number, &batch, &Normalise::Batch, true)
                    .map_err(|error| in_model(error, &job.input))?;
                for (&place, moments) in network.places().iter().zip(&run.observed) {
                    if let Some(moments) = moments {
                        norms[place].add(&modules[place], moments);
                    }
                }
                gathered.add(&run.outputs)?;
                gathered
                    .right
                    .add(&batches, number, &run.outputs)
                    .map_err(|error| in_model(error, &job.input))?;
                Some(run.outputs)
            }
        };
        if let (Some(gathered), Some(given)) = (&mut eval, &given) {
            let run = network
                .run(number, &batch, &Normalise::Given(given), true)
                .map_err(|error| in_model(error, &job.input))?;
            gathered.add(&run.outputs)?;
            gathered
                .right
                .add(&batches, number, &run.outputs)
                .map_err(|error| in_model(error, &job.input))?;
            if let Some(trained) = trained {
                compare(&mut distances, &run.outputs, &trained)?;
            }
        }
        samples += batch.len() as u64;
        progress.advance(samples);
    }
    if let Some(output) = &job.output {
        let both = job.mode == Mode::Both;
        let mut tensors = Vec::new();
        for gathered in [&train, &eval].into_iter().flatten() {
            tensors.extend(gathered.tensors(both)?);
        }
        files::write(output, job.force, &data::npz(&tensors)?)?;
    }
    let seen = Seen {
        states: Vec::new(),
        samples,
        batches: batches.range.len() as u64,
        stopped_early: false,
        interrupted: false,
    };
    let mut input = describe_input(&model, &job.input);
    input.sha256 = hashing.map(hash::Hashing::finish).transpose()?;
    Ok(RunReport {
        schema: "bnkit.run/1",
        tool: Tool::default(),
        input,
        data: used(&job.data, &batches, Shard::WHOLE, &seen),
        outputs: [train.as_ref(), eval.as_ref()]
            .into_iter()
            .flatten()
            .flat_map(Gathered::summaries)
            .collect(),
        distances: distances.into_iter().map(distance).collect(),
        accuracy: [train.as_ref(), eval.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(Gathered::accuracy)
            .collect(),
        batch_norms: match job.mode {
            Mode::Eval => Vec::new(),
            _ => modules.iter().zip(norms).map(norm).collect(),
        },
        warnings: batches.warnings.clone(),
        written: job.output.as_ref().map(|path| path.display().to_string()),
    })
}

type Outputs = [Vec<(String, Tensor)>];

fn compare(into: &mut Vec<(String, Comparison)>, eval: &Outputs, train: &Outputs) -> Result<()> {
    for (eval, train) in eval.iter().zip(train) {
        for ((name, eval), (_, train)) in eval.iter().zip(train) {
            let at = match into.iter().position(|(other, _)| other == name) {
                Some(at) => at,
                None => {
                    into.push((name.clone(), Comparison::default()));
                    into.len() - 1
                }
            };
            if eval.dims() == train.dims() {
                into[at].1.add(eval, train)?;
            }
        }
    }
    Ok(())
}

fn distance((name, comparison): (String, Comparison)) -> OutputDistance {
    let metrics = comparison.metrics();
    OutputDistance {
        name,
        max_abs: metrics.max_abs,
        max_rel: metrics.max_rel,
        rms: metrics.rms,
        argmax_agreement: metrics.argmax_agreement,
    }
}

/// The distances of all batches and channels at one module.
#[derive(Default)]
struct Distance {
    means: Vec<f64>,
    ratios: Vec<f64>,
}

impl Distance {
    fn add(&mut self, module: &Module, batch: &Moments) {
        let Ok(stored) = &module.stored else { return };
        for (at, variance) in batch.variance().into_iter().enumerate() {
            let width = stored.variance[at] + stored.epsilon;
            self.means
                .push((batch.mean[at] - stored.mean[at]).abs() / width.sqrt());
            self.ratios.push(((variance + stored.epsilon) / width).ln());
        }
    }
}

fn norm((module, distance): (&Module, Distance)) -> NormDistance {
    let of = |values: Vec<f64>| (!values.is_empty()).then(|| Extremes::of(values));
    NormDistance {
        layer: module.name.clone(),
        mean_distance: of(distance.means),
        log_variance_ratio: of(distance.ratios),
    }
}

/// What a mode gave, over all batches.
struct Gathered {
    mode: &'static str,
    /// Whether the values are wanted, and not only their summary.
    keep: bool,
    outputs: Vec<Output>,
    right: Counter,
}

struct Output {
    name: String,
    samples: Vec<Tensor>,
    first: Tensor,
    rows: usize,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    not_finite: u64,
}

impl Gathered {
    fn new(mode: &'static str, keep: bool) -> Self {
        Self {
            mode,
            keep,
            outputs: Vec::new(),
            right: Counter::default(),
        }
    }

    fn accuracy(&self) -> Option<AccuracyStage> {
        Some(AccuracyStage {
            stage: self.mode,
            accuracy: self.right.found()?,
        })
    }

    fn add(&mut self, samples: &Outputs) -> Result<()> {
        for (name, tensor) in samples.iter().flatten() {
            let place = self.outputs.iter().position(|output| output.name == *name);
            let output = match place {
                Some(place) => &mut self.outputs[place],
                None => {
                    self.outputs.push(Output::new(name, tensor));
                    self.outputs.last_mut().expect("just pushed")
                }
            };
            output.add(tensor, self.keep)?;
        }
        Ok(())
    }

    fn summaries(&self) -> impl Iterator<Item = OutputSummary> {
        self.outputs.iter().map(|output| OutputSummary {
            name: output.name.clone(),
            mode: self.mode,
            dtype: output.first.dtype().to_string(),
            dims: output.dims(),
            min: output.min,
            max: output.max,
            mean: output.sum / output.count as f64,
            not_finite: output.not_finite,
        })
    }

    fn tensors(&self, with_mode: bool) -> Result<Vec<(String, Tensor)>> {
        self.outputs
            .iter()
            .map(|output| {
                let name = match with_mode {
                    true => format!("{}__{}", self.mode, output.name),
                    false => output.name.clone(),
                };
                Ok((name, output.tensor()?))
            })
            .collect()
    }
}

impl Output {
    fn new(name: &str, first: &Tensor) -> Self {
        Self {
            name: name.to_owned(),
            samples: Vec::new(),
            first: first.clone(),
            rows: 0,
            count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            not_finite: 0,
        }
    }

    fn add(&mut self, tensor: &Tensor, keep: bool) -> Result<()> {
        for value in tensor.to_f64()? {
            if value.is_finite() {
                self.count += 1;
                self.sum += value;
                self.min = self.min.min(value);
                self.max = self.max.max(value);
            } else {
                self.not_finite += 1;
            }
        }
        self.rows += tensor.dims().first().copied().unwrap_or(1);
        if keep {
            self.samples.push(tensor.clone());
        }
        Ok(())
    }

    /// Of all samples, one behind the other along the leading axis (a new one for scalars).
    fn dims(&self) -> Vec<usize> {
        let inner = self.first.dims().iter().skip(1);
        std::iter::once(self.rows).chain(inner.copied()).collect()
    }

    fn tensor(&self) -> Result<Tensor> {
        let fits = |sample: &&Tensor| {
            sample
                .dims()
                .iter()
                .skip(1)
                .eq(self.first.dims().iter().skip(1))
        };
        if !self.samples.iter().all(|sample| fits(&sample)) {
            return Err(ModelError::invalid(format!(
                "output \"{}\": the samples give different shapes, which one array cannot hold",
                self.name
            ))
            .into());
        }
        let bytes: Vec<u8> = self
            .samples
            .iter()
            .flat_map(|sample| sample.data().to_vec())
            .collect();
        Ok(Tensor::new(self.first.dtype(), self.dims(), bytes)?)
    }
}
