"""Graphs that once were folded wrongly, or came out unloadable."""

import numpy as np
from onnx import TensorProto, helper

from .build import F16, F64, case
from .scopes import branches, conv_bn, flag, image


@case("f16 weights that the fold would move among the subnormal numbers stay: they would lose their digits.")
def review_f16_subnormal(g):
    g.dtype = F16
    y = g.conv(image(g), 3, 4, scale=1e-3)
    g.output(g.bn(y, 4, params={"weight": np.full(4, 1e-4), "running_var": np.ones(4)}))
    g.kept("bn", "range")


@case("A training BN with constant statistics and a computed gamma stays, but in eval mode.", opset=15)
def review_training_computed_gamma(g):
    gamma = g.feed("gamma", [4])
    y = g.conv(image(g), 3, 4)
    y = g.bn(y, 4, params={"weight": gamma}, outputs=["bn_out", "bn_mean", "bn_var"], training_mode=1)
    g.output(y)
    g.kept("bn", "parameter-not-constant")


@case("Shape reads the Conv's output too: it sees no difference, and must read a value that exists.")
def review_shape_reader(g):
    y = g.conv(image(g), 3, 4)
    shape = g.node("Shape", [y], "shape")
    g.types[shape] = TensorProto.INT64
    g.output(g.bn(y, 4), shape)
    g.folded("bn", "conv")


@case("IR 3, BN in the branches of an If: a body cannot get a new initializer there.", opset=8, ir=3)
def review_ir3_bodies(g):
    x = image(g)
    flag(g)
    node = {"form": "node"}

    def branch(body, prefix):
        y = body.conv(x, 3, 4, name=f"{prefix}/conv", bias=False, **node)
        return body.bn(y, 4, f"{prefix}/bn", **node)

    g.output(branches(g, lambda b: branch(b, "then"), lambda b: branch(b, "else")))
    g.folded("then/bn", "then/conv")
    g.folded("else/bn", "else/conv")


@case("A note about a value that does not exist has the name that a new bias would get.")
def review_stale_value_info(g):
    g.output(g.bn(g.conv(image(g), 3, 4, bias=False), 4))
    g.value_info.append(helper.make_tensor_value_info("conv.bias", TensorProto.INT64, [7, 7]))
    g.folded("bn", "conv")


@case("Gemm with beta = 0: C is not read, so it must not tie the batch to its rows.")
def review_gemm_beta_zero_rows(g):
    x = g.feed("x", [2, 3])
    y = g.node("Gemm", [x, g.const("fc.weight", g.normal(3, 4)), g.const("fc.bias", g.normal(2, 4))], "fc", beta=0.0)
    g.output(g.bn(y, 4))
    g.folded("bn", "fc")


@case("--skip of a training BN that has no running statistics: it stays in training mode.", opset=15, flags=["--skip", "bn"])
def review_skip_without_statistics(g):
    y = g.conv(image(g), 3, 4)
    mean = g.node("ReduceMean", [y], "mean", axes=[0, 2, 3], keepdims=0)
    var = g.node("Mul", [mean, mean], "var")
    params = {"running_mean": mean, "running_var": var}
    g.output(g.bn(y, 4, params=params, outputs=["bn_out", "bn_mean", "bn_var"], training_mode=1))
    g.sites.append({"node": "bn", "decision": "skipped", "code": "no-running-statistics"})
    g.left = 1


@case("A branch of an If has a value with the name that a Conv before it would take over.")
def review_name_in_body(g):
    x = image(g)
    flag(g)
    y = g.conv(x, 3, 4)

    def then(body):
        inner = body.node("Relu", [x], "then/relu", ["bn_out"])
        return body.node("Neg", [inner], "then/neg")

    g.output(branches(g, then, lambda b: conv_bn(b, x, "else", cout=3)), g.bn(y, 4))
    g.kept("bn", "name-conflict")
    g.folded("else/bn", "else/conv")
    g.check = "basic"


@case("f16 in the bodies of an If: what rounding to f16 costs there counts as noise.", opset=15, dtype=F16)
def review_f16_bodies(g):
    g.numpy_only = True
    x = image(g)
    flag(g)

    def branch(body, prefix):
        body.dtype = F16
        y = body.bn(x, 3, f"{prefix}/bn")
        return body.conv(y, 3, 4, (1, 1), name=f"{prefix}/conv", bias=False)

    g.output(branches(g, lambda b: branch(b, "then"), lambda b: branch(b, "else")))
    g.folded("then/bn", "then/conv")
    g.folded("else/bn", "else/conv")


@case("A constant divided by values near zero: ill-conditioned, in doubles, and yet equal.", dtype=F64)
def review_near_zero_divisor(g):
    g.numpy_only = True
    y = g.bn(g.conv(image(g), 3, 4), 4)
    y = g.node("Div", [g.const("c", np.array(1.5)), y], "div")
    g.output(y)
    g.folded("bn", "conv")
