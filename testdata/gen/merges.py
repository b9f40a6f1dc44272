"""Branches that are added: with --merge-branches they become one Conv, or must not."""

import numpy as np

from .build import BF16, F16, F64, case
from .scopes import branches, flag

FLAGS = ["--merge-branches"]


def image(g, channels=4, size=6):
    return g.feed("x", ["N", channels, size, size])


def expect(g, merges, convs, *codes):
    """How many merges, how many Convs in the output, the codes of what must not be merged."""
    g.extra.update(merges=merges, convs_left=convs)
    if codes:
        g.extra["merge_codes"] = sorted(codes)


def merged(g, node, into):
    g.sites.append({"node": node, "decision": "merged", "into": [into]})


def add(g, *terms, name="add", op="Add"):
    return g.node(op, list(terms), name)


def conv_bn(g, x, cin, cout, kernel, prefix, **options):
    y = g.conv(x, cin, cout, kernel, f"{prefix}/conv", bias=options.pop("bias", False), **options)
    g.folded(f"{prefix}/bn", f"{prefix}/conv")
    return g.bn(y, cout, f"{prefix}/bn")


def rep_vgg(g, x, cin, cout, prefix, stride=None, group=1):
    """The block of RepVGG: 3x3, 1x1 and, where the shape stays, a BatchNorm."""
    strides = stride and [stride, stride]
    y = conv_bn(g, x, cin, cout, (1, 1), f"{prefix}/point", strides=strides, group=group)
    z = conv_bn(g, x, cin, cout, (3, 3), f"{prefix}/square", strides=strides, group=group, pads=[1, 1, 1, 1])
    y = add(g, y, z, name=f"{prefix}/add")
    if cin == cout and not stride:
        y = add(g, y, g.bn(x, cin, f"{prefix}/identity"), name=f"{prefix}/add_1")
        merged(g, f"{prefix}/identity", f"{prefix}/square/conv")
    return g.node("Relu", [y], f"{prefix}/relu")


@case("A tiny RepVGG: three blocks become three Convs.", flags=FLAGS)
def merge_rep_vgg(g):
    y = rep_vgg(g, g.feed("x", ["N", 3, 8, 8]), 3, 4, "stem", stride=2)
    y = rep_vgg(g, y, 4, 4, "one")
    y = rep_vgg(g, y, 4, 4, "two", group=2)
    g.output(y)
    expect(g, 3, 3)


@case("A tiny MobileOne: depthwise branches k x k three times, 1 x 1, BN; then pointwise ones, BN; + 0 as PyTorch's sum writes it.", flags=FLAGS)
def merge_mobile_one(g):
    y = image(g)
    for name, kernel, group in (("depth", (3, 3), 4), ("point", (1, 1), 1)):
        pads = [k // 2 for k in kernel] * 2
        total = conv_bn(g, y, 4, 4, (1, 1), f"{name}/scale", group=group)
        total = add(g, g.bn(y, 4, f"{name}/identity"), total, name=f"{name}/add")
        for branch in range(3):
            term = conv_bn(g, y, 4, 4, kernel, f"{name}/{branch}", group=group, pads=pads)
            total = add(g, total, term, name=f"{name}/add_{branch}")
        total = add(g, total, g.const(f"{name}/zero", np.zeros((), np.float32)), name=f"{name}/plus_zero")
        merged(g, f"{name}/identity", "depth/0/conv" if name == "depth" else "point/scale/conv")
        y = g.node("Relu", [total], f"{name}/relu")
    g.output(y)
    expect(g, 2, 2)


@case("1 x 1 and 3 x 3 in a Sum with an identity, biases, no BN.", flags=FLAGS)
def merge_sum(g):
    x = image(g)
    g.output(add(g, g.conv(x, 4, 4, (1, 1), "a"), x, g.conv(x, 4, 4, (3, 3), "b", pads=[1, 1, 1, 1], bias=False), op="Sum"))
    expect(g, 1, 1)


@case("A Sum with another term: that one stays in it.", flags=FLAGS)
def merge_sum_partly(g):
    x = image(g)
    a = g.conv(x, 4, 4, (1, 1), "a")
    b = g.conv(x, 4, 4, (3, 3), "b", pads=[1, 1, 1, 1])
    g.output(add(g, a, g.node("Sigmoid", [x], "gate"), b, op="Sum"))
    expect(g, 1, 1)


@case("(a + gate) + b: the inner Add goes, the outer one adds what is left.", flags=FLAGS)
def merge_tree_partly(g):
    x = image(g)
    a = g.conv(x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1])
    inner = add(g, a, g.node("Sigmoid", [x], "gate"), name="inner")
    g.output(add(g, inner, g.conv(x, 4, 4, (1, 1), "b")))
    expect(g, 1, 1)


@case("(a + b) + gate, and the other way round: a larger kernel comes after the inner Add of the smaller ones.", flags=FLAGS)
def merge_tree_late(g):
    x = image(g)
    first = add(g, g.conv(x, 4, 4, (1, 1), "a"), g.node("Sigmoid", [x], "gate"), name="first")
    second = add(g, first, g.node("Sqrt", [g.node("Relu", [x], "relu")], "sqrt"), name="second")
    late = add(g, g.conv(x, 4, 4, (3, 3), "b", pads=[1, 1, 1, 1]), g.node("Neg", [x], "neg"), name="late")
    g.output(add(g, second, late))
    expect(g, 1, 1)


@case("(a + gate) + (b + BN): the second Add goes as a whole, so the first one takes the place of the outer.", flags=FLAGS)
def merge_tree_half(g):
    x = image(g)
    first = add(g, g.conv(x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1]), g.node("Sigmoid", [x], "gate"), name="first")
    second = add(g, g.conv(x, 4, 4, (1, 1), "b"), g.bn(x, 4), name="second")
    g.output(add(g, first, second))
    merged(g, "bn", "a")
    expect(g, 1, 1)


@case("Two identities and a Conv: both go onto the diagonal.", flags=FLAGS)
def merge_two_identities(g):
    x = image(g)
    y = add(g, g.conv(x, 4, 4, pads=[1, 1, 1, 1]), x, name="skip")
    g.output(add(g, y, g.bn(x, 4)))
    merged(g, "bn", "conv")
    expect(g, 1, 1)


@case("Two identities without a Conv: nothing to merge into.", flags=FLAGS)
def merge_no_conv(g):
    x = image(g)
    g.output(add(g, g.bn(x, 4, "bn"), g.bn(x, 4, "bn_1")))
    g.kept("bn", "graph-input", "shared-output", "no-absorber")
    g.kept("bn_1", "graph-input", "shared-output", "no-absorber")
    expect(g, 0, 0)


@case("An identity beside a Conv with three groups of two: the diagonal lies in each group.", flags=FLAGS)
def merge_identity_groups(g):
    x = image(g, 6)
    g.output(add(g, g.conv(x, 6, 6, group=3, pads=[1, 1, 1, 1]), g.bn(x, 6)))
    merged(g, "bn", "conv")
    expect(g, 1, 1)


@case("An identity beside a Conv with one output: the Add broadcasts it.", flags=FLAGS)
def merge_broadcast(g):
    x = image(g)
    g.output(add(g, g.conv(x, 4, 1, pads=[1, 1, 1, 1]), g.bn(x, 4)))
    g.kept("bn", "graph-input", "shared-output", "no-absorber")
    expect(g, 0, 1, "merge-channels")


@case("5 x 3 and 3 x 1, padded more at one end: outputs are larger than the input, taps not in the middle.", flags=FLAGS)
def merge_odd_pads(g):
    x = image(g)
    a = g.conv(x, 4, 4, (5, 3), "a", pads=[3, 0, 3, 3])
    b = g.conv(x, 4, 4, (3, 1), "b", pads=[2, 0, 2, 1])
    g.output(add(g, a, b))
    expect(g, 1, 1)


@case("Even kernels, aligned by their pads.", flags=FLAGS)
def merge_even_kernels(g):
    x = image(g)
    a = g.conv(x, 4, 4, (4, 4), "a", pads=[1, 2, 2, 1])
    b = g.conv(x, 4, 4, (2, 2), "b", pads=[1, 0, 0, 1])
    g.output(add(g, a, b))
    expect(g, 1, 1)


def two_halves(g, x, **options):
    """Two 2 x 2 kernels, one of which looks one further to the left: together 2 x 3, which neither is."""
    a = g.conv(x, 4, 4, (2, 2), "a", pads=[0, 1, 1, 0], **options)
    return add(g, a, g.conv(x, 4, 4, (2, 2), "b", pads=[0, 0, 1, 1], **options))


@case("Two kernels whose union is larger than each, in IR 3, where weights are inputs with declared shapes.", opset=8, ir=3, flags=FLAGS)
def merge_union_ir3(g):
    g.output(two_halves(g, image(g)))
    expect(g, 1, 1)


@case("The same in the branches of an If, with weights in Constant nodes and as initializers.", flags=FLAGS)
def merge_union_bodies(g):
    x = image(g)
    flag(g)
    g.output(branches(g, lambda b: two_halves(b, x, form="node"), lambda b: two_halves(b, x)))
    expect(g, 2, 2)


@case("The weight of one branch is quantized.", flags=FLAGS)
def merge_quantized(g):
    x = image(g)
    w = g.const("w", g.rng.integers(-127, 128, (4, 4, 3, 3)).astype(np.int8))
    scale, zero = g.const("scale", np.float32(0.01)), g.const("zero", np.int8(0))
    a = g.conv(x, 4, 4, (3, 3), "a", pads=[1] * 4, weight=g.node("DequantizeLinear", [w, scale, zero], "dequantize"))
    g.output(add(g, a, g.conv(x, 4, 4, (1, 1), "b")))
    expect(g, 0, 2, "merge-quantised")


@case("A 3 x 3 without pads beside one with: another size, and the Add would broadcast a size of 1.", flags=FLAGS)
def merge_pads_differ(g):
    x = image(g, size=3)
    a = g.conv(x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1])
    g.output(add(g, a, g.conv(x, 4, 4, (3, 3), "b")))
    expect(g, 0, 2, "merge-pads")


@case("A 1 x 2 branch that looks to the left: it lies in the kernel, but not in its middle.", flags=FLAGS)
def merge_pads_shifted(g):
    x = image(g)
    a = g.conv(x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1])
    g.output(add(g, a, g.conv(x, 4, 4, (1, 2), "b", pads=[0, 1, 0, 0])))
    expect(g, 1, 1)


@case("Different strides that give the same size, 1, for this input.", flags=FLAGS)
def merge_strides_differ(g):
    x = g.feed("x", ["N", 4, 2, 2])
    a = g.conv(x, 4, 4, (2, 2), "a", strides=[2, 2])
    g.output(add(g, a, g.conv(x, 4, 4, (2, 2), "b", strides=[1, 1])))
    expect(g, 0, 2, "merge-strides")


@case("Stride 2 and SAME: the branches see other positions, the size is known.", flags=FLAGS)
def merge_same_stride(g):
    x = g.feed("x", ["N", 4, 8, 8])
    strides = {"strides": [2, 2]}
    a = conv_bn(g, x, 4, 4, (3, 3), "a", auto_pad="SAME_UPPER", **strides)
    g.output(add(g, a, conv_bn(g, x, 4, 4, (1, 1), "b", auto_pad="SAME_UPPER", **strides)))
    expect(g, 1, 1)


@case("Stride 2 and SAME, but the size is not known.", flags=FLAGS)
def merge_same_unknown(g):
    x = g.feed("x", ["N", 4, "H", "W"], value=g.normal(2, 4, 8, 8))
    strides = {"strides": [2, 2]}
    a = g.conv(x, 4, 4, (3, 3), "a", auto_pad="SAME_UPPER", **strides)
    g.output(add(g, a, g.conv(x, 4, 4, (1, 1), "b", auto_pad="SAME_UPPER", **strides)))
    expect(g, 0, 2, "merge-pads")


@case("SAME_UPPER and SAME_LOWER of an even kernel: one is shifted against the other.", flags=FLAGS)
def merge_same_lower(g):
    x = image(g)
    a = g.conv(x, 4, 4, (4, 4), "a", auto_pad="SAME_UPPER")
    b = g.conv(x, 4, 4, (2, 2), "b", auto_pad="SAME_LOWER")
    g.output(add(g, a, add(g, b, x, name="inner")))
    expect(g, 1, 1)


@case("The same dilation, and a 1 x 1 whose own does not matter.", flags=FLAGS)
def merge_dilated(g):
    x = image(g)
    a = g.conv(x, 4, 4, (3, 3), "a", dilations=[2, 2], pads=[2, 2, 2, 2])
    g.output(add(g, add(g, a, g.conv(x, 4, 4, (1, 1), "b", dilations=[3, 1]), name="inner"), x))
    expect(g, 1, 1)


@case("Different dilations.", flags=FLAGS)
def merge_dilations_differ(g):
    x = image(g)
    a = g.conv(x, 4, 4, (3, 3), "a", dilations=[2, 2], pads=[2, 2, 2, 2])
    g.output(add(g, a, g.conv(x, 4, 4, (3, 3), "b", pads=[1, 1, 1, 1])))
    expect(g, 0, 2, "merge-dilations")


@case("Depthwise beside dense.", flags=FLAGS)
def merge_groups_differ(g):
    x = image(g)
    a = g.conv(x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1], group=4)
    g.output(add(g, a, g.conv(x, 4, 4, (1, 1), "b")))
    expect(g, 0, 2, "merge-groups")


@case("1 x 3 beside 3 x 1: one kernel would have nine taps for six. With a 3 x 3 it is for free.", flags=FLAGS)
def merge_cross(g):
    x = image(g)
    a = g.conv(x, 4, 4, (1, 3), "a", pads=[0, 1, 0, 1])
    b = g.conv(x, 4, 4, (3, 1), "b", pads=[1, 0, 1, 0])
    y = g.node("Relu", [add(g, a, b)], "relu")
    c = g.conv(y, 4, 4, (1, 3), "c", pads=[0, 1, 0, 1])
    d = g.conv(y, 4, 4, (3, 1), "d", pads=[1, 0, 1, 0])
    e = g.conv(y, 4, 4, (3, 3), "e", pads=[1, 1, 1, 1])
    g.output(add(g, add(g, c, d, name="inner"), e, name="outer"))
    expect(g, 1, 3, "merge-cost")


@case("The 1 x 1 branch has another reader: it stays, the identity goes.", flags=FLAGS)
def merge_shared_branch(g):
    x = image(g)
    a = g.conv(x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1])
    b = g.conv(x, 4, 4, (1, 1), "b")
    g.output(add(g, add(g, a, b, name="inner"), g.bn(x, 4)), g.node("Sigmoid", [b], "aside"))
    merged(g, "bn", "a")
    expect(g, 1, 2, "shared-output")


@case("The inner sum is a graph output: it must stay what it is.", flags=FLAGS)
def merge_inner_output(g):
    x = image(g)
    a = g.conv(x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1])
    inner = add(g, a, g.conv(x, 4, 4, (1, 1), "b"), name="inner")
    g.output(inner, add(g, inner, g.bn(x, 4)))
    g.kept("bn", "graph-input", "shared-output", "no-absorber")
    expect(g, 1, 1, "graph-output")


@case("A PRelu between a branch and the Add.", flags=FLAGS)
def merge_prelu_between(g):
    x = image(g)
    a = g.conv(x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1])
    y = g.node("PRelu", [g.conv(x, 4, 4, (1, 1), "b"), g.const("slope", np.full((4, 1, 1), 0.25))], "prelu")
    g.output(add(g, a, y))
    expect(g, 0, 2)


@case("A MatMul among the terms, which gets an Add of its own for the shift of its BN.", flags=FLAGS)
def merge_beside_matmul(g):
    x = g.feed("x", ["N", 4, 9])
    z = g.bn(g.node("MatMul", [g.const("left", g.normal(4, 4)), x], "matmul"), 4)
    y = add(g, g.conv(x, 4, 4, (3,), "a", pads=[1, 1]), z, name="inner")
    g.output(add(g, y, g.conv(x, 4, 4, (1,), "b")))
    g.folded("bn", "matmul")
    expect(g, 1, 1)


@case("Branches of different values: no branches at all.", flags=FLAGS)
def merge_other_input(g):
    x = image(g)
    y = g.node("Relu", [x], "relu")
    g.output(add(g, g.conv(x, 4, 4, (1, 1), "a"), g.conv(y, 4, 4, (1, 1), "b")))
    expect(g, 0, 2)


@case("Weights that both blocks share: each Conv gets its own.", flags=FLAGS)
def merge_shared_weights(g):
    y = image(g)
    w, v = g.const("w", g.normal(4, 4, 3, 3) * 0.3), g.const("v", g.normal(4, 4, 1, 1) * 0.3)
    for name in ("one", "two"):
        a = g.conv(y, 4, 4, (3, 3), f"{name}/a", weight=w, bias=False, pads=[1, 1, 1, 1])
        b = g.conv(y, 4, 4, (1, 1), f"{name}/b", weight=v, bias=f"{name}/b.bias" if g.const(f"{name}/b.bias", g.normal(4)) else "")
        y = g.node("Relu", [add(g, a, b, name=f"{name}/add")], f"{name}/relu")
    g.output(y)
    expect(g, 2, 2)


@case("A BN behind the sum of branches: it goes into the Conv that they became.", flags=FLAGS)
def merge_then_fold(g):
    x = image(g)
    a = conv_bn(g, x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1])
    y = add(g, a, conv_bn(g, x, 4, 4, (1, 1), "b"))
    g.output(g.bn(y, 4, "last"))
    g.folded("last", "a/conv")
    expect(g, 1, 1)


@case("Sums of sums: the first merge makes the branch of another.", flags=FLAGS)
def merge_nested(g):
    x = image(g)
    a = g.conv(x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1])
    y = g.bn(add(g, a, g.conv(x, 4, 4, (1, 1), "b"), name="inner"), 4, "between")
    g.output(add(g, y, g.bn(x, 4, "identity")))
    g.folded("between", "a")
    merged(g, "identity", "a")
    expect(g, 2, 1)


@case("One axis.", flags=FLAGS)
def merge_one_axis(g):
    x = g.feed("x", ["N", 4, 9])
    a = g.conv(x, 4, 4, (5,), "a", pads=[2, 2], group=4)
    g.output(add(g, add(g, a, g.conv(x, 4, 4, (1,), "b", group=4), name="inner"), g.bn(x, 4)))
    merged(g, "bn", "a")
    expect(g, 1, 1)


@case("Three axes.", flags=FLAGS)
def merge_three_axes(g):
    x = g.feed("x", ["N", 2, 4, 5, 3])
    a = g.conv(x, 2, 2, (3, 3, 3), "a", pads=[1] * 6)
    b = g.conv(x, 2, 2, (1, 3, 1), "b", pads=[0, 1, 0, 0, 1, 0])
    g.output(add(g, add(g, a, b, name="inner"), g.bn(x, 2)))
    merged(g, "bn", "a")
    expect(g, 1, 1)


def of_type(g):
    x = image(g)
    a = conv_bn(g, x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1])
    g.output(add(g, add(g, a, conv_bn(g, x, 4, 4, (1, 1), "b"), name="inner"), g.bn(x, 4)))
    merged(g, "bn", "a/conv")
    expect(g, 1, 1)


for key, elem_type, opset in (("f16", F16, 17), ("bf16", BF16, 22), ("f64", F64, 17)):
    case(f"The block of RepVGG in {key}.", name=f"merge_{key}", flags=FLAGS, dtype=elem_type, opset=opset)(of_type)


@case("Without the option nothing is merged.")
def merge_not_asked(g):
    x = image(g)
    a = conv_bn(g, x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1])
    g.output(add(g, a, g.bn(x, 4)))
    g.kept("bn", "graph-input", "shared-output", "no-absorber")
    expect(g, 0, 1)


@case("An identity BN that is skipped stays, the rest is merged.", flags=[*FLAGS, "--skip", "*identity"])
def merge_skipped(g):
    x = image(g)
    a = conv_bn(g, x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1])
    y = add(g, a, conv_bn(g, x, 4, 4, (1, 1), "b"), name="inner")
    g.output(add(g, y, g.bn(x, 4, "identity")))
    g.sites.append({"node": "identity", "decision": "skipped"})
    g.left = 1
    expect(g, 1, 1)


@case("1 x 1 to fewer or as many channels, then 3 x 3 without pads: one 3 x 3, biases included.", flags=FLAGS)
def merge_sequence(g):
    x = g.feed("x", ["N", 2, 6, 6])
    y = conv_bn(g, x, 2, 8, (1, 1), "a")
    g.output(g.conv(y, 8, 4, (3, 3), "b", strides=[2, 2], dilations=[1, 2]))
    expect(g, 1, 1)


@case("The same in groups.", flags=FLAGS)
def merge_sequence_groups(g):
    x = g.feed("x", ["N", 4, 6, 6])
    y = g.conv(x, 4, 12, (1, 1), "a", group=2)
    g.output(g.conv(y, 12, 6, (3, 3), "b", group=2))
    expect(g, 1, 1)


@case("1 x 1, then a padded 3 x 3: at the border the second sees 0, not the bias.", flags=FLAGS)
def merge_sequence_padded(g):
    x = g.feed("x", ["N", 2, 6, 6])
    g.output(g.conv(g.conv(x, 2, 8, (1, 1), "a"), 8, 4, (3, 3), "b", pads=[1, 1, 1, 1]))
    expect(g, 0, 2, "merge-pads")


@case("A bottleneck: one weight would be larger than both.", flags=FLAGS)
def merge_sequence_bottleneck(g):
    x = g.feed("x", ["N", 8, 6, 6])
    g.output(g.conv(g.conv(x, 8, 2, (1, 1), "a"), 2, 8, (1, 1), "b"))
    expect(g, 0, 2, "merge-cost")


@case("The value between two Convs is read elsewhere, too.", flags=FLAGS)
def merge_sequence_shared(g):
    x = g.feed("x", ["N", 2, 6, 6])
    y = g.conv(x, 2, 8, (1, 1), "a")
    g.output(g.conv(y, 8, 4, (3, 3), "b"), g.node("Relu", [y], "aside"))
    expect(g, 0, 2)


@case("A 1 x 1 with a stride before a 3 x 3.", flags=FLAGS)
def merge_sequence_strided(g):
    x = g.feed("x", ["N", 2, 9, 9])
    g.output(g.conv(g.conv(x, 2, 8, (1, 1), "a", strides=[2, 2]), 8, 4, (3, 3), "b"))
    expect(g, 0, 2, "merge-strides")


@case("Branches become a 1 x 1, which goes into the Conv behind it.", flags=FLAGS)
def merge_branches_then_sequence(g):
    x = g.feed("x", ["N", 4, 6, 6])
    y = add(g, g.conv(x, 4, 4, (1, 1), "a"), x)
    g.output(g.conv(y, 4, 4, (3, 3), "b"))
    expect(g, 2, 1)


@case("Opset 6: an Add that broadcasts by an attribute is no sum of branches.", opset=6, flags=FLAGS)
def merge_opset6(g):
    x = image(g)
    a = g.conv(x, 4, 4, (3, 3), "a", pads=[1, 1, 1, 1])
    y = add(g, a, g.conv(x, 4, 4, (1, 1), "b"), name="inner")
    g.output(g.node("Add", [y, g.conv(x, 4, 4, (1, 1), "c")], "add", broadcast=1))
    expect(g, 1, 2)
