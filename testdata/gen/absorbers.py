"""Operators that take an affine into their constants: backwards (Conv -> BN) and forwards (BN -> Conv)."""

import numpy as np

from .build import case

# --- Conv and ConvTranspose, backwards -----------------------------------------------------------------------------------

# name: (about, cin, cout, kernel, spatial size, options)
CONVS = {
    "conv1d": ("Conv 1d with a bias.", 3, 4, (3,), (7,), {}),
    "conv2d_bias": ("Conv 2d with a bias and pads.", 3, 4, (3, 3), (6, 6), {"pads": [1, 1, 1, 1]}),
    "conv2d_no_bias": ("Conv 2d without a bias input: the fold adds one.", 3, 4, (3, 3), (6, 6), {"bias": False}),
    "conv2d_empty_bias": ('Conv 2d whose third input is "": that is no bias.', 3, 4, (3, 3), (6, 6), {"bias": ""}),
    "conv3d": ("Conv 3d without a bias.", 2, 3, (2, 2, 2), (4, 4, 4), {"bias": False}),
    "conv2d_grouped": ("Conv with two groups.", 4, 6, (3, 3), (5, 5), {"group": 2}),
    "conv2d_depthwise": ("Depthwise Conv with a multiplier of 2.", 3, 6, (3, 3), (5, 5), {"group": 3, "bias": False}),
    "conv2d_dilated": ("Dilated Conv.", 3, 4, (3, 3), (8, 8), {"dilations": [2, 2]}),
    "conv2d_strided": ("Strided Conv with asymmetric pads.", 3, 4, (3, 3), (7, 7), {"strides": [2, 2], "pads": [1, 0, 0, 1]}),
    "conv2d_same_upper": ("Conv with auto_pad SAME_UPPER.", 3, 4, (3, 3), (7, 7), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "conv2d_valid": ("Conv with auto_pad VALID.", 3, 4, (3, 3), (6, 6), {"auto_pad": "VALID"}),
    "deconv2d": ("ConvTranspose with one group.", 3, 4, (3, 3), (4, 4), {"strides": [2, 2]}),
    "deconv2d_no_bias": ("ConvTranspose without a bias.", 3, 4, (2, 2), (4, 4), {"strides": [2, 2], "bias": False}),
    "deconv2d_groups2": (
        "ConvTranspose with two groups: the output channel of W[i,j] depends on i.",
        4,
        6,
        (3, 3),
        (4, 4),
        {"group": 2},
    ),
    "deconv2d_depthwise": ("Depthwise ConvTranspose.", 4, 4, (3, 3), (4, 4), {"group": 4, "bias": False}),
    "deconv2d_output_padding": (
        "ConvTranspose with output_padding: uncovered outputs hold just the bias.",
        3,
        4,
        (2, 2),
        (4, 4),
        {"strides": [3, 3], "output_padding": [1, 1]},
    ),
    "deconv1d": ("ConvTranspose 1d with pads.", 3, 2, (4,), (5,), {"strides": [2], "pads": [1, 1]}),
}


def register_convs():
    for name, (about, cin, cout, kernel, size, options) in CONVS.items():

        def fill(g, cin=cin, cout=cout, kernel=kernel, size=size, options=options, op=name):
            x = g.feed("x", ["N", cin, *size])
            y = g.conv(x, cin, cout, kernel, op="ConvTranspose" if op.startswith("deconv") else "Conv", **options)
            g.output(g.bn(y, cout))
            g.folded("bn", "conv")

        case(about, name=name)(fill)


register_convs()


@case("Two BatchNorms after one Conv: both end in the Conv.")
def conv_bn_bn(g):
    y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4)
    g.output(g.bn(g.bn(y, 4, "bn1"), 4, "bn2"))
    g.folded("bn1", "conv")
    g.folded("bn2", "conv")


@case("Two BatchNorms without any other operator: one of them survives.")
def bn_bn(g):
    g.output(g.bn(g.bn(g.feed("x", ["N", 3, 5]), 3, "bn1"), 3, "bn2"))
    g.either("bn1", "no-absorber", "graph-input", into=["bn2"])
    g.either("bn2", "no-absorber", "graph-output", "graph-input", into=["bn1"])
    g.left = 1


@case("Conv, BatchNorm, Relu, Conv, BatchNorm: each goes into its own Conv.")
def conv_bn_relu_conv_bn(g):
    y = g.bn(g.conv(g.feed("x", ["N", 3, 6, 6]), 3, 4, name="conv1", bias=False), 4, "bn1")
    y = g.conv(g.node("Relu", [y], "relu"), 4, 2, name="conv2", bias=False)
    g.output(g.bn(y, 2, "bn2"))
    g.folded("bn1", "conv1")
    g.folded("bn2", "conv2")


# --- Gemm and MatMul, backwards ------------------------------------------------------------------------------------------

# suffix: (shape of C or None, further options); M = 2 rows, K = 3, N = 4
GEMMS = {
    "trans_b0": ((4,), {}),
    "trans_b1": ((4,), {"transB": 1}),
    "trans_a1": ((4,), {"transA": 1}),
    "alpha_beta": ((4,), {"alpha": 0.5, "beta": 2.0, "transB": 1}),
    "beta_zero": ((4,), {"beta": 0.0}),
    "c_absent": (None, {"alpha": 0.5}),
    "c_scalar": ((), {"beta": 3.0}),
    "c_1": ((1,), {"beta": 3.0}),
    "c_1_n": ((1, 4), {"beta": 0.5}),
    "c_1_1": ((1, 1), {}),
    "c_m_1": ((2, 1), {"beta": 2.0}),
    "c_m_n": ((2, 4), {"beta": 2.0, "transB": 1}),
}


def gemm(g, x, k, n, c_shape=(0,), name="fc", **attrs):
    """A Gemm with constants B and C; a size 0 in `c_shape` stands for n."""
    shape = (n, k) if attrs.get("transB") else (k, n)
    inputs = [x, g.const(f"{name}.weight", g.normal(*shape) * 0.6)]
    if c_shape is not None:
        inputs.append(g.const(f"{name}.bias", g.normal(*(d or n for d in c_shape)) * 0.5))
    return g.node("Gemm", inputs, name, **attrs)


def register_gemms():
    for suffix, (c_shape, attrs) in GEMMS.items():

        def fill(g, c_shape=c_shape, attrs=attrs):
            x = g.feed("x", [3, 2] if attrs.get("transA") else [2, 3])
            g.output(g.bn(gemm(g, x, 3, 4, c_shape, **attrs), 4))
            g.folded("bn", "fc")

        what = "no C" if c_shape is None else f"C of shape {list(c_shape)}"
        options = ", ".join(f"{k} = {v}" for k, v in attrs.items()) or "default attributes"
        case(f"Gemm with {what} and {options}, then a rank-2 BatchNorm.", name=f"gemm_{suffix}")(fill)


register_gemms()


def matmul(g, x, k, n, name="matmul"):
    return g.node("MatMul", [x, g.const(f"{name}.weight", g.normal(k, n) * 0.6)], name)


@case("MatMul of rank 2 without a bias: the fold needs a new Add.")
def matmul_rank2(g):
    g.output(g.bn(matmul(g, g.feed("x", ["N", 3]), 3, 4), 4))
    g.folded("bn", "matmul")


@case("MatMul and an Add of a constant bias.")
def matmul_add(g):
    y = matmul(g, g.feed("x", ["N", 3]), 3, 4)
    y = g.node("Add", [y, g.const("fc.bias", g.normal(4))], "add")
    g.output(g.bn(y, 4))
    g.folded("bn", "matmul", may=["add"])


@case("The same with the constant as the Add's first operand.")
def add_matmul_constant_first(g):
    y = matmul(g, g.feed("x", ["N", 3]), 3, 4)
    y = g.node("Add", [g.const("fc.bias", g.normal(4)), y], "add")
    g.output(g.bn(y, 4))
    g.folded("bn", "matmul", may=["add"])


@case("W @ x of rank 3: the channel is the row of W.")
def matmul_constant_left(g):
    x = g.feed("x", ["N", 3, 5])
    g.output(g.bn(g.node("MatMul", [g.const("w", g.normal(4, 3)), x], "matmul"), 4))
    g.folded("bn", "matmul")


@case("W @ x of rank 2: axis 1 of the result comes from x, equal sizes prove nothing.")
def matmul_constant_left_rank2(g):
    x = g.feed("x", [3, 4])
    g.output(g.bn(g.node("MatMul", [g.const("w", g.normal(4, 3)), x], "matmul"), 4))
    g.kept("bn", "channel-axis", "no-absorber")


@case("W @ x of rank 4: axis 1 is a batch axis of the product.")
def matmul_constant_left_rank4(g):
    x = g.feed("x", ["N", 4, 3, 5])
    g.output(g.bn(g.node("MatMul", [g.const("w", g.normal(4, 3)), x], "matmul"), 4))
    g.kept("bn", "channel-axis", "no-absorber")


@case("MatMul of rank 3 whose features a Transpose brings to axis 1.")
def matmul_rank3_transpose(g):
    y = matmul(g, g.feed("x", ["N", 5, 3]), 3, 4)
    y = g.node("Transpose", [y], "transpose", perm=[0, 2, 1])
    g.output(g.bn(y, 4))
    g.folded("bn", "matmul")


@case("The same with a bias Add before the Transpose.")
def matmul_rank3_add_transpose(g):
    y = matmul(g, g.feed("x", ["N", 4, 3]), 3, 4)
    y = g.node("Add", [y, g.const("fc.bias", g.normal(4))], "add")
    y = g.node("Transpose", [y], "transpose", perm=[0, 2, 1])
    g.output(g.bn(y, 4))
    g.folded("bn", "matmul", may=["add"])


@case("MatMul of rank 3 without a Transpose: axis 1 is the sequence though its size is the feature count.")
def matmul_rank3_sizes_coincide(g):
    g.output(g.bn(matmul(g, g.feed("x", ["N", 4, 3]), 3, 4), 4))
    g.kept("bn", "channel-axis")


@case("MatMul of two activations has no constant to change.")
def matmul_no_constant(g):
    y = g.node("MatMul", [g.feed("a", ["N", 3]), g.feed("b", [3, 4])], "matmul")
    g.output(g.bn(y, 4))
    g.kept("bn", "weight-not-constant", "no-absorber")


# --- Mul, Add, Sub, Div by constants -------------------------------------------------------------------------------------

# name: (about, [(op, shape of the constant, constant is the first operand)], affines that disappear)
AFFINES = {
    "mul_add_1c11": (
        "Conv, then Mul and Add of [1,C,1,1] constants.",
        [("Mul", (1, 4, 1, 1), False), ("Add", (1, 4, 1, 1), False)],
        2,
    ),
    "mul_add_c11": ("Conv, then Mul and Add of [C,1,1] constants.", [("Mul", (4, 1, 1), False), ("Add", (4, 1, 1), False)], 2),
    "sub_div_mul_add": (
        "Conv, then a normalisation spelled out as Sub, Div, Mul, Add.",
        [(op, (1, 4, 1, 1), False) for op in ("Sub", "Div", "Mul", "Add")],
        4,
    ),
    "mul_scalar": ("Conv, then Mul and Add of scalars.", [("Mul", (), False), ("Add", (1,), False)], 2),
    "constant_minus_x": ("c - x is s = -1, t = c.", [("Sub", (4, 1, 1), True)], 1),
    "constant_first": (
        "The constant as the first operand of Mul and Add.",
        [("Mul", (4, 1, 1), True), ("Add", (1, 4, 1, 1), True)],
        2,
    ),
    "constant_over_x": ("c / x is no affine.", [("Div", (4, 1, 1), True)], 0),
    "mul_width_wise": ("[C] against NCHW touches W, even when W = C.", [("Mul", (4,), False)], 0),
    "add_height_wise": ("[H,1] against NCHW touches H, even when H = C.", [("Add", (4, 1), False)], 0),
    "mul_rank5_constant": (
        "A constant of higher rank than the value gives a value of higher rank.",
        [("Mul", (1, 1, 4, 1, 1), False)],
        0,
    ),
}


def register_affines():
    for name, (about, steps, count) in AFFINES.items():

        def fill(g, steps=steps, count=count):
            y = g.conv(g.feed("x", ["N", 3, 4, 4]), 3, 4, (1, 1), bias=g.const("conv.bias", np.full(4, 9.0)), scale=0.3)
            for i, (op, shape, first) in enumerate(steps):
                c = g.const(f"c{i}", g.rng.uniform(0.5, 2.0, shape) * np.where(g.normal(*shape) > 0, 1, -1))
                y = g.node(op, [c, y] if first else [y, c], f"{op.lower()}{i}")
            g.output(y)
            g.affines(count)

        case(about, name=f"affine_{name}")(fill)


register_affines()


@case("Conv, width-wise Mul, BatchNorm: the shift cannot pass a Mul that differs along W.")
def affine_mul_width_wise_bn(g):
    y = g.conv(g.feed("x", ["N", 3, 4, 4]), 3, 4, (1, 1))
    y = g.node("Mul", [y, g.const("c", g.normal(4))], "mul")
    g.output(g.bn(y, 4))
    g.kept("bn", "broadcast", "channel-axis", "no-absorber")
    g.affines(0)


@case("x / c with a zero in c: not finite, not folded.")
def affine_div_by_zero(g):
    y = g.conv(g.feed("x", ["N", 3, 4, 4]), 3, 4, (1, 1))
    g.output(g.node("Div", [y, g.const("c", np.array([1.0, 0.0, 2.0, -1.0]).reshape(4, 1, 1))], "div"))
    g.affines(0)


@case("A [3,1,1] constant widens a 1-channel value to three channels: not an affine of the Conv.")
def affine_widens_channels(g):
    y = g.conv(g.feed("x", ["N", 3, 4, 4]), 3, 1, (1, 1))
    g.output(g.node("Mul", [y, g.const("c", g.normal(3, 1, 1))], "mul"))
    g.affines(0)


@case("Gemm, Mul and Add of [N] constants: on rank 2 the last axis is the channel.")
def affine_gemm(g):
    y = gemm(g, g.feed("x", ["N", 3]), 3, 4, transB=1)
    y = g.node("Mul", [y, g.const("scale", g.normal(4))], "mul")
    g.output(g.node("Add", [y, g.const("shift", g.normal(1, 4))], "add"))
    g.affines(2)


@case("Conv, Mul by the very tensor that the Conv has as its bias: copied on write.")
def affine_constant_is_bias(g):
    shared = g.const("shared", g.normal(1))
    y = g.conv(g.feed("x", ["N", 3, 4, 4]), 3, 1, (1, 1), bias=shared)
    g.output(g.node("Mul", [y, shared], "mul"))
    g.affines(1)


@case("Conv, Add of a constant, BatchNorm: all three become one Conv.")
def conv_add_bn(g):
    y = g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4, bias=False)
    y = g.node("Add", [y, g.const("c", g.normal(1, 4, 1, 1))], "add")
    g.output(g.bn(y, 4))
    g.folded("bn", "conv", may=["add"])
    g.affines(1)


@case("Conv, BatchNorm, then Mul and Add of constants: four nodes become one.")
def conv_bn_mul_add(g):
    y = g.bn(g.conv(g.feed("x", ["N", 3, 5, 5]), 3, 4, bias=False), 4)
    y = g.node("Mul", [y, g.const("scale", g.normal(4, 1, 1))], "mul")
    g.output(g.node("Add", [y, g.const("shift", g.normal(4, 1, 1))], "add"))
    g.folded("bn", "conv", may=["mul", "add"])
    g.affines(2)


# --- forwards ------------------------------------------------------------------------------------------------------------

# name: (about, kernel, spatial size, shift, refusal or None, options)
FORWARD = {
    "bn_conv_pads0": ("BN, Conv without pads: scale and shift fold forwards.", (3, 3), (6, 6), True, None, {}),
    "bn_conv_no_bias": ("The same without a bias: the fold adds one.", (3, 3), (6, 6), True, None, {"bias": False}),
    "bn_conv_strided": (
        "BN, strided dilated Conv without pads.",
        (2, 2),
        (7, 7),
        True,
        None,
        {"strides": [2, 2], "dilations": [2, 2]},
    ),
    "bn_conv_padded_no_shift": ("BN with t = 0, padded Conv: folds.", (3, 3), (5, 5), False, None, {"pads": [1, 1, 1, 1]}),
    "bn_conv_padded_shift": (
        "BN with t != 0, padded Conv: the border would see t.",
        (3, 3),
        (5, 5),
        True,
        "padded-shift",
        {"pads": [1, 1, 1, 1]},
    ),
    "bn_conv_one_pad": ("One pad on one side is enough to refuse.", (3, 3), (5, 5), True, "padded-shift", {"pads": [0, 0, 0, 1]}),
    "bn_conv_1x1_padded": (
        "A padded 1x1 Conv: the border sees only zeros, not t.",
        (1, 1),
        (4, 4),
        True,
        "padded-shift",
        {"pads": [1, 1, 1, 1]},
    ),
    "bn_conv_valid": ("BN, Conv with auto_pad VALID.", (3, 3), (6, 6), True, None, {"auto_pad": "VALID"}),
    "bn_conv_same_1x1": (
        "BN, 1x1 Conv with SAME_UPPER: resolves to no pads.",
        (1, 1),
        (5, 5),
        True,
        None,
        {"auto_pad": "SAME_UPPER"},
    ),
    "bn_conv_same_3x3": (
        "BN with t != 0, 3x3 Conv with SAME_UPPER: resolves to pads.",
        (3, 3),
        (5, 5),
        True,
        "padded-shift",
        {"auto_pad": "SAME_UPPER"},
    ),
    "bn_conv_grouped": ("BN, Conv with two groups without pads.", (3, 3), (5, 5), True, None, {"group": 2}),
    "bn_conv_depthwise": ("BN, depthwise Conv without pads.", (3, 3), (5, 5), True, None, {"group": 4, "bias": False}),
    "bn_deconv_1x1": (
        "BN, 1x1 ConvTranspose: every output gets its one tap.",
        (1, 1),
        (4, 4),
        True,
        None,
        {"op": "ConvTranspose"},
    ),
    "bn_deconv_stride2_shift": (
        "BN with t != 0, ConvTranspose k = 2, stride 2: no output gets every tap.",
        (2, 2),
        (4, 4),
        True,
        "transposed-border",
        {"op": "ConvTranspose", "strides": [2, 2]},
    ),
    "bn_deconv_stride2_no_shift": (
        "BN with t = 0, ConvTranspose k = 2, stride 2: the scale folds.",
        (2, 2),
        (4, 4),
        False,
        None,
        {"op": "ConvTranspose", "strides": [2, 2]},
    ),
    "bn_deconv_border": (
        "BN with t != 0, stride-1 ConvTranspose without pads: the border gets fewer taps.",
        (3, 3),
        (4, 4),
        True,
        "transposed-border",
        {"op": "ConvTranspose"},
    ),
    "bn_deconv_cropped": (
        "BN with t != 0, stride-1 ConvTranspose whose pads crop the border off: folds.",
        (3, 3),
        (6, 6),
        True,
        None,
        {"op": "ConvTranspose", "pads": [2, 2, 2, 2]},
    ),
    "bn_deconv_grouped": (
        "BN with t = 0, ConvTranspose with two groups.",
        (3, 3),
        (4, 4),
        False,
        None,
        {"op": "ConvTranspose", "group": 2},
    ),
}


def register_forward():
    for name, (about, kernel, size, shift, refusal, options) in FORWARD.items():

        def fill(g, kernel=kernel, size=size, shift=shift, refusal=refusal, options=options):
            y = g.bn(g.feed("x", ["N", 4, *size]), 4, shift=shift)
            g.output(g.conv(y, 4, 4, kernel, **options))
            if refusal:
                g.kept("bn", refusal)
            else:
                g.folded("bn", "conv")

        case(about, name=name)(fill)


register_forward()


def register_bn_gemm():
    forms = {
        "trans_b0": {},
        "trans_b1": {"transB": 1},
        "alpha_beta": {"transB": 1, "alpha": 0.5, "beta": 2.0},
        "c_absent": {"alpha": 2.0, "c_shape": None},
        "c_m_1": {"c_shape": (2, 1)},
    }
    for suffix, options in forms.items():

        def fill(g, options=options):
            g.output(gemm(g, g.bn(g.feed("x", [2, 3]), 3), 3, 4, **options))
            g.folded("bn", "fc")

        case(f"BN, Gemm, forwards ({suffix}).", name=f"bn_gemm_{suffix}")(fill)


register_bn_gemm()


@case("BN, Gemm with transA = 1: the channel is not the contracted axis, though the sizes agree.")
def bn_gemm_trans_a1(g):
    g.output(gemm(g, g.bn(g.feed("x", [3, 3]), 3), 3, 4, transA=1))
    g.kept("bn", "channel-axis", "no-absorber")


@case("BN, MatMul of rank 2: the shift needs a new Add.")
def bn_matmul_rank2(g):
    g.output(matmul(g, g.bn(g.feed("x", ["N", 3]), 3), 3, 4))
    g.folded("bn", "matmul")


@case("BN, MatMul, Add of a bias.")
def bn_matmul_add(g):
    y = matmul(g, g.bn(g.feed("x", ["N", 3]), 3), 3, 4)
    g.output(g.node("Add", [y, g.const("fc.bias", g.normal(4))], "add"))
    g.folded("bn", "matmul", may=["add"])


@case("BN, MatMul of rank 3: the channel is not the contracted axis, though the sizes agree.")
def bn_matmul_rank3(g):
    g.output(matmul(g, g.bn(g.feed("x", ["N", 3, 3]), 3), 3, 4))
    g.kept("bn", "channel-axis")


@case("BN, Transpose, MatMul of rank 3: the Transpose brings the channel to the contracted axis.")
def bn_transpose_matmul(g):
    y = g.node("Transpose", [g.bn(g.feed("x", ["N", 3, 5]), 3)], "transpose", perm=[0, 2, 1])
    g.output(matmul(g, y, 3, 4))
    g.folded("bn", "matmul")


@case("BN, Flatten, Gemm: each channel's affine repeats H*W times, channel-major.")
def bn_flatten_gemm(g):
    y = g.node("Flatten", [g.bn(g.feed("x", ["N", 3, 2, 2]), 3)], "flatten")
    g.output(gemm(g, y, 12, 4, transB=1))
    g.folded("bn", "fc")


@case("BN, Relu, Conv: nothing absorbs forwards past a Relu, nothing is there backwards.")
def bn_relu_conv(g):
    y = g.node("Relu", [g.bn(g.feed("x", ["N", 3, 5, 5]), 3)], "relu")
    g.output(g.conv(y, 3, 4))
    g.kept("bn", "no-absorber", "nonzero-shift", "graph-input")
