"""The graph beside a state dict: which initializer is which tensor, what a folded graph stored, and the graph with a folded state dict in it."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .oracle import widen

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class Graph:
    """A model's initializers and who reads them."""

    def __init__(self, model):
        self.model = model
        self.tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.nodes = list(model.graph.node)
        for node in self.nodes:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    self.tensors[node.output[0]] = numpy_helper.to_array(attribute.t)
        self.behind = {n.output[0]: n.input[0] for n in self.nodes if n.op_type in ("Identity", "Transpose")}

    def norms(self):
        return [n for n in self.nodes if n.op_type == "BatchNormalization"]

    def source(self, name):
        """The tensor behind a name: exporters put Identity before merged tensors, Transpose before a Linear's weight."""
        while name not in self.tensors and name in self.behind:
            name = self.behind[name]
        return name

    def shares_modules(self):
        """A layer or a BatchNorm runs twice: what folds in a graph need not fold in a state dict."""
        weights = [self.source(n.input[1]) for n in self.nodes if n.op_type in LAYERS and len(n.input) > 1]
        means = [n.input[3] for n in self.norms()]
        weights = [w for w in weights if w in self.tensors]
        return len(set(weights)) < len(weights) or len(set(means)) < len(means)

    def ties(self, state):
        """Name in the state dict → (initializer, transposed): by name, or else by contents that occur only once."""
        found, contents = {}, {}
        for name, value in self.tensors.items():
            contents.setdefault((value.shape, widen(value).tobytes()), []).append(name)
        for name, tensor in state.items():
            if self.source(name) in self.tensors:
                found[name] = (self.source(name), False)
                continue
            wide = tensor.wide()
            for transposed, value in ((False, wide), (True, wide.T)):
                value = np.ascontiguousarray(value)
                names = contents.get((value.shape, value.tobytes()), [])
                if len(names) == 1 and value.size > 1 and name not in found and not (transposed and value.ndim != 2):
                    found[name] = (names[0], transposed)
        initializers = [tie for tie in found.values()]
        named = {name for name in found if name in self.tensors or name in self.behind}
        return {name: tie for name, tie in found.items() if name in named or initializers.count(tie) == 1}

    def readers(self, weight):
        return [n for n in self.nodes if n.op_type in LAYERS and len(n.input) > 1 and self.source(n.input[1]) == weight]

    def addend(self, node):
        """The constant that is added behind a layer: its third input, or that of an Add behind a MatMul (and a Transpose)."""
        if len(node.input) > 2 and node.input[2]:
            return self.source(node.input[2])
        outputs = {node.output[0]}
        for other in self.nodes:
            if other.op_type == "Transpose" and other.input[0] in outputs:
                outputs.add(other.output[0])
            if other.op_type == "Add" and outputs & set(other.input):
                return next((self.source(i) for i in other.input if self.source(i) in self.tensors), None)
        return None

    def affines(self):
        """Names of what scales or adds and is no layer: a fold of the graph may take them along, a state dict's code keeps them."""
        return {n.name for n in self.nodes if n.op_type in ("Mul", "Add", "Sub", "Div")}


def compare_bits(original, folded, before, after):
    """(tensors equal in both folded files, tensors compared, names that differ). A layer is found again by its node's name."""
    ties = original.ties(before)
    nodes = {n.name: n for n in folded.nodes if n.name}
    same, compared, differ = 0, 0, []
    for name in (n for n, t in after.items() if before.get(n) != t):
        layer, _, part = name.rpartition(".")
        weight, transposed = ties.get(f"{layer}.weight", (None, False))
        readers = [nodes[n.name] for n in original.readers(weight) if n.name in nodes] if weight else []
        targets = [folded.source(n.input[1]) if part == "weight" else folded.addend(n) for n in readers]
        targets = [t for t in targets if t in folded.tensors]
        if not targets or part not in ("weight", "bias"):
            continue
        compared += 1
        wanted = after[name].wide()
        wanted = wanted.T if transposed and part == "weight" else wanted
        found = [widen(folded.tensors[t]) for t in targets]
        if all(f.size == wanted.size and np.array_equal(f.reshape(wanted.shape), wanted) for f in found):
            same += 1
        else:
            differ.append(name)
    return same, compared, differ


def with_state(original, before, after, wide):
    """The original graph with the tensors of a folded state dict: BatchNorms without tensors become Identity, layers get their new biases.

    `wide` stores f64, for the interpreter; otherwise each tensor has the type it had in the graph.
    """
    model = onnx.ModelProto()
    model.CopyFrom(original.model)
    graph, ties = model.graph, original.ties(before)
    targets, dropped = {}, set()
    identities = {n.output[0] for n in original.nodes if n.op_type == "Identity"}
    for name, tensor in after.items():
        if name in identities:  # merged with an equal tensor: its own again
            dropped.add(name)
            targets[name] = tensor.wide()
        elif name in ties:
            target, transposed = ties[name]
            targets[target] = tensor.wide().T if transposed else tensor.wide()

    def tensor(name, value):
        like = original.tensors.get(original.source(name))
        dtype = np.float64 if wide or like is None else like.dtype
        if like is not None and like.dtype.kind in "iu":
            dtype = like.dtype
        elif like is None and not wide:
            dtype = np.float32
        return numpy_helper.from_array(np.ascontiguousarray(value).astype(dtype), name)

    kept = [t for t in graph.initializer if t.name not in targets]
    del graph.initializer[:]
    graph.initializer.extend(kept + [tensor(n, v) for n, v in targets.items()])
    gone = {n.removesuffix(".running_mean") for n in before if n.endswith(".running_mean") and n not in after}
    new = {ties[n.removesuffix("bias") + "weight"][0]: n for n in after if n not in before}
    graph.initializer.extend(tensor(n, after[n].wide()) for n in new.values())
    nodes = []
    for node in graph.node:
        if node.op_type == "Identity" and node.output[0] in dropped:
            continue
        if node.op_type == "BatchNormalization" and node.input[3].removesuffix(".running_mean") in gone:
            node = helper.make_node("Identity", [node.input[0]], [node.output[0]])
        weight = original.source(node.input[1]) if node.op_type in LAYERS and len(node.input) > 1 else None
        if weight in new and node.op_type == "MatMul":
            product = f"{node.output[0]}/product"
            nodes += [node, helper.make_node("Add", [product, new[weight]], [node.output[0]])]
            node.output[0] = product
            continue
        if weight in new:
            del node.input[2:]
            node.input.append(new[weight])
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return model
