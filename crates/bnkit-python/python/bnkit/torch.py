"""To and from PyTorch: an export that keeps BatchNorm, and new statistics back into a module.

``torch`` is imported when a function is called, so that ``import bnkit.torch`` costs nothing.
"""

from __future__ import annotations

import io
import os
from typing import Any, Optional, Union

from . import InputError, Result, stats

__all__ = ["apply_stats", "export"]


def export(
    module: Any,
    example: Any,
    out: "Optional[Union[str, os.PathLike[str]]]" = None,
    *,
    exporter: str = "torchscript",
    dynamic_batch: bool = True,
    **options: Any,
) -> Optional[bytes]:
    """Export a module to ONNX with its BatchNorms as they are, in eval mode.

    PyTorch's exporters fold BatchNorms away by default, and their statistics with them; then there is nothing left to recalibrate.

    Args:
        module: the ``nn.Module``; its mode is put back afterwards.
        example: an input, or a tuple of inputs, with the batch along the leading axis.
        out: the file to write.
        exporter: ``"torchscript"`` or ``"dynamo"`` (which needs onnxscript).
        dynamic_batch: leave the size of the batch open.
        options: further arguments for ``torch.onnx.export``, as ``opset_version``.

    Returns:
        The model as bytes if ``out`` is ``None``.

    Raises:
        InputError: the export has fewer BatchNorms with statistics than the module.
    """
    import torch

    inputs = example if isinstance(example, tuple) else (example,)
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        if exporter == "torchscript":
            model = _torchscript(torch, module, inputs, dynamic_batch, options)
        elif exporter == "dynamo":
            model = _dynamo(torch, module, inputs, dynamic_batch, options)
        else:
            raise ValueError(f"unknown exporter {exporter!r}: there are torchscript and dynamo")
    finally:
        for part, training in modes:
            part.training = training
    wanted, found = len(_batch_norms(module)), len(stats(model))
    if found < wanted:
        raise InputError(f"the export has {found} BatchNorms with statistics, the module has {wanted}")
    if out is None:
        return model
    with open(out, "wb") as file:
        file.write(model)
    return None


def _torchscript(torch: Any, module: Any, inputs: tuple, dynamic_batch: bool, options: dict) -> bytes:
    names = options.pop("input_names", [f"input{number or ''}" for number in range(len(inputs))])
    arguments = {
        # PRESERVE: the module is in eval mode, and the exporter does not fuse Conv and BatchNorm, as it does for EVAL.
        "training": torch.onnx.TrainingMode.PRESERVE,
        "do_constant_folding": False,
        "input_names": names,
        "dynamo": False,
    }
    if dynamic_batch:
        arguments["dynamic_axes"] = {name: {0: "batch"} for name in names}
    buffer = io.BytesIO()
    torch.onnx.export(module, inputs, buffer, **{**arguments, **options})
    return buffer.getvalue()


def _dynamo(torch: Any, module: Any, inputs: tuple, dynamic_batch: bool, options: dict) -> bytes:
    arguments = {"dynamo": True, "optimize": False}
    if dynamic_batch:
        # A size of 1 would be taken for a constant.
        inputs = tuple(torch.cat([value, value]) if value.shape[0] == 1 else value for value in inputs)
        batch = torch.export.Dim("batch")
        arguments["dynamic_shapes"] = tuple({0: batch} for _ in inputs)
    program = torch.onnx.export(module, inputs, **{**arguments, **options})
    return program.model_proto.SerializeToString()


def _batch_norms(module: Any) -> dict:
    """The BatchNorms of a module that have running statistics, by name."""
    from torch.nn.modules.batchnorm import _BatchNorm

    found = {}
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm) and part.running_mean is not None:
            found[name] = part
    return found


def apply_stats(module: Any, model: Any) -> int:
    """Write the running statistics of a model into a module. γ, β and ``num_batches_tracked`` stay.

    Layers are found by the names of the model's tensors (``layer1.bn1.running_mean``), or by those of its nodes
    (``/layer1/bn1/BatchNormalization``), as PyTorch's exporters write them.

    Args:
        module: the ``nn.Module`` that the model is an export of.
        model: an ONNX model, the path of a state dict, or what :func:`bnkit.recalibrate` gave.

    Returns:
        How many layers have new statistics: all that the module has.

    Raises:
        InputError: a layer of the module is not in the model, or has another number of channels. Nothing was changed.
    """
    import torch

    if isinstance(model, Result):
        model = getattr(model, "model", None) or getattr(model, "path", None)
    known = {}
    for layer in stats(model).values():
        for name in {_module_of_tensor(layer.mean_name), _module_of_node(layer.name), layer.name}:
            known.setdefault(name, layer)
    changes = []
    for name, part in _batch_norms(module).items():
        layer = known.get(name)
        if layer is None:
            raise InputError(f"module {name!r}: the model has no BatchNorm of this name; it has {sorted(known)}")
        if layer.channels != part.num_features:
            raise InputError(f"module {name!r}: it has {part.num_features} channels, the model's BatchNorm {layer.channels}")
        changes.append((part, layer))
    with torch.no_grad():
        for part, layer in changes:
            part.running_mean.copy_(torch.from_numpy(layer.mean))
            part.running_var.copy_(torch.from_numpy(layer.var))
    return len(changes)


def _module_of_tensor(name: str) -> str:
    return name[: -len(".running_mean")] if name.endswith(".running_mean") else name


def _module_of_node(name: str) -> str:
    """``/layer2/down/down.1/BatchNormalization`` is the module ``layer2.down.1``: a name may repeat those before it."""
    parts = [part for part in name.split("/") if part][:-1]
    module = ""
    for part in parts:
        if module and part.startswith(module.rsplit(".", 1)[-1] + "."):
            module = module + part[len(module.rsplit(".", 1)[-1]) :]
        else:
            module = f"{module}.{part}" if module else part
    return module
