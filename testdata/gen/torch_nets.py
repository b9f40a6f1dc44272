"""Small networks twice: as ONNX files with one difficulty each, and as PyTorch modules with the same numbers.

`NETS` maps a name to a function that gives (ONNX model, PyTorch module, shape of a sample, batches). PyTorch's module names are the
prefixes of the ONNX initializers.
"""

import zlib

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import nn

from .build import Graph

NETS = {}
CONVS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
TRAINING = {
    7: ({}, ["", "_mean", "_var", "_saved_mean", "_saved_var"]),
    9: ({}, ["", "_mean", "_var", "_saved_mean", "_saved_var"]),
    14: ({"training_mode": 1}, ["", "_mean", "_var"]),
    15: ({"training_mode": 1}, ["", "_mean", "_var"]),
}


class Pair:
    """A graph and its PyTorch twin under construction."""

    def __init__(self, name, opset=17):
        self.graph = Graph(name, np.random.default_rng(zlib.crc32(name.encode())), opset)
        self.opset, self.functions, self.domains = opset, [], []
        self.twin = nn.Module()

    def adopt(self, name, module, **values):
        """A module of the twin with these numbers; what it had is kept otherwise."""
        with torch.no_grad():
            for key, value in values.items():
                getattr(module, key).copy_(torch.from_numpy(np.asarray(value, np.float32)))
        self.twin.add_module(name, module)
        return module

    def conv(self, x, cin, cout, rank=4, name="conv", where=None, bias=True):
        g = where or self.graph
        weight = g.normal(cout, cin, *[3] * (rank - 2)) * 0.5
        values = {"weight": weight} | ({"bias": g.normal(cout) * 0.5} if bias else {})
        self.adopt(name, CONVS[rank](cin, cout, 3, padding=1, bias=bias), **values)
        inputs = [x] + [g.const(f"{name}.{k}", v) for k, v in values.items()]
        sizes = {"kernel_shape": [3] * (rank - 2), "pads": [1] * (2 * (rank - 2))}
        return g.node("Conv", inputs, name, **sizes)

    def gemm(self, x, cin, cout, name):
        values = {"weight": self.graph.normal(cout, cin) * 0.5, "bias": self.graph.normal(cout) * 0.5}
        self.adopt(name, nn.Linear(cin, cout), **values)
        return self.graph.node("Gemm", [x] + [self.graph.const(f"{name}.{k}", v) for k, v in values.items()], name, transB=1)

    def norm_values(self, channels, rank, name, eps=1e-3):
        rng = self.graph.rng
        values = {
            "weight": rng.uniform(0.5, 1.5, channels),
            "bias": rng.standard_normal(channels) * 0.3,
            "running_mean": rng.standard_normal(channels) * 0.5,
            "running_var": rng.uniform(0.3, 2.0, channels),
        }
        self.adopt(name, NORMS[rank](channels, eps=eps), **values)
        return values

    def norm(self, x, channels, rank=4, name="bn", where=None, training=False):
        g = where or self.graph
        inputs = [x] + [g.const(f"{name}.{k}", v) for k, v in self.norm_values(channels, rank, name).items()]
        attrs, suffixes = TRAINING[self.opset] if training else ({}, [""])
        outputs = [f"{name}_out{suffix}" for suffix in suffixes]
        return g.node("BatchNormalization", inputs, name, outputs, epsilon=1e-3, **attrs)

    def finish(self, output, dims, batches, forward):
        """`forward(twin, x)` is what the graph computes."""

        class Twin(type(self.twin)):
            pass

        Twin.forward = forward
        self.twin.__class__ = Twin
        g = self.graph
        g.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *dims]))
        g.output(output)
        g.ranks[output] = len(dims) + 1
        graph = g.proto()
        if self.opset < 9:  # IR 3: every initializer is an input, too
            graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in graph.initializer)
        imports = [helper.make_opsetid("", self.opset)] + [helper.make_opsetid(d, 1) for d in self.domains]
        model = helper.make_model(graph, opset_imports=imports, functions=self.functions, producer_name="bnkit-testdata")
        model.ir_version = 3 if self.opset < 9 else 8
        return model, self.twin.eval(), dims, batches


def net(function):
    NETS[function.__name__] = lambda: function(function.__name__)
    return function


@net
def shared_norm(name):
    """One BatchNorm called twice: both calls count, in order."""
    p = Pair(name)
    y = p.conv("x", 3, 4, name="a")
    y = p.norm(y, 4, name="shared")
    y = p.graph.node("Relu", [y], "relu")
    y = p.conv(y, 4, 4, name="b")
    inputs = [y] + [f"shared.{k}" for k in ("weight", "bias", "running_mean", "running_var")]
    y = p.graph.node("BatchNormalization", inputs, "again", epsilon=1e-3)
    y = p.norm(p.graph.node("Relu", [y], "relu2"), 4, name="last")
    return p.finish(y, (3, 6, 6), (4, 4, 3), lambda t, x: t.last(t.shared(t.b(t.shared(t.a(x)).relu())).relu()))


@net
def if_branches(name):
    """A BatchNorm in the branch of an If that is taken, one in the other that never runs."""
    p = Pair(name)
    g = p.graph
    y = p.norm(p.conv("x", 3, 4, name="stem"), 4, name="outer")
    flag = g.const("flag", np.array(False))
    bodies = {}
    for key in ("then", "else"):
        body = g.body(f"{key}_branch")
        body.output(p.norm(p.conv(y, 4, 4, name=f"{key}_conv", where=body), 4, name=f"{key}_bn", where=body))
        bodies[f"{key}_branch"] = body.proto()
    z = g.node("If", [flag], "if", **bodies)
    z = p.norm(g.node("Relu", [z], "relu"), 4, name="last")
    return p.finish(z, (3, 6, 6), (4, 4, 3), lambda t, x: t.last(t.else_bn(t.else_conv(t.outer(t.stem(x)))).relu()))


@net
def local_function(name):
    """A BatchNorm in a local function that is called twice: one module."""
    p = Pair(name)
    g, keys = p.graph, ("weight", "bias", "running_mean", "running_var")
    values = p.norm_values(4, 4, "own")
    nodes = [
        helper.make_node("Constant", [], [f"own.{k}"], f"own/{k}", value=helper.make_tensor(k, TensorProto.FLOAT, [4], np.float32(v)))
        for k, v in values.items()
    ]
    nodes.append(helper.make_node("BatchNormalization", ["v", *(f"own.{k}" for k in keys)], ["w"], "own", epsilon=1e-3))
    imports = [helper.make_opsetid("", 17)]
    p.functions.append(helper.make_function("local", "Own", ["v"], ["w"], nodes, imports))
    p.domains.append("local")
    y = p.conv("x", 3, 4, name="a")
    y = g.node("Own", [y], "call1", domain="local")
    y = p.conv(g.node("Relu", [y], "relu"), 4, 4, name="b")
    y = g.node("Own", [y], "call2", domain="local")
    y = p.norm(p.conv(y, 4, 4, name="c"), 4, name="last")
    return p.finish(y, (3, 6, 6), (4, 4, 3), lambda t, x: t.last(t.c(t.own(t.b(t.own(t.a(x)).relu())))))


def ranks():
    for rank, dims in ((3, (3, 9)), (4, (3, 6, 6)), (5, (2, 3, 4, 4))):

        def fill(name, rank=rank, dims=dims):
            p = Pair(name)
            y = p.norm("x", dims[0], rank, "first")
            y = p.norm(p.conv(y, dims[0], 5, rank, "a"), 5, rank, "second")
            y = p.norm(p.conv(p.graph.node("Relu", [y], "relu"), 5, 4, rank, "b", bias=False), 4, rank, "third")
            # The last batch is a single sample: positions are elements, too.
            return p.finish(y, dims, (4, 4, 1), lambda t, x: t.third(t.b(t.second(t.a(t.first(x))).relu())))

        fill.__name__ = f"rank{rank}"
        net(fill)


ranks()


@net
def rank2(name):
    """BatchNorm over rows: a batch has as many elements as samples."""
    p = Pair(name)
    y = p.norm("x", 6, 2, "first")
    y = p.norm(p.gemm(y, 6, 8, "a"), 8, 2, "second")
    y = p.norm(p.gemm(p.graph.node("Relu", [y], "relu"), 8, 5, "b"), 5, 2, "third")
    return p.finish(y, (6,), (16, 16, 5), lambda t, x: t.third(t.b(t.second(t.a(t.first(x))).relu())))


def opsets():
    for opset, training in ((7, False), (7, True), (9, False), (9, True), (14, True), (15, True)):

        def fill(name, opset=opset, training=training):
            p = Pair(name, opset)
            y = p.norm(p.conv("x", 3, 5, name="a"), 5, name="first", training=training)
            y = p.norm(p.conv(p.graph.node("Relu", [y], "relu"), 5, 4, name="b"), 4, name="second", training=training)
            return p.finish(y, (3, 6, 6), (4, 4, 2), lambda t, x: t.second(t.b(t.first(t.a(x)).relu())))

        fill.__name__ = f"opset{opset:02}_{'training' if training else 'eval'}"
        net(fill)


opsets()
