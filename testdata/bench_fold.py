"""Folding, whole processes side by side: bnkit with and without its proof, a copy, and other tools.

    cargo build --release --workspace
    python testdata/bench_fold.py --write              # the table of docs/benchmarks.md; without --write it is printed
    python testdata/bench_fold.py --models DIR --big BIG.onnx  # with models that are there already: DIR/NAME/model.onnx

Versions: requirements.txt and requirements-bench.txt. The models are torchvision's architectures with random weights, and one of 2.9 GB with
external data, made on demand in --scratch (which needs 10 GB). Every tool is a process of its own, so importing it counts as starting bnkit does; what
it writes is synced, as a fold's output is and a copy's. In turn, each round beginning with another one; medians, and the ratios to
the copy of the same round. Peak memory is the high-water mark of the resident set. A tool that fails is shown as such and not run again.
"""

import argparse
import importlib.metadata
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gen.timing import DOCS, Run, between_markers, in_turn, load, machine, run, spread, table  # noqa: E402

MODELS = ["mobilenet_v2", "resnet50", "resnet152"]
PACKAGES = {"ONNX Runtime, basic": "onnxruntime", "onnxslim": "onnxslim", "onnxsim": "onnxsim", "onnxoptimizer": "onnxoptimizer"}
BIG_LAYERS, BIG_CHANNELS = 19, 2048
SIMPLE_PROTO = 2**31


def onnxruntime(source, target):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = target
    if external(source):
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", Path(target).name + ".data")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def onnxslim(source, target):
    import onnxslim

    onnxslim.slim(source, target, save_as_external_data=external(source))


def onnxsim(source, target):
    import onnx
    import onnxsim

    model, _ = onnxsim.simplify(source)
    onnx.save(model, target, save_as_external_data=external(source), location=Path(target).name + ".data")


def onnxoptimizer(source, target):
    import onnx
    import onnxoptimizer

    model = onnxoptimizer.optimize(onnx.load(source), onnxoptimizer.get_fuse_and_elimination_passes())
    onnx.save(model, target, save_as_external_data=external(source), location=Path(target).name + ".data")


def external(source):
    return Path(source + ".data").exists()


def files(model):
    """A model's own file, and its data file if it has one."""
    return [path for path in (model, Path(f"{model}.data")) if path.exists()]


def copied(model, folder):
    """cp and sync of the copy, one after the other."""
    targets = [folder / f"copy{index}" for index in range(len(files(model)))]
    parts = [run(["cp", source, target]) for source, target in zip(files(model), targets)]
    parts += [run(["sync", target]) for target in targets]
    return Run(sum(part.seconds for part in parts), max(part.peak for part in parts), "")


def synced(command, out):
    """A command, and the sync of what it wrote. What an earlier round wrote is gone before."""
    for path in files(out):
        path.unlink()
    done = run(command)
    if done is None:
        return None
    parts = [run(["sync", path]) for path in files(out)]
    return Run(done.seconds + sum(part.seconds for part in parts), done.peak, done.output)


def contestants(program, model, folder, proof):
    out = folder / "out.onnx"
    fold = [program, "fold", model, "--force", "--quiet", "-o", out]
    all_of_them = {"cp + sync": lambda: copied(model, folder), "bnkit --no-verify": lambda: run([*fold, "--no-verify"])}
    if proof:
        all_of_them["bnkit"] = lambda: run(fold)
    for name, package in PACKAGES.items():
        command = [sys.executable, "-W", "ignore", __file__, "--child", package, model, out]
        all_of_them[name] = lambda command=command: synced(command, out)
    return all_of_them


def make_big(path):
    """Layers of Conv and BatchNorm, 151 MB of weights each, in one data file; written layer by layer."""
    import numpy as np
    from onnx import TensorProto, external_data_helper, helper, numpy_helper, save

    rng, shape = np.random.default_rng(0), (BIG_CHANNELS, BIG_CHANNELS, 3, 3)
    weight = (rng.standard_normal(shape, dtype=np.float32) * 0.01).tobytes()
    nodes, constants, value = [], [], "x"
    with open(f"{path}.data", "wb") as data:
        for layer in range(BIG_LAYERS):
            tensor = TensorProto(name=f"{layer}.w", data_type=TensorProto.FLOAT, dims=shape, raw_data=weight)
            external_data_helper.set_external_data(tensor, f"{path.name}.data", offset=data.tell(), length=len(weight))
            tensor.ClearField("raw_data")
            data.write(weight)
            names = [f"{layer}.{part}" for part in "gbmv"]
            vectors = [rng.uniform(0.5, 1.5, BIG_CHANNELS).astype(np.float32) for _ in names]
            constants += [tensor, *(numpy_helper.from_array(v, n) for v, n in zip(vectors, names))]
            nodes.append(helper.make_node("Conv", [value, tensor.name], [f"{layer}.c"], name=f"{layer}.conv", pads=[1, 1, 1, 1]))
            value = f"{layer}.y"
            nodes.append(helper.make_node("BatchNormalization", [f"{layer}.c", *names], [value], name=f"{layer}.bn"))
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, BIG_CHANNELS, 8, 8]) for n in ("x", value)]
    graph = helper.make_graph(nodes, "big", ports[:1], ports[1:], constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def made(name, given, scratch):
    """The file of a model, made if it is not there."""
    if name == "big":
        path = given.big or scratch / "big.onnx"
        if not path.exists():
            make_big(path)
        return path
    there = given.models and given.models / name / "model.onnx"
    if there and there.exists():
        return there
    path = scratch / f"{name}.onnx"
    if not path.exists():
        code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import train_speed; train_speed.export({name!r}, {str(path)!r})"
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, stdout=subprocess.DEVNULL)
    return path


def rows_of(name, model, given, folder):
    size = sum(path.stat().st_size for path in files(model)) / 1e6
    runs = in_turn(contestants(given.program, model, folder, proof=size < SIMPLE_PROTO / 1e6), given.rounds)
    copies = [each.seconds for each in runs["cp + sync"]]
    for tool, each in runs.items():
        label = f"{name}, {size:.0f} MB"
        if not each:
            yield [label, tool, "fails", "", ""]
            continue
        ratios = [a.seconds / b for a, b in zip(each, copies)]
        ratio = "1" if tool == "cp + sync" else spread(ratios)
        yield [label, tool, f"{statistics.median(a.seconds for a in each):.3f}", ratio, f"{max(a.peak for a in each):.0f}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*MODELS, "big"], help="architectures of torchvision, or big")
    parser.add_argument("--program", default="target/release/bnkit")
    parser.add_argument("--models", type=Path, help="a folder of NAME/model.onnx")
    parser.add_argument("--big", type=Path, help="the model with external data")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scratch", type=Path, help="where models and outputs go (default: a temporary folder)")
    parser.add_argument("--write", action="store_true", help="the table into docs/benchmarks.md")
    given = parser.parse_args()
    busy, rows = load(), []
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        folder = Path(folder)
        for name in given.names:
            rows += rows_of(name, made(name, given, folder), given, folder)
            print(table([name, "", "s", "ratio", "MB"], [row for row in rows if row[0].startswith(name + ",")]), file=sys.stderr, flush=True)
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES.values())
    text = f"{machine()}; {given.rounds} rounds; {versions}.{busy}\n\n"
    text += table(["model", "tool", "s", "of cp + sync (min–max)", "peak MB"], rows)
    if given.write:
        between_markers(DOCS / "benchmarks.md", "bench_fold", text)
    else:
        print(text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        {"onnxruntime": onnxruntime, "onnxslim": onnxslim, "onnxsim": onnxsim, "onnxoptimizer": onnxoptimizer}[sys.argv[2]](*sys.argv[3:])
    else:
        main()
