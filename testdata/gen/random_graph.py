"""Random typed graphs around BatchNorms: absorbers, carriers, fan-out, shared constants, bodies, all float types.

A seed gives one model, its inputs, and nothing else: `build(seed)` is a pure function. Shapes stay tiny, so that thousands of
graphs run in a minute. Every operator here is known to `oracle`, and its shape to the method that adds it.
"""

import numpy as np
from onnx import TensorProto, helper

from .build import BF16, F16, F32, F64, Graph, numpy_type

OPSETS = (11, 13, 14, 15, 17, 18, 20)
LIMIT = 4096  # elements of one value
IR = {11: 6, 13: 7, 14: 7, 15: 8, 17: 8, 18: 8, 20: 9}


class Random(Graph):
    """A graph that grows by random steps. `live` holds (value name, shape), readers may come back to any of them."""

    def __init__(self, name, rng, opset, dtype):
        super().__init__(name, rng, opset)
        self.dtype, self.live, self.count, self.shared = dtype, [], 0, {}

    # --- choices ---

    def one(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p):
        return self.rng.random() < p

    def fresh(self, kind):
        self.count += 1
        return f"{self.name}/{kind}_{self.count}"

    def array(self, shape, scale=0.5):
        """A constant; now and then one that stands already, if its shape fits."""
        key = tuple(shape)
        if key in self.shared and self.chance(0.15):
            return self.one(*self.shared[key])
        name = self.const(self.fresh("c"), self.normal(*shape) * scale, form=self.one("raw", "raw", "raw", "node"))
        self.shared.setdefault(key, []).append(name)
        return name

    def add(self, op, inputs, shape, **attrs):
        """A node with one output of interest, which becomes live."""
        name = self.fresh(op)
        out = self.node(op, inputs, name, **attrs)
        return self.born(out, shape)

    def born(self, value, shape):
        if int(np.prod(shape)) <= LIMIT and min(shape, default=1) > 0:
            self.live.append((value, tuple(shape)))
        return value

    def pick(self):
        """The newest value mostly (chains), an older one sometimes (fan-out)."""
        if self.chance(0.75):
            return self.live[-1]
        return self.one(*self.live)

    # --- steps: each gets a value and its shape, and may do nothing ---

    def norm(self, x, s):
        if len(s) < 2:
            return
        name, c = self.fresh("bn"), s[1]
        params = {}
        if self.chance(0.1):
            params["weight"] = np.where(self.rng.random(c) < 0.5, 0.0, self.normal(c))
        if "norm" in self.shared and self.chance(0.1):
            known = [n for n, size in self.shared["norm"] if size == c]
            if known:
                other = self.one(*known)
                params = {k: f"{other}.{k}" for k in ("weight", "bias", "running_mean", "running_var")}
        shift, positive = self.chance(0.8), self.chance(0.4)
        extra = {"training_mode": 0} if self.opset >= 14 and self.chance(0.1) else {}
        eps = self.one(1e-5, 1e-3, 1e-3)
        self.born(self.bn(x, c, name, shift=shift, positive=positive, params=params, epsilon=eps, **extra), s)
        if not params:
            self.shared.setdefault("norm", []).append((name, c))

    def convolution(self, x, s):
        if len(s) < 3:
            return
        rank, cin = len(s) - 2, s[1]
        kernel = tuple(self.one(1, 1, 2, 3) if n >= 3 else 1 for n in s[2:])
        group = self.one(1, 1, 1, cin, 2) if cin % 2 == 0 else self.one(1, 1, cin)
        cout = group * self.one(1, 2) if group > 1 else self.one(2, 3, 4)
        stride, dilation = ([self.one(1, 1, 1, 2) for _ in kernel] for _ in range(2))
        pads = [self.one(0, 0, 1) for _ in range(2 * rank)] if self.chance(0.6) else [0] * 2 * rank
        attrs = {"kernel_shape": list(kernel), "strides": stride, "dilations": dilation, "pads": pads}
        if self.chance(0.1):
            dilation = [1] * rank
            attrs = {"kernel_shape": list(kernel), "strides": stride, "auto_pad": self.one("SAME_UPPER", "SAME_LOWER")}
            size = [-(-n // t) for n, t in zip(s[2:], stride)]
        else:
            room = [n + pads[i] + pads[rank + i] - d * (k - 1) - 1 for i, (n, k, d) in enumerate(zip(s[2:], kernel, dilation))]
            if min(room) < 0:
                return
            size = [r // t + 1 for r, t in zip(room, stride)]
        inputs = [x, self.array((cout, cin // group, *kernel))]
        if self.chance(0.6):
            inputs.append(self.array((cout,)))
        self.add("Conv", inputs, (s[0], cout, *size), group=group, **attrs)

    def parallel(self, x, s):
        """Branches as RepVGG and MobileOne train them: k×k, 1×1, a BatchNorm alone, added."""
        if len(s) < 3 or self.dtype != F32:
            return
        rank, c, group = len(s) - 2, s[1], self.one(1, 1, s[1])
        terms = []
        for size in self.one((3, 1), (3, 1, 0), (3, 3), (1, 0), (3, 0)):
            y = x
            if size:
                weight = self.array((c, c // group, *(size,) * rank))
                attrs = {"kernel_shape": [size] * rank, "pads": [size // 2] * 2 * rank, "group": group}
                y = self.node("Conv", [x, weight], self.fresh("Conv"), **attrs)
            if self.chance(0.8) or not size:
                y = self.bn(y, c, self.fresh("bn"))
            terms.append(y)
        while len(terms) > 1:
            terms[:2] = [self.node("Add", terms[:2], self.fresh("Add"))]
        self.born(terms[0], s)

    def quantised(self, x, s):
        """A 1×1 Conv whose weight is int8 behind DequantizeLinear, with a scale per channel or one for all."""
        if len(s) < 3 or self.dtype != F32 or self.opset < 13:
            return
        cout, tail = self.one(2, 3, 4), (1,) * (len(s) - 2)
        name, single = self.fresh("q"), self.chance(0.2)
        codes = self.const(f"{name}.codes", self.rng.integers(-127, 128, (cout, s[1], *tail)).astype(np.int8))
        scale = self.const(f"{name}.scale", self.rng.uniform(0.002, 0.01, () if single else cout))
        weight = self.node("DequantizeLinear", [codes, scale], f"{name}/DequantizeLinear", axis=None if single else 0)
        self.add("Conv", [x, weight], (s[0], cout, *s[2:]), kernel_shape=list(tail))

    def deconvolution(self, x, s):
        if len(s) < 3:
            return
        rank, cin = len(s) - 2, s[1]
        group = self.one(1, 1, 2) if cin % 2 == 0 else 1
        kernel, stride = ([self.one(1, 2, 3) for _ in range(rank)] for _ in range(2))
        pads = [self.one(0, 0, 1) if k > 2 else 0 for k in kernel * 2]
        per_group = self.one(1, 2)
        size = [(n - 1) * t + k - pads[i] - pads[rank + i] for i, (n, t, k) in enumerate(zip(s[2:], stride, kernel))]
        if min(size) < 1:
            return
        inputs = [x, self.array((cin, per_group, *kernel))]
        if self.chance(0.5):
            inputs.append(self.array((per_group * group,)))
        attrs = {"kernel_shape": list(kernel), "strides": stride, "pads": pads, "group": group}
        self.add("ConvTranspose", inputs, (s[0], per_group * group, *size), **attrs)

    def gemm(self, x, s):
        if len(s) != 2:
            return
        flip_a, flip_b, n = self.chance(0.1), self.chance(0.5), self.one(2, 3, 4)
        m, k = (s[1], s[0]) if flip_a else s
        inputs = [x, self.array((n, k) if flip_b else (k, n))]
        if self.chance(0.7):
            inputs.append(self.array(self.one((n,), (n,), (1, n), (m, n), (1,), ())))
        attrs = {"transA": int(flip_a), "transB": int(flip_b)}
        if self.chance(0.3):
            attrs.update(alpha=self.one(0.5, -2.0), beta=self.one(0.5, 2.0))
        self.add("Gemm", inputs, (m, n), **attrs)

    def matmul(self, x, s):
        if len(s) < 2:
            return
        n = self.one(2, 3, 4)
        if self.chance(0.75):
            batch = s[:-2] if len(s) > 3 and self.chance(0.1) else ()
            self.add("MatMul", [x, self.array((*batch, s[-1], n))], (*s[:-1], n))
        else:
            self.add("MatMul", [self.array((n, s[-2])), x], (*s[:-2], n, s[-1]))

    def arithmetic(self, x, s):
        op = self.one("Add", "Add", "Mul", "Mul", "Sub", "Div")
        kind = self.one("channel", "channel", "scalar", "last", "full", "one")
        shape = {"scalar": (), "one": (1,), "last": s[-1:], "full": s}.get(kind)
        if kind == "channel":
            shape = (s[1], *(1,) * (len(s) - 2)) if len(s) > 1 else s
        values = self.rng.uniform(0.5, 2.0, shape) * np.where(self.rng.random(shape) < 0.2, -1, 1)
        constant = self.const(self.fresh("c"), values, form=self.one("raw", "node"))
        inputs = [constant, x] if self.chance(0.25) else [x, constant]
        self.add(op, inputs, s)

    def branches(self, x, s):
        others = [v for v, t in self.live if t == s]
        inputs = [x, self.one(*others)]
        if self.chance(0.5):
            inputs.reverse()
        self.add(self.one("Add", "Add", "Sub", "Mul"), inputs, s)

    def unary(self, x, s):
        op = self.one("Relu", "Relu", "Identity", "LeakyRelu", "Sigmoid", "Neg", "Clip", "Dropout", "PRelu")
        inputs, attrs = [x], {}
        if op == "LeakyRelu":
            attrs["alpha"] = self.one(0.1, 0.01)
        if op == "Clip":
            inputs += [self.const(self.fresh("c"), np.array(v)) for v in (self.one(0.0, -1.0), self.one(1.0, 6.0))]
        if op == "PRelu":
            inputs.append(self.array((s[1], *(1,) * (len(s) - 2)) if len(s) > 1 else (1,)))
        self.add(op, inputs, s, **attrs)

    def pooling(self, x, s):
        if len(s) < 3:
            return
        op = self.one("MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean")
        if op == "GlobalAveragePool":
            return self.add(op, [x], (*s[:2], *(1,) * (len(s) - 2)))
        if op == "ReduceMean":
            axes, keep = self.one([2], list(range(2, len(s))), [-1], [1]), self.one(0, 1)
            gone = {a % len(s) for a in axes}
            shape = [1 if i in gone else n for i, n in enumerate(s) if keep or i not in gone]
            inputs, attrs = [x], {"keepdims": keep}
            if self.opset >= 18:
                inputs.append(self.ints(self.fresh("axes"), *axes))
            else:
                attrs["axes"] = axes
            return self.add(op, inputs, shape, **attrs)
        rank = len(s) - 2
        kernel = [min(n, self.one(1, 2, 2, 3)) for n in s[2:]]
        stride = [self.one(1, 2) for _ in kernel]
        pads = [self.one(0, 0, 1) if k > 1 else 0 for k in kernel * 2]
        size = [(n + pads[i] + pads[rank + i] - k) // t + 1 for i, (n, k, t) in enumerate(zip(s[2:], kernel, stride))]
        attrs = {"kernel_shape": kernel, "strides": stride, "pads": pads}
        if op == "AveragePool" and self.chance(0.5):
            attrs["count_include_pad"] = 1
        self.add(op, [x], (*s[:2], *size), **attrs)

    def transpose(self, x, s):
        perm = [int(i) for i in self.rng.permutation(len(s))]
        if len(s) == 4 and self.chance(0.6):
            perm = self.one([0, 2, 3, 1], [0, 3, 1, 2])
        self.add("Transpose", [x], [s[i] for i in perm], perm=perm)

    def reshape(self, x, s):
        if len(s) < 2:
            return
        kind = self.one("flatten", "spatial", "split", "merge", "squeeze", "unsqueeze")
        if kind == "flatten":
            axis = self.one(1, 1, 2) if len(s) > 2 else 1
            return self.add("Flatten", [x], (int(np.prod(s[:axis])), int(np.prod(s[axis:]))), axis=axis)
        if kind == "squeeze":
            axes = [i for i, n in enumerate(s) if n == 1 and i > 1]
            to = [n for i, n in enumerate(s) if i not in axes]
            return self.with_axes("Squeeze", x, axes, to) if axes else None
        if kind == "unsqueeze":
            at = int(self.rng.integers(len(s) + 1))
            to = [*s[:at], 1, *s[at:]]
            return self.with_axes("Unsqueeze", x, [at], to) if len(s) < 5 else None
        if kind == "spatial" and len(s) > 2:
            to = (*s[:2], int(np.prod(s[2:])))
        elif kind == "split" and s[1] % 2 == 0 and len(s) < 5:
            to = (s[0], 2, s[1] // 2, *s[2:]) if self.chance(0.5) else (s[0], s[1] // 2, 2, *s[2:])
        elif len(s) > 2:
            to = (s[0], s[1] * s[2], *s[3:])
        else:
            return
        free = int(self.rng.integers(len(to) + 1))
        written = [-1 if i == free else n for i, n in enumerate(to)]
        self.add("Reshape", [x, self.ints(self.fresh("shape"), *written)], to)

    def with_axes(self, op, x, axes, to):
        if self.opset >= 13:
            return self.add(op, [x, self.ints(self.fresh("axes"), *axes)], to)
        return self.add(op, [x], to, axes=axes)

    def concatenate(self, x, s):
        axis = min(self.one(1, 1, 0, 2), len(s) - 1)
        alike = [(v, t) for v, t in self.live if len(t) == len(s) and all(a == b for i, (a, b) in enumerate(zip(t, s)) if i != axis)]
        parts = [(x, s), self.one(*alike)]
        if self.chance(0.2):
            parts.append((self.array(s), s))
        self.rng.shuffle(parts)
        to = list(s)
        to[axis] = sum(int(t[axis]) for _, t in ((v, tuple(map(int, t))) for v, t in parts))
        self.add("Concat", [str(v) for v, _ in parts], to, axis=axis)

    def split(self, x, s):
        axis = min(self.one(1, 1, 2), len(s) - 1)
        if s[axis] < 2:
            return
        first = int(self.rng.integers(1, s[axis]))
        name, sizes = self.fresh("Split"), (first, s[axis] - first)
        outputs = [f"{name}_a", f"{name}_b"]
        if self.opset >= 13:
            self.node("Split", [x, self.ints(f"{name}.sizes", *sizes)], name, outputs, axis=axis)
        else:
            self.node("Split", [x], name, outputs, axis=axis, split=list(sizes))
        for out, size in zip(outputs, sizes):
            if self.chance(0.8):
                self.born(out, (*s[:axis], size, *s[axis + 1 :]))

    def select(self, x, s):
        axis = min(self.one(1, 1, 0, 2, 3), len(s) - 1)
        n = s[axis]
        if self.chance(0.5):
            at = self.rng.integers(0, n, self.one(1, 2, 3))
            to = (*s[:axis], len(at), *s[axis + 1 :])
            return self.add("Gather", [x, self.ints(self.fresh("at"), *map(int, at))], to, axis=axis)
        step = self.one(1, 1, 2)
        start = int(self.rng.integers(n))
        end = int(self.rng.integers(start + 1, n + 1))
        inputs = [x, *(self.ints(self.fresh("s"), v) for v in (start, end, axis, step))]
        self.add("Slice", inputs, (*s[:axis], -(-(end - start) // step), *s[axis + 1 :]))

    def pad(self, x, s):
        if len(s) < 3:
            return
        mode = self.one("constant", "constant", "reflect", "edge")
        widths = [[0] * len(s) for _ in range(2)]
        for side in widths:
            for i in range(1 if mode == "constant" and self.chance(0.2) else 2, len(s)):
                side[i] = self.one(0, 1) if s[i] > 1 else 0
        inputs = [x, self.ints(self.fresh("pads"), *widths[0], *widths[1])]
        if mode == "constant" and self.chance(0.4):
            inputs.append(self.const(self.fresh("c"), np.array(self.one(0.0, 1.5))))
        self.add("Pad", inputs, [n + a + b for n, a, b in zip(s, *widths)], mode=mode)

    def resize(self, x, s):
        if len(s) != 4 or self.dtype != F32:
            return
        scales = self.const(self.fresh("scales"), np.array([1, 1, 2, 2], np.float32), F32)
        mode = self.one("nearest", "linear")
        attrs = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
        if mode == "nearest":
            attrs["nearest_mode"] = "floor"
        empty = self.const(self.fresh("roi"), np.zeros(0, np.float32), F32) if self.opset < 13 else ""
        self.add("Resize", [x, empty, scales], (*s[:2], s[2] * 2, s[3] * 2), **attrs)

    def blocks(self, x, s):
        if len(s) != 4:
            return
        if s[1] % 4 == 0 and self.chance(0.5):
            to = (s[0], s[1] // 4, s[2] * 2, s[3] * 2)
            self.add("DepthToSpace", [x], to, blocksize=2, mode=self.one("DCR", "CRD"))
        elif s[2] % 2 == 0 and s[3] % 2 == 0:
            self.add("SpaceToDepth", [x], (s[0], s[1] * 4, s[2] // 2, s[3] // 2), blocksize=2)

    def body_of_if(self, x, s):
        """An If whose bodies read the value from outside; both give the same shape."""
        if "/" in self.name or len(s) < 2:
            return
        bodies = []
        for word in ("then", "else"):
            body = Random(f"{word}{self.count}/b", self.rng, self.opset, self.dtype)
            body.shared = {}
            inner = body.bn(x, s[1], body.fresh("bn"))
            if len(s) > 2:
                weight = body.array((s[1], s[1], *(1,) * (len(s) - 2)))
                inner = body.node("Conv", [inner, weight], body.fresh("conv"), kernel_shape=[1] * (len(s) - 2))
            body.ranks[inner] = len(s)
            body.output(inner)
            bodies.append(body.proto())
        condition = self.const(self.fresh("cond"), np.array(self.chance(0.5)))
        self.add("If", [condition], s, then_branch=bodies[0], else_branch=bodies[1])

    STEPS = (
        [norm] * 9
        + [convolution] * 7
        + [gemm, gemm, gemm, matmul, matmul, arithmetic, arithmetic, arithmetic, unary, unary, unary, pooling, pooling]
        + [deconvolution, branches, branches, transpose, reshape, reshape, concatenate, split, select, pad, resize, blocks]
        + [body_of_if, parallel, parallel, quantised, quantised]
    )


def build(seed):
    """(model, inputs by name) of one seed."""
    rng = np.random.default_rng(seed)
    dtype = [F32, F32, F32, F32, F32, F16, BF16, F64][int(rng.integers(8))]
    graph = Random("g", rng, OPSETS[int(rng.integers(len(OPSETS)))], dtype)
    if dtype == BF16 and graph.opset < 13:
        graph.opset = 13
    shape = graph.one((2, 4), (2, 4, 5), (2, 4, 5, 5), (2, 3, 6, 4), (2, 4, 4, 4), (2, 2, 3, 4, 3))
    graph.input("x", shape)
    graph.live.append(("x", shape))
    for _ in range(int(rng.integers(4, 16))):
        graph.one(*Random.STEPS)(graph, *graph.pick())
    produced = graph.live[1:] or [(graph.node("Identity", ["x"], "g/only"), shape)]
    chosen = {produced[-1][0]: produced[-1][1]}
    for value, dims in produced:
        if graph.chance(0.12):
            chosen[value] = dims
    outputs = [helper.make_tensor_value_info(value, dtype, dims) for value, dims in chosen.items()]
    body = helper.make_graph(graph.nodes, "main", graph.inputs, outputs, graph.initializers)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", graph.opset)], ir_version=IR[graph.opset])
    x = rng.standard_normal(shape).astype(numpy_type(dtype))
    return model, {"x": x}


def element_type(model):
    """"f32", "f16", "bf16" or "f64"."""
    names = {TensorProto.FLOAT: "f32", TensorProto.FLOAT16: "f16", TensorProto.BFLOAT16: "bf16", TensorProto.DOUBLE: "f64"}
    return names[model.graph.input[0].type.tensor_type.elem_type]
