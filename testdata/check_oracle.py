"""Judge folded models: decisions, BatchNorms left, onnx.checker, NumPy in f64, ONNX Runtime with and without optimisation.

python testdata/check_oracle.py --bnkit target/release/bnkit     folds every golden case itself
python testdata/check_oracle.py FOLDER                           judges FOLDER/NAME.onnx
"""

import argparse
import fnmatch
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gen.oracle import DEFAULT_DOMAINS, all_nodes, eval_mode, evaluate, in_training, run_onnxruntime  # noqa: E402

# With these codes a BatchNorm in training mode may stay as it is.
STAYS_TRAINING = {"no-running-statistics", "training-output-read"}


def as_list(value):
    return value if isinstance(value, list) else [value]


class Judge:
    """Collects the failures of one case."""

    def __init__(self, case, golden):
        self.case, self.golden, self.failures = case, golden, []
        self.source = golden / f"{case['name']}.onnx"

    def expect(self, condition, text):
        if not condition:
            self.failures.append(text)
        return condition

    # --- bnkit fold ---

    def fold(self, bnkit, out, timeout):
        """Run bnkit and compare its JSON. True if an output model is to be judged."""
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [bnkit, "fold", self.source, "-o", out, "--force", "--format", "json", *self.case.get("flags", [])]
        try:
            done = subprocess.run(command, capture_output=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return self.expect(False, f"bnkit took longer than {timeout} s")
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [""]
        wanted = self.case.get("exit", 0)
        self.expect(done.returncode == wanted, f"exit {done.returncode}, expected {wanted}: {last[0]}")
        if wanted:
            self.expect(not out.exists(), "an output was written in spite of the error")
            return False
        if done.returncode:
            return False
        try:
            self.report(json.loads(done.stdout))
        except ValueError as error:
            self.expect(False, f"stdout is not JSON: {error}")
        return True

    def report(self, report):
        """Decisions, routes and codes of the JSON."""
        sites, summary = report.get("sites", []), report.get("summary", {})
        expected = self.case["sites"]
        names = sorted(s.get("node") or s.get("output", "") for s in sites)
        wanted = sorted(s["node"] or s.get("output", "") for s in expected)
        self.expect(names == wanted, f"sites {names}, expected {wanted}")
        for want in expected:
            # An unnamed node is found by its output, whatever the report calls it.
            key, name = ("output", want["output"]) if not want["node"] else ("node", want["node"])
            for site in (s for s in sites if s.get(key) == name):
                self.site(want, site)
        if "affines_folded" in self.case:
            got = summary.get("affines_folded")
            self.expect(got == self.case["affines_folded"], f"affines_folded {got}, expected {self.case['affines_folded']}")
        verdict = (report.get("verification") or {}).get("verdict")
        self.expect(verdict in ("equivalent", "equivalent-local", "skipped"), f"verdict {verdict}")

    def site(self, want, site):
        node, decision = want["node"] or want["output"], site.get("decision")
        if not self.expect(
            decision in as_list(want["decision"]), f"{node}: {decision}, expected {want['decision']} {site.get('refusal', '')}"
        ):
            return
        if decision in ("folded", "half-folded") and want.get("into"):
            into, must = set(site.get("into", [])), set(want["into"])
            self.expect(must <= into <= must | set(want.get("may", [])), f"{node}: into {sorted(into)}, expected {want['into']}")
        if decision == "kept":
            code = (site.get("refusal") or {}).get("code")
            self.expect(code in as_list(want["code"]), f"{node}: code {code}, expected {want['code']}")

    # --- the output model ---

    def model(self, path):
        """Structure and numbers of the folded model."""
        case = self.case
        if not self.expect(path.exists(), "no output model"):
            return
        if case.get("checker", True):
            try:
                onnx.checker.check_model(str(path))
            except Exception as error:
                self.expect(False, f"onnx.checker: {str(error).splitlines()[0]}")
        model = onnx.load(str(path), load_external_data=False)
        original = onnx.load(str(self.source), load_external_data=False)
        norms = [n for n in all_nodes(model) if n.op_type == "BatchNormalization" and n.domain in DEFAULT_DOMAINS]
        left, opset = len(norms), next(o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS)
        codes = {c for s in case["sites"] for c in as_list(s.get("code", []))}
        if not codes & STAYS_TRAINING:
            training = [n.name for n in norms if in_training(n, opset)]
            self.expect(not training, f"still in training mode: {training}")
        self.expect(left in as_list(case["batch_norms_left"]), f"{left} BatchNorms left, expected {case['batch_norms_left']}")
        self.interface(original, model)
        if case.get("run", True):
            self.numbers(path, model)

    def interface(self, original, model):
        """Inputs stay, no initializer is left behind."""

        def inputs(m):
            constants = {t.name for t in m.graph.initializer}
            return [
                i.SerializeToString(deterministic=True) for i in m.graph.input if m.ir_version >= 4 or i.name not in constants
            ]

        def unused(m):
            read = {n for node in all_nodes(m) for n in node.input} | {o.name for o in m.graph.output}
            return {t.name for t in m.graph.initializer} - read - {i.name for i in m.graph.input}

        # --assume-constant may take a parameter out of the inputs.
        if "--assume-constant" not in self.case.get("flags", []):
            self.expect(inputs(original) == inputs(model), "the graph's inputs changed")
        stale = unused(model) - unused(original)
        self.expect(not stale, f"initializers that nobody reads any more: {sorted(stale)}")

    def numbers(self, path, model):
        case = self.case
        with np.load(self.golden / f"{case['name']}.npz") as arrays:
            feeds = {k[4:]: arrays[k] for k in arrays if k.startswith("in__")}
            wanted = {k[5:]: arrays[k] for k in arrays if k.startswith("out__")}
        external = any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)
        # ONNX Runtime crashes on some training-mode BatchNorms (opset 9, five outputs), so none gets there.
        runnable = path if external else eval_mode(model)
        runs = {"numpy": lambda: evaluate(model, feeds, base_dir=str(path.parent))}
        if case["ort"]:
            runs["onnxruntime"] = lambda: run_onnxruntime(runnable, feeds)
            runs["onnxruntime optimised"] = lambda: run_onnxruntime(runnable, feeds, optimise=True)
        for label, run in runs.items():
            try:
                self.compare(label, run(), wanted)
            except Exception as error:  # any failure to run is a failure of the case
                self.expect(False, f"{label}: {type(error).__name__} {str(error).splitlines()[:1]}")

    def compare(self, label, got, wanted):
        for name, value in wanted.items():
            if not self.expect(name in got, f"{label}: output {name} is missing"):
                continue
            a, b = np.asarray(got[name], np.float64), value.astype(np.float64)
            if not self.expect(a.shape == b.shape, f"{label}: {name} has shape {a.shape}, expected {b.shape}"):
                continue
            with np.errstate(invalid="ignore"):
                gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
            worst = float(gap.max(initial=0.0))
            self.expect(worst <= self.case["atol"], f"{label}: {name} differs by {worst:.3g}, tolerance {self.case['atol']:.3g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="folder with NAME.onnx written by `bnkit fold`")
    parser.add_argument("--bnkit", type=Path, help="the binary: fold the golden cases into a temporary folder first")
    parser.add_argument("--golden", type=Path, default=HERE / "golden")
    parser.add_argument("--only", default="*", help="glob over case names")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one fold")
    args = parser.parse_args()
    if (args.folder is None) == (args.bnkit is None):
        parser.error("give either FOLDER or --bnkit")
    cases = [c for c in json.loads((args.golden / "cases.json").read_text()) if fnmatch.fnmatchcase(c["name"], args.only)]
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases:
            judge = Judge(case, args.golden)
            path = (args.folder or Path(scratch)) / f"{case['name']}.onnx"
            to_judge = judge.fold(args.bnkit.resolve(), path, args.timeout) if args.bnkit else case.get("expect") != "error"
            if to_judge:
                judge.model(path)
            failed += bool(judge.failures)
            for text in judge.failures:
                print(f"FAIL {case['name']}: {text}")
    print(f"{len(cases)} cases, {len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
