"""Where a parameter can come from: initializers, Constant nodes, constant expressions; and its types."""

import numpy as np

from .build import BF16, F16, F32, F64, I8, case


def image(g, **options):
    return g.feed("x", ["N", 3, 5, 5], **options)


# --- types ---------------------------------------------------------------------------------------------------------------


def register_dtypes():
    for label, dtype, opset in (("f16", F16, 17), ("bf16", BF16, 22), ("f64", F64, 17)):
        for form in ("raw", "typed"):

            def fill(g, form=form, label=label):
                y = g.conv(image(g), 3, 4, form=form)
                g.output(g.bn(y, 4, form=form))
                g.folded("bn", "conv")
                g.numpy_only = label != "f32"

            suffix = "_typed" if form == "typed" else ""
            case(f"Conv and BN in {label}, {form} data.", name=f"dtype_{label}{suffix}", dtype=dtype, opset=opset)(fill)

            def fill_gemm(g, form=form):
                inputs = [g.feed("x", ["N", 3]), g.const("w", g.normal(3, 4), form=form), g.const("b", g.normal(4), form=form)]
                g.output(g.bn(g.node("Gemm", inputs, "fc"), 4, form=form))
                g.folded("bn", "fc")
                g.numpy_only = True

            if form == "raw":
                case(f"Gemm and BN in {label}.", name=f"dtype_{label}_gemm", dtype=dtype, opset=17)(fill_gemm)


register_dtypes()


@case("f32 parameters in float_data instead of raw_data.")
def dtype_f32_typed(g):
    g.output(g.bn(g.conv(image(g), 3, 4, form="typed"), 4, form="typed"))
    g.folded("bn", "conv")


@case("fp16 Conv with an fp32 BatchNorm (opset 15 allows it): the Conv's weight and bias both stay fp16.", dtype=F16, opset=15)
def dtype_mixed(g):
    y = g.conv(image(g), 3, 4, bias=False)
    g.output(g.bn(y, 4, dtype=F32))
    g.folded("bn", "conv")
    g.numpy_only = True


@case("Opset 14: fp16 gamma and beta, fp32 mean and variance.", dtype=F16, opset=14)
def dtype_mixed_opset14(g):
    y = g.conv(image(g), 3, 4)
    mean, var = g.const("mean", g.normal(4), F32), g.const("var", g.rng.uniform(0.5, 2, 4), F32)
    g.output(g.bn(y, 4, params={"running_mean": mean, "running_var": var}))
    g.folded("bn", "conv")
    g.numpy_only = True


@case("fp16 weights that would overflow when folded.", dtype=F16)
def dtype_f16_overflow(g):
    y = g.conv(image(g), 3, 4, scale=500.0, bias=False)
    params = {"weight": np.full(4, 10.0), "running_var": np.full(4, 1e-3), "bias": np.zeros(4), "running_mean": np.zeros(4)}
    g.output(g.bn(y, 4, params=params, epsilon=1e-5))
    g.kept("bn", "range")
    g.ranks["bn_out"] = 4
    g.run = False


# --- Constant nodes ------------------------------------------------------------------------------------------------------


@case("All parameters in Constant nodes (value), as Paddle exports them.")
def const_nodes(g):
    g.output(g.bn(g.conv(image(g), 3, 4, form="node"), 4, form="node"))
    g.folded("bn", "conv")


@case("BN parameters in Constant nodes with value_floats.")
def const_value_floats(g):
    y = g.conv(image(g), 3, 4)
    params = {}
    for key in ("weight", "bias", "running_mean", "running_var"):
        values = [float(np.float32(v)) for v in g.rng.uniform(0.5, 1.5, 4)]
        params[key] = g.node("Constant", [], f"const_{key}", value_floats=values)
    g.output(g.bn(y, 4, params=params))
    g.folded("bn", "conv")


@case("Mul by a Constant node with value_float, then BN.")
def const_value_float(g):
    y = g.node("Mul", [g.conv(image(g), 3, 4), g.node("Constant", [], "half", value_float=0.5)], "mul")
    g.output(g.bn(y, 4))
    g.folded("bn", "conv", may=["mul"])
    g.affines(1)


# --- constant expressions ------------------------------------------------------------------------------------------------


@case("Weight and gamma behind Identity nodes.")
def const_identity(g):
    weight = g.node("Identity", [g.const("w", g.normal(4, 3, 3, 3) * 0.3)], "w_identity")
    gamma = g.node("Identity", [g.const("gamma", g.normal(4))], "gamma_identity")
    g.output(g.bn(g.conv(image(g), 3, 4, weight=weight), 4, params={"weight": gamma}))
    g.folded("bn", "conv")


@case("Weights and statistics stored in f16, cast to f32 in the graph.")
def const_cast(g):
    weight = g.node("Cast", [g.const("w", g.normal(4, 3, 3, 3) * 0.3, F16)], "w_cast", to=F32)
    mean = g.node("Cast", [g.const("mean", g.normal(4), F16)], "mean_cast", to=F32)
    g.output(g.bn(g.conv(image(g), 3, 4, weight=weight), 4, params={"running_mean": mean}))
    g.folded("bn", "conv")


@case("Conv bias as PyTorch's dynamo exporter writes it: Expand(CastLike(0, x), Shape(W, 0, 1)).")
def const_dynamo_bias(g):
    x = image(g)
    zero = g.node("CastLike", [g.const("zero", np.array(0, np.int64)), x], "cast_like")
    weight = g.const("w", g.normal(4, 3, 3, 3) * 0.3)
    bias = g.node("Expand", [zero, g.node("Shape", [weight], "shape", start=0, end=1)], "expand")
    g.output(g.bn(g.conv(x, 3, 4, weight=weight, bias=bias), 4))
    g.folded("bn", "conv")


@case("Affine-free BN as dynamo writes it: gamma and beta by Expand(CastLike(1, y), Shape(y, 1, 2)), batch unknown.")
def const_dynamo_affine_free(g):
    y = g.conv(image(g), 3, 4)
    size = g.node("Shape", [y], "shape", start=1, end=2)
    params = {}
    for key, number in (("weight", 1), ("bias", 0)):
        like = g.node("CastLike", [g.const(f"number_{key}", np.array(number, np.int64)), y], f"like_{key}")
        params[key] = g.node("Expand", [like, size], f"expand_{key}")
    g.output(g.bn(y, 4, params=params))
    g.folded("bn", "conv", may=[])


@case("Parameters by Concat, Slice, Squeeze and Reshape of constants, the weight by Transpose.")
def const_expressions(g):
    hwio = g.const("w_hwio", g.normal(3, 3, 3, 4) * 0.3)
    weight = g.node("Transpose", [hwio], "w_transpose", perm=[3, 2, 0, 1])
    gamma = g.node("Concat", [g.const("gamma_a", g.normal(1)), g.const("gamma_b", g.normal(3))], "gamma_concat", axis=0)
    long = g.const("stats", g.rng.uniform(0.5, 2.0, 10))
    mean = g.node("Slice", [long, g.ints("starts", 2), g.ints("ends", 6)], "mean_slice")
    var = g.node("Reshape", [g.const("var_2x2", g.rng.uniform(0.5, 2.0, (2, 2))), g.ints("flat", -1)], "var_reshape")
    beta = g.node("Squeeze", [g.const("beta_1x4", g.normal(1, 4)), g.ints("front", 0)], "beta_squeeze")
    params = {"weight": gamma, "bias": beta, "running_mean": mean, "running_var": var}
    g.output(g.bn(g.conv(image(g), 3, 4, weight=weight), 4, params=params))
    g.folded("bn", "conv")


@case("Arithmetic on constants: variance = std * std, gamma by Gather, mean by Neg, beta by Unsqueeze and Squeeze.")
def const_arithmetic(g):
    std = g.const("std", g.rng.uniform(0.5, 2.0, 4))
    order = g.const("order", np.array([3, 1, 0, 2], np.int64))
    column = g.node("Unsqueeze", [g.const("beta", g.normal(4)), g.ints("one", 1)], "unsqueeze")
    params = {
        "weight": g.node("Gather", [g.const("gamma", g.normal(4)), order], "gather", axis=0),
        "bias": g.node("Squeeze", [column, g.ints("one_too", 1)], "squeeze"),
        "running_mean": g.node("Neg", [g.const("minus_mean", g.normal(4))], "neg"),
        "running_var": g.node("Mul", [std, std], "square"),
    }
    g.output(g.bn(g.conv(image(g), 3, 4), 4, params=params))
    g.folded("bn", "conv")


@case("ConstantOfShape as mean (default 0) and variance (1).")
def const_of_shape(g):
    from .build import tensor

    size = g.ints("size", 4)
    params = {
        "running_mean": g.node("ConstantOfShape", [size], "zeros"),
        "running_var": g.node("ConstantOfShape", [size], "ones", value=tensor("one", np.ones(1))),
    }
    g.output(g.bn(g.conv(image(g), 3, 4), 4, params=params))
    g.folded("bn", "conv")


@case("A weight behind DequantizeLinear with a scale per output channel.")
def const_dequantized_weight(g):
    codes = g.const("w_int8", g.rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8), I8)
    scale = g.const("w_scale", g.rng.uniform(0.002, 0.01, 4))
    zero = g.const("w_zero", np.zeros(4, np.int8), I8)
    weight = g.node("DequantizeLinear", [codes, scale, zero], "dequantize", axis=0)
    g.output(g.bn(g.conv(image(g), 3, 4, weight=weight), 4))
    g.either("bn", "weight-not-constant", into=["conv"])


@case("The Conv's weight is a graph input.")
def const_weight_is_input(g):
    x = image(g)
    weight = g.feed("w", [4, 3, 3, 3])
    g.output(g.bn(g.conv(x, 3, 4, weight=weight), 4))
    g.kept("bn", "weight-not-constant", "parameter-not-constant")


@case("The Conv's bias is a graph input.")
def const_bias_is_input(g):
    x = image(g)
    bias = g.feed("b", [4])
    g.output(g.bn(g.conv(x, 3, 4, bias=bias), 4))
    g.kept("bn", "weight-not-constant", "parameter-not-constant")


@case("The shape of a value that decides the fold is unknown: BN, Flatten, Gemm with a dynamic height.")
def const_unknown_spatial(g):
    g.input("x", ["N", 3, "H", 2])
    g.feeds["x"] = g.normal(2, 3, 2, 2).astype(np.float32)
    y = g.node("Flatten", [g.bn("x", 3)], "flatten")
    inputs = [y, g.const("w", g.normal(12, 4)), g.const("b", g.normal(4))]
    g.output(g.node("Gemm", inputs, "fc"))
    g.either("bn", "unknown-shape", "channel-axis", into=["fc"])
