//! `bnkit convert`.

use std::path::Path;

use anyhow::bail;
use bnkit::convert::{self, ConvertJob};

use super::{Answer, answer, target};
use crate::args::convert::Convert;
use crate::output::Output;
use crate::progress::Bar;

pub(super) fn run(args: &Convert, force: bool, output: &Output) -> anyhow::Result<Answer> {
    let Some(out) = &args.output else {
        bail!("-o OUT is missing: its name says what to write (.safetensors, .onnx …)");
    };
    if args.keep_statistics && args.dtype.is_none() {
        bail!("--keep-statistics is about --dtype, which is missing");
    }
    target::writable(out, &args.input, force)?;
    let mut files: Vec<&Path> = vec![&args.input, out];
    files.extend(args.weights.as_deref());
    output.check(&files)?;
    let job = ConvertJob {
        input: args.input.clone(),
        weights: args.weights.clone(),
        output: out.clone(),
        force,
        hash: output.wants_hashes(),
        dtype: args.dtype.map(Into::into),
        keep_statistics: args.keep_statistics,
        stats_only: args.stats_only,
        max_shard_size: args.max_shard_size,
    };
    let report = convert::convert(&job, &Bar::new(output.quiet()))?;
    output.result(&report)?;
    Ok(answer(report.failure.as_deref()))
}
