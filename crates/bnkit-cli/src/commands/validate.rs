//! `bnkit validate`.

use bnkit::calibrate::{
    self, DataOptions, DriftLimits, Interrupt, MethodOptions, Stability, ValidateJob,
};

use super::{Answer, answer};
use crate::args::validate::Validate;
use crate::interrupt;
use crate::output::Output;
use crate::progress::Bar;

pub(super) fn run(args: &Validate, output: &Output) -> anyhow::Result<Answer> {
    let data = args.data.options()?;
    output.check(&[&args.model])?;
    let bar = Bar::new(output.quiet());
    let job = job(
        args,
        data,
        output.wants_hashes(),
        interrupt::on_signals(&bar)?,
    );
    let report = calibrate::validate(&job, &bar)?;
    drop(bar);
    output.result(&report)?;
    Ok(answer(report.failure.as_deref()))
}

pub(super) fn job(
    args: &Validate,
    data: DataOptions,
    hash: bool,
    interrupt: Interrupt,
) -> ValidateJob {
    ValidateJob {
        input: args.model.clone(),
        graph: args.estimate.graph.clone(),
        hash,
        data,
        method: MethodOptions {
            method: args.estimate.method,
            convention: args.estimate.convention,
            ..MethodOptions::default()
        },
        selection: args.estimate.which.selection(),
        limits: DriftLimits {
            max_mean_drift: args.max_mean_drift,
            max_var_drift: args.max_var_drift,
            max_kl: args.max_kl,
            ..DriftLimits::default()
        },
        worst: args.worst,
        stability: Stability::default(),
        until_stable: args.estimate.until_stable,
        dropout: args.estimate.dropout,
        threads: 0,
        interrupt,
    }
}
