"""Files that mean harm: testdata/hostile, and what each command must say to them (expected.json).

python testdata/generate_hostile.py            (testdata/requirements.txt is enough; the same bytes every time)

Each file has one trap: it claims what it does not hold, nests without end, refers to itself, names what is not its own, or is
small and wants to become large. A case says how a file is read ("as") and the exit codes: one for all commands, or one for
each command that differs. The codes are written by hand, from the contract: 2 is "could not work", 1 "the answer is no", and
where a file is odd but right, the commands must do their work.
"""

import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

HERE = Path(__file__).resolve().parent / "hostile"
CASES = []

ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\n::error::owned\x9b1A\u202e"


def write(name, data, about, as_, code=2, words=(), folds=False, **codes):
    """One case. `codes`: commands whose exit code is another; `folds`: what becomes of the Conv of `base` is known."""
    if data is not None:
        (HERE / name).parent.mkdir(parents=True, exist_ok=True)
        (HERE / name).write_bytes(data)
    if as_ == "model" and code == 0:
        # The data is made up, so the statistics do not describe it.
        codes = {"validate": 1, **codes}
    own = {key.replace("_", "-"): value for key, value in codes.items()}
    case = {"file": name, "about": about, "as": as_, "code": code, "codes": own, "words": list(words)}
    if folds:
        case["folded"] = FOLDED
    CASES.append(case)


# --- protobuf by hand -------------------------------------------------------------------------------------------------


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


NO_RUN = dict(verify=2, run=2, validate=2, recalibrate=2)
"""The engine cannot run it, and says so."""


def field(number, payload, claimed=None):
    """A length-delimited field; `claimed` is what it says of its length."""
    return varint(number << 3 | 2) + varint(len(payload) if claimed is None else claimed) + payload


def number(at, value):
    return varint(at << 3) + varint(value & 0xFFFFFFFFFFFFFFFF)


HEADER = number(1, 8) + field(8, field(1, b"") + number(2, 17))


def model_of(graph, more=b"", claimed=None):
    return HEADER + more + field(7, graph, claimed)


# --- a small model that is fine ---------------------------------------------------------------------------------------


def tensor(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


PARAMETERS = {"gamma": [1.5, 2], "beta": [0.5, -1], "mean": [0.25, 1], "var": [4, 0.5]}


def folded():
    """Weight and bias of the Conv of `base` with the BatchNorm in it, by its definition."""
    p = {name: np.asarray(values, np.float64) for name, values in PARAMETERS.items()}
    scale = p["gamma"] / np.sqrt(p["var"] + np.float64(np.float32(1e-5)))
    weight = np.arange(1, 5).reshape(2, 2) * scale[:, None]
    bias = p["beta"] - p["mean"] * scale
    return {"weight": np.float32(weight).ravel().tolist(), "bias": np.float32(bias).tolist()}


FOLDED = folded()


def base():
    """Conv 1x1 (2 channels to 2) and BatchNorm, input x of 1x2x2x2."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["y"], "bn"),
    ]
    weights = [
        tensor("w", np.arange(1, 5).reshape(2, 2, 1, 1)),
        *(tensor(name, values) for name, values in PARAMETERS.items()),
    ]
    x = helper.make_tensor_value_info("x", T.FLOAT, [1, 2, 2, 2])
    y = helper.make_tensor_value_info("y", T.FLOAT, [1, 2, 2, 2])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="")


def changed(change):
    model = base()
    change(model.graph)
    return model.SerializeToString(deterministic=True)


def weights(graph, name):
    return next(t for t in graph.initializer if t.name == name)


def length_bombs():
    huge = 1 << 62
    write("length_graph.onnx", model_of(b"\x0a\x00", claimed=huge), "a graph of 2^62 bytes", "model")
    bomb = field(8, b"w") + number(1, 2) + number(2, 1) + field(9, b"\0" * 8, huge)
    write("length_raw.onnx", model_of(field(5, bomb)), "raw data of 2^62 bytes", "model")
    bomb = field(8, b"w", huge)
    write("length_name.onnx", model_of(field(5, bomb)), "a name of 2^62 bytes", "model")
    bomb = field(1, b"", huge)
    write("length_attribute.onnx", model_of(field(1, field(5, bomb))), "a node with an attribute of 2^62 bytes", "model")
    write("length_wraps.onnx", model_of(b"", claimed=(1 << 64) - 1), "a length that wraps around", "model")
    write("varint_endless.onnx", HEADER + b"\x3a" + b"\xff" * 64, "a varint without end", "model")

    def dims(values):
        def change(graph):
            del weights(graph, "w").dims[:]
            weights(graph, "w").dims.extend(values)

        return changed(change)

    write("dims_2_62.onnx", dims([1 << 31, 1 << 31]), "a weight that claims 2^62 elements", "model", words=['"w"'])
    write("dims_overflow.onnx", dims([1 << 62, 1 << 62, 4]), "a shape whose size overflows", "model", words=['"w"'])
    write("dims_overflow_to_0.onnx", dims([1 << 32, 1 << 32, 0]), "a shape that overflows before its 0", "model", words=['"w"'])
    write("dims_negative.onnx", dims([-2, -2, 1, 1]), "negative dimensions", "model", words=['"w"'])
    write("dims_many.onnx", dims([1] * 5000), "a weight of 5000 dimensions", "model", words=['"w"'])
    write("dims_zero.onnx", dims([0, 2, 1, 1]), "a Conv without channels, and bytes that no shape asks for", "model", words=['"w"'])


def depth_bombs():
    body = b""
    for _ in range(2000):
        body = field(1, field(4, b"If") + field(5, field(1, b"then_branch") + number(20, 5) + field(6, body)))
    write("depth_bodies.onnx", model_of(body), "2000 bodies, one in the other", "model", words=["deep"])
    kind = field(1, number(1, 1))
    for _ in range(5000):
        kind = field(4, field(1, kind))
    write("depth_type.onnx", model_of(field(11, field(1, b"x") + field(2, kind))), "a sequence of sequences of …", "model")
    write("depth_groups.onnx", HEADER + b"\xa3\x06" * 20000, "20000 groups, one in the other", "model")
    training = b""
    for _ in range(2000):
        training = field(1, field(5, field(6, training)))
    write(
        "depth_training.onnx",
        base().SerializeToString(deterministic=True) + field(20, field(1, training)),
        "training information, 2000 bodies deep, in a model that is fine",
        "model",
        code=0,
        fold=2,
        **NO_RUN,
    )
    write("depth_chain.onnx", chain(4000), "a weight behind 4000 Identity nodes", "model", code=0)


def chain(length):
    """As `base`, the weight behind nodes that change nothing: the recursion of whoever asks what a value is."""
    model = base()
    conv, bn = model.graph.node
    names = ["w"] + [f"i{i:x}" for i in range(length)]
    conv.input[1] = names[-1]
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in zip(names, names[1:])]
    del model.graph.node[:]
    model.graph.node.extend(nodes + [conv, bn])
    return model.SerializeToString(deterministic=True)


def function(name, calls, inputs=("a",), output="z"):
    nodes, last = [], inputs[0]
    for i, callee in enumerate(calls):
        made = output if i == len(calls) - 1 else f"t{i}"
        nodes.append(helper.make_node(callee, [last], [made], domain="f"))
        last = made
    return helper.make_function("f", name, list(inputs), [output], nodes, [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)])


def with_functions(functions, called):
    model = base()
    model.opset_import.append(helper.make_opsetid("f", 1))
    model.functions.extend(functions)
    model.graph.node[1].output[0] = "n"
    model.graph.node.append(helper.make_node(called, ["n"], ["y"], "call", domain="f"))
    return model.SerializeToString(deterministic=True)


def references():
    same = function("f", ["f"])
    write("function_itself.onnx", with_functions([same], "f"), "a function that calls itself", "model", code=0, **NO_RUN, folds=True)
    two = [function("f", ["g"]), function("g", ["f"])]
    write("functions_in_turn.onnx", with_functions(two, "f"), "two functions that call each other", "model", code=0, **NO_RUN, folds=True)
    doubling = [function(f"f{i}", [f"f{i + 1}"] * 2) for i in range(40)] + [
        helper.make_function("f", "f40", ["a"], ["z"], [helper.make_node("Relu", ["a"], ["z"])], [helper.make_opsetid("", 17)])
    ]
    write("functions_double.onnx", with_functions(doubling, "f0"), "40 functions, each calling the next twice: 2^40 nodes", "model", code=0, **NO_RUN, folds=True)

    def cycle(graph):
        graph.node[0].input[0] = "y"

    write("cycle.onnx", changed(cycle), "a Conv that reads what comes of it", "model", words=["conv"])

    def itself(graph):
        graph.node[0].input[0] = "c"

    write("cycle_itself.onnx", changed(itself), "a Conv that reads itself", "model", words=["conv"])

    def order(graph):
        conv = graph.node.pop(0)
        graph.node.append(conv)

    write("order.onnx", changed(order), "nodes before what they read: no cycle, so there is an order", "model", code=0, folds=True)

    def twice(graph):
        graph.node.append(helper.make_node("Relu", ["x"], ["c"], "again"))

    write("value_twice.onnx", changed(twice), "two nodes write one value", "model", words=['"c"'])

    def tensor_twice(graph):
        graph.initializer.append(tensor("w", np.ones((2, 2, 1, 1))))

    write("tensor_twice.onnx", changed(tensor_twice), "two tensors of one name", "model", words=['"w"'])

    def input_twice(graph):
        graph.input.append(graph.input[0])

    write("input_twice.onnx", changed(input_twice), "two inputs of one name", "model", words=['"x"'])

    def nodes_twice(graph):
        graph.node[0].name = graph.node[1].name = "same"

    write("node_names_twice.onnx", changed(nodes_twice), "two nodes of one name, which ONNX does not forbid", "model", code=0, folds=True)

    def output_unknown(graph):
        graph.output[0].name = "nowhere"

    write("output_unknown.onnx", changed(output_unknown), "an output that nothing writes", "model", words=['"nowhere"'])


def names():
    def everywhere(graph):
        graph.name = ESCAPES
        graph.doc_string = ESCAPES
        rename = {old: old + ESCAPES for old in ("x", "y", "c", "w", "gamma", "beta", "mean", "var")}
        for node in graph.node:
            node.name += ESCAPES
            node.doc_string = ESCAPES
            node.input[:] = [rename[name] for name in node.input]
            node.output[:] = [rename[name] for name in node.output]
        for thing in [*graph.initializer, *graph.input, *graph.output]:
            thing.name = rename[thing.name]

    model = onnx.ModelProto.FromString(changed(everywhere))
    model.producer_name = model.producer_version = model.domain = ESCAPES
    model.metadata_props.add(key=ESCAPES, value=ESCAPES)
    write("names_escapes.onnx", model.SerializeToString(deterministic=True), "terminal escapes in every name", "model", code=0, folds=True)

    def broken(graph):
        everywhere(graph)
        del graph.initializer[0]

    write("names_escapes_broken.onnx", changed(broken), "the same, and a tensor is missing", "model", words=["conv"])

    def operator(graph):
        graph.node.append(helper.make_node("Op" + ESCAPES, ["y"], ["z"], "n", domain=ESCAPES))

    write("names_escapes_operator.onnx", changed(operator), "an operator with a name of escapes", "model", code=0, **NO_RUN, folds=True)

    def long(graph):
        graph.node[1].name = "n" * 20_000

    write("names_long.onnx", changed(long), "a name of 20000 letters", "model", code=0, folds=True)

    def nul(graph):
        graph.node[1].name = "a\0b"

    write("names_nul.onnx", changed(nul), "a name with a NUL", "model", code=0, folds=True)
    broken_utf8 = changed(lambda graph: None).replace(b"gamma", b"g\xff\xfema")
    write("names_no_utf8.onnx", broken_utf8, "names that are no UTF-8", "model")


def external(location, offset="0", length=None):
    def change(graph):
        w = weights(graph, "w")
        w.ClearField("raw_data")
        w.data_location = T.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            if value is not None:
                w.external_data.add(key=key, value=value)

    return changed(change)


def externals():
    seen = dict(words=['"w"'], check=1, stats=0, tree=0)
    (HERE / "weights.bin").write_bytes(np.arange(1, 5, dtype=np.float32).tobytes())
    write("external_parent.onnx", external("../README.md", length="16"), "external data above the folder", "model", **seen)
    write("external_inner_parent.onnx", external("sub/../../README.md", length="16"), "external data above it, by a detour", "model", **seen)
    write("external_absolute.onnx", external("/etc/passwd", length="16"), "external data at an absolute path", "model", **seen)
    write("external_nul.onnx", external("weights.bin\0.txt", length="16"), "a NUL in a path", "model", **seen)
    write("external_empty.onnx", external("", length="16"), "external data without a place", "model", words=['"w"'])
    write("external_folder.onnx", external(".", length="16"), "external data that is a folder", "model", **seen)
    write("external_escapes.onnx", external("a" + ESCAPES, length="16"), "external data in a file with a name of escapes", "model", **seen)
    write("external_long.onnx", external("weights.bin", length=str(1 << 62)), "2^62 bytes of external data", "model", words=['"w"'])
    write("external_far.onnx", external("weights.bin", offset=str((1 << 63) - 1), length="16"), "external data behind the end", "model", **seen)
    write("external_wraps.onnx", external("weights.bin", offset=str((1 << 64) - 8), length="16"), "an offset that wraps around", "model", **seen)
    write("external_negative.onnx", external("weights.bin", offset="-8", length="16"), "a negative offset", "model", words=['"w"'])
    write("external_number.onnx", external("weights.bin", offset="9" * 5000, length="16"), "an offset of 5000 digits", "model", words=['"w"'])
    for name, target in (("link.bin", "../README.md"), ("link_folder", "..")):
        (HERE / name).unlink(missing_ok=True)
        (HERE / name).symlink_to(target)
    (HERE / "link_loop").unlink(missing_ok=True)
    (HERE / "link_loop").symlink_to("link_loop")
    write("external_link.onnx", external("link.bin", length="16"), "a link out of the folder", "model", **seen)
    write("external_link_folder.onnx", external("link_folder/README.md", length="16"), "a linked folder above", "model", **seen)
    write("external_link_loop.onnx", external("link_loop", length="16"), "a link to itself", "model", **seen)


def parameters():
    def nan(bits, name):
        def change(graph):
            raw = np.frombuffer(weights(graph, name).raw_data, np.uint32).copy()
            raw[0] = bits
            weights(graph, name).raw_data = raw.tobytes()

        return changed(change)

    no = dict(code=0, fold=1, check=1)
    write("nan_signalling.onnx", nan(0x7F800001, "var"), "a variance that is a signalling NaN", "model", **no)
    write("nan_negative.onnx", nan(0xFFFFFFFF, "mean"), "a mean that is a NaN with all bits set", "model", **no)
    write("nan_boxed.onnx", nan(0xFFF00BAD, "gamma"), "a NaN with a payload in gamma", "model", **no)
    write("nan_weight.onnx", nan(0x7FC0DEAD, "w"), "a NaN with a payload in a weight", "model", code=0, validate=2, recalibrate=2)
    write("variance_denormal.onnx", nan(0x00000001, "var"), "a variance of 2^-149, which is none to speak of", "model", code=0)
    write("variance_minus.onnx", nan(0xFF7FFFFF, "var"), "the least variance there is", "model", **no)

    def empty(graph):
        graph.node.pop(0)
        graph.node[0].input[0] = "x"
        for name in ("gamma", "beta", "mean", "var"):
            weights(graph, name).CopyFrom(tensor(name, np.zeros(0)))
        graph.initializer.remove(weights(graph, "w"))
        for port in (graph.input[0], graph.output[0]):
            port.type.tensor_type.shape.dim[1].dim_value = 0

    write("zero_channels.onnx", changed(empty), "a BatchNorm of 0 channels", "model", code=0, run=2, validate=2, recalibrate=2)

    def zero_group(value):
        def change(graph):
            graph.node[0].attribute.append(helper.make_attribute("group", value))

        return changed(change)

    write("group_zero.onnx", zero_group(0), "a Conv of 0 groups", "model", code=0, fold=2, inspect=2, check=2, **NO_RUN)
    write("group_least.onnx", zero_group(-(1 << 63)), "a Conv of -2^63 groups", "model", code=0, fold=2, inspect=2, check=2, **NO_RUN)

    def shape(dims):
        def change(graph):
            for port in (graph.input[0], graph.output[0]):
                del port.type.tensor_type.shape.dim[:]
                for dim in dims:
                    port.type.tensor_type.shape.dim.add(dim_value=dim)

        return changed(change)

    write("input_negative.onnx", shape([1, 2, -1, -1]), "an input of negative size", "model", code=0, folds=True)
    write("input_huge.onnx", shape([1 << 31, 2, 1 << 31, 1 << 31]), "an input of 2^94 elements", "model", code=0, **NO_RUN, folds=True)
    write("input_large.onnx", shape([1, 2, 1 << 17, 1 << 17]), "an input of 2^35 elements", "model", code=0, **NO_RUN, folds=True)


def blow_ups():
    def feeding(make):
        """`make` gives the nodes that compute the weight."""

        def change(graph):
            nodes, more = make()
            for node in reversed(nodes):
                graph.node.insert(0, node)
            graph.initializer.extend(more)
            graph.initializer.remove(weights(graph, "w"))

        return changed(change)

    def expand():
        return [helper.make_node("Expand", ["one", "shape"], ["w"], "blow")], [
            tensor("one", [1]),
            tensor("shape", [1 << 31, 1 << 31], np.int64),
        ]

    def of_shape():
        return [helper.make_node("ConstantOfShape", ["shape"], ["w"], "blow")], [tensor("shape", [1 << 20, 1 << 20, 1, 1], np.int64)]

    def tile():
        return [helper.make_node("Tile", ["one", "times"], ["w"], "blow")], [tensor("one", [1]), tensor("times", [1 << 62], np.int64)]

    def concat():
        nodes, last = [], "one"
        for i in range(40):
            made = "w" if i == 39 else f"d{i}"
            nodes.append(helper.make_node("Concat", [last, last], [made], f"blow{i}", axis=0))
            last = made
        return nodes, [tensor("one", np.ones((1, 2, 1, 1)))]

    def reading():
        nodes, last = [], "w0"
        for i in range(60):
            made = "w" if i == 59 else f"d{i}"
            nodes.append(helper.make_node("Add", [last, last], [made], f"blow{i}"))
            last = made
        return nodes, [tensor("w0", np.ones((2, 2, 1, 1)))]

    write("blow_expand.onnx", feeding(expand), "a weight that is one number, expanded to 2^62", "model", code=0, **NO_RUN)
    write("blow_of_shape.onnx", feeding(of_shape), "a weight of 2^40 zeros, with which nothing fits", "model", convert=0, tree=0)
    write("blow_tile.onnx", feeding(tile), "a weight that is one number, 2^62 times", "model", code=0, **NO_RUN)
    write("blow_concat.onnx", feeding(concat), "a weight that doubles 40 times, with which nothing fits", "model", convert=0, tree=0)
    write("blow_paths.onnx", feeding(reading), "a weight with 2^60 ways to its source", "model", code=0)

    def behind(*nodes, more=()):
        def change(graph):
            graph.node[1].output[0] = "n"
            graph.node.extend(nodes)
            graph.initializer.extend(more)

        return changed(change)

    pads = tensor("pads", [0, 0, 0, 0, 0, 0, 1 << 40, 1 << 40], np.int64)
    write("blow_pad.onnx", behind(helper.make_node("Pad", ["n", "pads"], ["y"], "blow"), more=[pads]), "padding of 2^80", "model", code=0, **NO_RUN, folds=True)
    scales = tensor("scales", [1, 1, 1e6, 1e6])
    write("blow_resize.onnx", behind(helper.make_node("Resize", ["n", "", "scales"], ["y"], "blow"), more=[scales]), "an image made 10^12 times as large", "model", code=0, **NO_RUN, folds=True)
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Neg", ["a"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("i", T.INT64, []),
            helper.make_tensor_value_info("going", T.BOOL, []),
            helper.make_tensor_value_info("a", T.FLOAT, [1, 2, 2, 2]),
        ],
        [helper.make_tensor_value_info("on", T.BOOL, []), helper.make_tensor_value_info("b", T.FLOAT, [1, 2, 2, 2])],
    )
    loop = helper.make_node("Loop", ["trips", "", "n"], ["y"], "blow", body=body)
    write("blow_loop.onnx", behind(loop, more=[tensor("trips", 1 << 62, np.int64)]), "a loop of 2^62 turns", "model", code=0, **NO_RUN, folds=True)


# --- state dicts ------------------------------------------------------------------------------------------------------


def state(header, data=b"", claimed=None):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + data


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def states():
    one = {"w": entry([1], 0, 4)}
    huge = 1 << 62
    write("header_2_62.safetensors", state(one, b"\0" * 4, huge), "a header of 2^62 bytes", "state")
    write("header_all.safetensors", state(one, b"\0" * 4, (1 << 64) - 1), "a header of 2^64 - 1 bytes", "state")
    write("header_99mb.safetensors", state(one, b"\0" * 4, 99_000_000), "a header of 99 MB in a file of a few bytes", "state")
    write("header_depth.safetensors", state(b'{"w":' + b"[" * 50_000, b"\0" * 4), "50000 brackets", "state")
    write("header_depth_metadata.safetensors", state(b'{"__metadata__":' + b'{"a":' * 10_000, b"\0" * 4), "10000 braces in the metadata", "state")
    write("header_twice.safetensors", state(b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4), "one name twice", "state", words=['"w"'])
    write("offsets_2_62.safetensors", state({"w": entry([huge // 4], 0, huge)}, b"\0" * 4), "a tensor of 2^62 bytes", "state", words=['"w"'])
    write("offsets_backwards.safetensors", state({"w": entry([1], 4, 0)}, b"\0" * 4), "offsets that go backwards", "state", words=['"w"'])
    write("offsets_overlap.safetensors", state({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, b"\0" * 12), "two tensors in the same bytes", "state")
    write("shape_overflow.safetensors", state({"w": entry([1 << 32, 1 << 32, 4], 0, 4)}, b"\0" * 4), "a shape whose size overflows", "state", words=['"w"'])
    write("shape_negative.safetensors", state({"w": entry([-1], 0, 4)}, b"\0" * 4), "a negative dimension", "state", words=['"w"'])
    write("shape_zero.safetensors", state({"w": entry([0, 3], 0, 0)}), "a tensor without elements", "state", code=0)
    write("shape_many.safetensors", state({"w": entry([1] * 5000, 0, 4)}, b"\0" * 4), "5000 dimensions", "state", code=0)
    tensors = {f"a{ESCAPES}.weight": entry([1], 0, 4), "__metadata__": {ESCAPES: ESCAPES}}
    write("names_escapes.safetensors", state(tensors, b"\0" * 4), "terminal escapes in names", "state", code=0)
    bn = {}
    for i, role in enumerate(("weight", "bias", "running_mean", "running_var")):
        bn[f"bn{ESCAPES}.{role}"] = entry([2], 8 * i, 8 * i + 8)
    bits = struct.pack("<8I", 0x7F800001, 0xFFFFFFFF, *([0x7FC00000] * 6))
    write("nan_boxed.safetensors", state(bn, bits), "a BatchNorm all of whose parameters are NaN, with a name of escapes", "state", code=0, check=1)


def indexes():
    (HERE / "shard.safetensors").write_bytes(state({"w": entry([1], 0, 4)}, b"\0" * 4))
    (HERE / "link.safetensors").unlink(missing_ok=True)
    (HERE / "link.safetensors").symlink_to("../convert/floats.safetensors")

    def index(name, text, about, **more):
        text = text if isinstance(text, bytes) else json.dumps(text).encode()
        write(f"{name}.safetensors.index.json", text, about, "state", **more)

    def of(file):
        return {"metadata": {}, "weight_map": {"w": file}}

    index("parent", of("../convert/floats.safetensors"), "a shard above the folder", words=['"w"'])
    index("absolute", of("/etc/passwd"), "a shard at an absolute path", words=['"w"'])
    index("link", of("link.safetensors"), "a shard that is a link out of the folder", words=['"w"'])
    index("nul", of("shard.safetensors\0"), "a NUL in the name of a shard", words=['"w"'])
    index("itself", of("itself.safetensors.index.json"), "an index that is its own shard")
    index("escapes", of("a" + ESCAPES), "a shard with a name of escapes", words=['"w"'])
    index("folder", of("."), "a shard that is a folder", words=['"w"'])
    index("depth", b'{"metadata":' + b"[" * 50_000, "50000 brackets in the metadata")
    index("twice", b'{"weight_map":{"w":"shard.safetensors","w":"shard.safetensors"}}', "one name twice", words=['"w"'])
    index("number", b'{"metadata":{"total_size":1e999},"weight_map":{"w":"shard.safetensors"}}', "a size that is no number")


# --- data -------------------------------------------------------------------------------------------------------------


def npy(header, data=b"", version=1, claimed=None):
    text = header.encode() if isinstance(header, str) else header
    length = len(text) if claimed is None else claimed
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", length) + text + data


def head(shape, descr="<f4"):
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"


class Deflated:
    """An archive whose entries share one piece of data, or claim what they like."""

    def __init__(self):
        self.body, self.directory, self.count = b"", b"", 0

    def put(self, names, data, size=None, compressed=None, method=8):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = packer.compress(data) + packer.flush() if compressed is None else compressed
        crc, size = zlib.crc32(data), len(data) if size is None else size
        at = len(self.body)
        first = names[0].encode()
        rest = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, crc, len(packed), size, len(first), 0)
        self.body += b"PK\x03\x04" + rest + first + packed
        for name in names:
            text = name.encode()
            rest = struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, method, 0, 33, crc, len(packed), size, len(text), 0, 0, 0, 0, 0, at)
            self.directory += b"PK\x01\x02" + rest + text
            self.count += 1

    def bytes(self, count=None):
        count = self.count if count is None else count
        end = struct.pack("<HHHHIIH", 0, 0, count & 0xFFFF, count & 0xFFFF, len(self.directory), len(self.body), 0)
        return self.body + self.directory + b"PK\x05\x06" + end


def arrays():
    write("header_long.npy", npy(head("(2,)"), version=2, claimed=(1 << 32) - 1), "a header of 4 GB", "data")
    write("depth.npy", npy("{'descr': " + "(" * 60_000), "60000 parentheses in a header", "data")
    write("depth_closed.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 30_000 + ")" * 30_000 + "}"), "as many, closed again", "data")
    write("shape_2_62.npy", npy(head(f"({1 << 60},)"), b"\0" * 16), "2^62 bytes", "data")
    write("shape_overflow.npy", npy(head(f"({1 << 40}, {1 << 40})"), b"\0" * 16), "a shape whose size overflows", "data")
    write("shape_huge.npy", npy(head("(" + "9" * 500 + ",)"), b"\0" * 16), "a dimension of 500 digits", "data")
    write("shape_negative.npy", npy(head("(-1, 2, 2, 2)"), b"\0" * 32), "a negative dimension", "data")
    write("shape_zero.npy", npy(head("(0, 2, 2, 2)")), "no samples", "data")
    write("shape_empty_huge.npy", npy(head(f"({1 << 62}, 0, 2, 2)")), "2^62 samples without elements", "data")
    write("objects.npy", npy(head("(1,)", "|O"), b"\x80\x04cposix\nsystem\n."), "a pickled object that would run a command", "data")

    one_gb_head = head(f"({1 << 18}, 2, 2, 256)")
    sixteen_mb = npy(head("(524288, 2, 2, 2)"), b"\0" * (1 << 24))
    bomb = Deflated()
    bomb.put([f"x{i}.npy" for i in range(512)], sixteen_mb)
    write("bomb_overlap.npz", bomb.bytes(), "512 arrays of 16 MB in the same 16 kB", "data")
    nested = Deflated()
    nested.put(["x.npy"], npy(one_gb_head), size=(1 << 32) - 1)
    write("bomb_claim.npz", nested.bytes(), "an array that claims 1 GB and holds none", "data")
    many = Deflated()
    many.put(["x.npy"], npy(head("(1, 2, 2, 2)"), b"\0" * 32))
    write("bomb_count.npz", many.bytes(count=65535), "a directory of 65535 entries in a file with one", "data")
    write("bomb_directory.npz", many.bytes()[:-10] + struct.pack("<IIH", 0xFFFFFFF0, 0xFFFFFFF0, 0), "a directory of 4 GB", "data")
    escape = Deflated()
    escape.put(["../../" + "x" + ESCAPES + ".npy"], npy(head("(1, 2, 2, 3)"), b"\0" * 48))
    write("names_escapes.npz", escape.bytes(), "an array with a path and escapes for a name, which does not fit", "data")
    twice = Deflated()
    twice.put(["x.npy"], npy(head("(1, 2, 2, 2)"), b"\0" * 32))
    twice.put(["x.npy"], npy(head("(1, 2, 2, 2)"), b"\x01" * 32))
    write("names_twice.npz", twice.bytes(), "two arrays of one name", "data")

    write("length_raw.pb", number(1, 4) + number(2, 1) + field(9, b"\0" * 16, 1 << 62), "a tensor with 2^62 bytes", "data")
    write("dims_2_62.pb", number(1, 1 << 31) * 2 + number(2, 1) + field(9, b"\0" * 16), "a tensor that claims 2^62 elements", "data")


def png(width, height, depth, color, rows):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zeros(count):
    packer, out = zlib.compressobj(9), b""
    for _ in range(count >> 20):
        out += packer.compress(b"\0" * (1 << 20))
    return out + packer.compress(b"\0" * (count & ((1 << 20) - 1))) + packer.flush()


def images():
    folder = "images"
    write(f"{folder}/claim/a.png", png(0x7FFFFFFF, 0x7FFFFFFF, 16, 6, b"\0"), "an image of 2^62 pixels", "images")
    side = 20_000
    write(f"{folder}/bomb/a.png", png(side, side, 1, 0, zeros((side // 8 + 1) * side)), "an image of 400 million pixels in 50 kB", "images")
    write(f"{folder}/zero/a.png", png(0, 0, 8, 2, zeros(0)), "an image without pixels", "images")
    write(f"{folder}/thin/a.png", png(1, 100_000, 8, 0, zeros(200_000)), "a line, which a resize by its shorter side would blow up", "images")


# --- YAML -------------------------------------------------------------------------------------------------------------


def laughs(width=10, depth=30):
    """Each anchor is ten times the one before."""
    lines = ["a0: &a0 [lol]"]
    for i in range(1, depth):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]")
    return "\n".join(lines) + "\n"


def yaml():
    deep = "[" * 50_000
    for as_, first in (("config", "fold:\n  only: *a29\n"), ("pairs", "pairs: *a29\n")):
        write(f"aliases_{as_}.yaml", (laughs() + first).encode(), "ten times ten times … 10^29", as_)
        write(f"depth_{as_}.yaml", f"{'fold' if as_ == 'config' else 'pairs'}: {deep}\n".encode(), "50000 brackets", as_)
        write(f"itself_{as_}.yaml", b"pairs: &a [*a]\nfold: *a\n", "a list that holds itself", as_)
        write(f"escapes_{as_}.yaml", json.dumps({ESCAPES: {ESCAPES: 1}}).encode(), "keys of escapes", as_)
        write(f"no_utf8_{as_}.yaml", b"\xff\xfe\x00pairs: \x80", "bytes that are no text", as_)
    bn = "a" * 30 + "*" * 30 + "b"
    write("pattern_pairs.yaml", f"pairs:\n  - {{conv: '{bn}', bn: '{bn}'}}\n".encode(), "a pattern of 30 stars", "pairs")


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    write("fine.onnx", base().SerializeToString(deterministic=True), "what the others are made of: it folds", "model", code=0, folds=True)
    for make in (length_bombs, depth_bombs, references, names, externals, parameters, blow_ups, states, indexes, arrays, images, yaml):
        make()
    text = json.dumps(CASES, indent=1, ensure_ascii=True)
    (HERE / "expected.json").write_text(text + "\n")
    total = sum(path.lstat().st_size for path in HERE.rglob("*"))
    print(f"{len(CASES)} files, {total // 1024} kB")


if __name__ == "__main__":
    main()
