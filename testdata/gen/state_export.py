"""The ONNX file beside a state dict: PyTorch's export with the BatchNorms left in, under PyTorch's names or none."""

import io
import warnings

import onnx
import torch

INPUT, OUTPUT = "input", "output"


def export(module, x, constants=False, dynamic=True):
    """opset 17 by the TorchScript exporter; PRESERVE keeps it from fusing BatchNorms."""
    file = io.BytesIO()
    axes = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (x,), file, opset_version=17, dynamo=False, training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=constants, input_names=[INPUT], output_names=[OUTPUT], dynamic_axes=axes if dynamic else None,
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def anonymous(model):
    """Every parameter an initializer of its own, and no name that says what it is."""
    graph = model.graph
    tensors = {t.name: t for t in graph.initializer}
    kept = []
    for node in graph.node:  # the exporter merges equal tensors
        if node.op_type == "Identity" and node.input[0] in tensors:
            copy = graph.initializer.add()
            copy.CopyFrom(tensors[node.input[0]])
            copy.name = node.output[0]
            tensors[copy.name] = copy
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    names = {INPUT: INPUT, OUTPUT: OUTPUT, "": ""}
    for i, tensor in enumerate(graph.initializer):
        names[tensor.name] = tensor.name = f"val_{i}"
    for i, node in enumerate(graph.node):
        node.name = f"node_{i}"
        for output in node.output:
            names.setdefault(output, f"val_{len(names)}")
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    del graph.value_info[:]
    graph.name = "anonymous"
    return model


def without_machine(model):
    """Nothing of the machine that exported it."""
    model.producer_name, model.producer_version = "bnkit-testdata", ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return model
