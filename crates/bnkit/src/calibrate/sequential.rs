//! The method `sequential`: passes over the same batches until nothing moves any more.
//!
//! The first pass is in train mode. Every further one runs the network in eval mode with the statistics of the pass before, so what the
//! statistics of one layer do to those behind it travels on; it is exact after as many passes as BatchNorms lie on the longest path.

use bnkit_engine::Statistics as Normalise;

use super::apply::Statistics;
use super::modules::Module;
use super::observe::{Pass as OnePass, Seen};
use super::report::Pass;
use crate::Result;

/// What the last pass saw, and how much each of them changed.
pub(crate) fn run(pass: &OnePass<'_>) -> Result<(Seen, Vec<Pass>)> {
    let (modules, options) = (pass.modules, pass.options);
    let mut seen = pass.run(&Normalise::Batch)?;
    let mut current = seen.finish(modules, options.convention);
    let stored: Vec<Option<Statistics>> = modules
        .iter()
        .map(|module| {
            let stored = module.target()?;
            Some((stored.mean.clone(), stored.variance.clone()))
        })
        .collect();
    let mut passes = vec![change(1, modules, &stored, &current)];
    let (at_most, stopped_early) = (Some(seen.batches), seen.stopped_early);
    for number in 2..=options.passes {
        if seen.interrupted {
            break;
        }
        let given = pass.network.given(modules, &current)?;
        let again = OnePass {
            until_stable: None,
            at_most,
            ..*pass
        };
        seen = again.run(&Normalise::Given(&given))?;
        let next = seen.finish(modules, options.convention);
        let change = change(number, modules, &current, &next);
        passes.push(change);
        current = next;
        if change.mean_change < options.tolerance && change.variance_change < options.tolerance {
            break;
        }
    }
    seen.stopped_early = stopped_early;
    Ok((seen, passes))
}

/// The largest changes from one pass to the next, |Δμ|/√(σ²+ε) and |ln(variance ratio)|, σ² being that before.
fn change(
    pass: usize,
    modules: &[Module],
    before: &[Option<Statistics>],
    after: &[Option<Statistics>],
) -> Pass {
    let mut largest = Pass {
        pass,
        mean_change: 0.0,
        variance_change: 0.0,
    };
    for ((module, before), after) in modules.iter().zip(before).zip(after) {
        let (Some(stored), Some(before), Some(after)) = (module.target(), before, after) else {
            continue;
        };
        for at in 0..before.0.len() {
            let width = before.1[at] + stored.epsilon;
            let mean = (after.0[at] - before.0[at]).abs() / width.sqrt();
            let variance = ((after.1[at] + stored.epsilon) / width).ln().abs();
            // What cannot be compared (a stored NaN) is an infinite change.
            let worse = |old: f64, new: f64| {
                if new.is_nan() {
                    f64::INFINITY
                } else {
                    old.max(new)
                }
            };
            largest.mean_change = worse(largest.mean_change, mean);
            largest.variance_change = worse(largest.variance_change, variance);
        }
    }
    largest
}
