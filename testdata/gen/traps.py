"""Sharing, ranks, foreign domains, and everything else in a file that must survive."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from .absorbers import gemm
from .build import F32, case


def image(g, channels=3):
    return g.feed("x", ["N", channels, 5, 5])


# --- sharing -------------------------------------------------------------------------------------------------------------


@case("One weight, two Convs, each with its own BN: copied on write.")
def shared_weight(g):
    x = image(g)
    weight = g.const("w", g.normal(4, 3, 3, 3) * 0.3)
    y1 = g.bn(g.conv(x, 3, 4, name="conv1", weight=weight, bias=False), 4, "bn1")
    y2 = g.bn(g.conv(x, 3, 4, name="conv2", weight=weight, bias=False), 4, "bn2")
    g.output(y1, y2)
    g.folded("bn1", "conv1")
    g.folded("bn2", "conv2")


@case("One weight, two Convs, only one has a BN.")
def shared_weight_one_bn(g):
    x = image(g)
    weight = g.const("w", g.normal(4, 3, 3, 3) * 0.3)
    g.output(g.bn(g.conv(x, 3, 4, name="conv1", weight=weight), 4), g.conv(x, 3, 4, name="conv2", weight=weight))
    g.folded("bn", "conv1")


@case("A Conv's bias is the beta of its own BN.")
def bias_is_beta(g):
    shared = g.const("shared", g.normal(4))
    g.output(g.bn(g.conv(image(g), 3, 4, bias=shared), 4, params={"bias": shared}))
    g.folded("bn", "conv")


@case("A Conv's bias is the beta of a BN that stays.")
def bias_is_other_beta(g):
    x = image(g)
    shared = g.const("shared", g.normal(4))
    y = g.bn(g.conv(x, 3, 4, bias=shared), 4, "bn1")
    g.output(y, g.bn(g.node("Relu", [y], "relu"), 4, "bn2", params={"bias": shared}))
    g.folded("bn1", "conv")
    g.kept("bn2", "no-absorber", "nonzero-shift")


@case("Mean and variance are one tensor.")
def mean_is_variance(g):
    shared = g.const("stats", g.rng.uniform(0.5, 2.0, 4))
    params = {"running_mean": shared, "running_var": shared}
    g.output(g.bn(g.conv(image(g), 3, 4), 4, params=params))
    g.folded("bn", "conv")


@case("One BatchNorm module called twice, behind two Convs.")
def bn_called_twice(g):
    x = image(g)
    keys = ("weight", "bias", "running_mean", "running_var")
    params = {k: g.const(f"bn.{k}", g.rng.uniform(0.5, 1.5, 4)) for k in keys}
    y1 = g.bn(g.conv(x, 3, 4, name="conv1"), 4, "bn_a", params=params)
    y2 = g.bn(g.conv(x, 3, 4, name="conv2"), 4, "bn_b", params=params)
    g.output(g.node("Add", [y1, y2], "add"))
    g.folded("bn_a", "conv1")
    g.folded("bn_b", "conv2")


@case("A BN parameter is also a graph output.")
def parameter_is_output(g):
    y = g.bn(g.conv(image(g), 3, 4), 4)
    g.output(y, "bn.running_mean")
    g.folded("bn", "conv")


@case("The Conv's weight is also multiplied elsewhere.")
def weight_read_elsewhere(g):
    y = g.bn(g.conv(image(g), 3, 4), 4)
    g.output(y, g.node("ReduceMean", ["conv.weight"], "mean", axes=[1, 2, 3], keepdims=0))
    g.folded("bn", "conv")


@case("The names that a tool would give to fresh tensors are taken already.")
def names_taken(g):
    x = image(g)
    weight = g.const("w", g.normal(4, 3, 3, 3) * 0.3)
    y1 = g.bn(g.conv(x, 3, 4, name="conv1", weight=weight, bias=False), 4, "bn1")
    taken = [g.const(n, g.normal(4, 1, 1)) for n in ("conv1.bias", "w_folded", "w.folded", "w_1", "conv1_bias", "bn1.folded")]
    y2 = g.conv(x, 3, 4, name="conv2", weight=weight, bias=False)
    for i, name in enumerate(taken):
        y2 = g.node("Relu", [g.node("Add", [y2, name], f"add{i}")], f"relu{i}")
    g.output(y1, y2)
    g.folded("bn1", "conv1")


@case("No node has a name.")
def nodes_without_names(g):
    g.output(g.bn(g.conv(image(g), 3, 4, bias=False), 4))
    g.nodes[0].name = g.nodes[1].name = ""
    g.sites.append({"node": "", "output": "bn_out", "decision": "folded", "into": []})


# --- ranks ---------------------------------------------------------------------------------------------------------------


@case("BN of rank 2 after a Gemm, then Relu, Gemm, BN: a small MLP.")
def rank2_mlp(g):
    y = g.bn(gemm(g, g.feed("x", ["N", 3]), 3, 5, name="fc1", transB=1), 5, "bn1")
    y = gemm(g, g.node("Relu", [y], "relu"), 5, 4, name="fc2", transB=1)
    g.output(g.bn(y, 4, "bn2"))
    g.folded("bn1", "fc1")
    g.folded("bn2", "fc2")


@case("BN of rank 3 after a depthwise Conv 1d.")
def rank3(g):
    y = g.conv(g.feed("x", ["N", 4, 9]), 4, 4, (3,), group=4)
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("BN of rank 5 after a grouped Conv 3d.")
def rank5(g):
    y = g.conv(g.feed("x", ["N", 2, 3, 4, 4]), 2, 4, (2, 2, 2), group=2)
    g.output(g.bn(y, 4))
    g.folded("bn", "conv")


@case("A one-channel BN.")
def one_channel(g):
    g.output(g.bn(g.conv(image(g), 3, 1), 1))
    g.folded("bn", "conv")


@case("The input's rank is not declared: a Conv's output still has its channel on axis 1.")
def input_without_shape(g):
    x = image(g)
    g.output(g.bn(g.conv(x, 3, 4), 4))
    g.inputs[0].type.tensor_type.ClearField("shape")
    g.folded("bn", "conv")
    g.check = None


# --- foreign things, and what must survive -------------------------------------------------------------------------------


@case("A BatchNormalization of another domain is no site.")
def foreign_batch_norm(g):
    y = g.conv(image(g), 3, 4)
    params = [g.const(f"bn.{k}", g.normal(4)) for k in ("weight", "bias", "mean", "var")]
    g.output(g.node("BatchNormalization", [y, *params], "bn", domain="com.acme"))
    g.domains.append("com.acme")
    g.ranks["bn_out"] = 4
    g.run = False


@case("An unknown operator reads the BN's output; the BN still goes into the Conv.")
def foreign_reader(g):
    y = g.bn(g.conv(image(g), 3, 4), 4)
    g.output(g.node("Wobble", [y], "wobble", domain="com.acme", strength=3))
    g.domains.append("com.acme")
    g.ranks["wobble_out"] = 4
    g.folded("bn", "conv")
    g.run = False


@case('The domain spelled "ai.onnx" is the default domain.')
def domain_spelled_out(g):
    y = g.bn(g.conv(image(g), 3, 4), 4)
    for node in g.nodes:
        node.domain = "ai.onnx"
    g.default_domain = "ai.onnx"
    g.check = None
    g.output(y)
    g.folded("bn", "conv")


@case("metadata_props, doc_strings and value_info of values that vanish or never existed.")
def metadata(g):
    y = g.conv(image(g), 3, 4, bias=False)
    g.output(g.bn(y, 4))
    g.nodes[0].doc_string, g.nodes[1].doc_string = "a convolution", "a normalisation"
    g.value_info.append(helper.make_tensor_value_info("conv_out", F32, ["N", 4, 3, 3]))
    g.value_info.append(helper.make_tensor_value_info("nobody", F32, [7]))
    g.metadata = {"author": "bnkit", "labels": '["cat", "dog"]'}
    g.folded("bn", "conv")


@case("value_info that is wrong: a shape is a hint, not evidence.")
def value_info_lies(g):
    y = g.node("MatMul", [g.feed("x", ["N", 4, 3]), g.const("w", g.normal(3, 4))], "matmul")
    g.output(g.bn(y, 4))
    g.value_info.append(helper.make_tensor_value_info("matmul_out", F32, ["N", 4]))
    g.kept("bn", "channel-axis")
    g.check = "basic"


def make_sparse(model, name):
    """Move one initializer to sparse_initializer."""
    dense = next(t for t in model.graph.initializer if t.name == name)
    values = onnx.numpy_helper.to_array(dense)
    at = np.flatnonzero(values)
    sparse = helper.make_sparse_tensor(
        helper.make_tensor(name, F32, [len(at)], values.reshape(-1)[at]),
        helper.make_tensor(f"{name}_indices", TensorProto.INT64, [len(at)], at),
        list(values.shape),
    )
    model.graph.initializer.remove(dense)
    model.graph.sparse_initializer.append(sparse)


@case("The Conv's weight is a sparse initializer: carried, not folded into.")
def sparse_weight(g):
    weight = g.normal(4, 3, 3, 3)
    weight[np.abs(weight) < 1] = 0
    g.output(g.bn(g.conv(image(g), 3, 4, weight=g.const("w", weight)), 4))
    g.kept("bn", "weight-not-constant", "parameter-not-constant")
    g.finish = lambda model: make_sparse(model, "w")
    g.check = "basic"


@case("A sparse initializer elsewhere is carried; a bias that a quantization annotation names is not touched.")
def sparse_elsewhere(g):
    y = g.bn(g.conv(image(g), 3, 4), 4)
    g.output(g.node("Add", [y, g.const("mask", np.diag([1.0, 0, 2]))], "add"))
    g.kept("bn", "annotated")
    g.check = "basic"

    def finish(model):
        make_sparse(model, "mask")
        note = model.graph.quantization_annotation.add(tensor_name="bn_out")
        note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="conv.bias")

    g.finish = finish


@case("A dead Conv and BN that lead nowhere.")
def dead_branch(g):
    x = image(g)
    g.output(g.bn(g.conv(x, 3, 4, name="conv1"), 4, "bn1"))
    g.bn(g.conv(x, 3, 2, name="conv2"), 2, "bn2")
    g.folded("bn1", "conv1")
    g.either("bn2", "no-absorber", "dead", into=["conv2"])


@case("An initializer that nobody reads.")
def unused_initializer(g):
    y = g.bn(g.conv(image(g), 3, 4), 4)
    g.const("unused", g.normal(3))
    g.output(y)
    g.folded("bn", "conv")


# --- external data -------------------------------------------------------------------------------------------------------


def spread(model, folder):
    """Conv tensors into weights.bin (offsets aligned to 64), two BN tensors into bn.bin, the rest stays inside."""
    plan = {"conv.weight": "weights.bin", "conv.bias": "weights.bin", "bn.running_mean": "bn.bin", "bn.weight": "bn.bin"}
    blobs = {}
    for tensor in model.graph.initializer:
        location = plan.get(tensor.name)
        if not location:
            continue
        blob = blobs.setdefault(location, bytearray(b"\0" * 16))  # a header that offset skips
        blob.extend(b"\0" * (-len(blob) % 64))
        entries = {"location": location, "offset": str(len(blob)), "length": str(len(tensor.raw_data))}
        blob.extend(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
    for location, blob in blobs.items():
        (folder / location).write_bytes(bytes(blob))
    return model


@case("Parameters in two external files and inline.", name="external/two_files")
def external_two_files(g):
    g.output(g.bn(g.conv(image(g), 3, 4), 4))
    g.ranks["bn_out"] = 4
    g.externalise = spread
    g.folded("bn", "conv")


@case("A large external tensor is not touched by the fold.", name="external/untouched")
def external_untouched(g):
    y = g.bn(g.conv(image(g), 3, 4, name="conv1"), 4)
    y = g.node("Relu", [y], "relu")
    g.output(g.conv(y, 4, 8, name="conv", pads=[1, 1, 1, 1]))
    g.ranks["conv_out"] = 4

    def externalise(model, folder):
        plan = {"conv.weight": "untouched.bin"}
        for tensor in model.graph.initializer:
            if tensor.name in plan:
                (folder / plan[tensor.name]).write_bytes(tensor.raw_data)
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                tensor.external_data.append(onnx.StringStringEntryProto(key="location", value=plan[tensor.name]))
        return model

    g.externalise = externalise
    g.folded("bn", "conv1")
