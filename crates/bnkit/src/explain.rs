//! What codes mean, for `bnkit explain`: rules, refusals, warnings and errors.
//!
//! The texts of rules stand in the headers of their files (`fold/absorb/*.rs`); those of refusals and findings are here.

use crate::calibrate;
use crate::check;
use crate::fold::absorb::{ABSORBERS, QUANTISED};
use crate::fold::{LOWERING, merge};
use crate::{inspect, norms, state};

/// What kind of thing a code names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A rule that folds.
    Rule,
    /// A reason for leaving something alone.
    Refusal,
    /// A warning that changes nothing.
    Warning,
    /// An error in the statistics.
    Error,
    /// Something that `check` looks for, at a level that can be set.
    Check,
}

/// A code and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// The stable code.
    pub code: &'static str,
    /// What it names.
    pub kind: Kind,
    /// One line.
    pub title: &'static str,
    /// Some paragraphs of Markdown: what it means, why, and what to do.
    pub text: &'static str,
}

/// All explanations: rules first, sorted by code within a kind.
pub fn all() -> Vec<Explanation> {
    let rules = ABSORBERS.iter().map(|absorber| absorber.rule);
    let mut all: Vec<Explanation> = rules
        .chain([LOWERING, merge::BRANCHES, merge::SEQUENCE])
        .chain(OTHERS.iter().copied())
        .chain([norms::EXPLANATION])
        .chain(QUANTISED.iter().copied())
        .chain(calibrate::EXPLANATIONS.iter().copied())
        .chain(state::EXPLANATIONS.iter().copied())
        .chain([inspect::state::INCOMPLETE_GROUP])
        .chain(check::explanations())
        .collect();
    all.sort_by_key(|explanation| (explanation.kind, explanation.code));
    all.dedup();
    all
}

/// The explanation of a code.
pub fn find(code: &str) -> Option<Explanation> {
    all()
        .into_iter()
        .find(|explanation| explanation.code == code)
}

const fn entry(
    kind: Kind,
    code: &'static str,
    title: &'static str,
    text: &'static str,
) -> Explanation {
    Explanation {
        code,
        kind,
        title,
        text,
    }
}

use Kind::{Error, Refusal, Warning};

static OTHERS: &[Explanation] = &[
    entry(
        Refusal,
        "annotated",
        "a quantization annotation or training information names the tensor",
        "\
The tensor is spoken of by `quantization_annotation` or `training_info`, which are carried and not understood: another
content would make them wrong.

What to do: remove the annotation if nothing uses it.",
    ),
    entry(
        Refusal,
        "attribute-reference",
        "an attribute is set by each caller of the function",
        "\
Inside a model-local function, an attribute such as epsilon refers to an attribute of the calling node. Each call may give
another value, so there is no one affine to fold.

What to do: inline the function before folding.",
    ),
    entry(
        Refusal,
        "broadcast",
        "the constant does not act per channel",
        "\
A constant of Mul, Add, Sub or Div acts per channel only if, aligned from the right with the data, every size is 1 except on
one axis whose size is known to be the constant's. A `[C]` against NCHW acts on the width.",
    ),
    entry(
        Refusal,
        "channel-axis",
        "the channels do not lie where the operator has its features",
        "\
BatchNorm's channel is axis 1 of its input. On the way to the operator that would absorb it, the channel lies on another
axis than the operator's features: for example behind a MatMul of three axes, whose features are the last axis. Equal sizes
prove nothing.

What to do: nothing is wrong with the model; the BatchNorm stays.",
    ),
    entry(
        Refusal,
        "dtype",
        "the constant is not of a float type",
        "\
Only f16, bf16, f32 and f64 constants absorb an affine, and those that are multiplied or added have one type: a weight of float16
beside data of float32 is no model that an engine loads.",
    ),
    entry(
        Refusal,
        "graph-input",
        "nothing stands before it",
        "\
The BatchNorm normalises an input of the graph, and what reads it cannot absorb it either.",
    ),
    entry(
        Refusal,
        "graph-output",
        "a value on the way is an output, so it must stay as it is",
        "\
Folding changes the values between the absorbing operator and the BatchNorm. One of them is returned to the caller.

What to do: if that output is not needed, remove it from the graph before folding.",
    ),
    entry(
        Refusal,
        "malformed-operator",
        "an operator contradicts itself",
        "\
Its attributes do not go together, or with its weight: a kernel_shape that is not the weight's, strides for three axes of two, an
auto_pad that does not exist, more inputs than the operator has. No engine runs such a node, so there is nothing that a fold could
be equal to.

What to do: see how the model was made; `onnx.checker.check_model(path, full_check=True)` names more.",
    ),
    entry(
        Refusal,
        "merge-channels",
        "the branches do not map the same channels",
        "\
Branches can be one Conv only if each has as many outputs as the others, and an identity (or a lone BatchNorm) only if there
are as many outputs as inputs. Otherwise the Add broadcasts.",
    ),
    entry(
        Refusal,
        "merge-cost",
        "one Conv would cost more than the branches",
        "\
The one kernel would have more taps than those of the branches together (1×3 beside 3×1), or the one weight no fewer elements
than the two of a sequence (a bottleneck). It would be right, and slower.",
    ),
    entry(
        Refusal,
        "merge-dilations",
        "the branches have different dilations",
        "\
Kernels of different dilations share no grid of taps; one kernel for both would be mostly zeros.",
    ),
    entry(
        Refusal,
        "merge-dtype",
        "the weights have different types",
        "\
What is merged is rounded once, to the type of the weights: they must have one.",
    ),
    entry(
        Refusal,
        "merge-groups",
        "the branches have different groups",
        "\
A Conv of few groups beside one of many would have to be written with few, and mostly zeros: that costs more than it saves.",
    ),
    entry(
        Refusal,
        "merge-pads",
        "the paddings of the operators do not go together",
        "\
Branches: each output must be made of the same position of the input, and there must be equally many for every input size. A
1×1 kernel goes into a 3×3 one padded by 1, not into one that is not padded. A padding by `auto_pad` with a stride depends on
the input's size, which must be known.

A 1×1 Conv before another: where the second pads, it sees 0, and one Conv would see the bias of the first.",
    ),
    entry(
        Refusal,
        "merge-quantised",
        "the weight is quantized",
        "\
What is merged would have to be quantized anew, with other scales: that is a matter of calibration, not of algebra.

What to do: merge the branches of the float model, then quantize it.",
    ),
    entry(
        Refusal,
        "merge-strides",
        "the strides of the operators do not go together",
        "\
Branches are one Conv only if they step alike; an identity steps by 1. In a sequence the first must step by 1.",
    ),
    entry(
        Refusal,
        "negative-scale",
        "a negative scale does not pass the operator",
        "\
Relu, LeakyRelu and MaxPool commute with a scale only where it is not negative: max(−x) is not −max(x).",
    ),
    entry(
        Refusal,
        "no-absorber",
        "the walk ends at an operator that neither absorbs nor carries",
        "\
The affine can move through operators that commute with it, until one with constant weights absorbs it. In both directions
it meets an operator that does neither: a Sigmoid, a Concat that many read, the end of the graph.

What to do: nothing is wrong with the model; the BatchNorm stays, in eval mode.",
    ),
    entry(
        Refusal,
        "no-running-statistics",
        "mean and variance are computed from the data",
        "\
The BatchNorm is in training mode and has no running statistics (`track_running_stats=False` in PyTorch): mean and
variance come from each batch, so it is no fixed affine. It is kept as it is.

What to do: train with running statistics, or estimate them, before exporting.",
    ),
    entry(
        Refusal,
        "nonzero-shift",
        "the operator passes a scale, not a shift",
        "\
Relu and other operators commute with a positive scale, not with a shift; a Mul or Div by a constant has no place for one.",
    ),
    entry(
        Refusal,
        "old-opset",
        "the operators of this opset cannot express the result",
        "\
Before opset 7 Add and Mul broadcast by attributes, and by other rules than today.

What to do: convert the model to a newer opset first.",
    ),
    entry(
        Refusal,
        "name-conflict",
        "a body has a value of the same name",
        "\
After the fold, what stood before the BatchNorm would have its name, earlier in the graph; a body of an If, Loop or Scan has
a value of that name, and engines want names unique.

What to do: rename one of them.",
    ),
    entry(
        Refusal,
        "other-scope",
        "the value crosses the border of a body",
        "\
The value is computed outside of the body of an If, Loop or Scan and read inside it, or the other way round. Whether and how
often the body runs is not known.",
    ),
    entry(
        Refusal,
        "overridable-parameter",
        "a caller may replace the constant",
        "\
From IR version 4 on, an initializer that is also a graph input is only a default: a caller may give another value at run
time, and a fold would ignore it.

What to do: if nobody does so, `--assume-constant`.",
    ),
    entry(
        Refusal,
        "padded-shift",
        "a shift cannot pass zero padding",
        "\
The BatchNorm stands before a Conv (or Pad) that pads with zeros. At the border the Conv sees 0, not what the shift makes of
0: folding the shift into the bias would be wrong at every border pixel. Other tools get this wrong silently.

What to do: nothing is wrong with the model; the BatchNorm stays.",
    ),
    entry(
        Refusal,
        "parameter-not-constant",
        "a parameter of the BatchNorm is computed at run time",
        "\
Scale, bias, mean or variance hang on an input of the graph (or of the function), so there is no fixed affine.",
    ),
    entry(
        Refusal,
        "per-activation",
        "spatial = 0: statistics for each position, not for each channel",
        "\
Before opset 9 a BatchNorm could have one mean and variance for every element of a sample. That is no per-channel affine.",
    ),
    entry(
        Refusal,
        "range",
        "a folded constant does not fit its type",
        "\
The product of weight and scale is larger than the largest number of the stored type (65504 for float16), is not finite, or
is so small that it falls among float16's subnormal numbers and loses its digits.

What to do: store the weights of this layer as bfloat16 or float32.",
    ),
    entry(
        Refusal,
        "rank",
        "the data has no channel axis",
        "\
BatchNorm's channel is axis 1, and the data has one axis only.",
    ),
    entry(
        Refusal,
        "shape-mismatch",
        "weight, bias and data do not fit one another",
        "\
The data is known to have another rank or another number of channels than the weight wants, or a bias is no vector with one number
for each output. No engine runs such a node, so there is nothing that a fold could be equal to.

What to do: see whether the declared shape of the graph's input is the one that the model was made for.",
    ),
    entry(
        Refusal,
        "shared-output",
        "a value on the way is read by others too",
        "\
Folding backwards changes what the absorbing operator computes. Others read it as well (a skip connection, for example) and
would see the change.

What to do: nothing is wrong with the model; the BatchNorm stays.",
    ),
    entry(
        Refusal,
        "training-mode",
        "the BatchNorm that would absorb it is in training mode",
        "\
A BatchNorm in training mode normalises with the batch: it would undo the affine, not absorb it.",
    ),
    entry(
        Refusal,
        "training-output-read",
        "outputs of training mode are read",
        "\
The node's running mean or variance output is read by another node, so it cannot become an eval BatchNorm.

What to do: export the model in eval mode.",
    ),
    entry(
        Refusal,
        "transposed-border",
        "a shift before a ConvTranspose is no constant behind it",
        "\
With a stride, output padding or small pads, positions at the border (or all of them, in a pattern) sum over fewer taps of
the kernel than others, so the shift does not become one number per channel.

What to do: nothing is wrong with the model; the BatchNorm stays.",
    ),
    entry(
        Refusal,
        "unknown-shape",
        "a rank, size or type that decides is not known",
        "\
Whether the fold is right hangs on a rank, size or type that neither the inputs' declarations nor the operators give. `value_info`
is a hint, not evidence.

What to do: give the graph's inputs fixed shapes.",
    ),
    entry(
        Refusal,
        "weight-not-constant",
        "the weight is computed at run time",
        "\
The operator's weight or bias hangs on an input, or on an operator that is not evaluated, so there is nothing to fold into.",
    ),
    entry(
        Refusal,
        "zero-scale",
        "a channel has a shift, and no scale to divide it by",
        "\
With `--aggressive`, a BatchNorm whose shift cannot go forwards leaves `x + t/s` in its place. Where s = 0 and t is not, there is
no such number: the channel is the constant t.

What to do: nothing is wrong with the model; the BatchNorm stays (or becomes Mul and Add, with `--lower`).",
    ),
    entry(
        Warning,
        "dead-channel",
        "a scale of 0 makes a channel constant",
        "\
γ is 0 in some channels: they are the same for every input. The fold is right; the channels could be pruned. `check` reports
channels whose γ is as good as 0, too (below 1e-7 of 1 and of the layer's largest), as weight decay leaves them.",
    ),
    entry(
        Warning,
        "dropout-training-mode",
        "a Dropout is switched on and off at run time",
        "\
Its training_mode input is computed at run time, so it is kept.",
    ),
    entry(
        Warning,
        "tiny-variance",
        "the variance is far below epsilon",
        "\
The channel is nearly constant on the training data and is amplified by up to 1/√ε (316 for ε = 1e-5): small changes of the
input become large. Often a sign of statistics that were never updated, or of a dead layer.

What to do: look at the statistics with `bnkit inspect --batch-norms`.",
    ),
    entry(
        Warning,
        "stays-in-training",
        "a BatchNorm stays in training mode",
        "\
It normalises with the batch because it has no running statistics, or because its training outputs are read. The result
is not an eval-only model.",
    ),
    entry(
        Warning,
        "training-output-dropped",
        "a graph output of training mode is gone",
        "\
The running mean or variance that a training-mode BatchNorm returned was an output of the graph. In eval mode there is no such
value, so the output is dropped.",
    ),
    entry(
        Error,
        "bad-statistics",
        "NaN, infinity, or a variance that is not positive",
        "\
A parameter is not a finite number, or variance + epsilon is not positive. The layer computes NaN or nonsense, and a fold would
bake it into the weights. `fold` writes nothing and ends with exit code 1.

What to do: look at the training run; recalibrate the statistics; or keep the node and go on with
`--allow-bad-statistics`.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Codes in the source of this crate: string literals in the places that make refusals, warnings and findings.
    fn codes_in_use() -> HashSet<String> {
        let mut codes = HashSet::new();
        let mut folders = vec![std::path::PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src"
        ))];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
                for start in [
                    "Refusal::new( \"",
                    "Refusal::new(\"",
                    "refuse( \"",
                    "refuse(\"",
                    "code: \"",
                ] {
                    for (at, _) in flat.match_indices(start) {
                        let rest = &flat[at + start.len()..];
                        let code = &rest[..rest.find('"').unwrap()];
                        let is_code = code.chars().all(|c| c.is_ascii_lowercase() || c == '-');
                        if is_code && !code.is_empty() {
                            codes.insert(code.to_owned());
                        }
                    }
                }
            }
        }
        codes
    }

    #[test]
    fn every_code_is_explained() {
        let codes = codes_in_use();
        assert!(codes.contains("shared-output") && codes.contains("tiny-variance"));
        let missing: Vec<_> = codes.iter().filter(|code| find(code).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn codes_are_unique() {
        let all = all();
        let codes: HashSet<_> = all.iter().map(|explanation| explanation.code).collect();
        assert_eq!(codes.len(), all.len());
    }
}
