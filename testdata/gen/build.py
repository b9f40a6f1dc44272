"""Helpers that build the golden graphs, and the registry of cases."""

import zlib

import numpy as np
from onnx import TensorProto, helper, numpy_helper

F32, F16, BF16, F64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE
I64, I8, BOOL = TensorProto.INT64, TensorProto.INT8, TensorProto.BOOL
BATCH = 2  # what the symbolic dimension "N" stands for when a case is run
CASES = {}


def numpy_type(elem_type):
    return np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))


def tensor(name, values, dtype=F32, form="raw"):
    """A TensorProto in `dtype`; form "typed" uses float_data, int32_data, ... in place of raw_data."""
    values = np.asarray(values).astype(numpy_type(dtype))
    if form == "raw":
        return numpy_helper.from_array(values, name)
    proto = TensorProto(name=name, data_type=dtype, dims=values.shape)
    flat = values.reshape(-1)
    if dtype in (F16, BF16):
        proto.int32_data.extend(int(v) for v in flat.view(np.uint16))
    elif dtype == F64:
        proto.double_data.extend(float(v) for v in flat)
    else:
        proto.float_data.extend(float(v) for v in flat)
    return proto


class Graph:
    """A graph under construction: the main one or a body. Methods return value names."""

    def __init__(self, name, rng, opset):
        self.name, self.rng, self.opset = name, rng, opset
        self.nodes, self.initializers, self.inputs, self.outputs, self.value_info = [], [], [], [], []
        self.dtype, self.types, self.ranks = F32, {}, {}  # of values, of outputs

    # values

    def input(self, name, shape, dtype=None):
        self.inputs.append(helper.make_tensor_value_info(name, dtype or self.dtype, shape))
        return name

    def const(self, name, values, dtype=None, form="raw"):
        """A constant: form "raw" and "typed" make an initializer, "node" a Constant node."""
        values = np.asarray(values)
        if dtype is None:
            dtype = self.dtype if values.dtype.kind == "f" else helper.np_dtype_to_tensor_dtype(values.dtype)
        if form == "node":
            proto = tensor(name, values, dtype)
            self.nodes.append(helper.make_node("Constant", [], [name], f"{name}/Constant", value=proto))
        else:
            self.initializers.append(tensor(name, values, dtype, form))
        return name

    def ints(self, name, *values):
        return self.const(name, np.array(values, np.int64))

    def normal(self, *shape):
        return self.rng.standard_normal(shape)

    def node(self, op_type, inputs, name, outputs=None, domain="", **attrs):
        """Append a node; its outputs are called NAME_out unless given. Returns the first."""
        outputs = outputs or [f"{name}_out"]
        attrs = {k: v for k, v in attrs.items() if v is not None}
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name, domain=domain, **attrs))
        return outputs[0]

    def output(self, *names):
        self.outputs.extend(names)

    # layers

    def conv(self, x, cin, cout, kernel=(3, 3), name="conv", bias=True, group=1, op="Conv", weight=None, scale=0.4, **attrs):
        """Conv or ConvTranspose; `bias` is True, False, "" (an empty third input) or a value name."""
        shape = (cout, cin // group, *kernel) if op == "Conv" else (cin, cout // group, *kernel)
        form = attrs.pop("form", "raw")
        weight = weight or self.const(f"{name}.weight", self.normal(*shape) * scale, form=form)
        inputs = [x, weight]
        if bias is True:
            inputs.append(self.const(f"{name}.bias", self.normal(cout) * 0.5, form=form))
        elif bias is not False:
            inputs.append(bias)
        if group != 1:
            attrs["group"] = group
        return self.node(op, inputs, name, kernel_shape=list(kernel), **attrs)

    def bn(self, x, channels, name="bn", shift=True, positive=False, dtype=None, params=None, outputs=None, form="raw", **attrs):
        """BatchNormalization. Channel 1 has a negative gamma unless `positive`; without `shift` beta and mean are 0.

        `params` replaces single parameters: a value name, or an array. `epsilon=None` leaves the attribute out.
        """
        size = channels if isinstance(channels, tuple) else (channels,)
        values = {
            "weight": self.rng.uniform(0.5, 1.5, size),
            "bias": self.normal(*size) * 0.5 * shift,
            "running_mean": self.normal(*size) * 0.5 * shift,
            "running_var": self.rng.uniform(0.3, 2.0, size),
        }
        if not positive and size[0] > 1:
            values["weight"][1] *= -1
        values.update(params or {})
        inputs = [x]
        for key, value in values.items():
            inputs.append(value if isinstance(value, str) else self.const(f"{name}.{key}", value, dtype, form))
        attrs.setdefault("epsilon", 1e-3)
        if self.opset < 7:
            attrs.setdefault("is_test", 1)
        if self.opset == 1:
            attrs.setdefault("consumed_inputs", [0, 0, 0, 1, 1])
        return self.node("BatchNormalization", inputs, name, outputs, **attrs)

    def body(self, name):
        """A fresh body graph; finish it with `proto()`."""
        return Graph(name, self.rng, self.opset)

    def proto(self):
        """The GraphProto. Outputs have open sizes; their rank is written when it is known."""
        outputs = []
        for name in self.outputs:
            rank = self.ranks.get(name)
            elem_type = self.types.get(name, self.dtype)
            outputs.append(helper.make_tensor_value_info(name, elem_type, None if rank is None else [None] * rank))
        return helper.make_graph(self.nodes, self.name, self.inputs, outputs, self.initializers, value_info=self.value_info)


class Case(Graph):
    """The main graph with what is expected of `bnkit fold`."""

    def __init__(self, name, about, opset=17, ir=None, dtype=F32, flags=()):
        seed = zlib.crc32(name.encode())
        super().__init__("main", np.random.default_rng(seed), opset)
        self.case, self.about, self.dtype, self.flags = name, about, dtype, list(flags)
        self.ir = ir or (3 if opset < 9 else 8 if opset < 19 else 10)
        self.feeds, self.sites, self.extra, self.domains, self.functions = {}, [], {}, [], []
        self.left, self.atol, self.run, self.exit, self.numpy_only = None, None, True, None, False
        self.metadata, self.raw, self.skip_outputs = {}, None, ()
        self.finish = None  # called with the finished ModelProto
        self.externalise = None  # moves tensors into files: (model, folder) -> model
        self.check, self.default_domain = "full", ""  # check: "full", "basic" or None, as far as onnx.checker goes

    # expectations

    def folded(self, node, *into, may=()):
        """`into` must be named by the report, `may` can be."""
        self.sites.append({"node": node, "decision": "folded", "into": list(into)} | ({"may": list(may)} if may else {}))

    def half(self, node, *into, may=()):
        self.folded(node, *into, may=may)
        self.sites[-1]["decision"] = "half-folded"

    def lowered(self, node):
        self.sites.append({"node": node, "decision": "lowered", "into": []})

    def kept(self, node, *codes):
        self.sites.append({"node": node, "decision": "kept", "code": codes[0] if len(codes) == 1 else list(codes)})

    def either(self, node, *codes, into=()):
        self.sites.append({"node": node, "decision": ["folded", "kept"], "into": list(into), "code": list(codes)})

    def affines(self, count):
        self.extra["affines_folded"] = count

    def fails(self, exit_code):
        """`bnkit fold` must write nothing and end with this code."""
        self.run, self.exit = False, exit_code

    # building

    def feed(self, name, shape, dtype=None, value=None):
        """A graph input and the value that it is run with."""
        dtype = dtype or self.dtype
        self.input(name, shape, dtype)
        size = [BATCH if isinstance(d, str) else d for d in shape]
        value = self.normal(*size) if value is None else np.asarray(value)
        self.feeds[name] = value.astype(numpy_type(dtype))
        return name

    def model(self):
        graph = self.proto()
        if self.ir < 4:  # there every initializer must also be an input
            known = {i.name for i in graph.input}
            for t in graph.initializer:
                if t.name not in known:
                    graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
        imports = [helper.make_opsetid(self.default_domain, self.opset)] + [helper.make_opsetid(d, 1) for d in self.domains]
        model = helper.make_model(graph, opset_imports=imports, functions=self.functions, producer_name="bnkit-testdata")
        model.ir_version = self.ir
        if self.metadata:
            helper.set_model_props(model, self.metadata)
        if self.finish:
            self.finish(model)
        return model


def case(about, name=None, **options):
    """Register a function that fills a Case; the function's name is the case's name."""

    def register(function):
        key = name or function.__name__
        assert key not in CASES, key
        CASES[key] = (function, about, options)
        return function

    return register


def build(name):
    """Run the registered function of one case."""
    function, about, options = CASES[name]
    g = Case(name, about, **options)
    function(g)
    return g
