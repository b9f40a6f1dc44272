//! One pass over the batches: what every module sees, taken up by the method and by the estimate of its error.

use bnkit_engine::{Moments, Sample, Statistics as Normalise};
use serde::{Deserialize, Serialize};

use super::apply::Statistics;
use super::batches::Batches;
use super::methods::Estimate;
use super::modules::Module;
use super::network::Network;
use super::options::{Convention, Interrupt, Method, MethodOptions, Stability};
use super::sampling::{Errors, Spread, Verdict, judge};
use crate::pipeline::{Phase, Progress};
use crate::{Error, Result};

/// No count in a file is larger: those of all files that a command line names can be added, and f64 has each of them.
pub(crate) const MOST: u64 = 1 << 53;

/// What was seen of one module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// What the method made of it.
    pub estimate: Estimate,
    /// How the batches spread.
    pub spread: Spread,
    /// Elements per channel.
    pub elements: u64,
    /// The weight of the history; for `ema` only.
    pub history: Option<f64>,
}

impl State {
    /// Whether this method can have seen it, with so many channels: for states that come from a file.
    pub(crate) fn is_sound(&self, method: Method, channels: usize) -> bool {
        self.estimate.is_of(method)
            && self.estimate.is_sound(channels)
            && self.spread.is_sound(channels)
            && self.elements <= MOST
            && (self.history).is_none_or(|history| (0.0..1.0).contains(&history))
    }

    /// Takes what another run saw of the batches behind these.
    ///
    /// # Errors
    /// If the two cannot be put together.
    pub(crate) fn merge(&mut self, later: &Self) -> Result<()> {
        self.estimate.merge(&later.estimate)?;
        self.spread.merge(&later.spread);
        self.elements += later.elements;
        Ok(())
    }
}

/// What was seen of all modules that are to get new statistics; `None` for the others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    /// One for each module.
    pub states: Vec<Option<State>>,
    /// How many samples ran.
    pub samples: u64,
    /// In how many batches.
    pub batches: u64,
    /// Whether it ended because the statistics were stable.
    pub stopped_early: bool,
    /// Whether the user ended it.
    pub interrupted: bool,
}

impl Seen {
    /// Nothing yet.
    ///
    /// # Errors
    /// If a module's momentum gives the batches no weight.
    pub(crate) fn nothing(modules: &[Module], options: &MethodOptions) -> Result<Self> {
        let states = modules.iter().map(|module| {
            let Some(stored) = module.target() else {
                return Ok(None);
            };
            let history = (options.method == Method::Ema)
                .then(|| options.history(&module.name.node, stored.momentum))
                .transpose()?;
            Ok(Some(State {
                estimate: Estimate::new(options.method, history.unwrap_or(0.0), stored.mean.len()),
                spread: Spread::default(),
                elements: 0,
                history,
            }))
        });
        Ok(Self {
            states: states.collect::<Result<_>>()?,
            samples: 0,
            batches: 0,
            stopped_early: false,
            interrupted: false,
        })
    }

    /// Takes up one batch of so many samples. `name` says which node a module is called by.
    ///
    /// # Errors
    /// If its channels are not those of the module.
    pub(crate) fn take<'a>(
        &mut self,
        calls: &[(usize, Moments)],
        samples: u64,
        convention: Convention,
        name: impl Fn(usize) -> &'a str,
    ) -> Result<()> {
        let mut together: Vec<Option<Moments>> = vec![None; self.states.len()];
        for (place, moments) in calls {
            let fits = |error: Error| Error::Request(format!("node \"{}\": {error}", name(*place)));
            let Some(state) = self.states.get_mut(*place).and_then(Option::as_mut) else {
                continue;
            };
            state.estimate.push(moments, convention).map_err(fits)?;
            state.elements += moments.count;
            match &mut together[*place] {
                Some(all) => all
                    .merge(moments)
                    .map_err(|error| fits(Error::Request(error.to_string())))?,
                none => *none = Some(moments.clone()),
            }
        }
        for (state, moments) in self.states.iter_mut().zip(together) {
            if let (Some(state), Some(moments)) = (state, moments) {
                state.spread.push(&moments);
            }
        }
        self.batches += 1;
        self.samples += samples;
        Ok(())
    }

    /// Whether enough was seen to stop.
    pub(crate) fn stable(
        &self,
        modules: &[Module],
        options: &MethodOptions,
        stability: &Stability,
    ) -> bool {
        if self.batches < stability.min_batches as u64 {
            return false;
        }
        let new = self.finish(modules, options.convention);
        let errors = self.errors(modules, &new, options.method);
        self.judge(&errors, stability).enough == Some(true)
    }

    /// The new statistics of each module; `None` where nothing was seen.
    pub(crate) fn finish(
        &self,
        modules: &[Module],
        convention: Convention,
    ) -> Vec<Option<Statistics>> {
        modules
            .iter()
            .zip(&self.states)
            .map(|(module, state)| {
                let stored = module.target()?;
                let state = state.as_ref()?;
                state
                    .estimate
                    .finish((&stored.mean, &stored.variance), convention)
            })
            .collect()
    }

    /// Relative standard errors of the new statistics, for each module: of the mean in units of √(σ²+ε), of the variance relative to
    /// σ²+ε. `None` where nothing was seen; with fewer than two batches they are infinite.
    pub(crate) fn errors(
        &self,
        modules: &[Module],
        new: &[Option<Statistics>],
        method: Method,
    ) -> Vec<Option<Errors>> {
        let one = |((module, state), new): ((&Module, &Option<State>), &Option<Statistics>)| {
            let (stored, state, (_, variance)) = (module.target()?, state.as_ref()?, new.as_ref()?);
            let width = |at: usize| variance[at] + stored.epsilon;
            let unknown = || Errors {
                mean: vec![f64::INFINITY; variance.len()],
                variance: vec![f64::INFINITY; variance.len()],
            };
            let errors = state.spread.errors(method, state.history);
            let mut errors = errors.unwrap_or_else(unknown);
            for at in 0..variance.len() {
                errors.mean[at] /= width(at).sqrt();
                errors.variance[at] /= width(at);
            }
            Some(errors)
        };
        modules.iter().zip(&self.states).zip(new).map(one).collect()
    }

    /// Whether enough was seen.
    pub(crate) fn judge(&self, errors: &[Option<Errors>], stability: &Stability) -> Verdict {
        let channels = errors.iter().flatten().flat_map(|errors| {
            let pairs = errors.mean.iter().zip(&errors.variance);
            pairs.map(|(mean, variance)| mean.max(*variance))
        });
        judge(channels.collect(), self.batches, stability)
    }
}

/// How a pass is run.
pub(crate) struct Pass<'a> {
    /// The network.
    pub network: &'a Network,
    /// Its modules.
    pub modules: &'a [Module],
    /// The data.
    pub batches: &'a Batches,
    /// The method.
    pub options: &'a MethodOptions,
    /// Stop as soon as enough was seen.
    pub until_stable: Option<Stability>,
    /// Stop after so many batches.
    pub at_most: Option<u64>,
    /// Ends it between two batches.
    pub interrupt: &'a Interrupt,
    /// Told how far it is.
    pub progress: &'a dyn Progress,
}

impl Pass<'_> {
    /// Runs the batches, all BatchNorms normalising as told.
    ///
    /// # Errors
    /// If data cannot be read, the network cannot run, or something overflows.
    pub(crate) fn run(&self, statistics: &Normalise<'_>) -> Result<Seen> {
        let mut seen = Seen::nothing(self.modules, self.options)?;
        self.progress
            .begin(Phase::Running, Some(self.batches.samples() as u64));
        let numbers = self.batches.range.clone();
        for (number, batch) in numbers.zip(self.batches.iter()) {
            if self.interrupt.requested() {
                seen.interrupted = true;
                break;
            }
            if self.at_most.is_some_and(|most| seen.batches >= most) {
                break;
            }
            let batch = batch?;
            let calls = observe(self.network, self.modules, number, &batch, statistics)?;
            let name = |place: usize| self.modules[place].name.node.as_str();
            seen.take(&calls, batch.len() as u64, self.options.convention, name)?;
            self.progress.advance(seen.samples);
            let stable = |stability| seen.stable(self.modules, self.options, stability);
            if self.until_stable.as_ref().is_some_and(stable) {
                seen.stopped_early = number + 1 < self.batches.range.end;
                break;
            }
        }
        Ok(seen)
    }
}

/// What one batch showed of the modules that are to get new statistics: module and moments of each call that ran, in the order of the calls.
pub(crate) type Calls = Vec<(usize, Moments)>;

/// Runs a batch and gathers what it showed.
///
/// # Errors
/// If it does not fit, the network cannot run, or something overflows.
pub(crate) fn observe(
    network: &Network,
    modules: &[Module],
    number: usize,
    batch: &[Sample],
    statistics: &Normalise<'_>,
) -> Result<Calls> {
    let run = network.run(number, batch, statistics, false)?;
    let mut calls = Calls::new();
    for (&place, moments) in network.places().iter().zip(run.observed) {
        let (Some(_), Some(moments)) = (modules[place].target(), moments) else {
            continue;
        };
        let mut numbers = moments.mean.iter().zip(&moments.m2);
        if let Some(channel) = numbers.position(|(mean, m2)| !(mean.is_finite() && m2.is_finite()))
        {
            return Err(Error::Request(format!(
                "node \"{}\": what goes in is not finite in channel {channel}: the network overflows on this data",
                modules[place].name.node
            )));
        }
        calls.push((place, moments));
    }
    Ok(calls)
}
