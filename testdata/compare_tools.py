"""How many BatchNorms each tool leaves, as a Markdown table; and whether what it wrote still computes the same.

python testdata/compare_tools.py --bnkit target/release/bnkit MODEL.onnx [MODEL.onnx …]

A model's name in the table is its folder's if the file is called model.onnx. Beside a model there may be an io.npz with inputs
(in the order of the graph's inputs, or by their names); without it, random inputs. "!" marks an output that is further from the
original's than 1e-3 of its range in ONNX Runtime with optimisations off, "error" a tool that gave none. Each tool runs as it
comes: ONNX Runtime at its basic level, onnxsim, onnxslim, onnxoptimizer with its fuse passes, onnxscript's optimizer with its
rewrite rules. Versions: requirements.txt, and the line below the table.
"""

import argparse
import collections
import contextlib
import importlib.metadata
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gen.oracle import all_nodes, eval_mode, run_onnxruntime  # noqa: E402

PACKAGES = ("onnxruntime", "onnxsim", "onnxslim", "onnxoptimizer", "onnxscript")


def onnxruntime_basic(source, target):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def simplified(source, target):
    import onnxsim

    model, _ = onnxsim.simplify(str(source))
    onnx.save(model, target)


def slimmed(source, target):
    import onnxslim

    onnxslim.slim(str(source), str(target))


def optimised(source, target):
    import onnxoptimizer

    passes = onnxoptimizer.get_fuse_and_elimination_passes()
    onnx.save(onnxoptimizer.optimize(onnx.load(source), passes), target)


def rewritten(source, target):
    import onnxscript.optimizer
    import onnxscript.rewriter

    model = onnxscript.optimizer.optimize(onnx.load(source))
    onnx.save(onnxscript.rewriter.rewrite(model), target)


TOOLS = dict(zip(PACKAGES, (onnxruntime_basic, simplified, slimmed, optimised, rewritten)))


def norms(path):
    model = onnx.load(path, load_external_data=False)
    return sum(n.op_type == "BatchNormalization" for n in all_nodes(model))


def inputs_of(model, beside):
    """Inputs by name, or None if their shapes say too little."""
    constants = {t.name for t in model.graph.initializer}
    wanted = [i for i in model.graph.input if i.name not in constants]
    if beside.exists():
        with np.load(beside) as arrays:
            names = [i.name for i in wanted]
            if all(n in arrays for n in names):
                return {n: arrays[n] for n in names}
            found = [arrays[k] for k in arrays if not k.startswith(("y", "out"))]
            if len(found) >= len(names):
                return dict(zip(names, found))
    rng, feeds = np.random.default_rng(0), {}
    for value in wanted:
        kind = value.type.tensor_type
        shape = [max(d.dim_value, 0) or 1 for d in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if len(shape) == 4:
            shape = [d if d > 1 or i < 2 else 64 for i, d in enumerate(shape)]
        feeds[value.name] = rng.standard_normal(shape).astype(dtype)
    return feeds


def same(original, path, feeds):
    """Whether two models agree; None if the original does not run."""
    try:
        want = run_onnxruntime(eval_mode(original), feeds)
    except Exception:
        return None
    got = run_onnxruntime(path, feeds)
    for (_, a), (_, b) in zip(want.items(), got.items()):
        a, b = (np.asarray(v, np.float64) for v in (a, b))
        if a.shape != b.shape or not np.abs(a - b).max(initial=0) <= 1e-3 * max(np.abs(a).max(initial=0), 1e-6):
            return False
    return True


def left_by(tool, source, original, feeds, folder):
    target = folder / "out.onnx"
    target.unlink(missing_ok=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # some tools draw tables
            tool(source, target)
        left = norms(target)
        return f"{left}{'' if same(original, target, feeds) in (True, None) else '!'}"
    except Exception:  # each tool has errors of its own
        return "error"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bnkit", type=Path, required=True)
    parser.add_argument("--flag", action="append", default=[], help="a flag for `bnkit fold` (repeatable)")
    parser.add_argument("models", nargs="+", type=Path)
    args = parser.parse_args()
    print("| model | BatchNorms | bnkit leaves | why | verdict | " + " | ".join(TOOLS) + " |")
    print("| --- |" + " ---: |" * 2 + " --- | --- |" + " ---: |" * len(TOOLS))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for source in args.models:
            name = source.parent.name if source.name == "model.onnx" else source.stem
            original = onnx.load(source, load_external_data=False)
            beside = "io.npz" if source.name == "model.onnx" else f"{source.stem}.io.npz"
            feeds = inputs_of(original, source.with_name(beside))
            target = folder / "folded.onnx"
            command = [args.bnkit, "fold", source, "-o", target, "--force", "--format", "json", *args.flag]
            done = subprocess.run(command, capture_output=True)
            if done.returncode:
                cells = ["error", "", ""]
            else:
                report = json.loads(done.stdout)
                codes = collections.Counter(s["refusal"]["code"] for s in report["sites"] if s.get("refusal"))
                mark = "" if same(original, target, feeds) in (True, None) else "!"
                why = ", ".join(f"{code} {count}" for code, count in codes.most_common())
                cells = [f"{norms(target)}{mark}", why, report["verification"]["verdict"]]
            cells += [left_by(tool, source, original, feeds, folder) for tool in TOOLS.values()]
            print(f"| {name} | {norms(source)} | " + " | ".join(cells) + " |", flush=True)
    print("\n" + ", ".join(f"{p} {importlib.metadata.version(p)}" for p in PACKAGES))


if __name__ == "__main__":
    main()
