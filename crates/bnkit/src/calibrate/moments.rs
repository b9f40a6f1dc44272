//! What batches showed, as a value that can be carried elsewhere, adds up, and knows which batches it is of.
//!
//! Statistics depend on the order in which batches are taken up: an exponential average by its meaning, the others in their last bits. So
//! every batch has a number. Batches from 0 on without a gap are taken up at once, in their order, exactly as one run over them does;
//! those behind a gap are kept one by one until it closes. The result is that of one run to the last bit, whoever saw which batch.
//!
//! Of each batch that is taken up a digest stays behind: a batch that comes a second time (of a task that was repeated) counts once,
//! and another batch under the same number is an error.

use std::collections::BTreeMap;
use std::ops::Range;

use bnkit_engine::Moments as OfChannels;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::observe::{Calls, MOST, Seen, State};
use super::options::{Convention, Method};
use crate::{Error, Result};

const SCHEMA: &str = "bnkit.moments/1";

/// What batches showed of the BatchNorms of a model. Made by a [`Recalibrator`](super::Recalibrator), which also makes statistics of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    schema: String,
    version: String,
    about: About,
    collected: Collected,
}

/// What must be equal for two to be put together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    /// SHA-256 of the model and its external data.
    pub model: String,
    /// Its layers: node, scope and channels.
    pub layers: Vec<(String, String, usize)>,
    /// Those of them that get new statistics.
    pub targets: Vec<Option<Target>>,
    /// The method.
    pub method: Method,
    /// Whose reading of momentum and variance holds.
    pub convention: Convention,
    /// The seed of Dropout.
    pub dropout: Option<u64>,
}

/// A layer that gets new statistics.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    /// The weight of the history; for `ema` only.
    pub history: Option<f64>,
}

/// Batches, by number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Collected {
    convention: Convention,
    /// What the method made of the batches from 0 on, as far as there is no gap.
    states: Vec<Option<State>>,
    /// Their samples.
    samples: u64,
    /// The samples of the largest of them.
    largest: u64,
    /// Their digests: as many as there are batches.
    digests: Vec<String>,
    /// Batches behind a gap.
    later: BTreeMap<u64, Batch>,
}

/// What one batch showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    samples: u64,
    calls: Vec<Call>,
}

/// What one call of a layer showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    layer: usize,
    count: u64,
    mean: Vec<f64>,
    m2: Vec<f64>,
}

impl Batch {
    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.samples.to_le_bytes());
        for call in &self.calls {
            hash.update((call.layer as u64).to_le_bytes());
            hash.update(call.count.to_le_bytes());
            for value in call.mean.iter().chain(&call.m2) {
                hash.update(value.to_bits().to_le_bytes());
            }
        }
        let bytes = hash.finalize();
        bytes[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn calls(self) -> Calls {
        let calls = self.calls.into_iter().map(|call| {
            let moments = OfChannels {
                count: call.count,
                mean: call.mean,
                m2: call.m2,
            };
            (call.layer, moments)
        });
        calls.collect()
    }
}

impl Collected {
    /// No batch yet.
    pub(crate) fn nothing(empty: &Seen, convention: Convention) -> Self {
        Self {
            convention,
            states: empty.states.clone(),
            samples: 0,
            largest: 0,
            digests: Vec::new(),
            later: BTreeMap::new(),
        }
    }

    /// Takes what a batch showed. One that is there already changes nothing.
    ///
    /// # Errors
    /// If another batch has that number.
    pub(crate) fn push(&mut self, index: u64, samples: u64, calls: Calls) -> Result<()> {
        let calls = calls.into_iter().map(|(layer, moments)| Call {
            layer,
            count: moments.count,
            mean: moments.mean,
            m2: moments.m2,
        });
        let batch = Batch {
            samples,
            calls: calls.collect(),
        };
        self.insert(index, batch)?;
        self.close()
    }

    fn insert(&mut self, index: u64, batch: Batch) -> Result<()> {
        let place = usize::try_from(index).ok();
        let same = match place.and_then(|place| self.digests.get(place)) {
            Some(digest) => *digest == batch.digest(),
            None => match self.later.get(&index) {
                Some(other) => *other == batch,
                None => {
                    self.later.insert(index, batch);
                    true
                }
            },
        };
        if same { Ok(()) } else { Err(twice(index)) }
    }

    /// Takes up what no gap is before any more.
    fn close(&mut self) -> Result<()> {
        while let Some(batch) = self.later.remove(&(self.digests.len() as u64)) {
            let digest = batch.digest();
            let samples = batch.samples;
            let mut seen = self.head();
            seen.take(&batch.calls(), samples, self.convention, |_| "")?;
            self.states = seen.states;
            self.samples += samples;
            self.largest = self.largest.max(samples);
            self.digests.push(digest);
        }
        Ok(())
    }

    /// The batches before the first gap.
    fn head(&self) -> Seen {
        Seen {
            states: self.states.clone(),
            samples: self.samples,
            batches: self.digests.len() as u64,
            stopped_early: false,
            interrupted: false,
        }
    }

    /// Takes over the batches of another.
    ///
    /// # Errors
    /// If both have a batch of one number and the two differ; then nothing was taken over.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<()> {
        let both = self.digests.iter().zip(&other.digests);
        if let Some(index) = both.into_iter().position(|(ours, theirs)| ours != theirs) {
            return Err(twice(index as u64));
        }
        let (longer, shorter) = match self.digests.len() >= other.digests.len() {
            true => (&*self, other),
            false => (other, &*self),
        };
        let mut all = longer.clone();
        for (&index, batch) in &shorter.later {
            all.insert(index, batch.clone())?;
        }
        all.close()?;
        *self = all;
        Ok(())
    }

    /// How many batches there are.
    pub(crate) fn batches(&self) -> u64 {
        (self.digests.len() + self.later.len()) as u64
    }

    /// How many samples they have.
    pub(crate) fn samples(&self) -> u64 {
        self.samples + self.later.values().map(|batch| batch.samples).sum::<u64>()
    }

    /// The samples of the largest batch.
    pub(crate) fn largest(&self) -> u64 {
        let later = self.later.values().map(|batch| batch.samples);
        later.fold(self.largest, u64::max)
    }

    /// The number behind the last one.
    pub(crate) fn end(&self) -> u64 {
        let last = self.later.last_key_value().map(|(index, _)| index + 1);
        last.unwrap_or(self.digests.len() as u64)
    }

    /// The numbers below the last one that are not there.
    pub(crate) fn missing(&self) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut next = self.digests.len() as u64;
        for &index in self.later.keys() {
            if index > next {
                gaps.push(next..index);
            }
            next = index + 1;
        }
        gaps
    }

    /// All batches, taken up in the order of their numbers.
    ///
    /// # Errors
    /// If one has other channels than its layer.
    pub(crate) fn seen(&self) -> Result<Seen> {
        let mut seen = self.head();
        for batch in self.later.values() {
            let samples = batch.samples;
            seen.take(&batch.clone().calls(), samples, self.convention, |_| "")?;
        }
        Ok(seen)
    }

    /// Whether all its vectors are for these layers, and everything is in its place.
    fn fits(&self, about: &About) -> bool {
        let channels = |layer: usize| about.layers.get(layer).map(|layer| layer.2);
        let target = |layer: usize| matches!(about.targets.get(layer), Some(Some(_)));
        let states = self.states.iter().enumerate().all(|(layer, state)| {
            let fits = |state: &State| {
                channels(layer).is_some_and(|channels| state.is_sound(about.method, channels))
            };
            state.is_some() == target(layer) && state.as_ref().is_none_or(fits)
        });
        let sound = |call: &Call| {
            target(call.layer)
                && channels(call.layer) == Some(call.mean.len())
                && call.mean.len() == call.m2.len()
                && call.count <= MOST
                && call.mean.iter().all(|value| value.is_finite())
                && call.m2.iter().all(|m2| m2.is_finite() && *m2 >= 0.0)
        };
        let later = (self.later.values())
            .all(|batch| batch.samples <= MOST && batch.calls.iter().all(sound));
        let behind = |&index: &u64| index > self.digests.len() as u64 && index < u64::MAX;
        self.states.len() == about.layers.len()
            && about.targets.len() == about.layers.len()
            && self.convention == about.convention
            && states
            && later
            && self.samples.max(self.largest) <= MOST
            && self.later.keys().all(behind)
    }
}

fn twice(index: u64) -> Error {
    Error::Request(format!(
        "batch {index} is there twice, and the two are not the same: give each batch a number of its own"
    ))
}

impl Moments {
    pub(crate) fn new(about: About, collected: Collected) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            about,
            collected,
        }
    }

    /// What they are of.
    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    /// The batches.
    pub(crate) fn collected(&self) -> &Collected {
        &self.collected
    }

    /// How many batches they are of.
    pub fn batches(&self) -> u64 {
        self.collected.batches()
    }

    /// How many samples those batches have.
    pub fn samples(&self) -> u64 {
        self.collected.samples()
    }

    /// The SHA-256 of the model (and its external data), in lower-case hexadecimal.
    pub fn model(&self) -> &str {
        &self.about.model
    }

    /// The method that they are for.
    pub fn method(&self) -> Method {
        self.about.method
    }

    /// The numbers of batches below the largest one that are not there.
    pub fn missing(&self) -> Vec<Range<u64>> {
        self.collected.missing()
    }

    /// Adds the batches of `other`. In which order parts are put together changes nothing, and a batch that both have counts once.
    ///
    /// # Errors
    /// If they are of another model or made with other options, or if two different batches have one number. Then nothing changed.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.about.check(&other.about)?;
        self.collected.merge(&other.collected)
    }

    /// As bytes: JSON of the schema `bnkit.moments/1`. Numbers are written so that they are read back exactly.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::Request(format!("moments: {error}")))
    }

    /// From what [`Moments::to_bytes`] wrote.
    ///
    /// # Errors
    /// If they are something else, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = |why: &str| Error::Request(format!("damaged moments: {why}"));
        let moments: Self =
            serde_json::from_slice(bytes).map_err(|error| damaged(&error.to_string()))?;
        if moments.schema != SCHEMA {
            return Err(Error::Request(format!(
                "moments: expected schema {SCHEMA}, found {:?}",
                moments.schema
            )));
        }
        if !moments.collected.fits(&moments.about) {
            return Err(damaged("their parts do not fit together"));
        }
        Ok(moments)
    }
}

impl About {
    /// Refuses to be put together with what is of something else.
    ///
    /// # Errors
    /// If the two differ; the message says in what.
    pub(crate) fn check(&self, other: &Self) -> Result<()> {
        let what = if self.model != other.model {
            format!(
                "the model (SHA-256 {} here, {} there)",
                self.model, other.model
            )
        } else if self.layers != other.layers {
            "the layers".to_owned()
        } else if self.method != other.method {
            format!(
                "the method ({} here, {} there)",
                self.method.name(),
                other.method.name()
            )
        } else if self.convention != other.convention {
            "the convention".to_owned()
        } else if self.dropout != other.dropout {
            "the seed of Dropout".to_owned()
        } else if self.targets != other.targets {
            "the chosen layers or the momentum".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::Request(format!(
            "the moments are of another job: {what} differs"
        )))
    }
}
