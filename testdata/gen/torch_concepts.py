"""The smallest case of docs/concepts.md: one fresh BatchNorm over a batch of four 3x8x8 samples, and what PyTorch does with it."""

import json

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

MEANS, DEVIATIONS = (2.0, -1.0, 0.5), (1.5, 0.5, 3.0)


def network():
    """nn.BatchNorm2d(3) as it is made: gamma 1, beta 0, running mean 0, running variance 1. ONNX's momentum is 1 - PyTorch's."""
    names = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    inits = [numpy_helper.from_array(np.full(3, v, np.float32), f"bn.{k}") for k, v in names.items()]
    node = helper.make_node("BatchNormalization", ["x", *(t.name for t in inits)], ["y"], "bn", epsilon=1e-5, momentum=0.9)
    shape = ["N", 3, 8, 8]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "y")]
    graph = helper.make_graph([node], "one_norm", ends[:1], ends[1:], inits)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="bnkit-testdata")
    model.ir_version = 8
    return model


def channels(x):
    """Mean and population deviation of each channel."""
    x = x.detach().numpy()
    return {"mean": x.mean((0, 2, 3)).tolist(), "std": x.std((0, 2, 3)).tolist()}


def write(folder):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(9)
    shape = (1, 3, 1, 1)
    # Pixels of one sample resemble each other: each sample has a level of its own.
    level, pixels = rng.standard_normal((4, 3, 1, 1)), rng.standard_normal((4, 3, 8, 8))
    data = np.reshape(MEANS, shape) + np.reshape(DEVIATIONS, shape) * (0.8 * level + 0.6 * pixels)
    data = data.astype(np.float32)
    model = network()
    onnx.checker.check_model(model, full_check=True)
    (folder / "one_norm.onnx").write_bytes(model.SerializeToString(deterministic=True))
    np.save(folder / "batch.npy", data)
    np.save(folder / "one.npy", data[:1])
    golden = {}
    for name, batch in (("batch", data), ("one", data[:1])):
        x = torch.from_numpy(batch).double()
        norm = nn.BatchNorm2d(3).double()
        seen = {"input": channels(x), "input_var": x.var((0, 2, 3), unbiased=False).tolist()}
        seen["input_var_unbiased"] = x.var((0, 2, 3), unbiased=True).tolist()
        seen["eval_before"] = channels(norm.eval()(x))
        seen["train"] = channels(norm.train()(x))
        seen["running_after_1"] = [norm.running_mean.tolist(), norm.running_var.tolist()]
        seen["eval_after_1"] = channels(norm.eval()(x))
        norm.train()
        for _ in range(49):
            norm(x)
        seen["running_after_50"] = [norm.running_mean.tolist(), norm.running_var.tolist()]
        seen["eval_after_50"] = channels(norm.eval()(x))
        # The first sample alone, normalised with the statistics of four.
        seen["eval_after_50_first"] = channels(norm(torch.from_numpy(data[:1]).double()))
        golden[name] = seen
    (folder / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
    return golden
