"""Makes testdata/convert: what `bnkit convert` must give, by NumPy, PyTorch, onnx and exact fractions.

    venv/bin/python testdata/generate_convert.py

The rounding to float16 is NumPy's, from float32 to bfloat16 PyTorch's; from float64 to bfloat16, where both round twice,
it is done in fractions here.
"""

import math
import pathlib
from fractions import Fraction

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).parent / "convert"


def bf16(value):
    """The nearest bfloat16 of a float64, ties to even, as a Python float."""
    if not math.isfinite(value) or value == 0:
        return value
    exponent = max(math.frexp(abs(value))[1] - 1, -126)
    unit = Fraction(2) ** (exponent - 7)
    rounded = round(Fraction(value) / unit) * unit  # Python rounds ties to even
    largest = (2 - Fraction(1, 128)) * Fraction(2) ** 127
    if abs(rounded) > largest:
        return math.copysign(math.inf, value)
    return math.copysign(float(rounded), value)


def floats():
    rng = np.random.default_rng(7)
    edges = [0.0, -0.0, 1.0, 2049.0, 2051.0, -2049.0, 257.0, 259.0, 65504.0, 65519.0, 6.1e-5, 6.0e-8, 2.98e-8, 2.99e-8]
    edges += [1e-9, -3.3e-6, 2**-14, 2**-24, 2**-25, 1e-38, -1e-40, 1e-45, np.inf, -np.inf, np.nan]
    ties = [1 + 2**-11 + 2**-40, 1 + 2**-11 - 2**-40, 1 + 2**-8 + 2**-40, -1 - 3 * 2**-11 + 2**-40, 2**-25 + 2**-60]
    wide = rng.standard_normal(400) * 10.0 ** rng.uniform(-12, 4, 400)
    wide = np.clip(wide, -6e4, 6e4)
    f32 = np.concatenate([np.array(edges), wide]).astype(np.float32)
    f64 = np.concatenate([np.array(edges[:-8] + ties), wide])
    tensors = {"f32": torch.from_numpy(f32), "f64": torch.from_numpy(f64), "count": torch.arange(3)}
    save_file(tensors, OUT / "floats.safetensors", metadata={"format": "pt"})
    halves = {name: torch.from_numpy(values.astype(np.float16)) for name, values in [("f32", f32), ("f64", f64)]}
    save_file(halves | {"count": tensors["count"]}, OUT / "floats_f16.safetensors")
    exact = torch.tensor([bf16(float(value)) for value in f64], dtype=torch.float64)
    brains = {"f32": tensors["f32"].to(torch.bfloat16), "f64": exact.to(torch.float32).to(torch.bfloat16)}
    save_file(brains | {"count": tensors["count"]}, OUT / "floats_bf16.safetensors")


def typed(name, values):
    return helper.make_tensor(name, TensorProto.FLOAT, values.shape, values.ravel().tolist())


def net():
    rng = np.random.default_rng(8)

    def values(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    same = values(4)
    weights = {
        "a.weight": values(4, 3, 3, 3), "a.bias": values(4),
        "bn.weight": values(4), "bn.bias": same, "bn.running_mean": values(4), "bn.running_var": values(4) ** 2,
        "bn2.weight": values(4), "bn2.running_mean": values(4), "bn2.running_var": values(4) ** 2,
        "onnx::MatMul_9": values(4, 5),
    }
    bias = values(5)
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    initializers[4] = typed("bn.running_mean", weights["bn.running_mean"])
    half = numpy_helper.from_array(np.array([1, 2.5, -3], np.float16), "half")
    text = helper.make_tensor("labels", TensorProto.STRING, [2], [b"cat", b"dog"])
    int4 = helper.make_tensor("q", TensorProto.INT4, [2], [1, -2])
    node = helper.make_node
    nodes = [
        node("Constant", [], ["fc.bias"], value=numpy_helper.from_array(bias)),
        node("Constant", [], ["to"], value=numpy_helper.from_array(np.array([0, 4]))),
        node("Constant", [], ["six"], value=numpy_helper.from_array(np.float32(6))),
        node("Identity", ["bn.bias"], ["bn2.bias"]),
        node("Conv", ["x", "a.weight", "a.bias"], ["c"], kernel_shape=[3, 3]),
        node("BatchNormalization", ["c", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"], ["n"]),
        node("BatchNormalization", ["n", "bn2.weight", "bn2.bias", "bn2.running_mean", "bn2.running_var"], ["m"]),
        node("Min", ["m", "six"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Reshape", ["p", "to"], ["f"]),
        node("MatMul", ["f", "onnx::MatMul_9"], ["g"]),
        node("Add", ["g", "fc.bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        initializers + [half, text, int4],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, OUT / "net.onnx")
    (OUT / "external.onnx.data").unlink(missing_ok=True)
    onnx.save(model, OUT / "external.onnx", save_as_external_data=True, location="external.onnx.data", size_threshold=64)
    expected = weights | {"half": np.array([1, 2.5, -3], np.float16), "fc.bias": bias, "bn2.bias": same}
    save_file({name: torch.from_numpy(array.copy()) for name, array in expected.items()}, OUT / "net.safetensors")

    # Another checkpoint of the network: what was equal no longer is, the Linear layer has PyTorch's layout.
    other = {name: torch.from_numpy(values(*array.shape)) for name, array in expected.items() if name != "half"}
    for name in ["bn.running_var", "bn2.running_var"]:
        other[name] = other[name] ** 2
    new = {name: tensor.clone() for name, tensor in other.items()} | {"half": torch.tensor([1, 2.5, -3], dtype=torch.float16)}
    other["fc.weight"] = other.pop("onnx::MatMul_9").T.contiguous()
    other["bn.num_batches_tracked"] = torch.tensor(7)
    other["aux.weight"] = torch.zeros(9)
    save_file(other, OUT / "other.safetensors", metadata={"format": "pt"})
    save_file(new, OUT / "other_in_net.safetensors")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    floats()
    net()
