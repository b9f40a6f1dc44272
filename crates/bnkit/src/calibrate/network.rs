//! The network in the engine, and which of its BatchNorms belongs to which module.

use std::collections::HashMap;

use bnkit_engine::{
    BatchRun, EngineError, GivenStatistics, Sample, Statistics as Normalise, TrainOptions, Trainer,
};
use bnkit_model::onnx::{Model, Precision};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::apply::Statistics;
use super::modules::Module;
use crate::verify::memory;
use crate::{Error, Result};

/// A model, ready to run batches.
pub(crate) struct Network {
    trainer: Trainer,
    /// The module of each of the engine's BatchNorms.
    places: Vec<usize>,
    /// Threads of its own; `None` for rayon's.
    pool: Option<ThreadPool>,
}

impl Network {
    /// Loads a model for samples of these shapes. Dropout stays off without a seed; 0 threads are all there are.
    ///
    /// # Errors
    /// If the engine cannot run the model.
    pub(crate) fn load(
        model: &Model,
        modules: &[Module],
        dims: &[(String, Vec<usize>)],
        dropout: Option<u64>,
        threads: usize,
    ) -> Result<Self> {
        let options = TrainOptions {
            input_dims: dims,
            model_dir: model.dir(),
            dropout,
            ..TrainOptions::default()
        };
        if let Some(why) = memory::large_value(model) {
            return Err(Error::Request(why));
        }
        let trainer = Trainer::load(&model.to_bytes(Precision::Stored)?, &options).map_err(said)?;
        let by_output: HashMap<&str, usize> = modules
            .iter()
            .enumerate()
            .flat_map(|(place, module)| {
                module
                    .outputs
                    .iter()
                    .map(move |name| (name.as_str(), place))
            })
            .collect();
        let places = trainer
            .norms()
            .iter()
            .map(|norm| {
                let place = by_output.get(norm.output.as_str()).copied();
                let place = place.ok_or_else(|| {
                    Error::Request(format!(
                        "node \"{}\" (BatchNormalization): the engine runs it, and it is not found in the file",
                        norm.node
                    ))
                })?;
                let found = modules[place].name.channels;
                if modules[place].stored.is_ok() && found != norm.channels {
                    return Err(Error::Request(format!(
                        "node \"{}\": its data has {} channels, its statistics have {found}",
                        norm.node, norm.channels
                    )));
                }
                Ok(place)
            })
            .collect::<Result<Vec<usize>>>()?;
        let pool = (threads > 0)
            .then(|| ThreadPoolBuilder::new().num_threads(threads).build())
            .transpose()
            .map_err(|error| Error::Request(format!("{threads} threads: {error}")))?;
        Ok(Self {
            trainer,
            places,
            pool,
        })
    }

    /// The module of each entry of [`BatchRun::observed`].
    pub(crate) fn places(&self) -> &[usize] {
        &self.places
    }

    /// Runs a batch; its number decides what Dropout drops.
    ///
    /// # Errors
    /// If it does not fit, or the computation fails.
    pub(crate) fn run(
        &self,
        number: usize,
        batch: &[Sample],
        statistics: &Normalise<'_>,
        outputs: bool,
    ) -> Result<BatchRun> {
        let run = || {
            self.trainer
                .run_numbered(number as u64, batch, statistics, outputs)
                .map_err(said)
        };
        match &self.pool {
            Some(pool) => pool.install(run),
            None => run(),
        }
    }

    /// Statistics for eval mode: new ones where there are some, stored ones elsewhere.
    ///
    /// # Errors
    /// If a BatchNorm that runs has neither.
    pub(crate) fn given(
        &self,
        modules: &[Module],
        new: &[Option<Statistics>],
    ) -> Result<GivenStatistics> {
        let mut given = GivenStatistics::new();
        for (norm, &place) in self.trainer.norms().iter().zip(&self.places) {
            let statistics = match (&new[place], &modules[place].stored) {
                (Some(new), _) => new.clone(),
                (None, Ok(stored)) => (stored.mean.clone(), stored.variance.clone()),
                (None, Err(refusal)) => {
                    return Err(Error::Request(format!(
                        "node \"{}\": it has no running statistics to run in eval mode with: {}",
                        norm.node, refusal.message
                    )));
                }
            };
            given.insert(norm.output.clone(), statistics);
        }
        Ok(given)
    }
}

fn said(error: EngineError) -> Error {
    Error::Request(error.to_string())
}
