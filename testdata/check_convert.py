"""Judges `bnkit convert` on real models, by PyTorch and ONNX Runtime.

    venv/bin/python testdata/check_convert.py --bnkit target/release/bnkit FOLDER…

Each FOLDER has model.onnx and the model.safetensors that it was exported from, with the same names.
"""

import argparse
import pathlib
import subprocess
import tempfile

import numpy as np
import onnxruntime as ort
import torch
from safetensors.torch import load_file, save_file


def outputs(path, inputs):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options)
    return session.run(None, inputs)


def check(bnkit, folder, scratch):
    def convert(*args):
        subprocess.run([bnkit, "convert", "--quiet", "--force", *map(str, args)], check=True)

    model, state = folder / "model.onnx", load_file(folder / "model.safetensors")
    convert(model, "-o", scratch / "w.safetensors")
    weights = load_file(scratch / "w.safetensors")
    wanted = {name for name in state if not name.endswith("num_batches_tracked")}
    assert wanted <= set(weights), sorted(wanted - set(weights))
    assert all(torch.equal(weights[name], state[name]) for name in wanted)
    for word, dtype in [("f16", torch.float16), ("bf16", torch.bfloat16)]:
        convert(folder / "model.safetensors", "--dtype", word, "-o", scratch / "half.safetensors")
        half = load_file(scratch / "half.safetensors")
        for name, tensor in state.items():
            expected = tensor.to(dtype) if tensor.is_floating_point() else tensor
            assert torch.equal(half[name], expected), name
    # A disturbed checkpoint into the graph: each tensor must arrive, and the network must feel it.
    moved = {name: tensor * 1.01 if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_file(moved, scratch / "moved.safetensors")
    convert("--weights", scratch / "moved.safetensors", model, "-o", scratch / "moved.onnx")
    convert("--weights", folder / "model.safetensors", scratch / "moved.onnx", "-o", scratch / "back.onnx")
    session = ort.InferenceSession(str(model))
    shape = [size if isinstance(size, int) else 2 for size in session.get_inputs()[0].shape]
    inputs = {session.get_inputs()[0].name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    first, moved, back = (outputs(str(path), inputs) for path in [model, scratch / "moved.onnx", scratch / "back.onnx"])
    assert all(np.array_equal(a, b) for a, b in zip(first, back, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, moved, strict=True))
    print(f"{folder}: {len(wanted)} tensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bnkit", required=True)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for folder in args.folders:
            check(args.bnkit, folder, pathlib.Path(scratch))
