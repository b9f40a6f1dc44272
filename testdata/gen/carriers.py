"""Operators that an affine passes through, one formula and one counter-example each."""

import numpy as np

from .absorbers import gemm, matmul
from .build import BOOL, F16, F32, I64, case


def image(g, channels=3, size=(6, 6)):
    return g.feed("x", ["N", channels, *size])


@case("Conv, Identity, BN.")
def carry_identity(g):
    y = g.node("Identity", [g.conv(image(g), 3, 4)], "identity")
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


def register_dropouts():
    def fill_old(g):
        attrs = {"ratio": 0.3} | ({"is_test": 1} if g.opset < 7 else {})
        g.output(g.bn(g.node("Dropout", [g.conv(image(g), 3, 4)], "dropout", **attrs), 4))
        g.folded("bn", "conv")

    def fill_new(g):
        inputs = [g.conv(image(g), 3, 4), g.const("ratio", np.float32(0.3)), g.const("training", np.array(False))]
        g.output(g.bn(g.node("Dropout", inputs, "dropout"), 4))
        g.folded("bn", "conv")

    for opset in (1, 6, 7, 10):
        case(f"Conv, eval Dropout of opset {opset}, BN.", name=f"carry_dropout_opset{opset}", opset=opset)(fill_old)
    for opset in (12, 13):
        case(f"Conv, Dropout with training_mode = false (opset {opset}), BN.", name=f"carry_dropout_opset{opset}", opset=opset)(
            fill_new
        )


register_dropouts()


@case("Dropout whose training_mode is a graph input: it may not be passed.", name="carry_dropout_runtime_mode")
def dropout_runtime_mode(g):
    training = g.feed("training", [], BOOL, value=np.array(False))
    inputs = [g.conv(image(g), 3, 4), g.const("ratio", np.float32(0.3)), training]
    g.output(g.bn(g.node("Dropout", inputs, "dropout"), 4))
    g.kept("bn", "no-absorber", "parameter-not-constant", "dropout-training-mode")


@case("Gemm-side BN: Conv, GlobalAveragePool, Flatten, BN of rank 2.")
def carry_gap_flatten(g):
    y = g.node("GlobalAveragePool", [g.conv(image(g), 3, 4)], "pool")
    g.output(g.bn(g.node("Flatten", [y], "flatten"), 4))
    g.folded("bn", "conv")


@case("Conv, Flatten, BN of rank 2 over C*H*W features: every pixel has its own affine.")
def carry_flatten_per_pixel(g):
    y = g.node("Flatten", [g.conv(image(g, size=(4, 4)), 3, 2)], "flatten")
    g.output(g.bn(y, 8))
    g.kept("bn", "channel-axis", "no-absorber")


@case("NHWC island: Conv, Transpose there and back, BN.")
def carry_transposes(g):
    y = g.node("Transpose", [g.conv(image(g), 3, 4)], "to_nhwc", perm=[0, 2, 3, 1])
    y = g.node("Transpose", [y], "to_nchw", perm=[0, 3, 1, 2])
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("Dense layer in an NHWC island: Transpose, MatMul, Transpose, BN.")
def carry_nhwc_matmul(g):
    y = g.node("Transpose", [image(g)], "to_nhwc", perm=[0, 2, 3, 1])
    y = g.node("Transpose", [matmul(g, y, 3, 4)], "to_nchw", perm=[0, 3, 1, 2])
    g.output(g.bn(y, 4))
    g.folded("bn", "matmul")


@case("BN on a Transpose that puts W on axis 1, though W = C.")
def carry_transpose_wrong_axis(g):
    y = g.node("Transpose", [g.conv(image(g), 3, 4)], "transpose", perm=[0, 3, 2, 1])
    g.output(g.bn(y, 4))
    g.kept("bn", "channel-axis", "no-absorber")


@case("Conv, Unsqueeze, Squeeze, BN on the way of the channel axis.")
def carry_squeeze(g):
    y = g.node("Unsqueeze", [g.conv(image(g), 3, 4), g.ints("front", 0)], "unsqueeze")
    y = g.node("Squeeze", [y, g.ints("front2", 0)], "squeeze")
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("Conv1d-BN1d written through Reshape [N,C,H,W] -> [N,C,H*W] with 0 and -1.")
def carry_reshape(g):
    y = g.node("Reshape", [g.conv(image(g), 3, 4), g.ints("shape", 0, 4, -1)], "reshape")
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("Reshape that splits each channel in two: the BN's channels are halves of the Conv's.")
def carry_reshape_split_channel(g):
    y = g.node("Reshape", [g.conv(image(g), 3, 4), g.ints("shape", 0, 8, 2, 4)], "reshape")
    g.output(g.bn(y, 8))
    g.kept("bn", "channel-axis", "no-absorber")


@case("Reshape of 4 channels to groups of 2 and back to 4 x 1 x 1: Gemm, Reshape, BN.")
def carry_gemm_reshape(g):
    y = g.node("Reshape", [gemm(g, g.feed("x", ["N", 3]), 3, 4, transB=1), g.ints("shape", 0, 4, 1, 1)], "reshape")
    g.output(g.bn(y, 4))
    g.folded("bn", "fc")


@case("DCGAN head: Gemm, Reshape to [N,C,H,W], BN: each affine covers H*W columns of the Gemm.")
def carry_gemm_reshape_spatial(g):
    y = g.node("Reshape", [gemm(g, g.feed("x", ["N", 3]), 3, 12, transB=1), g.ints("shape", 0, 3, 2, 2)], "reshape")
    g.output(g.bn(y, 3))
    g.folded("bn", "fc")


@case("Reflect padding between Conv and BN: every pad is a copy of a value.")
def carry_pad_reflect(g):
    y = g.node("Pad", [g.conv(image(g), 3, 4), g.ints("pads", 0, 0, 1, 1, 0, 0, 1, 1)], "pad", mode="reflect")
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("Reflect padding between BN and Conv, forwards, with t != 0.")
def carry_pad_reflect_forward(g):
    y = g.node("Pad", [g.bn(image(g), 3), g.ints("pads", 0, 0, 1, 1, 0, 0, 1, 1)], "pad", mode="reflect")
    g.output(g.conv(y, 3, 4))
    g.folded("bn", "conv")


@case("Zero padding between Conv and BN with t != 0: the pads are not mapped to themselves.")
def carry_pad_zero_shift(g):
    y = g.node("Pad", [g.conv(image(g), 3, 4), g.ints("pads", 0, 0, 1, 1, 0, 0, 1, 1)], "pad")
    g.output(g.bn(y, 4))
    g.kept("bn", "padded-shift", "nonzero-shift")


@case("Zero padding between Conv and BN with t = 0.")
def carry_pad_zero_no_shift(g):
    y = g.node("Pad", [g.conv(image(g), 3, 4), g.ints("pads", 0, 0, 1, 1, 0, 0, 1, 1)], "pad")
    g.output(g.bn(y, 4, shift=False))
    g.folded("bn", "conv")


@case("Conv, Relu, BN with s >= 0 and t = 0: passes the Relu.")
def carry_relu(g):
    g.output(g.bn(g.node("Relu", [g.conv(image(g), 3, 4)], "relu"), 4, shift=False, positive=True))
    g.folded("bn", "conv")


@case("Conv, Relu, BN with t != 0 and nothing behind it.")
def carry_relu_shift(g):
    g.output(g.bn(g.node("Relu", [g.conv(image(g), 3, 4)], "relu"), 4, positive=True))
    g.kept("bn", "no-absorber", "nonzero-shift")


@case("Conv, Relu, BN with t = 0 and a negative s.")
def carry_relu_negative(g):
    g.output(g.bn(g.node("Relu", [g.conv(image(g), 3, 4)], "relu"), 4, shift=False))
    g.kept("bn", "no-absorber", "negative-scale")


@case("Conv, Relu, BN, Conv without pads: the BN goes forwards.")
def carry_relu_then_forward(g):
    y = g.node("Relu", [g.conv(image(g), 3, 4, name="conv1")], "relu")
    g.output(g.conv(g.bn(y, 4), 4, 2, name="conv2"))
    g.folded("bn", "conv2")


@case("Conv, LeakyRelu, BN with s >= 0 and t = 0.")
def carry_leaky_relu(g):
    y = g.node("LeakyRelu", [g.conv(image(g), 3, 4)], "leaky", alpha=0.1)
    g.output(g.bn(y, 4, shift=False, positive=True))
    g.folded("bn", "conv")


@case("Conv, PRelu with a slope per channel, BN with s >= 0 and t = 0.")
def carry_prelu(g):
    y = g.node("PRelu", [g.conv(image(g), 3, 4), g.const("slope", g.rng.uniform(0.1, 0.5, (4, 1, 1)))], "prelu")
    g.output(g.bn(y, 4, shift=False, positive=True))
    g.folded("bn", "conv")


@case("Nothing passes a Sigmoid.")
def carry_sigmoid(g):
    g.output(g.bn(g.node("Sigmoid", [g.conv(image(g), 3, 4)], "sigmoid"), 4))
    g.kept("bn", "no-absorber")


@case("Nothing passes a Clip, even with s >= 0 and t = 0.")
def carry_clip(g):
    y = g.node("Clip", [g.conv(image(g), 3, 4), g.const("low", np.float32(0)), g.const("high", np.float32(6))], "clip")
    g.output(g.bn(y, 4, shift=False, positive=True))
    g.kept("bn", "no-absorber")


@case("Conv, padded MaxPool, BN with s >= 0: padding is minus infinity, so t is fine.")
def carry_maxpool(g):
    y = g.node("MaxPool", [g.conv(image(g), 3, 4)], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    g.output(g.bn(y, 4, positive=True))
    g.folded("bn", "conv")


@case("Conv, MaxPool, BN with a negative s: the maximum would become a minimum.")
def carry_maxpool_negative(g):
    y = g.node("MaxPool", [g.conv(image(g), 3, 4)], "pool", kernel_shape=[2, 2], strides=[2, 2])
    g.output(g.bn(y, 4))
    g.kept("bn", "negative-scale")


@case("Conv, GlobalMaxPool, BN with s >= 0.")
def carry_global_maxpool(g):
    g.output(g.bn(g.node("GlobalMaxPool", [g.conv(image(g), 3, 4)], "pool"), 4, positive=True))
    g.folded("bn", "conv")


@case("Conv, AveragePool without padding, BN (DenseNet transition).")
def carry_averagepool(g):
    y = g.node("AveragePool", [g.conv(image(g), 3, 4)], "pool", kernel_shape=[2, 2], strides=[2, 2])
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("Padded AveragePool that counts its pads: the shift does not pass.")
def carry_averagepool_counts_pads(g):
    y = g.conv(image(g), 3, 4)
    y = g.node("AveragePool", [y], "pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    g.output(g.bn(y, 4))
    g.kept("bn", "padded-shift", "nonzero-shift")


@case("Padded AveragePool that leaves its pads out: both pass.")
def carry_averagepool_excludes_pads(g):
    y = g.node("AveragePool", [g.conv(image(g), 3, 4)], "pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("Conv, ReduceMean over H and W, BN of rank 2.")
def carry_reduce_mean(g):
    y = g.node("ReduceMean", [g.conv(image(g), 3, 4)], "mean", axes=[2, 3], keepdims=0)
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("ReduceMean over the channel axis.")
def carry_reduce_mean_channel(g):
    y = g.node("ReduceMean", [g.conv(image(g), 3, 4)], "mean", axes=[1], keepdims=0)
    g.output(g.bn(y, 4))
    g.kept("bn", "channel-axis", "no-absorber")


@case("Two Convs, Concat over channels, BN: each takes its part.")
def carry_concat_channels(g):
    x = image(g)
    y = g.node("Concat", [g.conv(x, 3, 2, name="conv1"), g.conv(x, 3, 3, name="conv2")], "concat", axis=1)
    g.output(g.bn(y, 5))
    g.folded("bn", "conv1", "conv2")


@case("Two Convs, Concat over the width, BN: each takes the whole vector.")
def carry_concat_width(g):
    x = image(g)
    y = g.node("Concat", [g.conv(x, 3, 2, name="conv1"), g.conv(x, 3, 2, name="conv2")], "concat", axis=3)
    g.output(g.bn(y, 2))
    g.folded("bn", "conv1", "conv2")


@case("Concat of a Conv and the graph input: one branch cannot take its part, so none may.")
def carry_concat_refused(g):
    x = image(g, size=(4, 4))
    y = g.node("Concat", [g.conv(x, 3, 2, (1, 1)), x], "concat", axis=1)
    g.output(g.bn(y, 5))
    g.kept("bn", "no-absorber", "graph-input", "shared-output")


@case("Conv, Slice of two channels, BN: the other channels keep s = 1, t = 0.")
def carry_slice_channels(g):
    y = g.conv(image(g), 3, 4)
    y = g.node("Slice", [y, g.ints("starts", 1), g.ints("ends", 3), g.ints("axes", 1)], "slice")
    g.output(g.bn(y, 2))
    g.folded("bn", "conv")


@case("Conv, Split in two over channels, a BN on each part.")
def carry_split(g):
    parts = ["left", "right"]
    g.node("Split", [g.conv(image(g), 3, 4), g.ints("sizes", 1, 3)], "split", parts, axis=1)
    g.output(g.bn("left", 1, "bn1"), g.bn("right", 3, "bn2"))
    g.folded("bn1", "conv")
    g.folded("bn2", "conv")


@case("Conv, nearest Resize, BN.")
def carry_resize(g):
    inputs = [g.conv(image(g), 3, 4), "", g.const("scales", np.float32([1, 1, 2, 2]))]
    attrs = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    g.output(g.bn(g.node("Resize", inputs, "resize", **attrs), 4))
    g.folded("bn", "conv")


def register_depth_to_space():
    for mode in ("DCR", "CRD"):

        def fill(g, mode=mode):
            y = g.node("DepthToSpace", [g.conv(image(g), 3, 8)], "shuffle", blocksize=2, mode=mode)
            g.output(g.bn(y, 2))
            g.folded("bn", "conv")

        case(f"Conv, DepthToSpace {mode}, BN.", name=f"carry_depth_to_space_{mode.lower()}")(fill)


register_depth_to_space()


@case("Two Convs, Add, BN: both take s, one takes t.", flags=["--through-branches"])
def carry_add_branches(g):
    x = image(g)
    y = g.node("Add", [g.conv(x, 3, 4, name="conv1"), g.conv(x, 3, 4, name="conv2", bias=False)], "add")
    g.output(g.bn(y, 4))
    g.folded("bn", "conv1", "conv2")


@case("Two Convs, Add, BN by default: the branches are not touched.")
def carry_add_branches_default(g):
    x = image(g)
    y = g.node("Add", [g.conv(x, 3, 4, name="conv1"), g.conv(x, 3, 4, name="conv2")], "add")
    g.output(g.bn(y, 4))
    g.kept("bn", "no-absorber")


@case("Two Convs, Sub, BN.", flags=["--through-branches"])
def carry_sub_branches(g):
    x = image(g)
    y = g.node("Sub", [g.conv(x, 3, 4, name="conv1"), g.conv(x, 3, 4, name="conv2")], "sub")
    g.output(g.bn(y, 4))
    g.folded("bn", "conv1", "conv2")


@case("Add of a Conv and a skip from the graph input.")
def carry_add_skip(g):
    x = image(g, 4)
    y = g.node("Add", [g.conv(x, 4, 4, pads=[1, 1, 1, 1]), x], "add")
    g.output(g.bn(y, 4))
    g.kept("bn", "no-absorber", "graph-input", "shared-output")


@case("x + x: the Conv's output is read twice by one Add; t is added once.", flags=["--through-branches"])
def carry_add_same(g):
    y = g.conv(image(g), 3, 4)
    g.output(g.bn(g.node("Add", [y, y], "add"), 4))
    g.either("bn", "shared-output", into=["conv"])


@case("Add of a full branch and a one-channel branch that broadcasts: only the full one has the channels.")
def carry_add_broadcast(g):
    x = image(g)
    y = g.node("Add", [g.conv(x, 3, 4, name="conv1"), g.conv(x, 3, 1, name="conv2")], "add")
    g.output(g.bn(y, 4))
    g.kept("bn", "broadcast", "channel-axis", "no-absorber")


@case("Cast f16 -> f32 between Conv and BN: folding would round in the narrower type.", opset=17)
def carry_cast_widening(g):
    g.dtype = F16
    y = g.node("Cast", [g.conv(image(g), 3, 4)], "cast", to=F32)
    g.output(g.bn(y, 4, dtype=F32))
    g.either("bn", "dtype", "no-absorber", into=["conv"])
    g.types["bn_out"] = F32


@case("Conv, Cast f32 -> f32, BN: no conversion at all.")
def carry_cast_same(g):
    g.output(g.bn(g.node("Cast", [g.conv(image(g), 3, 4)], "cast", to=F32), 4))
    g.folded("bn", "conv")


@case("BN in f16, Cast to f32, Conv in f32: forwards the fold happens in the wider type.")
def carry_cast_forward(g):
    y = g.bn(g.feed("x", ["N", 3, 6, 6], F16), 3, dtype=F16)
    g.output(g.conv(g.node("Cast", [y], "cast", to=F32), 3, 4))
    g.folded("bn", "conv")
    g.dtype = F16
    g.types["conv_out"] = F32


@case("Conv in f32, Cast to f16, BN: the cast rounds.")
def carry_cast_narrowing(g):
    y = g.node("Cast", [g.conv(image(g), 3, 4)], "cast", to=F16)
    g.output(g.bn(y, 4, dtype=F16))
    g.kept("bn", "dtype")
    g.dtype = F16
    g.inputs[0].type.tensor_type.elem_type = F32
    g.types["bn_out"] = F16


@case("Conv, Relu, BN with t = 0 and s = 0 in one channel: 0 on either side.")
def carry_relu_dead(g):
    gamma = np.array([0.8, 0.0, 1.2, 0.5])
    y = g.node("Relu", [g.conv(image(g), 3, 4)], "relu")
    g.output(g.bn(y, 4, shift=False, positive=True, params={"weight": gamma}))
    g.folded("bn", "conv")


@case("BN with s >= 0 and t = 0, Relu, zero-padded Conv: forwards.")
def carry_relu_forward(g):
    y = g.node("Relu", [g.bn(image(g), 3, shift=False, positive=True)], "relu")
    g.output(g.conv(y, 3, 4, pads=[1, 1, 1, 1]))
    g.folded("bn", "conv")


@case("Conv, LeakyRelu, BN with t = 0 and a negative s.")
def carry_leaky_relu_negative(g):
    y = g.node("LeakyRelu", [g.conv(image(g), 3, 4)], "leaky", alpha=0.1)
    g.output(g.bn(y, 4, shift=False))
    g.kept("bn", "negative-scale")


@case("Conv, PRelu whose slope is a graph input, BN with s >= 0 and t = 0.")
def carry_prelu_runtime_slope(g):
    slope = g.feed("slope", [4, 1, 1], value=np.full((4, 1, 1), 0.25))
    y = g.node("PRelu", [g.conv(image(g), 3, 4), slope], "prelu")
    g.output(g.bn(y, 4, shift=False, positive=True))
    g.kept("bn", "weight-not-constant", "no-absorber")


@case("The slope of a PRelu is what a BN computes: no way forwards.")
def carry_prelu_slope(g):
    x = image(g)
    g.output(g.node("PRelu", [x, g.bn(x, 3, shift=False, positive=True)], "prelu"))
    g.kept("bn", "no-absorber", "graph-input", "shared-output")


@case("MaxPool whose Indices are an output, BN with s > 0: the maxima stay where they are, unless rounding moves them.")
def carry_maxpool_indices(g):
    y = g.conv(image(g), 3, 4)
    y = g.node("MaxPool", [y], "pool", ["pooled", "indices"], kernel_shape=[2, 2], strides=[2, 2])
    g.output(g.bn(y, 4, positive=True), "indices")
    g.types["indices"] = I64
    g.either("bn", "no-absorber", into=["conv"])


@case("MaxPool whose Indices are an output, BN with s = 0 in one channel: all its elements would become equal.")
def carry_maxpool_indices_dead(g):
    y = g.conv(image(g), 3, 4)
    y = g.node("MaxPool", [y], "pool", ["pooled", "indices"], kernel_shape=[2, 2], strides=[2, 2])
    g.output(g.bn(y, 4, positive=True, params={"weight": np.array([0.8, 0.0, 1.2, 0.5])}), "indices")
    g.types["indices"] = I64
    g.kept("bn", "negative-scale", "no-absorber")


@case("Conv, MaxPool with ceil_mode, BN with s >= 0.")
def carry_maxpool_ceil(g):
    y = g.conv(image(g, size=(8, 8)), 3, 4)
    y = g.node("MaxPool", [y], "pool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    g.output(g.bn(y, 4, positive=True))
    g.folded("bn", "conv")


@case("Conv, GlobalMaxPool, BN with a negative s.")
def carry_global_maxpool_negative(g):
    g.output(g.bn(g.node("GlobalMaxPool", [g.conv(image(g), 3, 4)], "pool"), 4))
    g.kept("bn", "negative-scale")


@case("AveragePool with ceil_mode: a window that hangs over counts only what it sees.")
def carry_averagepool_ceil(g):
    y = g.conv(image(g, size=(8, 8)), 3, 4)
    y = g.node("AveragePool", [y], "pool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("AveragePool with ceil_mode and count_include_pad: what a window that hangs over counts depends on the runtime.")
def carry_averagepool_ceil_counts_pads(g):
    y = g.conv(image(g, size=(8, 8)), 3, 4)
    y = g.node("AveragePool", [y], "pool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, count_include_pad=1)
    g.output(g.bn(y, 4))
    g.kept("bn", "padded-shift")


@case("The same with t = 0: the scale passes.")
def carry_averagepool_ceil_scale(g):
    y = g.conv(image(g, size=(8, 8)), 3, 4)
    y = g.node("AveragePool", [y], "pool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, count_include_pad=1)
    g.output(g.bn(y, 4, shift=False))
    g.folded("bn", "conv")


@case("AveragePool with auto_pad = SAME_UPPER that leaves its pads out.")
def carry_averagepool_same(g):
    y = g.node("AveragePool", [g.conv(image(g), 3, 4)], "pool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("AveragePool with auto_pad = SAME_UPPER that counts its pads, though `pads` does not say that there are any.")
def carry_averagepool_same_counts_pads(g):
    y = g.conv(image(g), 3, 4)
    y = g.node("AveragePool", [y], "pool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER", count_include_pad=1)
    g.output(g.bn(y, 4))
    g.kept("bn", "padded-shift")


@case("LpPool is no average: nothing passes.")
def carry_lppool(g):
    y = g.node("LpPool", [g.conv(image(g), 3, 4)], "pool", kernel_shape=[2, 2], p=2)
    g.output(g.bn(y, 4, shift=False, positive=True))
    g.kept("bn", "no-absorber")


@case("A factor for each column before a pool: the columns are averaged.")
def carry_averagepool_columns(g):
    x = image(g, size=(4, 4))
    y = g.node("Mul", [g.conv(x, 3, 4, (1, 1)), g.const("columns", g.rng.uniform(0.5, 1.5, 4))], "mul")
    g.output(g.conv(g.node("GlobalAveragePool", [y], "pool"), 4, 2, (1, 1), name="conv2"))
    g.affines(0)


@case("Conv, ReduceMean over the height only without keepdims, BN of rank 3.")
def carry_reduce_mean_height(g):
    y = g.node("ReduceMean", [g.conv(image(g), 3, 4)], "mean", axes=[-2], keepdims=0)
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("ReduceMean of opset 18: the axes are an input.", opset=18)
def carry_reduce_mean_input(g):
    y = g.node("ReduceMean", [g.conv(image(g), 3, 4), g.ints("axes", -1, -2)], "mean")
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("BN, ReduceMean over H and W without keepdims, Gemm: forwards.")
def carry_reduce_mean_forward(g):
    y = g.node("ReduceMean", [g.bn(image(g), 3)], "mean", axes=[2, 3], keepdims=0)
    g.output(gemm(g, y, 3, 4, transB=1))
    g.folded("bn", "fc")


@case("ReduceMean without axes: over everything, the channels too.")
def carry_reduce_mean_all(g):
    y = g.node("ReduceMean", [g.bn(image(g), 3)], "mean")
    g.output(g.conv(y, 1, 4, (1, 1)))
    g.kept("bn", "channel-axis", "graph-input")


@case("ReduceMean without axes that does nothing (noop_with_empty_axes).", opset=18)
def carry_reduce_mean_noop(g):
    y = g.node("ReduceMean", [g.conv(image(g), 3, 4)], "mean", noop_with_empty_axes=1)
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("BN on one branch of a Concat over channels, Conv: the other branch's channels stay as they are.")
def carry_concat_forward(g):
    y = g.node("Concat", [g.feed("z", ["N", 2, 6, 6]), g.bn(image(g), 3)], "concat", axis=1)
    g.output(g.conv(y, 5, 4))
    g.folded("bn", "conv")


@case("DenseNet's way: x and BN(x) joined, then a Conv.")
def carry_concat_forward_self(g):
    x = image(g)
    g.output(g.conv(g.node("Concat", [x, g.bn(x, 3)], "concat", axis=-3), 6, 4))
    g.folded("bn", "conv")


@case("BN read twice by one Concat: the Conv behind it takes the affine for both.")
def carry_concat_forward_twice(g):
    y = g.bn(image(g), 3)
    g.output(g.conv(g.node("Concat", [y, y], "concat", axis=1), 6, 4))
    g.folded("bn", "conv")


@case("BN on one branch of a Concat over the width: a part of each channel.")
def carry_concat_forward_width(g):
    y = g.node("Concat", [g.feed("z", ["N", 3, 6, 2]), g.bn(image(g), 3)], "concat", axis=3)
    g.output(g.conv(y, 3, 4))
    g.kept("bn", "channel-axis", "graph-input")


@case("A Conv's output joined with itself, BN: it would have to be two.")
def carry_concat_same(g):
    y = g.conv(image(g), 3, 2)
    g.output(g.bn(g.node("Concat", [y, y], "concat", axis=1), 4))
    g.kept("bn", "shared-output")


@case("Conv, Split, Concat in the other order, BN: the Conv takes two parts.")
def carry_split_concat(g):
    g.node("Split", [g.conv(image(g), 3, 5), g.ints("sizes", 2, 3)], "split", ["left", "right"], axis=1)
    g.output(g.bn(g.node("Concat", ["right", "left"], "concat", axis=1), 5))
    g.folded("bn", "conv")


@case("MatMul without bias, Split of its last axis, Concat, Transpose, BN: it would need an Add for each part.")
def carry_split_concat_matmul(g):
    y = matmul(g, g.node("Transpose", [image(g)], "to_nhwc", perm=[0, 2, 3, 1]), 3, 5)
    g.node("Split", [y, g.ints("sizes", 2, 3)], "split", ["left", "right"], axis=3)
    y = g.node("Concat", ["right", "left"], "concat", axis=3)
    g.output(g.bn(g.node("Transpose", [y], "to_nchw", perm=[0, 3, 1, 2]), 5))
    g.either("bn", "no-absorber", into=["matmul"])


@case("BN, Split over channels, a Conv on each part: forwards, each takes its part.")
def carry_split_forward(g):
    g.node("Split", [g.bn(image(g, 4), 4), g.ints("sizes", 1, 3)], "split", ["left", "right"], axis=1)
    g.output(g.conv("left", 1, 2, name="conv1"), g.conv("right", 3, 2, name="conv2"))
    g.folded("bn", "conv1", "conv2")


@case("BN, Split over channels, a Conv on one part; the other is an output.")
def carry_split_forward_output(g):
    g.node("Split", [g.bn(image(g, 4), 4), g.ints("sizes", 1, 3)], "split", ["left", "right"], axis=1)
    g.output(g.conv("left", 1, 2), "right")
    g.kept("bn", "graph-output", "graph-input")


@case("Conv, Split over the width, BN on one part: the other part would change too.")
def carry_split_width(g):
    g.node("Split", [g.conv(image(g), 3, 4), g.ints("sizes", 1, 3)], "split", ["left", "right"], axis=3)
    g.output(g.bn("left", 4), "right")
    g.kept("bn", "shared-output")


@case("BN, Slice with a step over channels, Conv: forwards.")
def carry_slice_forward(g):
    inputs = [g.bn(image(g, 5), 5), g.ints("starts", 0), g.ints("ends", 2**31 - 1), g.ints("axes", -3), g.ints("steps", 2)]
    g.output(g.conv(g.node("Slice", inputs, "slice"), 3, 4))
    g.folded("bn", "conv")


@case("Conv, Slice of the width with a negative step, BN: the channels are whole.")
def carry_slice_width(g):
    inputs = [g.conv(image(g), 3, 4), g.ints("starts", -1), g.ints("ends", -5), g.ints("axes", 3), g.ints("steps", -2)]
    g.output(g.bn(g.node("Slice", inputs, "slice"), 4))
    g.folded("bn", "conv")


@case("Conv, Slice, BN, while the channels that are cut away are read through another Slice.")
def carry_slice_shared(g):
    y = g.conv(image(g), 3, 4)
    head = g.node("Slice", [y, g.ints("starts", 0), g.ints("ends", 2), g.ints("axes", 1)], "head")
    tail = g.node("Slice", [y, g.ints("starts2", 1), g.ints("ends2", 4), g.ints("axes2", 1)], "tail")
    g.output(g.bn(head, 2), tail)
    g.kept("bn", "shared-output")


@case("Conv, Gather of channels in another order, BN.")
def carry_gather(g):
    y = g.node("Gather", [g.conv(image(g), 3, 4), g.ints("indices", 3, -4, 2)], "gather", axis=1)
    g.output(g.bn(y, 3))
    g.folded("bn", "conv")


@case("Conv, Gather of one row without its axis, BN of rank 3.")
def carry_gather_row(g):
    y = g.node("Gather", [g.conv(image(g), 3, 4), g.const("row", np.array(1))], "gather", axis=2)
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("Conv, Gather that takes a channel twice, BN: it would have to be two.")
def carry_gather_twice(g):
    y = g.node("Gather", [g.conv(image(g), 3, 4), g.ints("indices", 1, 0, 1)], "gather", axis=1)
    g.output(g.bn(y, 3))
    g.kept("bn", "channel-axis")


@case("BN, Gather that takes a channel twice, Conv: forwards that is fine.")
def carry_gather_forward(g):
    y = g.node("Gather", [g.bn(image(g, 4), 4), g.ints("indices", 1, 0, 1)], "gather", axis=1)
    g.output(g.conv(y, 3, 2))
    g.folded("bn", "conv")


def register_resizes():
    half, corners = {"coordinate_transformation_mode": "half_pixel"}, {"coordinate_transformation_mode": "align_corners"}
    variants = {
        "linear": dict(half, mode="linear"),
        "linear_corners": dict(corners, mode="linear"),
        "cubic": dict(half, mode="cubic"),
        "cubic_exclude_outside": dict(half, mode="cubic", exclude_outside=1),
    }
    for name, attrs in variants.items():

        def fill(g, attrs=attrs):
            inputs = [g.conv(image(g), 3, 4), "", g.const("scales", np.float32([1, 1, 2, 1.5]))]
            g.output(g.bn(g.node("Resize", inputs, "resize", **attrs), 4))
            g.folded("bn", "conv")

        case(f"Conv, Resize ({name.replace('_', ' ')}), BN.", name=f"carry_resize_{name}")(fill)


register_resizes()


@case("Resize by sizes of the two spatial axes.", opset=18)
def carry_resize_axes(g):
    inputs = [g.conv(image(g), 3, 4), "", "", g.ints("sizes", 7, 5)]
    g.output(g.bn(g.node("Resize", inputs, "resize", mode="linear", axes=[2, 3]), 4))
    g.folded("bn", "conv")


@case("Resize by sizes of all axes, while the size of the batch is not known: it might be resized.")
def carry_resize_batch(g):
    inputs = [g.conv(image(g), 3, 4), "", "", g.ints("sizes", 2, 4, 8, 8)]
    g.output(g.bn(g.node("Resize", inputs, "resize", mode="linear"), 4))
    g.kept("bn", "unknown-shape")


@case("Resize that scales the channel axis by 1.2: still 4 channels, but other ones.")
def carry_resize_channels(g):
    inputs = [g.conv(image(g), 3, 4), "", g.const("scales", np.float32([1, 1.2, 2, 2]))]
    attrs = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    g.output(g.bn(g.node("Resize", inputs, "resize", **attrs), 4))
    g.kept("bn", "channel-axis")


@case("Resize that crops and fills with a constant where it looks outside.")
def carry_resize_crop(g):
    roi = g.const("roi", np.float32([0, 0, -0.25, 0, 1, 1, 1.25, 1]))
    inputs = [g.conv(image(g), 3, 4), roi, g.const("scales", np.float32([1, 1, 2, 2]))]
    attrs = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}
    g.output(g.bn(g.node("Resize", inputs, "resize", **attrs), 4))
    g.kept("bn", "no-absorber")


def register_upsamples():
    for opset in (7, 9):

        def fill(g):
            x = g.conv(image(g), 3, 4)
            if g.opset < 9:
                y = g.node("Upsample", [x], "upsample", mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])
            else:
                y = g.node("Upsample", [x, g.const("scales", np.float32([1, 1, 2, 2]))], "upsample", mode="nearest")
            g.output(g.bn(y, 4))
            g.folded("bn", "conv")

        case(f"Conv, Upsample of opset {opset}, BN.", name=f"carry_upsample_opset{opset}", opset=opset)(fill)


register_upsamples()


@case("BN before DepthToSpace: the channels that become one differ.")
def carry_depth_to_space_forward(g):
    y = g.node("DepthToSpace", [g.bn(image(g, 8), 8)], "shuffle", blocksize=2)
    g.output(g.conv(y, 2, 4))
    g.kept("bn", "channel-axis", "graph-input")


@case("BN, SpaceToDepth, Conv: forwards, each channel is repeated.")
def carry_space_to_depth_forward(g):
    y = g.node("SpaceToDepth", [g.bn(image(g), 3)], "shuffle", blocksize=2)
    g.output(g.conv(y, 12, 4, (1, 1)))
    g.folded("bn", "conv")


@case("Conv, SpaceToDepth, BN: the pixels of a channel get different affines.")
def carry_space_to_depth(g):
    y = g.node("SpaceToDepth", [g.conv(image(g), 3, 2)], "shuffle", blocksize=2)
    g.output(g.bn(y, 8))
    g.kept("bn", "channel-axis")


@case("Conv, SpaceToDepth, BN with the same affine for all pixels of a channel.")
def carry_space_to_depth_equal(g):
    def equal(*pair):
        return np.tile(pair, 4)

    y = g.node("SpaceToDepth", [g.conv(image(g), 3, 2)], "shuffle", blocksize=2)
    params = {"weight": equal(0.8, -1.2), "bias": equal(0.3, 0.4), "running_mean": equal(0.1, -0.2)}
    g.output(g.bn(y, 8, params=params | {"running_var": equal(0.5, 1.5)}))
    g.folded("bn", "conv")


@case("Sub of a Relu and a Conv, BN: the first cannot take t, so the second takes -t.", flags=["--through-branches"])
def carry_sub_second_shift(g):
    x = image(g)
    y = g.node("Relu", [g.conv(x, 3, 4, name="conv1")], "relu")
    g.output(g.bn(g.node("Sub", [y, g.conv(x, 3, 4, name="conv2")], "sub"), 4, positive=True))
    g.folded("bn", "conv1", "conv2")


@case("Sub of two Relus, BN: neither can take t.", flags=["--through-branches"])
def carry_sub_relus(g):
    x = image(g)
    branches = [g.node("Relu", [g.conv(x, 3, 4, name=f"conv{i}")], f"relu{i}") for i in (1, 2)]
    g.output(g.bn(g.node("Sub", branches, "sub"), 4, positive=True))
    g.kept("bn", "nonzero-shift")


@case("Sub of a Relu and of a Conv with an Add, BN: -t goes to the Add, or to the Conv once that has the constant.", flags=["--through-branches"])
def carry_sub_nested(g):
    x = image(g)
    y = g.node("Relu", [g.conv(x, 3, 4, name="conv1")], "relu")
    z = g.node("Add", [g.conv(x, 3, 4, name="conv2"), g.const("c", g.normal(4, 1, 1))], "add")
    g.output(g.bn(g.node("Sub", [y, z], "sub"), 4, positive=True))
    g.folded("bn", "conv1", "conv2", may=("add",))


@case("x - x: what is behind it does not depend on x.")
def carry_sub_same(g):
    y = g.conv(image(g), 3, 4)
    g.output(g.bn(g.node("Sub", [y, y], "sub"), 4))
    g.kept("bn", "no-absorber", "shared-output")


@case("Two Convs that share weight and bias, Add, BN: one takes t, so they part.", flags=["--through-branches"])
def carry_add_shared_weight(g):
    weight, bias = g.const("w", g.normal(4, 3, 3, 3) * 0.4), g.const("b", g.normal(4))
    y = [g.conv(image(g), 3, 4, name="conv1", weight=weight, bias=bias)]
    y.append(g.conv(g.feed("z", ["N", 3, 6, 6]), 3, 4, name="conv2", weight=weight, bias=bias))
    g.output(g.bn(g.node("Add", y, "add"), 4))
    g.folded("bn", "conv1", "conv2")


@case("A diamond: one branch of the Add comes out of the other.", flags=["--through-branches"])
def carry_add_diamond(g):
    y = g.conv(image(g), 3, 4, name="conv1")
    z = g.conv(g.node("Sigmoid", [y], "sigmoid"), 4, 4, name="conv2", pads=[1, 1, 1, 1])
    g.output(g.bn(g.node("Add", [z, y], "add"), 4))
    g.kept("bn", "shared-output")


@case("Add of [N,C,H,W] and [N,C,1,1]: both have all channels.", flags=["--through-branches"])
def carry_add_squeeze(g):
    x = image(g)
    z = g.conv(g.node("GlobalAveragePool", [x], "pool"), 3, 4, (1, 1), name="conv2")
    g.output(g.bn(g.node("Add", [g.conv(x, 3, 4, name="conv1"), z], "add"), 4))
    g.folded("bn", "conv1", "conv2")


@case("Four branches in a tree of Adds, of which only the last can take t.", flags=["--through-branches"])
def carry_add_tree(g):
    x = image(g)
    relus = [g.node("Relu", [g.conv(x, 3, 4, name=f"conv{i}")], f"relu{i}") for i in (1, 2, 3)]
    left = g.node("Add", relus[:2], "add1")
    right = g.node("Add", [relus[2], g.conv(x, 3, 4, name="conv4")], "add2")
    g.output(g.bn(g.node("Add", [left, right], "add3"), 4, positive=True))
    g.folded("bn", "conv1", "conv2", "conv3", "conv4")
