"""Images per second in train mode: bnkit against PyTorch's update_bn, plain and tuned, and ONNX Runtime in eval mode.

    cargo build --release --workspace --example train_speed
    python testdata/train_speed.py [--rounds 5] [--batch 32] [--threads 2] [--program target/release/examples/train_speed] [MODEL ...]

Versions: requirements-bench.txt (nothing that is tested hangs on this). Exports torchvision's
architectures with random weights and their BatchNorms, then measures in turn, each in a process of its own: bnkit, plain
update_bn, tuned update_bn (channels last, and an allocator that keeps its memory), and ONNX Runtime running the same graph in eval mode with
its optimisations off, to say how far that is. What else the machine does hits all four
alike; the medians of the rounds' ratios are printed. Peak memory is the high-water mark of the process's resident set.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODELS = ["resnet18", "resnet50", "mobilenet_v2", "densenet121", "efficientnet_b0"]
TUNED = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}
BATCHES = 4


def network(name):
    import torchvision

    return getattr(torchvision.models, name)(weights=None)


def export(name, path):
    import torch

    torch.manual_seed(0)
    net = network(name).eval()
    torch.onnx.export(
        net,
        (torch.zeros(1, 3, 224, 224),),
        path,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        dynamo=False,
    )


def torch_speed(name, tuned, batch, threads):
    """The child process: the best rate of some batches."""
    import torch
    from torch.optim.swa_utils import update_bn

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    net, x = network(name), torch.rand(batch, 3, 224, 224)
    if tuned:
        net = net.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    best = 0.0
    for _ in range(BATCHES):
        start = time.perf_counter()
        update_bn([x], net)
        best = max(best, batch / (time.perf_counter() - start))
    print(f"best {best} images/s")


def onnxruntime_speed(path, batch, threads):
    """The child process: the best rate of some batches, in eval mode, of the graph as it is."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random((batch, 3, 224, 224), dtype=np.float32)
    best = 0.0
    for _ in range(BATCHES):
        start = time.perf_counter()
        session.run(None, {session.get_inputs()[0].name: x})
        best = max(best, batch / (time.perf_counter() - start))
    print(f"best {best} images/s")


def measure(command, environment):
    """Best rate, and peak memory in MB."""
    child = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )
    lines = child.stdout.read().splitlines()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{command} failed")
    return float(lines[-1].split()[1]), usage.ru_maxrss / 1000


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("models", nargs="*", default=MODELS)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--program", default="target/release/examples/train_speed")
    arguments.add_argument("--child", choices=["plain", "tuned", "onnxruntime"], help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child == "onnxruntime":
        return onnxruntime_speed(given.models[0], given.batch, given.threads)
    if given.child:
        return torch_speed(given.models[0], given.child == "tuned", given.batch, given.threads)
    print("| model | bnkit images/s | plain | tuned | ONNX Runtime eval, unfused graph | to plain (min–max) | to tuned (min–max) | to ONNX Runtime (min–max) | bnkit MB | plain MB | tuned MB | ONNX Runtime MB |")
    print("|" + " --- |" * 12, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in given.models:
            path = str(Path(folder, f"{name}.onnx"))
            # In a process of its own, so that nothing of it stays.
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c",
                 f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
                 f"import train_speed; train_speed.export({name!r}, {path!r})"],
                check=True, stdout=subprocess.DEVNULL,
            )
            threads = str(given.threads)
            child = [sys.executable, __file__, name, "--batch", str(given.batch), "--threads", threads]
            contestants = [
                ([given.program, path, str(given.batch), str(BATCHES)], {"RAYON_NUM_THREADS": threads}),
                ([*child, "--child", "plain"], {}),
                ([*child, "--child", "tuned"], TUNED),
                ([sys.executable, __file__, path, *child[3:], "--child", "onnxruntime"], {}),
            ]
            rounds = [[measure(*each) for each in contestants] for _ in range(given.rounds)]
            rates = [statistics.median(r[who][0] for r in rounds) for who in range(4)]
            memory = [max(r[who][1] for r in rounds) for who in range(4)]

            def ratio(who):
                each = [r[0][0] / r[who][0] for r in rounds]
                return f"{statistics.median(each):.2f} ({min(each):.2f}–{max(each):.2f})"

            cells = [name, *(f"{rate:.1f}" for rate in rates), ratio(1), ratio(2), ratio(3), *(f"{mb:.0f}" for mb in memory)]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
