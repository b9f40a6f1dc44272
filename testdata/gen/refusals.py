"""Values that others also read, bad statistics, malformed files, and options that change a decision."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from .build import case


def image(g, channels=3, size=(5, 5)):
    return g.feed("x", ["N", channels, *size])


# --- somebody else reads the value ---------------------------------------------------------------------------------------


@case("The Conv's output is read by the BN and by a Relu.")
def shared_output(g):
    y = g.conv(image(g), 3, 4)
    g.output(g.bn(y, 4), g.node("Relu", [y], "relu"))
    g.kept("bn", "shared-output")


@case("Two BNs read one Conv's output.")
def shared_output_two_bns(g):
    y = g.conv(image(g), 3, 4)
    g.output(g.bn(y, 4, "bn1"), g.bn(y, 4, "bn2"))
    g.kept("bn1", "shared-output")
    g.kept("bn2", "shared-output")


@case("The value behind an Identity is read by somebody else.")
def shared_output_behind_identity(g):
    y = g.node("Identity", [g.conv(image(g), 3, 4)], "identity")
    g.output(g.bn(y, 4), g.node("Relu", [y], "relu"))
    g.kept("bn", "shared-output")


@case("The Conv's output is a graph output.")
def graph_output(g):
    y = g.conv(image(g), 3, 4)
    g.output(g.bn(y, 4), y)
    g.kept("bn", "graph-output", "shared-output")


@case("The BN's output, a graph output, is read by a Conv too: it still goes into the producer.")
def bn_output_is_output(g):
    y = g.bn(g.conv(image(g), 3, 4, name="conv1"), 4)
    g.output(y, g.conv(y, 4, 2, name="conv2"))
    g.folded("bn", "conv1")


@case("The BN's output is read by two Convs and an Add: it goes into the producer.")
def bn_output_shared(g):
    y = g.bn(g.conv(image(g), 3, 4, (1, 1), name="conv1"), 4)
    a = g.conv(y, 4, 4, (1, 1), name="conv2")
    b = g.conv(y, 4, 4, (1, 1), name="conv3")
    g.output(g.node("Add", [g.node("Add", [a, b], "add1"), y], "add2"))
    g.folded("bn", "conv1")


@case("A BN on the graph input is read by a Conv and by a Relu: no way forwards.")
def forward_shared(g):
    y = g.bn(image(g), 3)
    g.output(g.conv(y, 3, 4), g.node("Relu", [y], "relu"))
    g.kept("bn", "shared-output", "no-absorber", "graph-input", "nonzero-shift")


@case("A BN on the graph input is read by a Conv and is a graph output.")
def forward_graph_output(g):
    y = g.bn(image(g), 3)
    g.output(y, g.conv(y, 3, 4))
    g.kept("bn", "graph-output", "no-absorber", "graph-input")


@case("A BN on the graph input that two Convs read: it may go into both.")
def forward_two_convs(g):
    y = g.bn(image(g), 3)
    g.output(g.conv(y, 3, 4, name="conv1"), g.conv(y, 3, 2, name="conv2", bias=False))
    g.folded("bn", "conv1", "conv2")


@case("A BN between the graph input and the graph output.")
def bn_alone(g):
    g.output(g.bn(image(g), 3))
    g.kept("bn", "no-absorber", "graph-input")


@case("A BN as the Conv's weight: the affine of a weight is not the affine of an input.")
def bn_on_weight(g):
    x = image(g)
    weight = g.bn(g.feed("w", [4, 3, 3, 3]), 3)
    g.output(g.node("Conv", [x, weight], "conv", kernel_shape=[3, 3]))
    g.kept("bn", "no-absorber", "graph-input", "weight-not-constant")


@case("No BatchNorm at all.")
def no_batch_norm(g):
    g.output(g.node("Relu", [g.conv(image(g), 3, 4)], "relu"))


# --- numbers -------------------------------------------------------------------------------------------------------------


def stats_case(g, key, index, value, **options):
    params = {
        "weight": g.rng.uniform(0.5, 1.5, 4),
        "bias": g.normal(4),
        "running_mean": g.normal(4),
        "running_var": g.rng.uniform(0.5, 2.0, 4),
    }
    params[key][index] = value
    g.output(g.bn(g.conv(image(g), 3, 4), 4, params=params, **options))
    g.ranks["bn_out"] = 4


def register_bad():
    bad = {
        "negative_variance": ("running_var", -0.5),
        "variance_minus_epsilon": ("running_var", -np.float64(np.float32(1e-3))),
        "nan_variance": ("running_var", np.nan),
        "nan_gamma": ("weight", np.nan),
        "inf_mean": ("running_mean", np.inf),
        "inf_beta": ("bias", -np.inf),
    }
    for name, (key, value) in bad.items():

        def fill(g, key=key, value=value):
            stats_case(g, key, 2, value)
            g.kept("bn", "bad-statistics")
            g.fails(1)

        case(f"Bad statistics: {key} of one channel is {value:.4g} (epsilon 1e-3).", name=f"bad_{name}")(fill)


register_bad()


@case(
    "The same with --allow-bad-statistics: the node is kept and all else goes on.",
    flags=["--allow-bad-statistics", "--no-verify"],
)
def bad_allowed(g):
    stats_case(g, "running_var", 2, -0.5)
    g.kept("bn", "bad-statistics")
    g.run = False


@case("A variance slightly below zero, by less than epsilon: sigma^2 + epsilon is positive, so it folds.")
def variance_slightly_negative(g):
    stats_case(g, "running_var", 2, -1e-4)
    g.folded("bn", "conv")


@case("gamma = 0 in one channel: the channel is constant.")
def gamma_zero(g):
    stats_case(g, "weight", 2, 0.0)
    g.folded("bn", "conv")


@case("gamma = 0 in every channel.")
def gamma_all_zero(g):
    g.output(g.bn(g.conv(image(g), 3, 4), 4, params={"weight": np.zeros(4)}))
    g.folded("bn", "conv")


@case("A variance of 0 in one channel with epsilon 1e-5: s is 316 times gamma.")
def variance_zero(g):
    stats_case(g, "running_var", 2, 0.0, epsilon=1e-5)
    g.folded("bn", "conv")


@case("Large mean, small variance: the f32 original cancels, the folded model is closer to f64.")
def ill_scaled(g):
    mean = np.full(4, 1e4) + g.normal(4)
    y = g.conv(image(g), 3, 4, bias=g.const("conv.bias", mean + g.normal(4) * 0.05), scale=0.02)
    g.output(g.bn(y, 4, params={"running_mean": mean, "running_var": np.full(4, 1e-2)}, epsilon=1e-5))
    g.folded("bn", "conv")
    g.numpy_only = True
    g.atol = 1e-4


# --- options -------------------------------------------------------------------------------------------------------------


@case("IR 8: initializers that are graph inputs too can be overridden by the caller.", ir=8)
def overridable(g):
    g.output(g.bn(g.conv(image(g), 3, 4), 4))
    g.input("conv.weight", [4, 3, 3, 3])
    g.kept("bn", "overridable-parameter")


@case("The same with a BN parameter.", ir=8)
def overridable_gamma(g):
    g.output(g.bn(g.conv(image(g), 3, 4), 4))
    g.input("bn.weight", [4])
    g.kept("bn", "overridable-parameter")


@case("The same with --assume-constant.", ir=8, flags=["--assume-constant"])
def overridable_assumed(g):
    g.output(g.bn(g.conv(image(g), 3, 4), 4))
    g.input("conv.weight", [4, 3, 3, 3])
    g.input("bn.weight", [4])
    g.folded("bn", "conv")


@case("IR 3: every initializer must also be an input; new ones too, dropped ones leave.", opset=7, ir=3)
def ir3(g):
    y = g.bn(g.conv(image(g), 3, 4, name="conv1", bias=False), 4, "bn1")
    g.output(g.bn(g.conv(y, 4, 2, (1, 1), name="conv2"), 2, "bn2"))
    g.folded("bn1", "conv1")
    g.folded("bn2", "conv2")


@case("--skip leaves a BatchNorm alone.", flags=["--skip", "bn2"])
def option_skip(g):
    y = g.bn(g.conv(image(g), 3, 4, name="conv1"), 4, "bn1")
    g.output(g.bn(g.conv(y, 4, 2, (1, 1), name="conv2"), 2, "bn2"))
    g.folded("bn1", "conv1")
    g.sites.append({"node": "bn2", "decision": "skipped"})
    g.left = 1


# --- malformed -----------------------------------------------------------------------------------------------------------


def malformed(about, name):
    """A file that no reader may accept: `bnkit` ends with 2."""

    def register(function):
        def fill(g):
            y = g.conv(image(g), 3, 4)
            g.output(g.bn(y, 4))
            g.ranks["bn_out"] = 4
            g.folded("bn", "conv")
            model = g.model()
            g.raw = function(model)
            g.sites, g.left, g.check = [], 1, None
            g.fails(2)

        return case(about, name=name)(fill)

    return register


@malformed("The file ends in the middle of a message.", "malformed_truncated")
def truncated(model):
    data = model.SerializeToString(deterministic=True)
    return data[: len(data) // 2]


@malformed("Not protobuf at all.", "malformed_text")
def text(model):
    return b"<html><body>404 Not Found</body></html>\n"


@malformed("An empty file.", "malformed_empty")
def empty(model):
    return b""


@malformed("An initializer whose raw_data is shorter than its dims say.", "malformed_short_tensor")
def short_tensor(model):
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    return model.SerializeToString(deterministic=True)


@malformed("Two nodes that read each other's output.", "malformed_cycle")
def cycle(model):
    model.graph.node[0].input[0] = model.graph.node[1].output[0]
    return model.SerializeToString(deterministic=True)


@malformed("An initializer with dims that claim 2^62 elements.", "malformed_huge_dims")
def huge_dims(model):
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([2**31, 2**31])
    return model.SerializeToString(deterministic=True)


@malformed("gamma has three entries for four channels.", "malformed_gamma_length")
def gamma_length(model):
    for tensor in model.graph.initializer:
        if tensor.name == "bn.weight":
            tensor.CopyFrom(helper.make_tensor("bn.weight", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]))
    return model.SerializeToString(deterministic=True)


def external_to(model, location):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "432")):
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
    return model.SerializeToString(deterministic=True)


@malformed("External data outside the model's folder.", "malformed_external_escape")
def external_escape(model):
    return external_to(model, "../../generate.py")


@malformed("External data at an absolute path.", "malformed_external_absolute")
def external_absolute(model):
    return external_to(model, "/etc/passwd")


@malformed("External data that does not exist.", "malformed_external_missing")
def external_missing(model):
    return external_to(model, "not-there.bin")
