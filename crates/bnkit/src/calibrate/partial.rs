//! Partial files: what one shard saw, as JSON with the schema `bnkit.partial/1`.
//!
//! A file carries all that must be equal for shards to be put together: the model (by hash) and its layers, the method, how the data was
//! cut. Numbers are written so that they are read back exactly. A file is complete or not there at all; one that an interrupted job
//! left says so itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bnkit_model::onnx::{Model, Payload};
use bnkit_model::source::read_bytes;
use bnkit_model::{Error as ModelError, Limits};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files;
use super::modules::Module;
use super::observe::{MOST, Seen, State};
use super::options::{Convention, Method, MethodOptions, Selection, Shard};
use super::report::PartialFile;
use crate::{Error, Result, hash};

const SCHEMA: &str = "bnkit.partial/1";
/// How many missing shards an error names.
const NAMED: usize = 16;

/// What one shard saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Partial {
    /// "bnkit.partial/1".
    pub schema: String,
    /// The version that wrote it.
    pub version: String,
    /// What must be equal.
    pub job: Job,
    /// Which part.
    pub shard: Shard,
    /// Whether all batches of the shard are in it.
    pub complete: bool,
    /// How many batches are in it.
    pub batches: u64,
    /// How many samples are in it.
    pub samples: u64,
    /// What was seen of each layer; null for those that keep their statistics.
    pub states: Vec<Option<State>>,
}

/// What all shards of a job have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    /// SHA-256 of the model and its external data.
    pub model: String,
    /// Its layers: node, scope and channels.
    pub layers: Vec<(String, String, usize)>,
    /// The method.
    pub method: Method,
    /// Whose reading of momentum and variance holds.
    pub convention: Convention,
    /// `--momentum`.
    pub momentum: Option<f64>,
    /// `--assume-constant`.
    pub assume_constant: bool,
    /// The seed of Dropout.
    pub dropout: Option<u64>,
    /// Samples per batch.
    pub batch_size: usize,
    /// Batches of all shards.
    pub total_batches: usize,
    /// The seed that the samples were shuffled with.
    pub shuffle: Option<u64>,
}

impl Job {
    /// The options of the method.
    pub(crate) fn options(&self) -> MethodOptions {
        MethodOptions {
            method: self.method,
            convention: self.convention,
            momentum: self.momentum,
            ..MethodOptions::default()
        }
    }

    /// Which layers there are to choose from.
    pub(crate) fn selection(&self) -> Selection {
        Selection {
            assume_constant: self.assume_constant,
            ..Selection::default()
        }
    }
}

/// How a partial file speaks of a model's layers.
pub(crate) fn layers(modules: &[Module]) -> Vec<(String, String, usize)> {
    let one = |module: &Module| {
        let name = &module.name;
        (name.node.clone(), name.scope.clone(), name.channels)
    };
    modules.iter().map(one).collect()
}

/// The hash of a model file and of the external data that it refers to.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn identity(model: &Model, path: &Path) -> Result<String> {
    let own = hash::of_file(path)?;
    let mut others: Vec<PathBuf> = model
        .constants()
        .filter_map(|tensor| match &tensor.payload {
            Payload::External(external) => Some(model.dir()?.join(&external.location)),
            _ => None,
        })
        .collect();
    if others.is_empty() {
        return Ok(own);
    }
    others.sort();
    others.dedup();
    let mut all = Sha256::new();
    all.update(own);
    for other in others {
        all.update(hash::of_file(&other)?);
    }
    Ok(all
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Writes what a shard saw.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write(
    path: &Path,
    force: bool,
    job: Job,
    shard: Shard,
    seen: Seen,
) -> Result<PartialFile> {
    let partial = Partial {
        schema: SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        job,
        shard,
        complete: !seen.interrupted,
        batches: seen.batches,
        samples: seen.samples,
        states: seen.states,
    };
    let bytes = serde_json::to_vec(&partial)
        .map_err(|error| Error::Request(format!("{}: {error}", path.display())))?;
    files::write(path, force, &bytes)?;
    Ok(describe(path, &partial))
}

fn describe(path: &Path, partial: &Partial) -> PartialFile {
    PartialFile {
        path: path.display().to_string(),
        shard: partial.shard,
        complete: partial.complete,
        batches: partial.batches,
        samples: partial.samples,
    }
}

/// All shards of a job, put together in their order.
pub(crate) struct Together {
    /// What they have in common.
    pub job: Job,
    /// What they saw.
    pub seen: Seen,
    /// The files, in the order of the shards.
    pub files: Vec<PartialFile>,
}

/// Reads the files of all shards of a job, in any order.
///
/// # Errors
/// If one cannot be read, they are not of one job, or a shard is missing or there twice.
pub(crate) fn read_all(paths: &[PathBuf]) -> Result<Together> {
    let mut partials = paths
        .iter()
        .map(|path| Ok((path.as_path(), read(path)?)))
        .collect::<Result<Vec<(&Path, Partial)>>>()?;
    partials.sort_by_key(|(_, partial)| partial.shard.index);
    let Some((first_path, first)) = partials.first() else {
        return Err(Error::Request("no partial files to merge".to_owned()));
    };
    for (path, partial) in &partials {
        let differs = difference(&first.job, &partial.job).or_else(|| {
            (first.shard.count != partial.shard.count).then(|| "the number of shards".to_owned())
        });
        if let Some(what) = differs {
            return Err(Error::Request(format!(
                "{}: it is of another job than {}: {what} differs",
                path.display(),
                first_path.display()
            )));
        }
    }
    for pair in partials.windows(2) {
        if pair[0].1.shard == pair[1].1.shard {
            return Err(Error::Request(format!(
                "shard {} is there twice: {} and {}",
                pair[0].1.shard,
                pair[0].0.display(),
                pair[1].0.display()
            )));
        }
    }
    let here = partials.iter().map(|(_, partial)| partial.shard.index);
    if let Some(missing) = missing(here.collect(), first.shard.count) {
        return Err(Error::Request(format!("missing shards: {missing}")));
    }
    let files = partials
        .iter()
        .map(|(path, partial)| describe(path, partial))
        .collect();
    let job = first.job.clone();
    let mut seen = Seen {
        states: first.states.clone(),
        samples: first.samples,
        batches: first.batches,
        stopped_early: false,
        interrupted: false,
    };
    for (path, partial) in &partials[1..] {
        seen.samples += partial.samples;
        seen.batches += partial.batches;
        let differ = || Error::Request(format!("{}: it is of other layers", path.display()));
        if seen.states.len() != partial.states.len() {
            return Err(differ());
        }
        for (ours, theirs) in seen.states.iter_mut().zip(&partial.states) {
            match (ours, theirs) {
                (Some(ours), Some(theirs)) => ours
                    .merge(theirs)
                    .map_err(|error| Error::Request(format!("{}: {error}", path.display())))?,
                (None, None) => {}
                _ => return Err(differ()),
            }
        }
    }
    Ok(Together { job, seen, files })
}

/// The shards that are not among these, in words. How many there should be is what a file claims.
fn missing(here: BTreeSet<usize>, count: usize) -> Option<String> {
    let left = count - here.len();
    let absent = (1..=count).filter(|index| !here.contains(index));
    let names = absent.take(NAMED).map(|index| format!("{index}/{count}"));
    let names = names.collect::<Vec<_>>().join(", ");
    match left {
        0 => None,
        1..=NAMED => Some(names),
        _ => Some(format!("{names} and {} more", left - NAMED)),
    }
}

fn read(path: &Path) -> Result<Partial> {
    let bytes = read_bytes(path, Limits::get().partial_bytes)?;
    let wrong = |message: String| Error::from(ModelError::invalid(message).in_file(path));
    #[derive(Deserialize)]
    struct Head {
        schema: String,
    }
    let head: Head = serde_json::from_slice(&bytes)
        .map_err(|error| wrong(format!("not a partial file: {error}")))?;
    if head.schema != SCHEMA {
        return Err(wrong(format!(
            "expected schema {SCHEMA}, found {:?}",
            head.schema
        )));
    }
    let partial: Partial = serde_json::from_slice(&bytes)
        .map_err(|error| wrong(format!("a damaged partial file: {error}")))?;
    let shard = partial.shard;
    let fits = partial
        .states
        .iter()
        .zip(&partial.job.layers)
        .all(|(state, layer)| {
            state
                .as_ref()
                .is_none_or(|state| state.is_sound(partial.job.method, layer.2))
        });
    if partial.states.len() != partial.job.layers.len()
        || !fits
        || partial.batches.max(partial.samples) > MOST
        || !(1..=shard.count).contains(&shard.index)
    {
        return Err(wrong(
            "a damaged partial file: its parts do not fit together".to_owned(),
        ));
    }
    Ok(partial)
}

/// What two jobs do not have in common.
pub(crate) fn difference(a: &Job, b: &Job) -> Option<String> {
    let what = if a.model != b.model {
        "the model"
    } else if a.layers != b.layers {
        "the layers"
    } else if a.method != b.method {
        "the method"
    } else if a.convention != b.convention || a.momentum != b.momentum {
        "the convention or the momentum"
    } else if a.batch_size != b.batch_size || a.total_batches != b.total_batches {
        "the batch size or the number of batches"
    } else if a.shuffle != b.shuffle || a.dropout != b.dropout {
        "a seed"
    } else if a != b {
        "an option"
    } else {
        return None;
    };
    Some(what.to_owned())
}
