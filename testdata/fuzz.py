"""Fold random graphs with bnkit and compare original and folded model on independent engines.

python testdata/fuzz.py --bnkit target/release/bnkit --graphs 20000

f32 models run in ONNX Runtime with optimisations off, before and after; models of every type run in the f64 interpreter of
`gen/oracle.py`. What counts as a finding: a crash, an exit code that says the model is bad, a verdict "not equivalent", an
output that onnx.checker or ONNX Runtime refuses, numbers further apart than rounding explains. Each finding is written to
--keep as SEED.onnx with its input; the same seed gives the same graph. Ends with 1 if there was one.

The tolerance of an output: what random relative errors of one rounding in every constant do to it (the largest of three
tries, times 32), and 64 roundings of its largest value on top.
"""

import argparse
import collections
import json
import multiprocessing
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gen.oracle import evaluate, run_onnxruntime  # noqa: E402
from gen.random_graph import build, element_type  # noqa: E402

ROUNDING = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8, "f64": 2.0**-53}
OPTIONS = ("--through-branches", "--aggressive", "--lower", "--merge-branches", "--per-channel-scales")


class Finding(Exception):
    """Something that must not happen."""


def fold(bnkit, model, folder, flags):
    """The folded model and the report of one graph."""
    source, target = folder / "in.onnx", folder / "out.onnx"
    target.unlink(missing_ok=True)
    onnx.save(model, source)
    command = [bnkit, "fold", source, "-o", target, "--force", "--format", "json", "--threads", "1", *flags]
    done = subprocess.run(command, capture_output=True, timeout=120)
    if done.returncode or not target.exists():
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise Finding(f"exit {done.returncode}: {last}")
    return onnx.load(target), json.loads(done.stdout)


def tolerances(model, feeds, exact, unit, seed):
    """By output name."""
    found = {name: 64 * unit * float(np.abs(value).max(initial=0.0)) for name, value in exact.items()}
    for turn in range(3):
        rng = np.random.default_rng([seed, turn])
        noisy = evaluate(model, feeds, perturb=lambda v: v * (1 + unit * rng.uniform(-1, 1, v.shape)))
        for name in found:
            found[name] += 32 * float(np.abs(noisy[name] - exact[name]).max(initial=0.0)) / 3
    return found


def compare(label, wanted, got, allowed):
    for name, value in wanted.items():
        a, b = np.asarray(value, np.float64), np.asarray(got[name], np.float64)
        if a.shape != b.shape:
            raise Finding(f"{label}: {name} has shape {b.shape}, was {a.shape}")
        gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        worst = float(gap.max(initial=0.0))
        if not worst <= allowed[name]:
            raise Finding(f"{label}: {name} differs by {worst:.3g}, allowed {allowed[name]:.3g}")


def attempt(seed, bnkit, folder, available):
    """One graph. Gives what was decided; raises Finding."""
    model, feeds = build(seed)
    onnx.checker.check_model(model, full_check=False)
    rng = np.random.default_rng([seed, 99])
    flags = [option for option in available if rng.random() < 0.4]
    if rng.random() < 0.75:
        flags.append("--no-verify")
    folded, report = fold(bnkit, model, folder, flags)
    try:
        onnx.checker.check_model(folded, full_check=False)
    except Exception as error:
        raise Finding(f"onnx.checker: {str(error).splitlines()[0]}") from error
    kind, compared = element_type(model), []
    with np.errstate(all="ignore"):
        exact = evaluate(model, feeds)
        if all(np.isfinite(v).all() for v in exact.values()):
            allowed = tolerances(model, feeds, exact, ROUNDING[kind], seed)
            compare("NumPy f64", exact, evaluate(folded, feeds), allowed)
            compared.append("NumPy f64")
            if kind == "f32":
                try:
                    before = run_onnxruntime(model, feeds)
                except Exception:  # what ONNX Runtime cannot run before the fold says nothing about the fold
                    before = None
                if before is not None:
                    try:
                        after = run_onnxruntime(folded, feeds)
                    except Exception as error:
                        raise Finding(f"ONNX Runtime: {str(error).splitlines()[0]}") from error
                    compare("ONNX Runtime", before, after, {name: 4 * value for name, value in allowed.items()})
                    compared.append("ONNX Runtime")
    codes = [site["refusal"]["code"] for site in report["sites"] if site.get("refusal")]
    return kind, report["summary"], codes, compared


def work(task):
    seed, bnkit, keep, available = task
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        try:
            return seed, attempt(seed, bnkit, folder, available), None
        except Exception as error:
            text = str(error) if isinstance(error, Finding) else f"{type(error).__name__}: {error}"
            keep.mkdir(parents=True, exist_ok=True)
            for name in ("in", "out"):
                if (folder / f"{name}.onnx").exists():
                    (folder / f"{name}.onnx").replace(keep / f"{seed}.{name}.onnx")
            return seed, None, text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bnkit", type=Path, required=True, help="the binary")
    parser.add_argument("--graphs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed; the others follow")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="where findings are written")
    args = parser.parse_args()
    bnkit = args.bnkit.resolve()
    known = subprocess.run([bnkit, "fold", "--help"], capture_output=True, text=True, check=True).stdout
    available = [option for option in OPTIONS if option in known]
    tasks = ((seed, bnkit, args.keep, available) for seed in range(args.seed, args.seed + args.graphs))
    kinds, decisions, codes, engines = (collections.Counter() for _ in range(4))
    findings = 0
    with multiprocessing.Pool(args.jobs) as pool:
        for done, (seed, result, finding) in enumerate(pool.imap_unordered(work, tasks, chunksize=16), 1):
            if finding:
                findings += 1
                print(f"seed {seed}: {finding}", flush=True)
            else:
                kind, summary, refusals, compared = result
                engines.update(compared)
                kinds[kind] += 1
                codes.update(refusals)
                keys = ("batch_norms", "folded", "half_folded", "merged", "lowered", "kept", "affines_folded")
                decisions.update({key: summary[key] for key in keys})
            if done % 1000 == 0:
                print(f"{done} graphs, {findings} findings", file=sys.stderr, flush=True)
    print(f"{args.graphs} graphs from seed {args.seed}, options at random: {' '.join(available)}")
    for title, counter in (("types", kinds), ("compared in", engines), ("decisions", decisions), ("codes", codes)):
        print(f"{title}: " + ", ".join(f"{key} {count}" for key, count in counter.most_common()))
    print(f"findings: {findings}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
