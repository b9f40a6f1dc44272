"""BatchNormalization through the opsets, and its training-mode forms."""

import numpy as np

from .build import case


def register_evals():
    for opset in (1, 6, 7, 8, 9, 11, 13, 14, 15, 17, 21, 22):

        def fill(g):
            g.output(g.bn(g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4, bias=False), 4, momentum=0.9))
            g.folded("bn", "conv")

        case(f"Conv and eval BN of opset {opset}.", name=f"opset{opset:02}_eval", opset=opset)(fill)


register_evals()


@case("Opset 7 with spatial = 0: statistics per activation.", opset=7)
def opset07_per_activation(g):
    y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4)
    g.output(g.bn(y, (4, 3, 3), spatial=0))
    g.kept("bn", "per-activation")


@case("Opset 6 with spatial = 0.", opset=6)
def opset06_per_activation(g):
    g.output(g.bn(g.conv(g.feed("x", ["N", 3, 4, 4]), 3, 2), (2, 2, 2), spatial=0))
    g.kept("bn", "per-activation")


@case("Opset 7 with spatial = 1 spelled out.", opset=7)
def opset07_spatial1(g):
    g.output(g.bn(g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4), 4, spatial=1))
    g.folded("bn", "conv")


FIVE = ["bn_out", "bn_mean", "bn_var", "bn_saved_mean", "bn_saved_var"]
THREE = ["bn_out", "bn_running_mean", "bn_running_var"]


def register_training():
    forms = {
        1: ({"is_test": 0}, FIVE, "is_test = 0 and five outputs"),
        6: ({"is_test": 0}, None, "is_test = 0"),
        7: ({}, FIVE, "five outputs"),
        9: ({}, FIVE, "five outputs"),
        14: ({"training_mode": 1}, THREE, "training_mode = 1"),
        15: ({"training_mode": 1}, THREE, "training_mode = 1"),
    }
    for opset, (attrs, outputs, what) in forms.items():

        def fill(g, attrs=attrs, outputs=outputs):
            y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4)
            g.output(g.bn(y, 4, outputs=outputs, **attrs))
            g.folded("bn", "conv")

        about = f"Training-mode BN of opset {opset} ({what}) with constant statistics: folds as eval."
        case(about, name=f"opset{opset:02}_training", opset=opset)(fill)


register_training()


@case('Opset 9 whose further outputs are all "": that is eval.', opset=9)
def opset09_empty_outputs(g):
    y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4)
    g.output(g.bn(y, 4, outputs=["bn_out", "", "", "", ""]))
    g.folded("bn", "conv")
    g.check = "basic"


@case("Training-mode BN whose running mean and variance are graph outputs: they disappear.", opset=15)
def opset15_training_outputs(g):
    y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4)
    g.bn(y, 4, outputs=THREE, training_mode=1)
    g.output(*THREE)
    g.skip_outputs = tuple(THREE[1:])
    g.ranks |= {k: 1 for k in THREE[1:]}
    g.folded("bn", "conv")


@case("Training-mode BN whose new running mean is read by another node: keep it.", opset=15)
def opset15_training_output_read(g):
    y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4)
    g.bn(y, 4, outputs=THREE, training_mode=1)
    g.output("bn_out", g.node("Neg", ["bn_running_mean"], "neg"))
    g.kept("bn", "training-output-read")
    g.ranks |= {"bn_out": 4, "neg_out": 1}
    g.run = False


@case("A training-mode BN with constant statistics that cannot be folded is kept, in eval mode.", opset=15)
def opset15_training_kept(g):
    y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4)
    g.output(g.bn(y, 4, outputs=THREE, training_mode=1), y)
    g.kept("bn", "graph-output", "shared-output")


def register_data_statistics():
    for opset in (14, 15):

        def fill(g):
            # The shape of PyTorch's export of track_running_stats=False.
            y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4)
            mean = g.node("ReduceMean", [y], "mean", axes=[0, 2, 3], keepdims=0)
            shaped = g.node("Reshape", [mean, g.ints("shape", 1, 4, 1, 1)], "reshape")
            centred = g.node("Sub", [y, shaped], "sub")
            var = g.node("ReduceMean", [g.node("Mul", [centred, centred], "square")], "var", axes=[0, 2, 3], keepdims=0)
            params = {"running_mean": mean, "running_var": var}
            g.output(g.bn(y, 4, params=params, outputs=THREE, training_mode=1))
            g.kept("bn", "no-running-statistics")

        about = f"Opset {opset}, training_mode = 1, statistics computed from the data: there is nothing to fold."
        case(about, name=f"opset{opset:02}_data_statistics", opset=opset)(fill)


register_data_statistics()


@case("Eval-mode BN whose mean is computed from the data.", opset=17)
def opset17_eval_data_mean(g):
    y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4)
    mean = g.node("ReduceMean", [y], "mean", axes=[0, 2, 3], keepdims=0)
    g.output(g.bn(y, 4, params={"running_mean": mean}))
    g.kept("bn", "no-running-statistics", "parameter-not-constant")


@case("Gamma is a graph input.", opset=17)
def opset17_gamma_is_input(g):
    y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4)
    gamma = g.feed("gamma", [4], value=np.float32([1, 2, -1, 0.5]))
    g.output(g.bn(y, 4, params={"weight": gamma}))
    g.kept("bn", "parameter-not-constant")


@case("Opset 6 arithmetic with axis and broadcast attributes: Conv, Mul, Add, BN.", opset=6)
def opset06_axis_broadcast(g):
    y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4, bias=False)
    y = g.node("Mul", [y, g.const("scale", g.normal(4))], "mul", axis=1, broadcast=1)
    y = g.node("Add", [y, g.const("shift", g.normal(4))], "add", axis=1, broadcast=1)
    g.output(g.bn(y, 4))
    g.either("bn", "no-absorber", "broadcast", into=["conv"])


@case("Opset 6 Mul with broadcast = 1 and no axis: aligned to the right, so [4] touches W, though W = C.", opset=6)
def opset06_broadcast_right(g):
    y = g.conv(g.feed("x", ["N", 3, 6, 6]), 3, 4)
    g.output(g.node("Mul", [y, g.const("scale", g.normal(4))], "mul", broadcast=1))
    g.affines(0)


@case("BN of rank 2 after a Gemm, opset 9.", opset=9)
def opset09_rank2(g):
    inputs = [g.feed("x", ["N", 3]), g.const("w", g.normal(4, 3)), g.const("b", g.normal(4))]
    g.output(g.bn(g.node("Gemm", inputs, "fc", transB=1), 4))
    g.folded("bn", "fc")


@case("A missing epsilon is 1e-5, never 0: the variance of one channel is 1e-6.", opset=17)
def epsilon_missing(g):
    y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4)
    g.output(g.bn(y, 4, epsilon=None, params={"running_var": np.array([1.0, 1e-6, 0.5, 2.0])}))
    g.folded("bn", "conv")


@case("An epsilon of 0.5, larger than the variances.", opset=17)
def epsilon_large(g):
    y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4)
    g.output(g.bn(y, 4, epsilon=0.5, params={"running_var": np.array([0.1, 0.2, 0.0, 0.3])}))
    g.folded("bn", "conv")
