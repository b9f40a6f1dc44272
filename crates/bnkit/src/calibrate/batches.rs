//! The data as batches of samples: which sample is in which batch, and which batch in which shard.
//!
//! The order is that of the files unless it is shuffled with a seed; shards are contiguous runs of whole batches, so that all shards in their
//! order are the same batches as one run. A sample is one step along the leading axis of every input. Images are decoded while
//! the network runs, by a thread of their own that is at most a few batches ahead.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use bnkit_engine::{Dim, InputSpec, Sample};
use bnkit_model::{DType, Error as ModelError, Tensor, tensor::decode_f64};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::options::{DataOptions, Shard};
use crate::accuracy::Labels;
use crate::data::images::{Images, is_folder_of_images};
use crate::report::Warning;
use crate::verify::inputs::{from_data, tensors_of};
use crate::{Error, Result, data};

/// Batches that are decoded ahead of the one that runs.
const AHEAD: usize = 2;
/// Elements that are looked at in one go.
const CHUNK: usize = 1 << 16;

/// The batches of one shard, as often as they are wanted.
pub(crate) struct Batches {
    source: Source,
    /// Which samples, in which order; those of all shards.
    order: Vec<usize>,
    /// Samples per batch.
    pub batch_size: usize,
    /// The batches of this shard.
    pub range: Range<usize>,
    /// The batches of all shards.
    pub total: usize,
    /// What a person should know.
    pub warnings: Vec<Warning>,
    labels: Option<Arc<Labels>>,
}

enum Source {
    Memory(Vec<Sample>),
    Images(Arc<Folder>),
}

struct Folder {
    images: Images,
    input: InputSpec,
    dims: Vec<usize>,
}

impl Batches {
    /// Opens the data for the inputs of a model.
    ///
    /// # Errors
    /// If it cannot be read, does not fit the inputs, has NaN or infinite values, or is not enough for one batch.
    pub(crate) fn open(specs: &[InputSpec], options: &DataOptions, shard: Shard) -> Result<Self> {
        if options.batch_size == 0 {
            return Err(Error::Request(
                "a batch needs at least one sample".to_owned(),
            ));
        }
        let mut warnings = Vec::new();
        let fixed = fixed_batch(specs);
        let batch_size = fixed.unwrap_or(options.batch_size);
        if batch_size != options.batch_size {
            warnings.push(Warning {
                code: "fixed-batch",
                message: format!(
                    "the model is made for batches of {batch_size}: these are used, not {}",
                    options.batch_size
                ),
            });
        }
        let limit = options.max_samples.unwrap_or(usize::MAX);
        let wanted = if options.shuffle.is_some() {
            usize::MAX
        } else {
            limit
        };
        let source = source(specs, options, fixed, wanted)?;
        // Labels are for all samples; data in memory may have been read only as far as it is wanted.
        if let Some(labels) = options.labels.as_ref().filter(|_| wanted == usize::MAX) {
            labels.check(source.len())?;
        }
        let mut order: Vec<usize> = (0..source.len()).collect();
        if let Some(seed) = options.shuffle {
            shuffle(&mut order, seed);
        }
        order.truncate(limit);
        let whole = order.len() / batch_size;
        let rest = order.len() % batch_size;
        let keep_rest = rest > 0 && !options.drop_last && fixed.is_none();
        if rest > 0 && fixed.is_some() && !options.drop_last {
            warnings.push(Warning {
                code: "fixed-batch",
                message: format!(
                    "the last {rest} samples do not fill a batch of {batch_size} and are left out"
                ),
            });
        }
        let total = (whole + usize::from(keep_rest)).min(options.max_batches.unwrap_or(usize::MAX));
        if total == 0 {
            return Err(ModelError::invalid(format!(
                "{} samples are no batch of {batch_size}",
                order.len()
            ))
            .in_file(&options.path)
            .into());
        }
        let at = |index: usize| (total as u128 * index as u128 / shard.count as u128) as usize;
        let range = at(shard.index - 1)..at(shard.index);
        if range.is_empty() {
            return Err(Error::Request(format!(
                "shard {shard} has no batches: there are only {total}"
            )));
        }
        Ok(Self {
            source,
            order,
            batch_size,
            range,
            total,
            warnings,
            labels: options.labels.clone(),
        })
    }

    /// The shape of each input of one sample.
    pub(crate) fn sample_dims(&self) -> Vec<(String, Vec<usize>)> {
        match &self.source {
            Source::Images(folder) => vec![(folder.input.name.clone(), folder.dims.clone())],
            Source::Memory(samples) => samples.first().map_or_else(Vec::new, |sample| {
                let dims = sample.iter();
                dims.map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()))
                    .collect()
            }),
        }
    }

    /// How many samples the batches have.
    pub(crate) fn samples(&self) -> usize {
        self.range
            .clone()
            .map(|batch| self.members(batch).len())
            .sum()
    }

    /// The labels of the samples of a batch, if the data has any.
    pub(crate) fn labels(&self, batch: usize) -> Option<impl Iterator<Item = Result<usize>>> {
        let labels = self.labels.as_ref()?;
        let members = self.order[self.members(batch)].iter();
        Some(members.map(|&at| labels.of(at, self.source.file(at))))
    }

    /// The batches, from the first.
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = Result<Vec<Sample>>> + '_> {
        match &self.source {
            Source::Memory(samples) => Box::new(self.range.clone().map(move |batch| {
                let members = self.order[self.members(batch)].iter();
                Ok(members.map(|&at| samples[at].clone()).collect())
            })),
            Source::Images(folder) => Box::new(self.decode(folder.clone()).into_iter()),
        }
    }

    /// The samples, where all of them are to be one batch.
    ///
    /// # Errors
    /// If they are not, because the model is made for batches of another size.
    pub(crate) fn whole_batch(&self) -> Result<Vec<Sample>> {
        let rest = self.order.len() - self.members(0).len();
        match self.iter().next() {
            Some(batch) if rest == 0 => batch,
            _ => Err(Error::Request(format!(
                "{} samples, and the model is made for batches of {}",
                self.order.len(),
                self.batch_size
            ))),
        }
    }

    /// The places (in the order) of the samples of a batch.
    fn members(&self, batch: usize) -> Range<usize> {
        let end = self
            .order
            .len()
            .min((batch + 1).saturating_mul(self.batch_size));
        batch * self.batch_size..end
    }

    fn decode(&self, folder: Arc<Folder>) -> Receiver<Result<Vec<Sample>>> {
        let (sender, receiver) = sync_channel(AHEAD);
        let plan: Vec<Vec<usize>> = self
            .range
            .clone()
            .map(|batch| self.order[self.members(batch)].to_vec())
            .collect();
        // It ends by itself when nobody listens any more.
        std::thread::spawn(move || {
            for batch in plan {
                let batch: Result<Vec<Sample>> =
                    batch.into_iter().map(|at| folder.sample(at)).collect();
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        });
        receiver
    }
}

impl Source {
    fn len(&self) -> usize {
        match self {
            Self::Memory(samples) => samples.len(),
            Self::Images(folder) => folder.images.files.len(),
        }
    }

    /// The file of a sample that has one of its own.
    fn file(&self, at: usize) -> Option<&Path> {
        match self {
            Self::Memory(_) => None,
            Self::Images(folder) => folder.images.files.get(at).map(PathBuf::as_path),
        }
    }
}

impl Folder {
    fn sample(&self, at: usize) -> Result<Sample> {
        let (dims, values) = self.images.read(at)?;
        let mut all = vec![1];
        all.extend(dims);
        let name = || format!("input {:?}", self.input.name);
        if all != self.dims {
            let message = format!(
                "expected shape {:?} as of the first image, found {all:?}",
                self.dims
            );
            let error = ModelError::invalid(message).at(name());
            return Err(error.in_file(&self.images.files[at]).into());
        }
        let tensor = match self.input.dtype {
            DType::F32 => Tensor::from_f32(all, &values)?,
            other => {
                let wide: Vec<f64> = values
                    .iter()
                    .map(|&value| f64::from(value).round_for(other))
                    .collect();
                Tensor::from_f64(other, all, &wide)?
            }
        };
        Ok(vec![(self.input.name.clone(), tensor)])
    }
}

trait RoundFor {
    fn round_for(self, dtype: DType) -> f64;
}

impl RoundFor for f64 {
    /// Integers would be cut off instead.
    fn round_for(self, dtype: DType) -> f64 {
        if dtype.is_float() { self } else { self.round() }
    }
}

/// The batch size that every input declares, if it is above 1.
fn fixed_batch(specs: &[InputSpec]) -> Option<usize> {
    let first = |spec: &InputSpec| match spec.dims.as_ref()?.first()? {
        Dim::Fixed(size) if *size > 1 => Some(*size),
        _ => None,
    };
    let size = first(specs.first()?)?;
    specs
        .iter()
        .all(|spec| first(spec) == Some(size))
        .then_some(size)
}

fn source(
    specs: &[InputSpec],
    options: &DataOptions,
    fixed: Option<usize>,
    limit: usize,
) -> Result<Source> {
    let path = options.path.as_path();
    let set = match &options.tensors {
        Some(set) => set.clone(),
        None if is_folder_of_images(path) => return images(specs, options, path),
        None => data::load(path)?,
    };
    // One sample at a time, whatever size of batch the model declares.
    let mut single = specs.to_vec();
    for spec in single.iter_mut().filter(|_| fixed.is_some()) {
        if let Some(first) = spec.dims.as_mut().and_then(|dims| dims.first_mut()) {
            *first = Dim::Fixed(1);
        }
    }
    for spec in &single {
        for tensor in tensors_of(spec, single.len() == 1, &set)? {
            check_finite(&tensor.tensor, limit).map_err(|error| {
                error
                    .at(format!("input {:?}", spec.name))
                    .in_file(&tensor.source)
            })?;
        }
    }
    let given: Vec<(String, Vec<usize>)> = options
        .shapes
        .iter()
        .map(|(name, dims)| {
            let name = match (name.as_str(), specs) {
                ("", [only]) => only.name.clone(),
                _ => name.clone(),
            };
            let mut dims = dims.clone();
            if let Some(first) = dims.first_mut() {
                *first = 1;
            }
            (name, dims)
        })
        .collect();
    Ok(Source::Memory(from_data(&single, &set, &given, limit)?))
}

fn images(specs: &[InputSpec], options: &DataOptions, path: &Path) -> Result<Source> {
    let wrong = |message: String| Error::from(ModelError::invalid(message).in_file(path));
    let Some(preprocess) = &options.preprocess else {
        return Err(wrong(
            "a folder of images: say how they are prepared, as in --preprocess imagenet".to_owned(),
        ));
    };
    let [input] = specs else {
        return Err(wrong(format!(
            "a folder of images is for models with one input, this one has {}",
            specs.len()
        )));
    };
    let images = Images::open(path, preprocess.clone())?;
    let mut dims = vec![1];
    dims.extend(images.read(0)?.0);
    let fits = input.dims.as_ref().is_none_or(|declared| {
        declared.len() == dims.len()
            && declared
                .iter()
                .zip(&dims)
                .skip(1)
                .all(|(declared, size)| match declared {
                    Dim::Fixed(fixed) => fixed == size,
                    _ => true,
                })
    });
    if !fits {
        let declared: Vec<String> = input
            .dims
            .iter()
            .flatten()
            .map(|dim| match dim {
                Dim::Fixed(size) => size.to_string(),
                Dim::Symbol(name) => name.clone(),
                Dim::Unknown => "?".to_owned(),
            })
            .collect();
        let message = format!(
            "input {:?}: expected shape [{}], found {dims:?} after preprocessing",
            input.name,
            declared.join(", ")
        );
        return Err(ModelError::invalid(message)
            .in_file(&images.files[0])
            .into());
    }
    Ok(Source::Images(Arc::new(Folder {
        images,
        input: input.clone(),
        dims,
    })))
}

/// Refuses values that no statistic survives, in the first `limit` samples.
fn check_finite(tensor: &Tensor, limit: usize) -> bnkit_model::Result<()> {
    let Some(size) = tensor.dtype().size().filter(|_| tensor.dtype().is_float()) else {
        return Ok(());
    };
    let row: usize = tensor.dims().iter().skip(1).product();
    let bytes = tensor
        .data()
        .len()
        .min(row.saturating_mul(limit).saturating_mul(size));
    for (chunk, bytes) in tensor.data()[..bytes].chunks(CHUNK * size).enumerate() {
        let values = decode_f64(tensor.dtype(), bytes)?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let sample = (chunk * CHUNK + at) / row.max(1);
            return Err(ModelError::invalid(format!(
                "sample {sample} has the value {}",
                values[at]
            )));
        }
    }
    Ok(())
}

/// Fisher and Yates.
fn shuffle(order: &mut [usize], seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for last in (1..order.len()).rev() {
        let other = ((u128::from(random.next_u64()) * (last as u128 + 1)) >> 64) as usize;
        order.swap(last, other);
    }
}

#[cfg(test)]
#[path = "batches/tests.rs"]
mod tests;
