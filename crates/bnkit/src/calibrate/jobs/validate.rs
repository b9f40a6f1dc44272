//! `validate`: do the stored statistics describe the data?

use bnkit_engine::Statistics as Normalise;

use super::ValidateJob;
use super::recalibrate::{check_method, in_model, nothing_to_do, open, used};
use crate::accuracy::measure;
use crate::calibrate::apply::Statistics;
use crate::calibrate::modules::{Module, survey};
use crate::calibrate::network::Network;
use crate::calibrate::observe::{Pass, Seen};
use crate::calibrate::options::{Method, MethodOptions, Shard};
use crate::calibrate::report::{ChannelDrift, LayerDrift, Limits, Outcome, ValidateReport};
use crate::calibrate::{drift, outcome};
use crate::pipeline::{Phase, Progress};
use crate::report::{Finding, Tool};
use crate::state::recalibrate::Opened;
use crate::{Error, Result, hash};

/// Says whether the stored statistics describe the data.
///
/// # Errors
/// If something cannot be read or run; [`Error::Interrupted`] if the job was interrupted.
pub fn validate(job: &ValidateJob, progress: &dyn Progress) -> Result<ValidateReport> {
    check(&job.method)?;
    progress.begin(Phase::Reading, None);
    let opened = Opened::open(&job.input, job.graph.as_deref())?;
    let model = &opened.model;
    let hashing = job.hash.then(|| hash::in_background(&job.input));
    let modules = survey(model, &job.selection).map_err(|error| error.in_file(&job.input))?;
    if modules.iter().all(|module| module.target().is_none()) {
        return Err(nothing_to_do(&job.input, &modules));
    }
    let batches = open(model, &job.input, &job.data, Shard::WHOLE)?;
    let dims = batches.sample_dims();
    let network = Network::load(model, &modules, &dims, job.dropout, job.threads)
        .map_err(|error| in_model(error, &job.input))?;
    let pass = Pass {
        network: &network,
        modules: &modules,
        batches: &batches,
        options: &job.method,
        until_stable: job.until_stable.then_some(job.stability),
        at_most: None,
        interrupt: &job.interrupt,
        progress,
    };
    let seen = match job.method.method {
        Method::Sequential => {
            let stored: Vec<Option<Statistics>> = vec![None; modules.len()];
            let given = network.given(&modules, &stored)?;
            pass.run(&Normalise::Given(&given))
        }
        _ => pass.run(&Normalise::Batch),
    };
    let seen = seen.map_err(|error| in_model(error, &job.input))?;
    if seen.interrupted {
        return Err(Error::Interrupted);
    }
    check_seen(&seen)?;
    let mut report = compare(job, &modules, &seen);
    report.input = opened.describe(&job.input);
    report.input.sha256 = hashing.map(hash::Hashing::finish).transpose()?;
    report.data = used(&job.data, &batches, Shard::WHOLE, &seen);
    report.warnings.extend(batches.warnings.iter().cloned());
    report.accuracy = measure(model, &job.input, &job.data, &job.interrupt, progress)?;
    Ok(report)
}

/// Refuses methods that make nothing to compare with.
pub(super) fn check(options: &MethodOptions) -> Result<()> {
    check_method(options)?;
    if options.method == Method::Ema {
        return Err(Error::Request(
            "an exponential average starts from the stored statistics: compare them with precise or average".to_owned(),
        ));
    }
    Ok(())
}

/// Refuses to judge by a single batch.
pub(super) fn check_seen(seen: &Seen) -> Result<()> {
    if seen.batches >= 2 {
        return Ok(());
    }
    let (count, one) = match seen.batches {
        0 => ("no", "batches say".to_owned()),
        _ => ("one", format!("batch of {} samples says", seen.samples)),
    };
    Err(Error::Request(format!(
        "{count} {one} nothing about the sampling error: give more samples or a smaller --batch-size"
    )))
}

/// The report, but for input and data.
pub(super) fn compare(job: &ValidateJob, modules: &[Module], seen: &Seen) -> ValidateReport {
    let observed = seen.finish(modules, job.method.convention);
    let relative = seen.errors(modules, &observed, job.method.method);
    let sampling = outcome::sampling(
        &seen.judge(&relative, &job.stability),
        seen.samples,
        &job.stability,
    );
    let mut layers: Vec<LayerDrift> = Vec::new();
    let mut channels: Vec<ChannelDrift> = Vec::new();
    for (at, module) in modules.iter().enumerate() {
        let elements = seen.states[at].as_ref().map_or(0, |state| state.elements);
        let (layer, more) = drift::layer(
            module,
            observed[at].as_ref(),
            elements,
            relative[at].as_ref(),
            &job.limits,
        );
        layers.push(layer);
        channels.extend(more);
    }
    let errors: Vec<Finding> = modules
        .iter()
        .filter_map(Module::target)
        .flat_map(|stored| stored.findings.iter().cloned())
        .collect();
    let drifted_channels = channels.iter().filter(|channel| channel.drifted).count();
    let drifted_layers = layers.iter().filter(|layer| layer.drifted > 0).count();
    let compared = channels.len();
    // A NaN is worse than anything.
    let badness = |channel: &ChannelDrift| match channel.kl.is_nan() {
        true => f64::INFINITY,
        false => channel.kl,
    };
    channels.sort_by(|a, b| {
        let drifted = b.drifted.cmp(&a.drifted);
        drifted.then(badness(b).total_cmp(&badness(a)))
    });
    channels.truncate(job.worst);
    let mut warnings = outcome::warnings(modules);
    warnings.extend(outcome::few_samples(&sampling, seen.batches));
    let never: Vec<&LayerDrift> = layers
        .iter()
        .filter(|layer| layer.outcome == Outcome::NeverRan)
        .collect();
    if let [first, rest @ ..] = never.as_slice() {
        warnings.push(crate::report::Warning {
            code: "never-ran",
            message: format!(
                "\"{}\" and {} other BatchNorms never ran on the data and were not compared",
                first.layer.node,
                rest.len()
            ),
        });
    }
    let failure = match (errors.first(), drifted_channels) {
        (Some(finding), _) => Some(format!(
            "bad statistics: {}: {}",
            finding.node, finding.message
        )),
        (None, 0) => None,
        (None, count) => Some(format!(
            "the stored statistics do not describe the data: {count} of {compared} channels in {drifted_layers} of {} layers drifted",
            layers.len()
        )),
    };
    ValidateReport {
        schema: "bnkit.validate/1",
        tool: Tool::default(),
        input: Default::default(),
        data: Default::default(),
        method: outcome::method(&job.method, seen),
        limits: Limits {
            max_mean_drift: job.limits.max_mean_drift,
            max_var_drift: job.limits.max_var_drift,
            max_kl: job.limits.max_kl,
            errors: job.limits.errors,
        },
        valid: failure.is_none(),
        drifted_channels,
        drifted_layers,
        channels: compared,
        layers,
        worst: channels,
        sampling,
        accuracy: None,
        errors,
        warnings,
        failure,
    }
}
