"""Write the goldens of folding state dicts: `state/NAME/`.

python testdata/generate_state.py [--only GLOB]

Each folded file is computed by NumPy in f64, and written only after PyTorch, in f64, has confirmed that the network with it gives the outputs it gave before.
"""

import argparse
import copy
import fnmatch
import json
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gen import state_export, state_file, state_fold  # noqa: E402
from gen.oracle import run_onnxruntime  # noqa: E402
from gen.state_nets import NETS  # noqa: E402

LIMIT = 60 * 1024
TOTAL = 700 * 1024
METADATA = {"format": "pt", "note": "made by testdata/generate_state.py; ε is not in here"}


def saved(state, order):
    """The tensors in the order of `safetensors.torch.save_file`, or in that of the modules."""
    tensors = {name: state_file.from_torch(tensor) for name, tensor in state.items()}
    if order == "module":
        return tensors
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path, metadata={"format": "pt"})
        found, _ = state_file.read(path)
        assert found == tensors and list(found) == state_file.header_order(path)
        ours = Path(folder) / "y.safetensors"
        state_file.write(ours, found, {"format": "pt"})
        assert ours.read_bytes() == path.read_bytes(), "the two writers differ"
    return found


def inputs_for(net, name):
    g = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(2, *net.shape, generator=g).to(next(net.module.parameters()).dtype)


def graph_of(net, x):
    """The ONNX file, or None."""
    if net.graph is None:
        return None
    module = copy.deepcopy(net.module)
    if net.graph == "values":
        module, x = module.float(), x.float()
    model = state_export.export(module, x, net.constants, net.dynamic)
    if net.graph == "renamed":
        model = state_export.anonymous(model)
    return state_export.without_machine(model)


def expectations(net, epsilons):
    modules = dict(net.module.named_modules())
    pairs = net.folds + net.may + net.named + net.unseen
    layers = {layer: modules[layer] for layer, _ in pairs}
    return {
        "eps": epsilons.pop(),
        "pairs": [list(pair) for pair in pairs],
        "named": [list(pair) for pair in net.named],
        "unseen": [list(pair) for pair in net.unseen],
        "transposed": [n for n, m in layers.items() if isinstance(m, state_fold.TRANSPOSED)],
        "groups": {n: m.groups for n, m in layers.items() if getattr(m, "groups", 1) != 1},
        "linear": [n for n, m in layers.items() if isinstance(m, nn.Linear)],
        "folded": list(dict.fromkeys(norm for _, norm in net.folds)),
        "may_fold": list(dict.fromkeys(norm for _, norm in net.may)),
        "kept": net.kept,
        "identity_kept": net.identity_kept,
        "graph": net.graph,
    }


def write(name, folder):
    net = NETS[name]()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    norms = {n: m for n, m in net.module.named_modules() if isinstance(m, state_fold.BATCH_NORM)}
    claimed = {norm for _, norm in net.folds} | set(net.kept)
    assert claimed == set(norms), claimed ^ set(norms)
    expect = expectations(net, {m.eps for m in norms.values()})

    state = saved(net.module.state_dict(), net.order)
    state_file.write(folder / "model.safetensors", state, METADATA)
    x = inputs_for(net, name)
    inputs = {state_export.INPUT: x}
    expected = state_fold.outputs(copy.deepcopy(net.module).double(), inputs)
    model = graph_of(net, x)
    feed = x.float().numpy() if net.graph == "values" else x.numpy()
    np.savez(folder / "io.npz", in__input=feed, out__output=expected[0].astype(np.float32))
    if model is not None:
        (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
        (found,) = run_onnxruntime(model, {state_export.INPUT: feed}).values()
        off = state_fold.gap([found.astype(np.float64)], expected)
        assert off < (3e-2 if feed.dtype == np.float16 else 1e-4), f"ONNX Runtime and PyTorch differ by {off:.1e}"

    errors = []
    for identity, file in ((False, "folded"), (True, "identity")):
        possible = [pair for pair in net.folds if not (identity and pair[1] in net.identity_kept)]
        for folds, suffix in ((possible, ""), (possible + net.may, "_may")):
            if suffix and not net.may:
                continue
            result, error = state_fold.golden(net.module, state, inputs, folds, identity)
            state_file.write(folder / f"{file}{suffix}.safetensors", result, METADATA)
            errors.append(error)
    (folder / "expect.json").write_text(json.dumps(expect, indent=1, ensure_ascii=False) + "\n")
    refuted(name, net, state, inputs)
    assert (folder / "model.safetensors").stat().st_size < LIMIT
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{name}: {len(expect['folded'])} of {len(norms)} fold, rounding {max(errors):.0e}, {size} bytes", flush=True)


def refuted(name, net, state, inputs):
    """What must not be folded changes the outputs: PyTorch sees it."""
    swapped = [(a[0], b[1]) for a, b in zip(net.named, reversed(net.named)) if a != b]
    for pairs in [[pair] for pair in net.unseen] + [swapped][: len(swapped)]:
        values, gone = state_fold.fold(state, net.module, net.folds + pairs, False)
        wrong = state_fold.outputs(state_fold.load(net.module, state_fold.assemble(state, values, gone)), inputs)
        right = state_fold.outputs(state_fold.load(net.module, state), inputs)
        assert state_fold.gap(wrong, right) > 0.01, f"{name}: folding {pairs} is not wrong"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="names to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in NETS:
        if fnmatch.fnmatch(name, args.only):
            write(name, HERE / "state" / name)
    total = sum(path.stat().st_size for path in (HERE / "state").rglob("*") if path.is_file())
    print(f"{total} bytes")
    assert total < TOTAL


if __name__ == "__main__":
    main()
