//! What the codes of quantised weights and biases mean.

use crate::explain::{Explanation, Kind};

/// The texts.
pub(crate) static EXPLANATIONS: &[Explanation] = &[
    refusal(
        "quantised-weight",
        "the weight is quantised in a way that cannot take a scale",
        "\
Between the integers and the operator stands more than one DequantizeLinear that only this operator reads: the weight is
quantised in the graph (QuantizeLinear, then DequantizeLinear), rearranged or computed behind the DequantizeLinear, read by
several operators, or of a type that is not read here (4 bits, 8-bit floats). Folding would turn it back into floats.

What to do: fold before quantising.",
    ),
    refusal(
        "quantised-block",
        "the weight is quantised in blocks",
        "\
Its DequantizeLinear has a `block_size` (opset 21): one scale for each block of elements. Such scales are left alone.

What to do: fold before quantising.",
    ),
    refusal(
        "quantised-axis",
        "the quantisation scales lie along another axis",
        "\
An affine per channel goes into scales per channel only if both lie along the same axis of the weight: behind a Conv or Gemm that
is the output channel. The input channel of a Conv with one group, or the output channel of a ConvTranspose with several, has no
such scales.

What to do: quantise per output channel, or fold before quantising.",
    ),
    refusal(
        "per-tensor-scale",
        "one quantisation scale for the whole tensor",
        "\
The BatchNorm has another scale for each channel, the weight (or bias) one quantisation scale for all.

What to do: `--per-channel-scales` gives it one for each channel (opset 13 and later), if the target can run that.",
    ),
    refusal(
        "quantised-sign",
        "a negative scale does not fit the integers",
        "\
Quantisation scales are positive, so the sign of s goes into the integers: q becomes 2z − q, where z is the zero point. For an
unsigned type, or an int8 weight of −128 at zero point 0, that is outside of the type.

What to do: fold before quantising; or quantise symmetrically (−127 … 127, zero point 0).",
    ),
    refusal(
        "quantised-scale",
        "a scale of 0 is no quantisation scale",
        "\
s is 0 in some channel. The weight's quantisation scale would become 0, which QuantizeLinear and integer kernels divide by.

What to do: prune the channel, or fold before quantising.",
    ),
    refusal(
        "quantised-bias",
        "the bias does not fit its quantisation",
        "\
A quantised bias is int32 at zero point 0, in units of its scale, which follows that of the weight. The folded bias is beyond int32
in these units, or the bias is quantised in another way.

What to do: fold before quantising, or leave the bias in float32.",
    ),
    refusal(
        "quantised-activation",
        "an affine does not pass the rounding of an activation",
        "\
On the way the value itself is quantised (QuantizeLinear, DequantizeLinear): rounding and clipping are not linear.

What to do: fold before quantising; the activation's range then is that behind the BatchNorm.",
    ),
];

const fn refusal(code: &'static str, title: &'static str, text: &'static str) -> Explanation {
    Explanation {
        code,
        kind: Kind::Refusal,
        title,
        text,
    }
}
