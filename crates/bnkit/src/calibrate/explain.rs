//! What the warnings of calibration mean, for `bnkit explain`.

use crate::explain::{Explanation, Kind};

const fn warning(code: &'static str, title: &'static str, text: &'static str) -> Explanation {
    Explanation {
        code,
        kind: Kind::Warning,
        title,
        text,
    }
}

/// All of them.
pub(crate) static EXPLANATIONS: &[Explanation] = &[
    warning(
        "called-several-times",
        "BatchNorms that are one module",
        "\
These nodes read the same scale, bias, mean and variance by the same names, as a module that is called several times does. Their
statistics are pooled over the calls (`precise`) or updated by each call in order (`average`, `ema`), as PyTorch does.

If they are different modules that an optimiser merged, export the model again without it: the file does not tell any more.",
    ),
    warning(
        "few-samples",
        "the new statistics are uncertain",
        "\
The standard errors, from the spread of the batches' values, are above the tolerance in more channels than accepted: other data of the
same kind would give noticeably other statistics.

What to do: give more samples; the message says about how many.",
    ),
    warning(
        "fixed-batch",
        "the model has a fixed batch size",
        "\
The model declares the leading size of its inputs as a number above 1 and runs with nothing else: batches have this size, and samples
that do not fill one are left out.

What to do: export the model with a free batch dimension, if the batch size matters.",
    ),
    warning(
        "interrupted-shard",
        "a shard did not see all of its data",
        "\
The job that wrote the partial file was interrupted; the file holds the batches that had run until then. The statistics are right for
these.

What to do: run the shard again and merge once more.",
    ),
    warning(
        "never-ran",
        "no data reached a BatchNorm",
        "\
It stands in a branch that no batch took, or nothing needs what it computes. Its statistics stay as they are.",
    ),
    warning(
        "no-statistics-in-file",
        "the file of statistics does not have this layer",
        "\
Neither its mean nor its variance is in the file that `--from` names, under the names that the model gives them. It keeps its own.",
    ),
    warning(
        "not-settled",
        "the statistics still change from pass to pass",
        "\
`sequential` ran all the passes that it may and the last one still changed something by more than the tolerance. It is exact
after as many passes as BatchNorms lie on the longest path.

What to do: allow more passes, or a larger tolerance.",
    ),
    warning(
        "still-training",
        "a BatchNorm is in training mode in the file",
        "\
It normalises with the batch and does not use its running statistics, new or old. `recalibrate` changes statistics only.

What to do: `bnkit fold` puts BatchNorms into eval mode and folds them.",
    ),
];
