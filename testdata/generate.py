"""Write the golden cases, the small models and the schema table. Deterministic; run it from anywhere.

python testdata/generate.py [--only GLOB]
"""

import argparse
import fnmatch
import json
import sys
from pathlib import Path

import numpy as np
import onnx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gen import absorbers, carriers, constants, halves, models, opsets, refusals, reviews, schema, scopes, traps  # noqa: E402, F401
from gen.build import BF16, CASES, F16, build  # noqa: E402
from gen.oracle import DEFAULT_DOMAINS, all_nodes, eval_mode, evaluate, run_onnxruntime  # noqa: E402

UNIT = {F16: 2.0**-11, BF16: 2.0**-8}  # unit roundoff; 2**-24 for f32, and for f64, which is run in f32 too
LIMIT = 256 * 1024


def stored(array, elem_type=None):
    """What goes into the npz: bf16 as float32, everything else in its own type."""
    array = np.asarray(array)
    if elem_type is not None:
        array = array.astype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def span(values):
    """Largest finite magnitude, at least 1."""
    return max([1.0] + [float(np.abs(v[np.isfinite(v)]).max(initial=0.0)) for v in values])


def distance(a, b):
    """Largest difference over all outputs; equal infinities are equal."""
    worst = 0.0
    for name, value in b.items():
        x, y = np.asarray(a[name], np.float64), np.asarray(value, np.float64)
        assert x.shape == y.shape, (name, x.shape, y.shape)
        with np.errstate(invalid="ignore"):
            gap = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
        assert not np.isnan(gap).any(), f"{name}: NaN on one side"
        worst = max(worst, float(gap.max(initial=0.0)))
    return worst


def tolerance(model, feeds, unit, exact, measured, base_dir):
    """8 x the larger of: the original's own error, the effect of rounding every constant once more.

    The second term is measured: constants are moved by up to one `unit` (relative), at random.
    """
    effect = 0.0
    for seed in range(4):
        rng = np.random.default_rng(seed)

        def perturb(value, rng=rng):
            return value * (1 + unit * rng.uniform(-1, 1, value.shape))

        moved = evaluate(model, feeds, perturb=perturb, base_dir=base_dir)
        effect = max(effect, distance({k: moved[k] for k in exact}, exact))
    derived = 8 * max(measured, effect, max(unit, 2.0**-22) * span(exact.values()))
    return float(f"{derived:.1e}")


def batch_norms_left(g):
    """A number; where either decision is right, the list of possible numbers."""
    if g.left is not None:
        return g.left
    kept = sum(s["decision"] == "kept" for s in g.sites)
    free = sum(isinstance(s["decision"], list) for s in g.sites)
    return list(range(kept, kept + free + 1)) if free else kept


def check(g, path, entry):
    """onnx.checker, as far as it accepts the original."""
    if g.check:
        onnx.checker.check_model(str(path), full_check=g.check == "full")
    else:
        entry["checker"] = False


def write_case(name, folder):
    """One model, its npz, its entry for cases.json."""
    g = build(name)
    path = folder / f"{name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {"name": name, "about": g.about, "oracle": "numpy-f64", "sites": g.sites, **g.extra}
    entry["batch_norms_left"] = batch_norms_left(g)
    if g.flags:
        entry["flags"] = g.flags
    if g.exit is not None:
        entry.update(expect="error", exit=g.exit)
    if not g.run:
        model = g.model() if g.raw is None else None
        path.write_bytes(g.raw if g.raw is not None else model.SerializeToString(deterministic=True))
        check(g, path, entry)
        return entry | {"run": False, "ort": False}

    model = g.model()
    if g.externalise:
        path.write_bytes(g.externalise(model, path.parent).SerializeToString(deterministic=True))
        base_dir = str(path.parent)
    else:
        base_dir = ""
    exact = evaluate(model, g.feeds, base_dir=base_dir)
    exact = {k: v for k, v in exact.items() if k not in g.skip_outputs}
    # Output types: the rank is known, the sizes are left open.
    g.ranks |= {k: v.ndim for k, v in exact.items()}
    if not base_dir:
        model = g.model()
        path.write_bytes(model.SerializeToString(deterministic=True))
    check(g, path, entry)
    size = path.stat().st_size
    assert size <= LIMIT, (name, size)
    declared = sorted(n.name for n in all_nodes(model) if n.op_type == "BatchNormalization" and n.domain in DEFAULT_DOMAINS)
    assert declared == sorted(s["node"] for s in g.sites), f"{name}: sites {g.sites} but BatchNorms {declared}"

    outputs, measured, entry["ort"] = exact, 0.0, False
    try:
        judge = path if base_dir else eval_mode(model)
        runtime = run_onnxruntime(judge, g.feeds)
    except Exception as error:  # ONNX Runtime says "no kernel" in several ways
        print(f"  {name}: no ONNX Runtime ({str(error).splitlines()[0][:150]})")
    else:
        entry["ort"] = True
        measured = distance({k: runtime[k] for k in exact}, exact)
        if not g.numpy_only:
            entry["oracle"] = "onnxruntime"
            outputs = {k: runtime[k] for k in exact}
    entry["atol"] = g.atol or tolerance(model, g.feeds, UNIT.get(g.dtype, 2.0**-24), exact, measured, base_dir)
    loose = 0.02 if entry["atol"] > 1e-3 else 2e-4
    assert measured < (g.atol or loose) * span(exact.values()) or g.numpy_only, f"{name}: the two oracles differ by {measured}"
    types = {o.name: o.type.tensor_type.elem_type for o in model.graph.output}
    arrays = {f"in__{k}": stored(v) for k, v in g.feeds.items()}
    arrays |= {f"out__{k}": stored(v, types[k]) for k, v in outputs.items()}
    np.savez(path.with_suffix(".npz"), **arrays)
    return entry


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", help="case names to write (others keep their entry)")
    args = parser.parse_args()
    golden = HERE / "golden"
    golden.mkdir(exist_ok=True)
    index = golden / "cases.json"
    entries = {e["name"]: e for e in json.loads(index.read_text())} if index.exists() else {}
    entries = {k: v for k, v in entries.items() if k in CASES}
    for name in sorted(fnmatch.filter(CASES, args.only)):
        try:
            entries[name] = write_case(name, golden)
        except Exception as error:
            raise RuntimeError(f"case {name}") from error
    index.write_text(json.dumps([entries[k] for k in sorted(entries)], indent=1) + "\n")
    if args.only == "*":
        models.write(HERE / "models")
        schema.write(HERE / "schema" / "onnx_fields.txt")
    print(f"{len(entries)} cases")


if __name__ == "__main__":
    main()
