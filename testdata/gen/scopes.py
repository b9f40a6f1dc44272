"""Bodies of If, Loop and Scan, and model-local functions."""

import numpy as np
from onnx import helper

from .build import BOOL, I64, case


def image(g, channels=3):
    return g.feed("x", ["N", channels, 5, 5])


def flag(g, value=True):
    return g.feed("flag", [], BOOL, value=np.array(value))


def branches(g, then, otherwise, name="if"):
    """An If with one output; both arguments fill a body and return its output's name."""
    graphs = {}
    for key, fill in (("then_branch", then), ("else_branch", otherwise)):
        body = g.body(f"{name}_{key}")
        body.output(fill(body))
        graphs[key] = body.proto()
    return g.node("If", ["flag"], name, **graphs)


def conv_bn(body, x, prefix, cin=3, cout=4, **options):
    y = body.conv(x, cin, cout, name=f"{prefix}/conv", **options)
    return body.bn(y, cout, f"{prefix}/bn")


@case("Conv and BN in both branches of an If; each branch owns its constants.")
def scope_if(g):
    x = image(g)
    flag(g)
    g.output(branches(g, lambda b: conv_bn(b, x, "then"), lambda b: conv_bn(b, x, "else", bias=False)))
    g.folded("then/bn", "then/conv")
    g.folded("else/bn", "else/conv")


@case("The same with the else branch taken.")
def scope_if_else(g):
    x = image(g)
    flag(g, False)
    g.output(branches(g, lambda b: conv_bn(b, x, "then"), lambda b: conv_bn(b, x, "else", bias=False)))
    g.folded("then/bn", "then/conv")
    g.folded("else/bn", "else/conv")


@case("Sibling branches that use the same names for their values and constants.")
def scope_if_same_names(g):
    x = image(g)
    flag(g, False)

    def fill(label):
        def run(b):
            y = b.node("Conv", [x, b.const("w", b.normal(4, 3, 1, 1))], f"{label}/conv", ["y"])
            return b.bn(y, 4, "bn", outputs=["z"])

        return run

    g.output(branches(g, fill("then"), fill("else")))
    # The BN nodes share a name; name them apart without touching the values.
    for attribute in g.nodes[-1].attribute:
        label = attribute.name.split("_")[0]
        attribute.g.node[1].name = f"{label}/bn"
    g.folded("then/bn", "then/conv")
    g.folded("else/bn", "else/conv")


@case("A body captures the outer Conv's output: two readers.")
def scope_capture_of_output(g):
    x = image(g)
    flag(g)
    y = g.conv(x, 3, 4)
    inner = branches(g, lambda b: b.node("Relu", [y], "then/relu"), lambda b: b.node("Neg", [y], "else/neg"))
    g.output(g.bn(y, 4), inner)
    g.kept("bn", "shared-output")


@case("A body captures the outer Conv's weight: the fold copies it.")
def scope_capture_of_weight(g):
    x = image(g)
    flag(g)
    y = g.bn(g.conv(x, 3, 4), 4)
    g.output(y)
    g.output(
        branches(
            g,
            lambda b: b.node("Conv", [x, "conv.weight", "conv.bias"], "then/conv"),
            lambda b: b.node("Conv", [x, "conv.weight"], "else/conv"),
        )
    )
    g.folded("bn", "conv")


@case("Conv and BN in a body, all constants in the outer graph.")
def scope_outer_constants(g):
    x = image(g)
    flag(g)
    weight = g.const("w", g.normal(4, 3, 3, 3) * 0.3)
    params = {}
    for key in ("weight", "bias", "running_mean", "running_var"):
        params[key] = g.const(f"p.{key}", g.rng.uniform(0.5, 1.5, 4))

    def then(b):
        return b.bn(b.conv(x, 3, 4, name="then/conv", weight=weight, bias=False), 4, "then/bn", params=params)

    def otherwise(b):
        return b.conv(x, 3, 4, name="else/conv", weight=weight, bias=False)

    g.output(branches(g, then, otherwise))
    g.folded("then/bn", "then/conv")


@case("The Conv is outside, the BN in one branch: the other branch, or nobody, may read the Conv too.")
def scope_bn_of_captured(g):
    x = image(g)
    flag(g)
    y = g.conv(x, 3, 4)
    g.output(branches(g, lambda b: b.bn(y, 4, "then/bn"), lambda b: b.node("Relu", [y], "else/relu")))
    g.kept("then/bn", "shared-output", "no-absorber", "graph-input")


@case("Conv and BN in a Loop body.")
def scope_loop(g):
    x = image(g)
    body = g.body("loop_body")
    body.input("i", [], I64)
    body.input("go", [], BOOL)
    body.input("state", ["N", 3, 5, 5])
    y = conv_bn(body, "state", "loop", 3, 3, pads=[1, 1, 1, 1])
    body.output(body.node("Identity", ["go"], "loop/go", ["go_out"]), y)
    body.types["go_out"] = BOOL
    trips, go = g.const("trips", np.array(2, np.int64)), g.const("true", np.array(True))
    g.output(g.node("Loop", [trips, go, x], "loop", body=body.proto()))
    g.folded("loop/bn", "loop/conv")


@case("BN of rank 2 behind a Gemm in a Scan body.")
def scope_scan(g):
    x = g.feed("x", [3, 2, 4])
    start = g.feed("start", [2, 4])
    body = g.body("scan_body")
    body.input("state", [2, 4])
    body.input("row", [2, 4])
    y = body.node("Add", ["state", "row"], "scan/add")
    y = body.node("Gemm", [y, body.const("scan.w", body.normal(4, 4) * 0.4), body.const("scan.b", body.normal(4))], "scan/fc")
    y = body.bn(y, 4, "scan/bn")
    body.output(y, body.node("Relu", [y], "scan/relu"))
    body.ranks |= {"scan/bn_out": 2, "scan/relu_out": 2}
    outputs = ["last", "rows"]
    g.node("Scan", [start, x], "scan", outputs, num_scan_inputs=1, body=body.proto())
    g.output(*outputs)
    g.folded("scan/bn", "scan/fc")


def local_function(g, name="ConvBlock"):
    """Conv, BN, Relu with all parameters in Constant nodes, as a function of the domain "local"."""
    body = g.body(name)
    y = body.conv("X", 3, 3, name="block/conv", form="node", pads=[1, 1, 1, 1])
    y = body.bn(y, 3, "block/bn", form="node")
    body.node("Relu", [y], "block/relu", ["Y"])
    imports = [helper.make_opsetid("", g.opset)]
    g.functions.append(helper.make_function("local", name, ["X"], ["Y"], body.nodes, imports))
    g.domains.append("local")


@case("A model-local function with Conv, BN and Constant nodes, called once.", opset=17)
def function_once(g):
    local_function(g)
    g.output(g.node("ConvBlock", [image(g)], "call", domain="local"))
    g.folded("block/bn", "block/conv")


@case("The same function called twice: its body is folded once.", opset=17)
def function_twice(g):
    local_function(g)
    y = g.node("ConvBlock", [image(g)], "call1", domain="local")
    g.output(g.node("ConvBlock", [y], "call2", domain="local"))
    g.folded("block/bn", "block/conv")


@case("A function that receives its parameters as inputs: they are constants only at the call.", opset=17)
def function_parameters(g):
    names = ["X", "W", "scale", "bias", "mean", "var"]
    body = g.body("Block")
    y = body.node("Conv", ["X", "W"], "block/conv", kernel_shape=[3, 3])
    body.node("BatchNormalization", [y, *names[2:]], "block/bn", ["Y"], epsilon=1e-3)
    imports = [helper.make_opsetid("", g.opset)]
    g.functions.append(helper.make_function("local", "Block", names, ["Y"], body.nodes, imports))
    g.domains.append("local")
    constants = [g.const("w", g.normal(4, 3, 3, 3) * 0.3)] + [g.const(n, g.rng.uniform(0.5, 1.5, 4)) for n in names[2:]]
    g.output(g.node("Block", [image(g), *constants], "call", domain="local"))
    g.either("block/bn", "parameter-not-constant", "weight-not-constant", "no-running-statistics", into=["block/conv"])


@case("A function of a main graph that also has a Conv and BN.", opset=17)
def function_and_main(g):
    local_function(g)
    y = g.node("ConvBlock", [image(g)], "call", domain="local")
    g.output(g.bn(g.conv(y, 3, 4), 4))
    g.folded("block/bn", "block/conv")
    g.folded("bn", "conv")
