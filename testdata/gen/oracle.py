"""A small NumPy interpreter for ONNX: every float is computed in f64, every BatchNorm in eval mode.

It is the yardstick where ONNX Runtime has no kernel (BatchNormalization below opset 7, f64 Conv, bf16), and a second opinion
everywhere else. It knows the operators that the golden cases use, no more.
"""

import math
from collections import ChainMap

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

DEFAULT_DOMAINS = ("", "ai.onnx")
OPS = {}


def op(function):
    """Register a function under its name; it receives the node's context and its inputs."""
    OPS[function.__name__.rstrip("_")] = function
    return function


def is_float(array):
    """True for every float type, the ones of ml_dtypes included."""
    return array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16


def widen(array):
    """f64 for floats, unchanged otherwise."""
    array = np.asarray(array)
    return array.astype(np.float64) if is_float(array) else array


def numpy_type(elem_type):
    """The NumPy type of an ONNX element type, bf16 included."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))


def attributes(node):
    """Attributes as plain Python values; tensors stay protobuf messages."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


class Context:
    """What an operator sees of its node."""

    def __init__(self, interpreter, node, scope):
        self.interpreter, self.node, self.scope = interpreter, node, scope
        self.attrs = attributes(node)
        self.opset = interpreter.opset

    def get(self, name, default=None):
        value = self.attrs.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


class Interpreter:
    """Runs a model. `perturb` changes constants (for tolerances), `observe` sees each BatchNorm's input."""

    def __init__(self, model, perturb=None, observe=None, base_dir=""):
        self.model, self.perturb, self.observe, self.base_dir = model, perturb, observe, base_dir
        self.opset = next(o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS)
        self.functions = {(f.domain, f.name): f for f in model.functions}

    def load(self, tensor):
        value = widen(numpy_helper.to_array(tensor, base_dir=self.base_dir))
        if self.perturb and value.dtype == np.float64 and value.ndim:
            value = self.perturb(value)
        return value

    def run(self, feeds):
        graph = self.model.graph
        scope = ChainMap({}, {k: widen(v) for k, v in feeds.items()})
        self.run_graph(graph, scope)
        return {o.name: scope[o.name] for o in graph.output if o.name in scope}  # eval mode has no training outputs

    def run_graph(self, graph, scope):
        for tensor in graph.initializer:
            scope[tensor.name] = self.load(tensor)
        for sparse in graph.sparse_initializer:
            dense = np.zeros(sparse.dims)
            dense.reshape(-1)[numpy_helper.to_array(sparse.indices)] = self.load(sparse.values)
            scope[sparse.values.name] = dense
        self.run_nodes(graph.node, scope)

    def run_body(self, graph, scope, arguments=()):
        inner = scope.new_child(dict(zip((i.name for i in graph.input), arguments)))
        self.run_graph(graph, inner)
        return [inner[o.name] for o in graph.output]

    def run_nodes(self, nodes, scope):
        for node in nodes:
            inputs = [scope[name] if name else None for name in node.input]
            if (node.domain, node.op_type) in self.functions:
                results = self.call(self.functions[node.domain, node.op_type], inputs)
            elif node.domain in DEFAULT_DOMAINS and node.op_type in OPS:
                results = OPS[node.op_type](Context(self, node, scope), *inputs)
            else:
                raise NotImplementedError(f"{node.domain}::{node.op_type}")
            results = results if isinstance(results, (tuple, list)) else (results,)
            scope.update((n, np.asarray(r)) for n, r in zip(node.output, results) if n)

    def call(self, function, inputs):
        scope = ChainMap(dict(zip(function.input, inputs)))
        self.run_nodes(function.node, scope)
        return [scope[name] for name in function.output]


def evaluate(model, feeds, **options):
    """Outputs by name, floats as f64."""
    return Interpreter(model, **options).run(feeds)


# --- normalisation and elementwise ---------------------------------------------------------------------------------------


@op
def BatchNormalization(c, x, gamma, beta, mean, var):
    if c.interpreter.observe:
        mean, var = c.interpreter.observe(c.node, x)
    tail = (1,) * (x.ndim - 1 - gamma.ndim)  # per-activation parameters (spatial = 0) have rank ndim - 1
    gamma, beta, mean, var = (p.reshape(p.shape + tail) for p in (gamma, beta, mean, var))
    epsilon = np.float64(np.float32(c.get("epsilon", 1e-5)))
    return (x - mean) / np.sqrt(var + epsilon) * gamma + beta


def binary(function):
    def run(c, a, b):
        if c.opset < 7 and c.get("broadcast", 0) and b.ndim:
            axis = c.get("axis", a.ndim - b.ndim)
            b = b.reshape(b.shape + (1,) * (a.ndim - axis - b.ndim))
        with np.errstate(divide="ignore", invalid="ignore"):
            return function(a, b)

    return run


def divide(a, b):
    return a / b if a.dtype.kind == "f" else a // b


OPS.update(Add=binary(np.add), Sub=binary(np.subtract), Mul=binary(np.multiply), Div=binary(divide))
OPS.update(Less=binary(np.less), Pow=binary(np.power))
OPS.update(
    Identity=lambda c, x: x,
    Relu=lambda c, x: np.maximum(x, 0),
    Neg=lambda c, x: -x,
    Sqrt=lambda c, x: np.sqrt(x),
    Reciprocal=lambda c, x: 1 / x,
    Sigmoid=lambda c, x: 1 / (1 + np.exp(-x)),
    HardSwish=lambda c, x: x * np.clip(x / 6 + 0.5, 0, 1),
    Erf=lambda c, x: np.vectorize(math.erf, otypes=[np.float64])(x),
    Dropout=lambda c, x, *_: (x, np.ones(x.shape, bool)),
    LeakyRelu=lambda c, x: np.where(x < 0, x * np.float64(np.float32(c.get("alpha", 0.01))), x),
    PRelu=lambda c, x, slope: np.where(x < 0, x * slope, x),
)


@op
def Sum(c, *terms):
    return sum(terms[1:], terms[0])


@op
def Clip(c, x, low=None, high=None):
    low = c.get("min", -np.inf) if low is None else low
    high = c.get("max", np.inf) if high is None else high
    return np.clip(x, low, high)


@op
def Softmax(c, x):
    e = np.exp(x - x.max(c.get("axis", -1), keepdims=True))
    return e / e.sum(c.get("axis", -1), keepdims=True)


# --- linear --------------------------------------------------------------------------------------------------------------


def resolve_pads(c, size, kernel, stride, dilation):
    """(begin, end) for each spatial axis."""
    rank, mode = len(kernel), c.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = c.get("pads", [0] * 2 * rank)
        return list(zip(pads[:rank], pads[rank:]))
    if mode == "VALID":
        return [(0, 0)] * rank
    out = []
    for n, k, s, d in zip(size, kernel, stride, dilation):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        small = total // 2
        out.append((small, total - small) if mode == "SAME_UPPER" else (total - small, small))
    return out


def window(start, stride, count):
    return slice(start, start + stride * (count - 1) + 1, stride)


@op
def Conv(c, x, w, b=None):
    kernel, rank, group = w.shape[2:], w.ndim - 2, c.get("group", 1)
    stride, dilation = c.get("strides", [1] * rank), c.get("dilations", [1] * rank)
    pads = resolve_pads(c, x.shape[2:], kernel, stride, dilation)
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    size = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation)]
    parts = []
    for xg, wg in zip(np.split(x, group, 1), np.split(w, group, 0)):
        y = np.zeros((x.shape[0], wg.shape[0], *size))
        for tap in np.ndindex(*kernel):
            at = tuple(window(t * d, s, n) for t, d, s, n in zip(tap, dilation, stride, size))
            y += np.einsum("nc...,oc->no...", xg[(..., *at)], wg[(..., *tap)])
        parts.append(y)
    y = np.concatenate(parts, 1)
    return y if b is None else y + b.reshape(-1, *[1] * rank)


@op
def ConvTranspose(c, x, w, b=None):
    kernel, rank, group = w.shape[2:], w.ndim - 2, c.get("group", 1)
    stride, dilation = c.get("strides", [1] * rank), c.get("dilations", [1] * rank)
    extra = c.get("output_padding", [0] * rank)
    pads = c.get("pads", [0] * 2 * rank)
    size = x.shape[2:]
    full = [(n - 1) * s + d * (k - 1) + 1 + e for n, s, d, k, e in zip(size, stride, dilation, kernel, extra)]
    parts = []
    for xg, wg in zip(np.split(x, group, 1), np.split(w, group, 0)):
        y = np.zeros((x.shape[0], wg.shape[1], *full))
        for tap in np.ndindex(*kernel):
            at = tuple(window(t * d, s, n) for t, d, s, n in zip(tap, dilation, stride, size))
            y[(..., *at)] += np.einsum("nc...,co->no...", xg, wg[(..., *tap)])
        parts.append(y)
    crop = tuple(slice(pads[i], full[i] - pads[rank + i]) for i in range(rank))
    y = np.concatenate(parts, 1)[(..., *crop)]
    return y if b is None else y + b.reshape(-1, *[1] * rank)


@op
def Gemm(c, a, b, addend=None):
    alpha, beta = (np.float64(np.float32(c.get(k, 1.0))) for k in ("alpha", "beta"))
    y = alpha * ((a.T if c.get("transA", 0) else a) @ (b.T if c.get("transB", 0) else b))
    return y if addend is None else y + beta * addend


OPS["MatMul"] = lambda c, a, b: a @ b


# --- pools and resampling ------------------------------------------------------------------------------------------------


def spatial(x):
    return tuple(range(2, x.ndim))


OPS["GlobalAveragePool"] = lambda c, x: x.mean(spatial(x), keepdims=True)
OPS["GlobalMaxPool"] = lambda c, x: x.max(spatial(x), keepdims=True)


def pool(c, x, fill, border=None):
    """The windows of a pooling operator stacked on a new first axis. What hangs over in ceil_mode is `fill`, padding
    is `border`, which is the same unless given."""
    kernel = c.get("kernel_shape")
    stride = c.get("strides", [1] * len(kernel))
    pads = resolve_pads(c, x.shape[2:], kernel, stride, [1] * len(kernel))
    x = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill if border is None else border)
    size = [(n - k) // s + 1 for n, k, s in zip(x.shape[2:], kernel, stride)]
    if c.get("ceil_mode", 0):
        size = [-(-(n - k) // s) + 1 for n, k, s in zip(x.shape[2:], kernel, stride)]
        over = [max(0, (m - 1) * s + k - n) for m, n, k, s in zip(size, x.shape[2:], kernel, stride)]
        x = np.pad(x, [(0, 0), (0, 0), *((0, o) for o in over)], constant_values=fill)
    return np.stack([x[(..., *(window(t, s, n) for t, s, n in zip(tap, stride, size)))] for tap in np.ndindex(*kernel)])


@op
def MaxPool(c, x):
    position = np.broadcast_to(np.arange(x.size).reshape(x.shape), x.shape)
    values, positions = pool(c, x, -np.inf), pool(c, position, -1)
    best = values.argmax(0)[None]
    return np.take_along_axis(values, best, 0)[0], np.take_along_axis(positions, best, 0)[0]


@op
def AveragePool(c, x):
    counts = 1.0 if c.get("count_include_pad", 0) else 0.0
    return pool(c, x, 0.0).sum(0) / pool(c, np.ones_like(x), 0.0, counts).sum(0)


@op
def LpPool(c, x):
    p = c.get("p", 2)
    return (pool(c, np.abs(x) ** p, 0.0).sum(0)) ** (1 / p)


def standardise(c, x, axes):
    epsilon = np.float64(np.float32(c.get("epsilon", 1e-5)))
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


@op
def InstanceNormalization(c, x, scale, shift):
    tail = (-1,) + (1,) * (x.ndim - 2)
    return standardise(c, x, spatial(x)) * scale.reshape(tail) + shift.reshape(tail)


@op
def LayerNormalization(c, x, scale, shift=0.0):
    axis = c.get("axis", -1)
    return standardise(c, x, tuple(range(axis + x.ndim if axis < 0 else axis, x.ndim))) * scale + shift


@op
def ReduceMean(c, x, axes=None):
    axes = c.get("axes") if axes is None else axes
    if axes is None and c.get("noop_with_empty_axes", 0):
        return x
    axes = None if axes is None else tuple(int(a) for a in axes)
    return x.mean(axes, keepdims=bool(c.get("keepdims", 1)))


def coordinates(mode, before, after, scale, crop):
    """Where the elements of a resized axis lie on the original one."""
    i = np.arange(after, dtype=np.float64)
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        return i * (before - 1) / max(after - 1, 1)
    if mode == "tf_crop_and_resize":
        return (crop[0] + i * (crop[1] - crop[0]) / max(after - 1, 1)) * (before - 1)
    assert mode in ("half_pixel", "pytorch_half_pixel"), mode
    return (i + 0.5) / scale - 0.5 if after > 1 or mode == "half_pixel" else 0 * i


def resampling(c, before, after, scale, crop, transformation):
    """The matrix [after, before] that resamples one axis."""
    mode, matrix = c.get("mode", "nearest"), np.zeros((after, before))
    for row, at in enumerate(coordinates(transformation, before, after, scale, crop)):
        if transformation == "tf_crop_and_resize" and not 0 <= at <= before - 1:
            continue  # extrapolation_value: 0
        base = int(np.floor(at))
        d = at - base
        if mode == "nearest":
            rounding = c.get("nearest_mode", "round_prefer_floor")
            assert rounding in ("floor", "round_prefer_floor"), rounding
            taps = {base if rounding == "floor" or d <= 0.5 else base + 1: 1.0}
        elif mode == "linear":
            taps = {base: 1 - d, base + 1: d}
        else:
            a = c.get("cubic_coeff_a", -0.75)
            near = lambda t: ((a + 2) * t - (a + 3)) * t * t + 1  # noqa: E731
            far = lambda t: ((a * t - 5 * a) * t + 8 * a) * t - 4 * a  # noqa: E731
            taps = {base - 1: far(d + 1), base: near(d), base + 1: near(1 - d), base + 2: far(2 - d)}
            if c.get("exclude_outside", 0):
                taps = {k: w for k, w in taps.items() if 0 <= k < before}
        for k, weight in taps.items():
            matrix[row, min(max(k, 0), before - 1)] += weight / sum(taps.values())
    return matrix


def steady(values):
    """Without the noise that `perturb` adds: a scale is no weight."""
    return None if values is None else np.round(np.asarray(values, np.float64) * 2**16) / 2**16


def resample(c, x, scales, sizes, roi, transformation):
    scales, roi = steady(scales), steady(roi)
    axes = c.get("axes", range(x.ndim))
    for index, axis in enumerate(axes):
        before = x.shape[axis]
        scale = float(scales[index]) if sizes is None else int(sizes[index]) / before
        after = int(np.floor(before * scale)) if sizes is None else int(sizes[index])
        crop = (roi[index], roi[index + len(axes)]) if transformation == "tf_crop_and_resize" else None
        if scale != 1 or crop:
            matrix = resampling(c, before, after, scale, crop, transformation)
            x = np.moveaxis(np.tensordot(x, matrix, (axis, 1)), -1, axis)
    return x


@op
def Resize(c, x, roi=None, scales=None, sizes=None):
    return resample(c, x, scales, sizes, roi, c.get("coordinate_transformation_mode", "half_pixel"))


@op
def Upsample(c, x, scales=None):
    c.attrs.setdefault("nearest_mode", b"floor")
    return resample(c, x, c.get("scales") if scales is None else scales, None, None, "asymmetric")


@op
def SpaceToDepth(c, x):
    n, ch, h, w = x.shape
    b = c.get("blocksize")
    return x.reshape(n, ch, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, ch * b**2, h // b, w // b)


@op
def DepthToSpace(c, x):
    n, ch, h, w = x.shape
    b = c.get("blocksize")
    if c.get("mode", "DCR") == "DCR":
        return x.reshape(n, b, b, ch // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, ch // b**2, h * b, w * b)
    return x.reshape(n, ch // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, ch // b**2, h * b, w * b)


@op
def Pad(c, x, pads=None, value=None, axes=None):
    pads = c.get("pads") if pads is None else [int(p) for p in pads]
    pairs = list(zip(pads[: x.ndim], pads[x.ndim :]))
    mode = c.get("mode", "constant")
    if mode == "constant":
        fill = c.get("value", 0.0) if value is None else float(value)
        return np.pad(x, pairs, constant_values=fill)
    return np.pad(x, pairs, mode=mode)


# --- shapes --------------------------------------------------------------------------------------------------------------


@op
def Flatten(c, x):
    axis = c.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


@op
def Reshape(c, x, shape=None):
    shape = [int(n) for n in (c.get("shape") if shape is None else shape)]
    if not c.get("allowzero", 0):
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return x.reshape(shape)


def axes_of(c, axes):
    return tuple(int(a) for a in (c.get("axes") if axes is None else axes))


OPS["Transpose"] = lambda c, x: x.transpose(c.get("perm"))
OPS["Squeeze"] = lambda c, x, axes=None: x.squeeze(axes_of(c, axes))
OPS["Unsqueeze"] = lambda c, x, axes=None: np.expand_dims(x, axes_of(c, axes))
OPS["Expand"] = lambda c, x, shape: x * np.ones([int(n) for n in shape], x.dtype)
OPS["Concat"] = lambda c, *xs: np.concatenate(xs, c.get("axis", 1))
OPS["Gather"] = lambda c, x, at: np.take(x, at, c.get("axis", 0))


@op
def Shape(c, x):
    return np.array(x.shape, np.int64)[slice(c.get("start", 0), c.get("end"))]


@op
def Slice(c, x, starts=None, ends=None, axes=None, steps=None):
    starts, ends = (c.get("starts"), c.get("ends")) if starts is None else (starts, ends)
    axes = c.get("axes", range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    at = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps):
        at[int(axis)] = slice(int(start), int(end), int(step))
    return x[tuple(at)]


@op
def Split(c, x, sizes=None):
    sizes = c.get("split") if sizes is None else sizes
    if sizes is None:
        return np.split(x, len(c.node.output), c.get("axis", 0))
    return np.split(x, np.cumsum(sizes)[:-1], c.get("axis", 0))


# --- constants and types -------------------------------------------------------------------------------------------------


@op
def Constant(c):
    for key, value in c.attrs.items():
        if key == "value":
            return c.interpreter.load(value)
        if key in ("value_float", "value_floats"):
            return widen(np.array(value, np.float32))
        if key in ("value_int", "value_ints"):
            return np.array(value, np.int64)
    raise NotImplementedError("Constant")


@op
def ConstantOfShape(c, shape):
    fill = widen(numpy_helper.to_array(c.attrs["value"])) if "value" in c.attrs else np.zeros(1)
    return np.full([int(n) for n in shape], fill[0])


OPS["Cast"] = lambda c, x: widen(x.astype(numpy_type(c.get("to"))))
OPS["CastLike"] = lambda c, x, like: x.astype(like.dtype)


@op
def DequantizeLinear(c, x, scale, zero=None):
    if scale.ndim > 1:  # in blocks
        block, axis = c.get("block_size"), c.get("axis", 1)
        scale, zero = (None if v is None else np.repeat(v, block, axis) for v in (scale, zero))
    elif scale.ndim:
        shape = [1] * x.ndim
        shape[c.get("axis", 1)] = -1
        scale, zero = scale.reshape(shape), None if zero is None else zero.reshape(shape)
    return (x.astype(np.float64) - (0.0 if zero is None else zero)) * scale


@op
def QuantizeLinear(c, x, scale, zero=None):
    if scale.ndim:
        shape = [1] * x.ndim
        shape[c.get("axis", 1)] = -1
        scale, zero = scale.reshape(shape), None if zero is None else zero.reshape(shape)
    zero = np.zeros((), np.uint8) if zero is None else zero
    low, high = np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max
    return np.clip(np.rint(x / scale) + zero.astype(np.float64), low, high).astype(zero.dtype)


# --- bodies --------------------------------------------------------------------------------------------------------------


@op
def If(c, condition):
    branch = c.attrs["then_branch" if condition.reshape(-1)[0] else "else_branch"]
    return c.interpreter.run_body(branch, c.scope)


@op
def Loop(c, trips, condition, *state):
    body, state, scans = c.attrs["body"], list(state), []
    for i in range(int(trips.reshape(-1)[0])):
        _, *results = c.interpreter.run_body(body, c.scope, [np.array(i), np.array(True), *state])
        state = results[: len(state)]
        scans.append(results[len(state) :])
    return [*state, *(np.stack(s) for s in zip(*scans))]


@op
def Scan(c, *inputs):
    body, count = c.attrs["body"], c.get("num_scan_inputs")
    state, sequences = list(inputs[:-count]), inputs[-count:]
    scans = []
    for i in range(sequences[0].shape[0]):
        results = c.interpreter.run_body(body, c.scope, [*state, *(s[i] for s in sequences)])
        state, row = results[: len(state)], results[len(state) :]
        scans.append(row)
    return [*state, *(np.stack(s) for s in zip(*scans))]


# --- ONNX Runtime --------------------------------------------------------------------------------------------------------


def graphs_of(graph):
    """A graph and all bodies in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.type in (5, 10) else ():
                yield from graphs_of(body)


def all_nodes(model):
    """Every node of the model: graph, bodies, functions (and bodies in functions)."""
    for graph in graphs_of(model.graph):
        yield from graph.node
    for function in model.functions:
        holder = onnx.GraphProto(node=function.node)
        for graph in graphs_of(holder):
            yield from graph.node


def in_training(node, opset):
    """Does this BatchNormalization compute with its batch's statistics?"""
    if opset < 7:
        return not attributes(node).get("is_test", 0)
    if opset < 14:
        return any(node.output[1:])
    return bool(attributes(node).get("training_mode", 0))


def eval_mode(model):
    """A copy whose BatchNorms run in eval mode; extra outputs of training BatchNorms are dropped."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for graph in graphs_of(model.graph):
        for node in graph.node:
            if node.op_type != "BatchNormalization" or node.domain not in DEFAULT_DOMAINS:
                continue
            kept = [a for a in node.attribute if a.name not in ("training_mode", "is_test")]
            gone = set(node.output[1:])
            del node.attribute[:], node.output[1:]
            node.attribute.extend(kept)
            if any(o.version < 7 for o in model.opset_import if o.domain in DEFAULT_DOMAINS):
                node.attribute.append(helper.make_attribute("is_test", 1))
            outputs = [o for o in graph.output if o.name not in gone]
            del graph.output[:]
            graph.output.extend(outputs)
    return model


def run_onnxruntime(model, feeds, optimise=False):
    """Outputs by name. `model` is a ModelProto or a path (needed for external data)."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))
