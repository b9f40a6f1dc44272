"""Write the goldens of train mode that need PyTorch: `torch/NAME.json`, with `torch/NAME.onnx` for the networks made here, and `concepts/`.

python testdata/generate_torch.py [--only GLOB] [--models DIR ...]

Without --models only the small networks are written. DIR holds real architectures as DIR/NAME/model.onnx with model.safetensors (the
state dict) beside it; names that torchvision and timm know are in gen/torch_models.py. Others cannot be rebuilt and are left out.
"""

import argparse
import fnmatch
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gen import torch_concepts, torch_models, torch_nets, torch_stats  # noqa: E402
from gen.oracle import eval_mode, run_onnxruntime  # noqa: E402

CHANNELS = {"small": 64, "large": 3}
LIMIT = 256 * 1024


def agree(model, module, dims, seed):
    """The file and its twin are the same network: ONNX Runtime and PyTorch agree in eval mode."""
    data = torch_stats.inputs(dims, 2, seed)
    graph = model.graph
    names = {t.name for t in graph.initializer}
    feed = next(i.name for i in graph.input if i.name not in names)
    (found,) = run_onnxruntime(eval_mode(model), {feed: data}).values()
    with torch.no_grad():
        expected = module.double()(torch.from_numpy(data).double()).numpy()
    module.float()
    gap = np.abs(found - expected).max() / np.abs(expected).max()
    assert gap < 1e-4, gap


def write(name, golden):
    path = HERE / "torch" / f"{name}.json"
    path.write_text(json.dumps(golden, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")
    size = path.stat().st_size
    print(f"{name}: {len(golden['layers'])} layers, f32 is off by {golden['noise']}, {size} bytes", flush=True)
    assert size <= LIMIT, size


def small(wanted):
    for name, build in torch_nets.NETS.items():
        if wanted(name):
            model, module, dims, batches = build()
            path = HERE / "torch" / f"{name}.onnx"
            path.write_bytes(model.SerializeToString(deterministic=True))
            onnx.checker.check_model(str(path), full_check=True)
            agree(model, module, dims, 1)
            write(name, torch_stats.golden(module, dims, batches, zlib.crc32(name.encode()), CHANNELS["small"]))
    for name, kind in torch_models.SMALL.items():
        if wanted(name):
            model = onnx.load(HERE / "models" / f"{name}.onnx")
            module = torch_models.load_onnx(kind(), model)
            agree(model, module, (3, 32, 32), 1)
            write(name, torch_stats.golden(module, (3, 32, 32), (8, 8, 3), zlib.crc32(name.encode()), CHANNELS["small"]))


def large(folders, wanted):
    from safetensors.torch import load_file

    for folder in folders:
        for path in sorted(folder.glob("*/model.safetensors")):
            name = path.parent.name
            if not wanted(name):
                continue
            if name not in torch_models.LARGE:
                print(f"{name}: left out, neither torchvision nor timm has this architecture")
                continue
            module = torch_models.large(name, load_file(path))
            write(name, torch_stats.golden(module, (3, 224, 224), (3, 3, 2), zlib.crc32(name.encode()), CHANNELS["large"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="names to write")
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="folders with real architectures")
    args = parser.parse_args()
    (HERE / "torch").mkdir(exist_ok=True)
    torch.manual_seed(0)

    def wanted(name):
        return fnmatch.fnmatch(name, args.only)

    if wanted("concepts"):
        torch_concepts.write(HERE / "concepts")
    small(wanted)
    large(args.models, wanted)


if __name__ == "__main__":
    main()
