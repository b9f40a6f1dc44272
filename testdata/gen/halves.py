"""BatchNorms that cannot go as a whole: half folds (`--aggressive`), Mul and Add in their place (`--lower`)."""

import numpy as np
from onnx import helper

from .build import BF16, F16, F32, F64, case
from .scopes import branches, flag, image

HALF = {"flags": ["--aggressive"]}
LOWER = {"flags": ["--lower"]}
PADS = {"pads": [1, 1, 1, 1]}


def relu(g, x, name="relu"):
    return g.node("Relu", [x], name)


# --- the scale goes backwards, the shift stays behind --------------------------------------------------------------------


@case("Conv, Relu, BN with s >= 0: the scale goes through the Relu, the shift stays.", **HALF)
def half_relu(g):
    g.output(g.bn(relu(g, g.conv(image(g), 3, 4)), 4, positive=True))
    g.half("bn", "conv")


@case("A channel with s = 0 behind a Relu: nothing is divided.", **HALF)
def half_relu_dead(g):
    g.output(g.bn(relu(g, g.conv(image(g), 3, 4)), 4, positive=True, params={"weight": np.array([1.0, 0.0, 0.5, 2.0])}))
    g.half("bn", "conv")


@case("Conv, Relu, BN with a negative scale: it does not pass the Relu.", **HALF)
def half_relu_negative(g):
    g.output(g.bn(relu(g, g.conv(image(g), 3, 4)), 4))
    g.kept("bn", "negative-scale", "nonzero-shift", "no-absorber")


@case("Without --aggressive there are no half folds.")
def half_not_asked_for(g):
    g.output(g.bn(relu(g, g.conv(image(g), 3, 4)), 4, positive=True))
    g.kept("bn", "nonzero-shift", "no-absorber")


@case("Conv, padded AveragePool that counts its pads, BN: the scale passes, negative too.", **HALF)
def half_averagepool(g):
    y = g.node("AveragePool", [g.conv(image(g), 3, 4)], "pool", kernel_shape=[3, 3], count_include_pad=1, **PADS)
    g.output(g.bn(y, 4))
    g.half("bn", "conv")


@case("Zero padding between Conv and BN: 0 stays 0 under the scale.", **HALF)
def half_pad(g):
    y = g.node("Pad", [g.conv(image(g), 3, 4), g.ints("pads", 0, 0, 1, 1, 0, 0, 1, 1)], "pad")
    g.output(g.bn(y, 4))
    g.half("bn", "conv")


@case("Padding with 1 between Conv and BN: the scale would change the pads.", **HALF)
def half_pad_one(g):
    pads = g.ints("pads", 0, 0, 1, 1, 0, 0, 1, 1)
    g.output(g.bn(g.node("Pad", [g.conv(image(g), 3, 4), pads, g.const("one", np.float32(1.0))], "pad"), 4))
    g.kept("bn", "padded-shift", "nonzero-shift", "no-absorber")


@case("Conv, Relu, Add of a constant, Relu, BN: the constant on the way is scaled, too.", **HALF)
def half_constant_on_the_way(g):
    y = relu(g, g.conv(image(g), 3, 4), "relu1")
    y = g.node("Add", [y, g.const("c", g.normal(4, 1, 1))], "add")
    g.output(g.bn(relu(g, y, "relu2"), 4, positive=True))
    g.half("bn", "conv", may=["add"])


@case("The Relu before the BN is read by others: its scale must not change.", **HALF)
def half_shared(g):
    y = relu(g, g.conv(image(g), 3, 4))
    g.output(g.bn(y, 4, positive=True), g.node("Sigmoid", [y], "sigmoid"))
    g.kept("bn", "shared-output")


@case("Gemm, Relu, BN of rank 2.", **HALF)
def half_gemm(g):
    x = g.feed("x", ["N", 5])
    y = g.node("Gemm", [x, g.const("w", g.normal(5, 4)), g.const("c", g.normal(4))], "fc")
    g.output(g.bn(relu(g, y), 4, positive=True))
    g.half("bn", "fc")


@case("MatMul, Relu, BN: a scale needs no Add behind the MatMul.", **HALF)
def half_matmul(g):
    x = g.feed("x", ["N", 5])
    y = g.node("MatMul", [x, g.const("w", g.normal(5, 4))], "matmul")
    g.output(g.bn(relu(g, y), 4, positive=True))
    g.half("bn", "matmul")


@case("Conv, Relu, BN in f16.", dtype=F16, **HALF)
def half_f16(g):
    g.output(g.bn(relu(g, g.conv(image(g), 3, 4)), 4, positive=True))
    g.half("bn", "conv")


@case("Before opset 7 an Add of one number per channel is another Add.", opset=6, **HALF)
def half_opset6(g):
    g.output(g.bn(relu(g, g.conv(image(g), 3, 4)), 4, positive=True))
    g.kept("bn", "nonzero-shift", "no-absorber")


# --- the scale goes forwards, the shift stays before ---------------------------------------------------------------------


@case("BN, padded Conv: t/s is added before, the scale goes into the weight; signs do not matter.", **HALF)
def half_padded_conv(g):
    g.output(g.conv(g.bn(image(g), 3), 3, 4, **PADS))
    g.half("bn", "conv")


@case("BN with s = 0 and t != 0 in a channel, padded Conv: there is no t/s.", **HALF)
def half_padded_conv_dead(g):
    y = g.bn(image(g), 3, params={"weight": np.array([1.0, 0.0, 0.5])})
    g.output(g.conv(y, 3, 4, **PADS))
    g.kept("bn", "padded-shift", "graph-input")


@case("BN with s = 0 and t = 0 in a channel, padded Conv: nothing is to be added there.", **HALF)
def half_padded_conv_zero(g):
    params = {"weight": np.array([1.0, 0.0, 0.5]), "bias": np.array([0.5, 0.0, 0.25])}
    g.output(g.conv(g.bn(image(g), 3, params=params), 3, 4, **PADS))
    g.half("bn", "conv")


@case("BN that two padded Convs read: both take the scale.", **HALF)
def half_two_convs(g):
    y = g.bn(image(g), 3)
    g.output(g.conv(y, 3, 4, name="conv1", **PADS), g.conv(y, 3, 2, name="conv2", bias=False, **PADS))
    g.half("bn", "conv1", "conv2")


@case("BN that a padded Conv and one without pads read: both take the scale, and no shift.", **HALF)
def half_mixed_convs(g):
    y = g.bn(image(g), 3)
    g.output(g.conv(y, 3, 4, name="conv1", **PADS), g.conv(y, 3, 2, name="conv2"))
    g.half("bn", "conv1", "conv2")


@case("BN that a padded Conv and a Sigmoid read: the Sigmoid takes no scale.", **HALF)
def half_conv_and_sigmoid(g):
    y = g.bn(image(g), 3)
    g.output(g.conv(y, 3, 4, **PADS), g.node("Sigmoid", [y], "sigmoid"))
    g.kept("bn", "padded-shift", "no-absorber", "graph-input")


@case("BN that a padded Conv reads and that is a graph output.", **HALF)
def half_conv_and_output(g):
    y = g.bn(image(g), 3)
    g.output(y, g.conv(y, 3, 4, **PADS))
    g.kept("bn", "padded-shift", "graph-output", "graph-input")


@case("BN, Relu, padded Conv with s > 0, as in DenseNet: s passes the Relu behind x + t/s.", **HALF)
def half_preactivation(g):
    g.output(g.conv(relu(g, g.bn(image(g), 3, positive=True)), 3, 4, **PADS))
    g.half("bn", "conv")


@case("The same with a negative scale: it does not pass the Relu.", **HALF)
def half_preactivation_negative(g):
    g.output(g.conv(relu(g, g.bn(image(g), 3)), 3, 4, **PADS))
    g.kept("bn", "nonzero-shift", "negative-scale", "graph-input", "no-absorber")


@case("BN, ConvTranspose with a stride.", **HALF)
def half_deconv(g):
    g.output(g.conv(g.bn(image(g), 3), 3, 4, op="ConvTranspose", strides=[2, 2]))
    g.half("bn", "conv")


@case("BN, padded depthwise Conv in f16.", dtype=F16, **HALF)
def half_depthwise_f16(g):
    g.output(g.conv(g.bn(image(g), 3), 3, 3, group=3, **PADS))
    g.half("bn", "conv")


@case("BN, padded Conv, Relu, BN: one half comes from before, one from behind, into the same weight.", **HALF)
def half_from_both_sides(g):
    y = g.conv(g.bn(image(g), 3, "bn1"), 3, 4, **PADS)
    g.output(g.bn(relu(g, y), 4, "bn2", positive=True))
    g.half("bn1", "conv")
    g.half("bn2", "conv")


@case("Whole folds come first: what can go as a whole is not halved.", **HALF)
def half_after_whole(g):
    y = g.bn(g.conv(image(g), 3, 4, name="conv1", **PADS), 4, "bn1")
    y = g.bn(relu(g, y), 4, "bn2", positive=True)
    g.output(g.node("Sigmoid", [y], "sigmoid"))
    g.folded("bn1", "conv1")
    g.half("bn2", "conv1")


@case("BN behind an If branch's Conv and Relu.", **HALF)
def half_in_body(g):
    x = image(g)
    flag(g)

    def then(b):
        return b.bn(relu(b, b.conv(x, 3, 4, name="then/conv"), "then/relu"), 4, "then/bn", positive=True)

    g.output(branches(g, then, lambda b: b.conv(x, 3, 4, name="else/conv")))
    g.half("then/bn", "then/conv")


# --- forwards into all readers, backwards past several readers ------------------------------------------------------------


@case("BN that a Conv and a Gemm behind a global pool read: the whole affine goes into both.")
def readers_conv_and_pooled_gemm(g):
    y = g.bn(image(g), 3)
    z = g.node("Flatten", [g.node("GlobalAveragePool", [y], "pool")], "flatten")
    z = g.node("Gemm", [z, g.const("w", g.normal(3, 2)), g.const("c", g.normal(2))], "fc")
    g.output(g.conv(y, 3, 4), z)
    g.folded("bn", "conv", "fc")


@case("One of the BN's two Convs pads: neither may take it.")
def readers_one_pads(g):
    y = g.bn(image(g), 3)
    g.output(g.conv(y, 3, 4, name="conv1"), g.conv(y, 3, 4, name="conv2", **PADS))
    g.kept("bn", "padded-shift", "graph-input")


@case("Two Convs share one weight and read the BN and its input: the weight is copied for the one.")
def readers_shared_weight(g):
    x = image(g)
    y = g.bn(x, 3)
    w = g.const("w", g.normal(4, 3, 3, 3) * 0.3)
    g.output(g.conv(y, 3, 4, name="conv1", weight=w), g.conv(x, 3, 4, name="conv2", weight=w))
    g.folded("bn", "conv1")


@case("One Conv reads the BN as data, another as its weight: a weight is no place for it.")
def readers_data_and_weight(g):
    y = g.bn(g.feed("x", [4, 3, 3, 3]), 3)
    z = g.feed("z", ["N", 3, 5, 5])
    g.output(g.conv(y, 3, 2, name="conv1"), g.node("Conv", [z, y], "conv2", kernel_shape=[3, 3]))
    g.kept("bn", "weight-not-constant", "graph-input", "no-absorber")


@case("A BN behind a shared Conv goes forwards, since it cannot go back.")
def fan_out_forwards(g):
    y = g.conv(image(g), 3, 4, name="conv1")
    z = g.bn(y, 4)
    g.output(relu(g, y), g.conv(z, 4, 2, name="conv2"))
    g.folded("bn", "conv2")


@case("The Conv behind a BN of a shared value pads, and so it stays.")
def fan_out_padded(g):
    y = g.conv(image(g), 3, 4, name="conv1")
    z = g.bn(y, 4)
    g.output(relu(g, y), g.conv(z, 4, 2, name="conv2", **PADS))
    g.kept("bn", "shared-output", "padded-shift")


# --- Mul and Add ---------------------------------------------------------------------------------------------------------


@case("A BN between a graph input and a Sigmoid.", **LOWER)
def lower_alone(g):
    g.output(g.node("Sigmoid", [g.bn(image(g), 3)], "sigmoid"))
    g.lowered("bn")


@case("The same without --lower.")
def lower_not_asked_for(g):
    g.output(g.node("Sigmoid", [g.bn(image(g), 3)], "sigmoid"))
    g.kept("bn", "no-absorber", "graph-input")


def register_ranks():
    for rank, shape in {2: ["N", 4], 3: ["N", 4, 4], 4: ["N", 4, 4, 4], 5: ["N", 4, 2, 4, 4]}.items():

        def fill(g, shape=shape):
            g.output(g.bn(g.feed("x", shape), 4))
            g.lowered("bn")

        case(f"Rank {rank}, other axes as long as the channel axis.", name=f"lower_rank{rank}", **LOWER)(fill)


def register_types():
    for label, dtype in {"f16": F16, "bf16": BF16, "f64": F64}.items():

        def fill(g):
            g.output(g.bn(g.feed("x", ["N", 4, 4]), 4))
            g.lowered("bn")

        case(f"In {label}.", name=f"lower_{label}", dtype=dtype, **LOWER)(fill)


register_ranks()
register_types()


@case("f16 data with f32 parameters: the constants have the type of the data.", dtype=F16, opset=15, **LOWER)
def lower_mixed_types(g):
    g.output(g.bn(image(g), 3, dtype=F32))
    g.lowered("bn")


@case("One channel.", **LOWER)
def lower_one_channel(g):
    g.output(g.bn(image(g, 1), 1))
    g.lowered("bn")


@case("A scale that f16 cannot hold.", dtype=F16, **LOWER)
def lower_f16_range(g):
    params = {"weight": np.full(3, 6e4), "running_var": np.full(3, 1e-3), "bias": np.zeros(3), "running_mean": np.zeros(3)}
    g.output(g.bn(image(g), 3, params=params))
    g.run, g.ranks["bn_out"] = False, 4
    g.kept("bn", "range")


@case("Before opset 7 operators broadcast by other rules.", opset=6, **LOWER)
def lower_opset6(g):
    g.output(g.bn(image(g), 3))
    g.kept("bn", "old-opset")


@case("The rank is not known: how many axes the constants need is not known either.", **LOWER)
def lower_unknown_rank(g):
    g.inputs.append(helper.make_tensor_value_info("x", F32, None))
    g.feeds["x"] = g.normal(2, 3, 5, 5).astype(np.float32)
    g.output(g.bn("x", 3))
    g.check = None
    g.kept("bn", "unknown-shape")


@case("A channel with s = 0 is a constant.", **LOWER)
def lower_dead(g):
    g.output(g.bn(image(g), 3, params={"weight": np.array([1.0, 0.0, -0.5])}))
    g.lowered("bn")


@case("One BN folds, the other does not.", **LOWER)
def lower_what_stays(g):
    y = g.bn(g.conv(image(g), 3, 4), 4, "bn1")
    g.output(g.bn(g.node("Sigmoid", [y], "sigmoid"), 4, "bn2"))
    g.folded("bn1", "conv")
    g.lowered("bn2")


@case("A BN in training mode with statistics becomes eval first.", opset=15, **LOWER)
def lower_training(g):
    g.output(g.bn(image(g), 3, outputs=["bn_out", "bn_mean", "bn_var"], training_mode=1))
    g.lowered("bn")


@case("In a branch of an If, of a captured value.", **LOWER)
def lower_in_body(g):
    x = image(g)
    flag(g)
    g.output(branches(g, lambda b: b.bn(x, 3, "then/bn"), lambda b: b.node("Relu", [x], "else/relu")))
    g.lowered("then/bn")


@case("Two BNs of one Conv: both stay where they are, as Mul and Add.", **LOWER)
def lower_two_readers(g):
    y = g.conv(image(g), 3, 4)
    g.output(g.bn(y, 4, "bn1"), g.bn(y, 4, "bn2"), y)
    g.lowered("bn1")
    g.lowered("bn2")


@case("Bad statistics are no numbers to multiply by.", flags=["--lower", "--allow-bad-statistics"])
def lower_bad_statistics(g):
    g.output(g.bn(image(g), 3, params={"running_var": np.array([1.0, -1.0, 1.0])}))
    g.run, g.ranks["bn_out"] = False, 4
    g.kept("bn", "bad-statistics")


@case("Both options: half where the scale can go, Mul and Add where not.", flags=["--aggressive", "--lower"])
def lower_or_half(g):
    x = image(g)
    y = g.bn(x, 3, "bn1")
    z = g.bn(g.node("Sigmoid", [x], "sigmoid"), 3, "bn2")
    g.output(g.conv(y, 3, 4, **PADS), g.node("Sigmoid", [z], "end"))
    g.half("bn1", "conv")
    g.lowered("bn2")
