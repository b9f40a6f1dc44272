"""Normalisations written out in elementary operators: those that fold, and those whose statistics come from the data."""

import numpy as np

from .build import F16, case

EPS = np.float32(1e-3)


def chain(g, kind, **nodes):
    """What the report must say of a chain: its kind, and a decision for each node."""
    g.extra.setdefault("chains", []).append({"kind": kind, "nodes": {k: v for k, v in nodes.items()}})
    g.affines(sum(d == "folded" for c in g.extra["chains"] for d in c["nodes"].values()))


def data_norm(g, node, kind):
    g.extra.setdefault("data_norms", {})[node] = kind


def statistics(g, channels, shape):
    """gamma, beta, mean, variance, epsilon as initializers of `shape` (one size is -1)."""
    values = {
        "gamma": g.rng.uniform(0.5, 1.5, channels) * np.where(np.arange(channels) == 1, -1, 1),
        "beta": g.normal(channels) * 0.5,
        "mean": g.normal(channels) * 0.5,
        "var": g.rng.uniform(0.3, 2.0, channels),
    }
    names = {k: g.const(k, v.reshape(shape)) for k, v in values.items()}
    return names | {"eps": g.const("eps", np.array(EPS))}


def root(g, p):
    return g.node("Sqrt", [g.node("Add", [p["var"], p["eps"]], "var_eps")], "std")


def keras(g, x, p):
    """Sub, Mul by Reciprocal(Sqrt(var + eps)), Mul by gamma, Add beta."""
    y = g.node("Sub", [x, p["mean"]], "centre")
    y = g.node("Mul", [y, g.node("Reciprocal", [root(g, p)], "rsqrt")], "divide")
    y = g.node("Mul", [y, p["gamma"]], "scale")
    return g.node("Add", [y, p["beta"]], "shift")


def tensorflow(g, x, p):
    """tf.nn.batch_normalization: x * (gamma * rsqrt) + (beta - mean * (gamma * rsqrt))."""
    factor = g.node("Mul", [g.node("Reciprocal", [root(g, p)], "rsqrt"), p["gamma"]], "factor")
    offset = g.node("Sub", [p["beta"], g.node("Mul", [p["mean"], factor], "mean_factor")], "offset")
    return g.node("Add", [g.node("Mul", [x, factor], "scale"), offset], "shift")


def divided(g, x, p):
    y = g.node("Div", [g.node("Sub", [x, p["mean"]], "centre"), root(g, p)], "divide")
    return g.node("Add", [g.node("Mul", [p["gamma"], y], "scale"), p["beta"]], "shift")


def powered(g, x, p):
    half = g.node("Pow", [g.node("Add", [p["var"], p["eps"]], "var_eps"), g.const("half", np.array(-0.5))], "rsqrt")
    y = g.node("Mul", [g.node("Sub", [x, p["mean"]], "centre"), half], "divide")
    return g.node("Add", [g.node("Mul", [y, p["gamma"]], "scale"), p["beta"]], "shift")


ALL = {"centre": "folded", "divide": "folded", "scale": "folded", "shift": "folded"}
TWO = {"scale": "folded", "shift": "folded"}
FORMS = {"keras": (keras, ALL), "tensorflow": (tensorflow, TWO), "divided": (divided, ALL), "powered": (powered, ALL)}
CHW = (1, -1, 1, 1)


def conv(g, **options):
    return g.conv(g.feed("x", ["N", 3, 5, 5], ), 3, 4, **options)


def register():
    for name, (form, expected) in FORMS.items():

        @case(f"Conv and a BatchNorm written out ({name}), constants unfolded, [1,C,1,1].", name=f"dec_conv_{name}")
        def fill(g, form=form, expected=expected):
            g.output(form(g, conv(g), statistics(g, 4, CHW)))
            chain(g, "batch-norm", **expected)

        @case(f"Gemm and a BatchNorm written out ({name}), [C].", name=f"dec_gemm_{name}")
        def fill_gemm(g, form=form, expected=expected):
            inputs = [g.feed("x", ["N", 3]), g.const("w", g.normal(3, 4)), g.const("b", g.normal(4))]
            g.output(form(g, g.node("Gemm", inputs, "fc"), statistics(g, 4, (-1,))))
            chain(g, "batch-norm", **expected)


register()


@case("Parameters [C], brought to [C,1,1] by Unsqueeze and Reshape.")
def dec_conv_reshaped(g):
    p = statistics(g, 4, (-1,))
    axes, shape = g.ints("axes", 1, 2), g.ints("shape", 1, -1, 1, 1)
    for key in ("mean", "var"):
        p[key] = g.node("Unsqueeze", [p[key], axes], f"{key}_unsqueezed")
    for key in ("gamma", "beta"):
        p[key] = g.node("Reshape", [p[key], shape], f"{key}_reshaped")
    g.output(keras(g, conv(g), p))
    chain(g, "batch-norm", **ALL)


@case("Conv without a bias, in f16.", dtype=F16)
def dec_conv_f16(g):
    g.output(tensorflow(g, conv(g, bias=False), statistics(g, 4, CHW)))
    chain(g, "batch-norm", **TWO)
    g.numpy_only = True


@case("ConvTranspose in two groups.")
def dec_deconv(g):
    y = g.conv(g.feed("x", ["N", 4, 3, 3]), 4, 6, (2, 2), group=2, op="ConvTranspose", strides=[2, 2])
    g.output(keras(g, y, statistics(g, 6, CHW)))
    chain(g, "batch-norm", **ALL)


@case("MatMul without an Add: the first node takes what all of them add.")
def dec_matmul(g):
    y = g.node("MatMul", [g.feed("x", ["N", 3]), g.const("w", g.normal(3, 4))], "matmul")
    g.output(keras(g, y, statistics(g, 4, (-1,))))
    chain(g, "batch-norm", **(ALL | {"centre": "kept"}))


@case("MatMul of three axes: [C] lies along the last one, which is where a MatMul has its columns.")
def dec_matmul_rank3(g):
    y = g.node("MatMul", [g.feed("x", ["N", 5, 3]), g.const("w", g.normal(3, 4))], "matmul")
    y = g.node("Add", [y, g.const("b", g.normal(4))], "bias")
    g.output(tensorflow(g, y, statistics(g, 4, (-1,))))
    g.affines(2)


@case("Channels last, between Transposes, as tf2onnx writes it: [C] lies along the channels.")
def dec_channels_last(g):
    y = g.node("Transpose", [conv(g)], "to_nhwc", perm=[0, 2, 3, 1])
    y = keras(g, y, statistics(g, 4, (-1,)))
    g.output(g.node("Transpose", [y], "to_nchw", perm=[0, 3, 1, 2]))
    chain(g, "batch-norm", **ALL)


@case("The same [C] in channels first, where it lies along the width, of the same size.")
def dec_width(g):
    y = g.conv(g.feed("x", ["N", 3, 6, 6]), 3, 4)
    g.output(keras(g, y, statistics(g, 4, (-1,))))
    chain(g, "batch-norm", centre="kept", divide="folded", scale="kept", shift="kept")


@case("[C,H,1]: no single axis.")
def dec_two_axes(g):
    y = g.node("Mul", [conv(g), g.const("a", g.normal(4, 3, 1))], "scale")
    g.output(g.node("Add", [y, g.const("b", g.normal(1, 4, 1, 1))], "shift"))
    g.affines(0)


@case("In front of a Conv without padding.")
def dec_front(g):
    p = statistics(g, 3, CHW)
    g.output(g.conv(keras(g, g.feed("x", ["N", 3, 5, 5]), p), 3, 4))
    chain(g, "batch-norm", **ALL)


@case("In front of a Conv with zero padding: the scale folds, the shift cannot.")
def dec_front_padded(g):
    p = statistics(g, 3, CHW)
    g.output(g.conv(keras(g, g.feed("x", ["N", 3, 5, 5]), p), 3, 4, pads=[1, 1, 1, 1]))
    g.extra["chains"] = [{"kind": "batch-norm", "nodes": {}}]


@case("The normalised value is read twice: both Convs take it.")
def dec_front_twice(g):
    y = tensorflow(g, g.feed("x", ["N", 3, 5, 5]), statistics(g, 3, CHW))
    g.output(g.conv(y, 3, 4, name="a"), g.conv(y, 3, 2, (1, 1), name="b"))
    chain(g, "batch-norm", **TWO)


@case("The Conv's output is read elsewhere too.")
def dec_shared(g):
    y = conv(g)
    z = tensorflow(g, y, statistics(g, 4, CHW))
    g.output(g.node("Add", [g.node("Sigmoid", [y], "sigmoid"), z], "sum"))
    chain(g, "batch-norm", scale="kept", shift="folded")
    del g.extra["chains"], g.extra["affines_folded"]


@case("The mean is an input: nothing is constant but the rest.")
def dec_mean_is_input(g):
    p = statistics(g, 4, CHW)
    p["mean"] = g.feed("moving_mean", [1, 4, 1, 1])
    g.output(keras(g, conv(g), p))
    chain(g, "batch-norm", divide="kept", scale="folded", shift="kept")
    del g.extra["chains"], g.extra["affines_folded"]


@case("A lone scale and shift for each channel, then Relu.")
def dec_scale_and_shift(g):
    y = g.node("Mul", [conv(g), g.const("a", g.normal(4, 1, 1))], "scale")
    y = g.node("Add", [y, g.const("b", g.normal(4, 1, 1))], "shift")
    g.output(g.node("Relu", [y], "relu"))
    chain(g, "scale-and-shift", scale="folded", shift="folded")


@case("A hard swish written out: its Add and Div are no normalisation.")
def dec_hard_swish(g):
    y = conv(g)
    gate = g.node("Clip", [g.node("Add", [y, g.const("three", np.array(3.0))], "add"), g.const("low", np.array(0.0)), g.const("high", np.array(6.0))], "clip")
    gate = g.node("Div", [gate, g.const("six", np.array(6.0))], "div")
    g.output(g.node("Mul", [y, gate], "mul"))
    g.affines(0)
    g.extra["chains"] = []


# --- statistics of the data ----------------------------------------------------------------------------------------------


def from_data(g, x, axes, name="", op="Div"):
    """(x - mean) / sqrt(mean((x - mean)^2) + eps)"""
    centred = g.node("Sub", [x, g.node("ReduceMean", [x], f"{name}mean", axes=axes)], f"{name}centre")
    square = g.node("Pow", [centred, g.const(f"{name}two", np.array(2.0))], f"{name}square")
    variance = g.node("Add", [g.node("ReduceMean", [square], f"{name}variance", axes=axes), g.const(f"{name}eps", np.array(EPS))], f"{name}eps_added")
    std = g.node("Sqrt", [variance], f"{name}std")
    if op == "Mul":
        return g.node("Mul", [g.node("Reciprocal", [std], f"{name}rsqrt"), centred], f"{name}divide")
    return g.node("Div", [centred, std], f"{name}divide")


@case("LayerNorm written out, its scale and shift, a Gemm.")
def dec_layer_norm(g):
    y = from_data(g, g.feed("x", ["N", 4]), [-1])
    y = g.node("Mul", [y, g.const("gamma", g.normal(4))], "scale")
    y = g.node("Add", [y, g.const("beta", g.normal(4))], "shift")
    g.output(g.node("Gemm", [y, g.const("w", g.normal(4, 2)), g.const("b", g.normal(2))], "fc"))
    chain(g, "scale-and-shift", scale="folded", shift="folded")
    data_norm(g, "centre", "LayerNorm")


@case("InstanceNorm written out behind a Conv.")
def dec_instance_norm(g):
    g.output(from_data(g, conv(g), [2, 3], op="Mul"))
    g.affines(0)
    data_norm(g, "centre", "InstanceNorm")


@case("GroupNorm written out: Reshape, statistics of each group, Reshape.")
def dec_group_norm(g):
    y = g.node("Reshape", [conv(g), g.ints("groups", 0, 2, -1)], "split")
    y = from_data(g, y, [2])
    g.output(g.node("Reshape", [y, g.ints("back", -1, 4, 3, 3)], "join"))
    g.affines(0)
    data_norm(g, "centre", "GroupNorm")


@case("BatchNorm with the statistics of the batch, written out.")
def dec_batch_statistics(g):
    g.output(from_data(g, conv(g), [0, 2, 3]))
    g.affines(0)
    data_norm(g, "centre", "BatchNorm of the batch's own statistics")


@case("RMSNorm written out.")
def dec_rms_norm(g):
    x = g.feed("x", ["N", 4])
    square = g.node("Mul", [x, x], "square")
    mean = g.node("ReduceMean", [square], "mean", axes=[-1])
    std = g.node("Sqrt", [g.node("Add", [mean, g.const("eps", np.array(EPS))], "eps_added")], "std")
    g.output(g.node("Div", [x, std], "divide"))
    g.affines(0)
    data_norm(g, "divide", "RMSNorm")


@case("x - ReduceMean(x) alone is a centring, no normalisation; neither is x - ReduceMean(y).")
def dec_centring(g):
    x, y = g.feed("x", ["N", 4]), g.feed("y", ["N", 4])
    a = g.node("Sub", [x, g.node("ReduceMean", [x], "mean_x", axes=[1])], "centre")
    b = g.node("Sub", [x, g.node("ReduceMean", [y], "mean_y", axes=[1])], "other")
    g.output(g.node("Mul", [a, b], "product"))
    g.extra["data_norms"] = {}


@case("InstanceNormalization, LayerNormalization: no BatchNorms.")
def dec_operators(g):
    y = g.node("InstanceNormalization", [conv(g), g.const("s", g.normal(4)), g.const("t", g.normal(4))], "instance")
    y = g.node("Flatten", [y], "flatten")
    g.output(g.node("LayerNormalization", [y, g.const("gamma", g.normal(36)), g.const("beta", g.normal(36))], "layer"))
    g.affines(0)
    data_norm(g, "instance", "InstanceNorm")
    data_norm(g, "layer", "LayerNorm")
