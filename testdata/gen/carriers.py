"""Operators that an affine passes through, one formula and one counter-example each."""

import numpy as np

from .absorbers import gemm, matmul
from .build import BOOL, F16, F32, case


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
    g.kept("bn", "no-absorber", "graph-input")


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


@case("Two Convs, Add, BN: both take s, one takes t.")
def carry_add_branches(g):
    x = image(g)
    y = g.node("Add", [g.conv(x, 3, 4, name="conv1"), g.conv(x, 3, 4, name="conv2", bias=False)], "add")
    g.output(g.bn(y, 4))
    g.folded("bn", "conv1", "conv2")


@case("Two Convs, Sub, BN.")
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


@case("x + x: the Conv's output is read twice by one Add; t is added once.")
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
