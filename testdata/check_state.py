"""Judge folded state dicts: their structure, the goldens, bits against the folded graph, and outputs by PyTorch (or NumPy and ONNX Runtime) in f64 and f32.

python testdata/check_state.py --bnkit target/release/bnkit                  the goldens, and architectures of torchvision and timm
python testdata/check_state.py --bnkit … --models DIR                        and every X.safetensors below DIR that has an X.onnx
python testdata/check_state.py --bnkit … --pairs | --preset                  fold with a pairing file (goldens), or by preset (architectures)

Needs requirements-torch.txt. The exit code is 1 if anything fails.
"""

import argparse
import fnmatch
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gen import state_file, state_fold, state_graph, state_subjects  # noqa: E402

FACTOR = 8  # as bnkit's own: the difference may be this many times what rounding explains


class Row:
    """One fold of one subject: what was measured, what failed."""

    def __init__(self, subject, mode):
        self.subject, self.mode, self.failures, self.cells = subject, mode, [], {}

    def expect(self, condition, text):
        if not condition:
            self.failures.append(text)
        return bool(condition)

    def print(self):
        cells = [self.cells.get(k, "-") for k in ("folded", "changed", "bits", "f64", "f32")]
        print(f"{self.subject:24} {self.mode:9} {cells[0]:>9} {cells[1]:>11} {cells[2]:>9} {cells[3]:>19} {cells[4]:>19}  ", end="")
        print("; ".join(self.failures[:4]) if self.failures else "ok", flush=True)


def fold(row, command, out, timeout):
    """Runs bnkit. True if it wrote a file."""
    out.unlink(missing_ok=True)
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return row.expect(False, f"bnkit took longer than {timeout} s")
    last = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
    row.expect(done.returncode == 0, f"exit {done.returncode}: {last}")
    return row.expect(out.exists() == (done.returncode == 0), "the exit code and the output file disagree") and out.exists()


# --- what a file looks like, whatever it computes ---


def structure(row, subject, after, metadata, identity):
    """Order, types, shapes and metadata of the input; new biases behind their weights; whole BatchNorms go, or become identities."""
    before = subject.before
    row.expect(metadata == subject.metadata, "metadata changed")
    order = []
    for name, tensor in before.items():
        order += [name] if name in after else []
        bias = name.removesuffix("weight") + "bias"
        if name.endswith(".weight") and bias in after and bias not in before:
            order.append(bias)
            new = after[bias]
            row.expect(new.dtype == tensor.dtype and len(new.shape) == 1, f"{bias} has a wrong type or shape")
    row.expect(order == list(after), "the order is not that of the input")
    for name, tensor in after.items():
        if name in before:
            same = (tensor.dtype, tensor.shape) == (before[name].dtype, before[name].shape)
            row.expect(same, f"{name} has another type or shape")
    norms = [n.removesuffix(".running_mean") for n in before if n.endswith(".running_mean")]
    folded = []
    for norm in norms:
        parts = {f"{norm}.{k}" for k in state_fold.PARTS} & set(before)
        left = parts & set(after)
        row.expect(left in (set(), parts), f"{norm} is half there")
        if identity:
            row.expect(left == parts, f"{norm} is gone")
            if any(before[n] != after.get(n) for n in parts - {f"{norm}.bias"}):
                folded.append(norm)
                neutral(row, subject, norm, after)
        elif not left:
            folded.append(norm)
        elif left == parts:
            row.expect(all(before[n] == after[n] for n in parts), f"{norm} stays but changed")
    owners = {f"{norm}.{k}" for norm in folded for k in state_fold.PARTS}
    lost = [n for n in before if n not in after and n not in owners]
    row.expect(not lost, f"lost {lost[:3]}")
    row.expect(not identity or list(after) == list(before), "other tensors than in the input")
    row.cells["folded"] = f"{len(folded)}/{len(norms)}"
    row.cells["changed"] = f"{sum(before.get(n) != t for n, t in after.items())}/{len(after)}"
    return set(folded)


def neutral(row, subject, norm, after):
    eps = subject.eps().get(norm)
    eps = np.float64(np.float32(eps)) if eps else None
    variance = 1.0 if f"{norm}.weight" in after else eps and 1 - eps
    wanted = {".weight": eps and np.sqrt(1 + eps), ".running_mean": 0.0 if f"{norm}.bias" in after else None, ".running_var": variance}
    for suffix, value in wanted.items():
        tensor = after.get(norm + suffix)
        if tensor is not None and value is not None:
            row.expect(tensor == state_file.stored(np.full(tensor.shape, value), tensor.dtype), f"{norm}{suffix} is not that of an identity")
    tracked = f"{norm}.num_batches_tracked"
    row.expect(subject.before.get(tracked) == after.get(tracked), f"{tracked} changed")


# --- what it computes ---


def perturbed(before, after, rng):
    """Every changed tensor off by up to half a unit of its type once more."""
    result = {}
    for name, tensor in after.items():
        result[name] = tensor
        if before.get(name) != tensor and tensor.dtype in state_file.FLOATS:
            noise = 1 + 2.0 ** -state_file.DIGITS[tensor.dtype] * rng.uniform(-1, 1, tensor.shape)
            result[name] = state_file.stored(tensor.wide() * noise, "F64")
    return result


def outputs(row, subject, after):
    """The folded network against the original, in f64 and in f32; allowed is a multiple of what rounding alone does."""
    original32 = subject.run(subject.before, False)
    try:
        exact = subject.run(subject.before, True)
        moved = subject.run(perturbed(subject.before, after, np.random.default_rng(1)), True)
        floor = max(state_fold.gap(original32, exact), state_fold.gap(moved, subject.run(after, True)), 2.0**-30)
        runs = (("f64", True), ("f32", False))
    except NotImplementedError:
        exact, floor, runs = original32, 1e-6, (("f32", False),)
    for label, wide in runs:
        gap = state_fold.gap(subject.run(after, wide), exact)
        row.cells[label] = f"{gap:.1e} ≤ {FACTOR * floor:.1e}"
        row.expect(gap <= FACTOR * floor, f"outputs in {label} differ by {gap:.1e}, allowed {FACTOR * floor:.1e}")


def against_graph(row, subject, after, folded, bnkit, folder, timeout, strict):
    """The same numbers as in the folded ONNX, and the same BatchNorms gone."""
    out = folder / "out.onnx"
    if not fold(row, [bnkit, "fold", subject.graph_path, "-o", out, "--force"], out, timeout):
        return
    found = state_graph.Graph(onnx.load(out))
    same, compared, differ = state_graph.compare_bits(subject.graph, found, subject.before, after)
    row.cells["bits"] = f"{same}/{compared}"
    lost = subject.graph.affines() - found.affines()  # the graph's layers took these along, the state dict's must not: the outputs decide
    row.expect(lost or not differ, f"other bits than the folded graph: {differ[:3]}")
    names = {n.input[3] for n in subject.graph.norms()} & set(subject.before)
    gone = {n.removesuffix(".running_mean") for n in names - {n.input[3] for n in found.norms()}}
    row.expect(not names or folded <= gone, f"folded, but not in the graph: {sorted(folded - gone)[:3]}")
    if strict and not subject.graph.shares_modules():
        row.expect(gone <= folded, f"folds in the graph only: {sorted(gone - folded)[:3]}")


def against_golden(row, subject, after, identity):
    """Bit for bit one of the goldens."""
    right = []
    for suffix in ("", "_may"):
        path = subject.path.with_name(f"{'identity' if identity else 'folded'}{suffix}.safetensors")
        if path.exists():
            right.append(state_file.read(path)[0])
    if not row.expect(after in right, "differs from the golden"):
        differ = [n for n in {**right[0], **after} if right[0].get(n) != after.get(n)]
        row.failures[-1] += f": {differ[:4]}"


# --- the modes ---


def judge(row, subject, out, identity):
    after, metadata = state_file.read(out)
    folded = structure(row, subject, after, metadata, identity)
    if not row.failures:
        try:
            outputs(row, subject, after)
        except (RuntimeError, KeyError) as error:
            row.expect(False, f"does not load: {str(error).splitlines()[-1].strip()}")
    return after, folded


def with_graph(subject, bnkit, folder, timeout):
    for identity in (False, True):
        row = Row(subject.name, "identity" if identity else "graph")
        out, again = folder / "out.safetensors", folder / "again.safetensors"
        command = [bnkit, "fold", subject.path, "--graph", subject.graph_path, "--force", *(["--identity-bn"] if identity else [])]
        if fold(row, [*command, "-o", out], out, timeout):
            after, folded = judge(row, subject, out, identity)
            if subject.expect:
                against_golden(row, subject, after, identity)
                if fold(row, [*command, "-o", again], again, timeout):
                    row.expect(out.read_bytes() == again.read_bytes(), "not the same bytes twice")
            same_types = subject.expect is None or subject.expect["graph"] != "values"
            if not identity and same_types:
                against_graph(row, subject, after, folded, bnkit, folder, timeout, subject.expect is None)
        yield row


def pairing(expect):
    """pairs.yaml with every pair that the names make right."""
    lines, wrong = ["pairs:"], expect["unseen"]
    for layer, norm in (pair for pair in expect["pairs"] if pair not in wrong):
        lines.append(f"  - {'linear' if layer in expect['linear'] else 'conv'}: {layer}")
        lines += [f"    bn: {norm}", f"    eps: {expect['eps']:f}"]
        lines += ["    transposed: true"] if layer in expect["transposed"] else []
        lines += [f"    groups: {expect['groups'][layer]}"] if layer in expect["groups"] else []
    return "\n".join(lines) + "\n"


def with_pairs(subject, bnkit, folder, timeout):
    expect = subject.expect
    pairs = [tuple(pair) for pair in expect["pairs"] if pair not in expect["unseen"]]
    repeated = len({norm for _, norm in pairs}) < len(pairs)  # one BatchNorm in two pairs may be refused, as a pair without place for its shift
    if not pairs:
        return
    (folder / "pairs.yaml").write_text(pairing(expect))
    for identity in (False, True):
        row = Row(subject.name, "pairs+id" if identity else "pairs")
        out = folder / "out.safetensors"
        command = [bnkit, "fold", subject.path, "--pairs", folder / "pairs.yaml", "-o", out, "--force"]
        if not fold(row, [*command, *(["--identity-bn"] if identity else [])], out, timeout):
            if (repeated or identity and expect["identity_kept"]) and row.failures[0].startswith("exit 2"):
                row.failures, row.cells["folded"] = [], "refused"
            yield row
            continue
        after, _ = judge(row, subject, out, identity)
        possible = [pair for pair in pairs if not (identity and pair[1] in expect["identity_kept"])]
        right = []
        for eps in (float(np.float32(expect["eps"])), expect["eps"]):  # as in a graph, or as written
            values, gone = state_fold.fold(subject.before, subject.net.module, possible, identity, eps)
            right.append(state_fold.assemble(subject.before, values, gone))
        row.expect(after in right, "differs from NumPy's fold of the same pairs")
        yield row


def with_preset(subject, bnkit, folder, timeout):
    """By the names alone. The outputs show a wrong pair; how many it finds is compared with the graph's direct pairs by eye."""
    for identity in (False, True):
        row = Row(subject.name, "preset+id" if identity else "preset")
        out, (eps,) = folder / "out.safetensors", {f"{m:g}" for m in map(np.float32, subject.eps().values())}
        command = [bnkit, "fold", subject.path, "--preset", "auto", "--eps", eps, "--yes", "-o", out, "--force"]
        if fold(row, [*command, *(["--identity-bn"] if identity else [])], out, timeout):
            judge(row, subject, out, identity)
        yield row


def subjects(args, scratch):
    def wanted(name):
        return fnmatch.fnmatch(name, args.only)

    if not args.preset:
        for folder in sorted((HERE / "state").iterdir()):
            if wanted(folder.name):
                yield state_subjects.golden(folder)
    if args.pairs:
        return
    for root in [] if args.preset else args.models:
        for subject in state_subjects.folders(root, wanted):
            yield subject
    for name in state_subjects.ARCHITECTURES if not args.no_architectures else ():
        if wanted(name):
            yield state_subjects.architecture(name, scratch / name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bnkit", required=True, type=Path, help="the program")
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="folders of models with state dicts")
    parser.add_argument("--only", default="*", help="names to judge")
    parser.add_argument("--no-architectures", action="store_true", help="leave torchvision and timm out")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one run of bnkit")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--pairs", action="store_true", help="fold the goldens with a pairing file")
    mode.add_argument("--preset", action="store_true", help="fold the architectures by preset")
    args = parser.parse_args()
    judged = with_pairs if args.pairs else with_preset if args.preset else with_graph
    torch.set_num_threads(2)
    rows, failed = 0, []
    print(f"{'name':24} {'mode':9} {'folded':>9} {'changed':>11} {'bits':>9} {'f64':>19} {'f32':>19}")
    with tempfile.TemporaryDirectory() as scratch:
        for subject in subjects(args, Path(scratch)):
            if subject.graph is None and judged is with_graph:
                continue
            for row in judged(subject, args.bnkit.resolve(), Path(scratch), args.timeout):
                row.print()
                rows += 1
                failed += [row] if row.failures else []
    print(f"{rows} folds judged, {len(failed)} failed")
    sys.exit(bool(failed) or not rows)


if __name__ == "__main__":
    main()
