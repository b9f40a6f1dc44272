"""Weights and biases behind DequantizeLinear: the fold goes into the scales, the integers stay integers."""

import numpy as np
from onnx import TensorProto

from .build import F16, F32, I8, case

I32, U8 = TensorProto.INT32, TensorProto.UINT8
POSITIVE, MIXED = {"positive": True}, {}


def dequantized(g, name, codes, scale, zero=None, dtype=I8, scale_dtype=None, **attrs):
    """`codes` (a value name or integers) behind a DequantizeLinear called NAME_dq."""
    codes = codes if isinstance(codes, str) else g.const(f"{name}_int", np.asarray(codes), dtype)
    inputs = [codes, scale if isinstance(scale, str) else g.const(f"{name}_scale", np.asarray(scale), scale_dtype)]
    if zero is not None:
        inputs.append(g.const(f"{name}_zero", np.asarray(zero), dtype))
    return g.node("DequantizeLinear", inputs, f"{name}_dq", **attrs)


def integers(g, *shape, low=-127, high=127, dtype=np.int8):
    return g.rng.integers(low, high + 1, shape).astype(dtype)


def scales(g, *shape):
    return g.rng.uniform(0.002, 0.01, shape)


def conv(g, weight, bias=True, cin=3, **attrs):
    x = g.feed("x", ["N", cin, 5, 5])
    return g.conv(x, cin, 4, weight=weight, bias=bias, **attrs)


def approximate(g):
    """ONNX Runtime's optimiser quantises the activation of this original, too: that run is no yardstick."""
    g.extra["optimised"] = False


def stays(g, count=1):
    """How many DequantizeLinear nodes the folded model has."""
    g.extra["dequantize_left"] = count


def behind_conv(name, about, codes, zero=None, dtype=I8, per_tensor=False, norm=MIXED, code=None, opset=17, flags=(), params=None):
    """Conv with a quantised weight, then BN: folded, or kept with `code`."""

    @case(about, name=f"q_conv_{name}", opset=opset, flags=flags)
    def fill(g):
        values = codes(g)
        scale = scales(g) if per_tensor else scales(g, 4)
        axis = None if per_tensor else 0
        weight = dequantized(g, "w", values, scale, None if zero is None else zero(g), dtype, axis=axis)
        g.output(g.bn(conv(g, weight), 4, params=params and params(g), **norm))
        if code:
            g.kept("bn", code)
        else:
            g.folded("bn", "conv")
        stays(g)


def symmetric(g):
    return integers(g, 4, 3, 3, 3)


def with_least(g, channel):
    values = integers(g, 4, 3, 3, 3)
    values[channel, 1, 2, 0] = -128
    return values


def unsigned(low):
    def fill(g):
        values = integers(g, 4, 3, 3, 3, low=1, high=255, dtype=np.uint8)
        values[1, 0, 0, 0] = low
        return values

    return fill


def zeros(g):
    return np.zeros(4, np.int8)


behind_conv("channel", "int8 weight, a scale for each output channel; every s > 0.", symmetric, zeros, norm=POSITIVE)
behind_conv("no_zero_point", "int8 weight without a zero point, one s < 0: the integers of that channel change sign.", symmetric)
behind_conv("negative", "int8 weight, zero points 0, one s < 0.", symmetric, zeros)
behind_conv("least", "-128 in the channel of s < 0: 128 is no int8.", lambda g: with_least(g, 1), zeros, code="quantised-sign")
behind_conv("least_elsewhere", "-128 in a channel of s > 0 does not matter.", lambda g: with_least(g, 2), zeros)
behind_conv("zero_points", "int8 with other zero points than 0, every s > 0: only the scales change.", symmetric, lambda g: np.array([3, -7, 0, 100], np.int8), norm=POSITIVE)
behind_conv(
    "zero_points_negative",
    "Zero point -7 and s < 0: q becomes -14 - q.",
    lambda g: integers(g, 4, 3, 3, 3, low=-128, high=113),
    lambda g: np.array([3, -7, 0, 100], np.int8),
)
behind_conv("uint8", "uint8 with zero point 128, every s > 0.", unsigned(0), lambda g: np.full(4, 128, np.uint8), U8, norm=POSITIVE)
behind_conv("uint8_negative", "uint8 from 1 on, zero point 128, s < 0: q becomes 256 - q.", unsigned(1), lambda g: np.full(4, 128, np.uint8), U8)
behind_conv("uint8_outside", "uint8 with a 0, zero point 128, s < 0: 256 is no uint8.", unsigned(0), lambda g: np.full(4, 128, np.uint8), U8, code="quantised-sign")
behind_conv("per_tensor", "One scale for the tensor, one s for each channel.", symmetric, per_tensor=True, code="per-tensor-scale")
behind_conv("per_tensor_widened", "The same with --per-channel-scales, with a zero point.", symmetric, lambda g: np.array(0, np.int8), per_tensor=True, flags=["--per-channel-scales"])
behind_conv("per_tensor_zero_point", "The same with zero point 5: it becomes a vector too.", symmetric, lambda g: np.array(5, np.int8), per_tensor=True, norm=POSITIVE, flags=["--per-channel-scales"])
behind_conv("per_tensor_old", "Opset 12 has no axis.", symmetric, per_tensor=True, opset=12, flags=["--per-channel-scales"], code="old-opset")
behind_conv(
    "per_tensor_uniform",
    "One scale for the tensor and the same |s| in all channels: the scale takes it, the integers take the signs.",
    symmetric,
    per_tensor=True,
    params=lambda g: {"weight": np.array([1.5, -1.5, 1.5, -1.5]), "running_var": np.full(4, 0.7)},
)
behind_conv("dead", "gamma is 0 in a channel: no quantisation scale is 0.", symmetric, zeros, code="quantised-scale", params=lambda g: {"weight": np.array([1.0, 0.0, 0.5, 2.0])})


@case("Scales in blocks (opset 21).", opset=21)
def q_conv_blocked(g):
    weight = dequantized(g, "w", integers(g, 4, 8, 1, 1), scales(g, 4, 2, 1, 1), axis=1, block_size=4)
    g.output(g.bn(conv(g, weight, cin=8, kernel=(1, 1)), 4))
    g.kept("bn", "quantised-block")
    stays(g)


@case("int4 weights are not read.", opset=21)
def q_conv_int4(g):
    weight = dequantized(g, "w", integers(g, 4, 3, 3, 3, low=-7, high=7), scales(g, 4), dtype=TensorProto.INT4, axis=0)
    g.output(g.bn(conv(g, weight), 4))
    g.kept("bn", "quantised-weight")
    g.ranks["bn_out"], g.run = 4, False
    stays(g)


def bias(g, scale, size=4, **attrs):
    return dequantized(g, "b", integers(g, size, low=-2000, high=2000, dtype=np.int32), scale, dtype=I32, axis=0, **attrs)


@case("int8 weight and int32 bias, whose scale follows that of the weight.")
def q_conv_bias(g):
    scale = scales(g, 4)
    weight = dequantized(g, "w", symmetric(g), scale, zeros(g), axis=0)
    g.output(g.bn(conv(g, weight, bias(g, scale * 0.02, zero=np.zeros(4, np.int32))), 4))
    g.folded("bn", "conv")
    g.atol = 3e-4  # one unit of the bias: 0.01 * 0.02 * |s|
    stays(g, 2)


@case("The same with two BatchNorms: the bias is rounded once.")
def q_conv_bias_twice(g):
    scale = scales(g, 4)
    weight = dequantized(g, "w", symmetric(g), scale, zeros(g), axis=0)
    y = g.bn(conv(g, weight, bias(g, scale * 0.02)), 4)
    g.output(g.bn(y, 4, name="second"))
    g.folded("bn", "conv")
    g.folded("second", "conv")
    g.atol = 1e-3
    stays(g, 2)


@case("A float bias beside an int8 weight stays a float.")
def q_conv_no_bias(g):
    weight = dequantized(g, "w", symmetric(g), scales(g, 4), zeros(g), axis=0)
    g.output(g.bn(conv(g, weight, False), 4))
    g.folded("bn", "conv")
    stays(g)


@case("A scale of 1e-12 for the bias: what BN adds is beyond int32.")
def q_conv_bias_overflow(g):
    weight = dequantized(g, "w", symmetric(g), scales(g, 4), zeros(g), axis=0)
    g.output(g.bn(conv(g, weight, bias(g, np.full(4, 1e-12))), 4))
    g.kept("bn", "quantised-bias")
    stays(g, 2)


@case("An int8 bias is none.")
def q_conv_bias_int8(g):
    weight = dequantized(g, "w", symmetric(g), scales(g, 4), zeros(g), axis=0)
    b = dequantized(g, "b", integers(g, 4), np.full(4, 0.01), axis=0)
    g.output(g.bn(conv(g, weight, b), 4))
    g.kept("bn", "quantised-bias")
    stays(g, 2)


@case("One scale for all of the bias, one s for each channel.")
def q_conv_bias_per_tensor(g):
    weight = dequantized(g, "w", symmetric(g), scales(g, 4), zeros(g), axis=0)
    b = dequantized(g, "b", integers(g, 4, low=-2000, high=2000, dtype=np.int32), np.array(2e-4), dtype=I32)
    g.output(g.bn(conv(g, weight, b), 4))
    g.kept("bn", "per-tensor-scale")
    stays(g, 2)


@case("The same with --per-channel-scales.", flags=["--per-channel-scales"])
def q_conv_bias_per_tensor_widened(g):
    weight = dequantized(g, "w", symmetric(g), scales(g, 4), zeros(g), axis=0)
    b = dequantized(g, "b", integers(g, 4, low=-2000, high=2000, dtype=np.int32), np.array(2e-4), dtype=I32)
    g.output(g.bn(conv(g, weight, b), 4))
    g.folded("bn", "conv")
    g.atol = 6e-4
    stays(g, 2)


@case("A whole QDQ layer: quantised activation, weight and bias, then BN and Relu.")
def q_conv_qdq(g):
    step = g.const("x_scale", np.array(0.03125))
    zero = g.const("x_zero", np.array(0, np.int8), I8)
    x = g.node("QuantizeLinear", [g.feed("x", ["N", 3, 5, 5]), step, zero], "x_q")
    x = g.node("DequantizeLinear", [x, step, zero], "x_dq")
    scale = scales(g, 4)
    weight = dequantized(g, "w", symmetric(g), scale, zeros(g), axis=0)
    y = g.conv(x, 3, 4, weight=weight, bias=bias(g, scale * 0.03125))
    g.output(g.node("Relu", [g.bn(y, 4)], "relu"))
    g.folded("bn", "conv")
    g.atol = 5e-4
    stays(g, 3)


@case("BN behind a quantised activation: rounding is not linear.")
def q_activation(g):
    step = g.const("y_scale", np.array(0.0625))
    zero = g.const("y_zero", np.array(0, np.int8), I8)
    y = g.node("QuantizeLinear", [conv(g, None), step, zero], "y_q")
    g.output(g.bn(g.node("DequantizeLinear", [y, step, zero], "y_dq"), 4))
    g.kept("bn", "quantised-activation")
    g.atol = 0.2  # an activation may fall on the other side of a step
    stays(g)


@case("Two Convs read one dequantised weight.")
def q_conv_shared_weight(g):
    weight = dequantized(g, "w", symmetric(g), scales(g, 4), axis=0)
    x = g.feed("x", ["N", 3, 5, 5])
    for name in ("a", "b"):
        g.output(g.bn(g.conv(x, 3, 4, name=f"conv_{name}", weight=weight), 4, name=f"bn_{name}"))
        g.kept(f"bn_{name}", "quantised-weight")
    stays(g)


@case("Two DequantizeLinear of the same integers and scales: copied on write.")
def q_conv_shared_integers(g):
    codes, scale = g.const("w", symmetric(g), I8), g.const("scale", scales(g, 4))
    x = g.feed("x", ["N", 3, 5, 5])
    for name in ("a", "b", "c"):
        weight = dequantized(g, name, codes, scale, axis=0)
        y = g.conv(x, 3, 4, name=f"conv_{name}", weight=weight)
        g.output(y if name == "c" else g.bn(y, 4, name=f"bn_{name}"))
        if name != "c":
            g.folded(f"bn_{name}", f"conv_{name}")
    stays(g, 3)


@case("A weight that is quantised in the graph, as training with fake quantisation leaves it.")
def q_conv_fake(g):
    scale, zero = g.const("scale", scales(g, 4)), g.const("zero", zeros(g), I8)
    codes = g.node("QuantizeLinear", [g.const("w", g.normal(4, 3, 3, 3) * 0.3), scale, zero], "w_q", axis=0)
    weight = g.node("DequantizeLinear", [codes, scale, zero], "w_dq", axis=0)
    g.output(g.bn(conv(g, weight), 4))
    g.kept("bn", "quantised-weight", "weight-not-constant")
    stays(g)


@case("A Transpose between DequantizeLinear and Conv.")
def q_conv_transposed(g):
    weight = dequantized(g, "w", integers(g, 3, 3, 3, 4), scales(g, 4), axis=3)
    weight = g.node("Transpose", [weight], "w_transpose", perm=[3, 2, 0, 1])
    g.output(g.bn(conv(g, weight), 4))
    g.kept("bn", "quantised-weight")
    stays(g)


@case("f16 scales (opset 19).", opset=19, dtype=F16)
def q_conv_f16(g):
    weight = dequantized(g, "w", symmetric(g), scales(g, 4), zeros(g), axis=0)
    g.output(g.bn(conv(g, weight), 4))
    g.folded("bn", "conv")
    g.numpy_only = True
    stays(g)


# --- other sides, other operators ----------------------------------------------------------------------------------------


@case("BN before a depthwise Conv: its input channel is the output channel.")
def q_bn_conv_depthwise(g):
    weight = dequantized(g, "w", integers(g, 4, 1, 3, 3), scales(g, 4), zeros(g), axis=0)
    g.output(g.conv(g.bn(g.feed("x", ["N", 4, 5, 5]), 4), 4, 4, weight=weight, group=4))
    g.folded("bn", "conv")
    stays(g)


@case("BN before a Conv: no scales along the input channels.")
def q_bn_conv(g):
    weight = dequantized(g, "w", symmetric(g), scales(g, 4), zeros(g), axis=0)
    g.output(g.conv(g.bn(g.feed("x", ["N", 3, 5, 5]), 3), 3, 4, weight=weight))
    g.kept("bn", "quantised-axis")
    stays(g)


@case("BN with s = 1 before a Conv: only the bias changes, and stays int32.")
def q_bn_conv_shift(g):
    scale = scales(g, 4)
    weight = dequantized(g, "w", symmetric(g), scale, zeros(g), axis=0)
    params = {"weight": np.ones(3), "running_var": np.full(3, 0.75)}
    x = g.bn(g.feed("x", ["N", 3, 5, 5]), 3, params=params, epsilon=0.25)
    g.output(g.conv(x, 3, 4, weight=weight, bias=bias(g, scale * 0.02)))
    g.folded("bn", "conv")
    g.atol = 4e-4
    stays(g, 2)


def deconv(name, about, group, axis, code=None):
    @case(about, name=f"q_deconv_{name}")
    def fill(g):
        codes = integers(g, 4, 6 // group, 2, 2)
        weight = dequantized(g, "w", codes, scales(g, codes.shape[axis]), axis=axis)
        y = g.conv(g.feed("x", ["N", 4, 3, 3]), 4, 6, (2, 2), weight=weight, group=group, op="ConvTranspose")
        g.output(g.bn(y, 6))
        if code:
            g.kept("bn", code)
        else:
            g.folded("bn", "conv")
        stays(g)


deconv("channel", "ConvTranspose with scales along its output channels, axis 1.", 1, 1)
deconv("grouped", "In two groups: axis 1 has half of the output channels.", 2, 1, "quantised-axis")
deconv("inputs", "Scales along the input channels.", 1, 0, "quantised-axis")


def gemm(name, about, shape, axis, bias_dtype=None, **attrs):
    @case(about, name=f"q_gemm_{name}")
    def fill(g):
        scale = scales(g, 4)
        inputs = [g.feed("x", ["N", 3]), dequantized(g, "w", integers(g, *shape), scale, axis=axis)]
        if bias_dtype == I32:
            inputs.append(bias(g, scale * 0.02))
            g.atol = 1e-3
        elif bias_dtype:
            inputs.append(g.const("b", g.normal(4)))
        g.output(g.bn(g.node("Gemm", inputs, "fc", **attrs), 4))
        g.folded("bn", "fc")
        approximate(g)
        stays(g, 2 if bias_dtype == I32 else 1)


gemm("transposed", "Gemm, transB = 1: scales along axis 0.", (4, 3), 0, F32, transB=1)
gemm("plain", "Gemm: scales along axis 1.", (3, 4), 1, F32)
gemm("no_addend", "Gemm without C.", (3, 4), -1)
gemm("int32", "Gemm with C in int32 and alpha, beta.", (4, 3), 0, I32, transB=1, alpha=0.5, beta=2.0)


@case("BN before a Gemm whose scales lie along the rows.")
def q_bn_gemm(g):
    weight = dequantized(g, "w", integers(g, 3, 4), scales(g, 3), axis=0)
    g.output(g.node("Gemm", [g.bn(g.feed("x", ["N", 3]), 3), weight], "fc"))
    g.folded("bn", "fc")
    stays(g)


@case("MatMul: scales along its columns, the shift in an Add.")
def q_matmul(g):
    weight = dequantized(g, "w", integers(g, 3, 4), scales(g, 4), np.zeros(4, np.int8), axis=1)
    g.output(g.bn(g.node("MatMul", [g.feed("x", ["N", 3]), weight], "matmul"), 4))
    g.folded("bn", "matmul")
    approximate(g)
    stays(g)


@case("MatMul: scales along its rows.")
def q_matmul_rows(g):
    weight = dequantized(g, "w", integers(g, 3, 4), scales(g, 3), axis=0)
    g.output(g.bn(g.node("MatMul", [g.feed("x", ["N", 3]), weight], "matmul"), 4))
    g.kept("bn", "quantised-axis")
    stays(g)


@case("A quantised constant of a Mul moves into a Conv.")
def q_mul_constant(g):
    c = dequantized(g, "c", integers(g, 1, 4, 1, 1, low=1), np.array(0.02))
    g.output(g.node("Mul", [conv(g, None), c], "mul"))
    g.affines(1)
    stays(g, 0)


@case("Add of a quantised constant behind a computed weight: BN takes the constant into its bias, and stays.")
def q_add_constant(g):
    x = g.feed("x", ["N", 3, 5, 5])
    y = g.conv(x, 3, 4, weight=g.feed("w", [4, 3, 3, 3]), bias=False)
    y = g.node("Add", [y, dequantized(g, "c", integers(g, 1, 4, 1, 1), np.array(0.02))], "add")
    g.output(g.bn(y, 4, positive=True))
    g.kept("bn", "quantised-weight", "weight-not-constant")
    g.affines(1)
    stays(g, 0)
