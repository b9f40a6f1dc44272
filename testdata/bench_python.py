"""What Python costs over the command: the recalibration of one model on the same batches, in turn, each in a process of its own.

    cargo build --release
    maturin build --release --manifest-path crates/bnkit-python/Cargo.toml      # and pip install the wheel
    python testdata/bench_python.py MODEL.onnx [--images 320] [--rounds 3] [--program target/release/bnkit]

The images are random, 3 × 224 × 224, in one .npy file. "file": Python names the file. "iterable": Python hands over batch after batch as NumPy
arrays, as a DataLoader would. Whole processes, so Python's own start is in it; "call" is the time inside `bnkit.recalibrate`. All write the same model,
which is compared.
"""

import argparse
import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CALL = """
import sys, time, numpy, bnkit
model, data, out, batch, how = sys.argv[1:]
images = numpy.load(data, mmap_mode="r")
batches = (images[at:at + int(batch)] for at in range(0, len(images), int(batch)))
start = time.perf_counter()
if how == "file":
    bnkit.recalibrate(model, data, out, batch_size=int(batch), force=True)
else:
    bnkit.recalibrate(model, batches, out, force=True)
print(time.perf_counter() - start)
"""


def main():
    import numpy as np

    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model")
    arguments.add_argument("--images", type=int, default=320)
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--program", default="target/release/bnkit")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, out = folder / "x.npy", folder / "out.onnx"
        images = np.random.default_rng(0).random((given.images, 3, 224, 224), dtype=np.float32)
        np.save(data, images)
        del images
        batch = str(given.batch)
        command = [given.program, "recalibrate", given.model, "--data", data, "--batch-size", batch, "-o", out, "--force", "--quiet"]
        python = [sys.executable, "-c", CALL, given.model, data, out, batch]
        contestants = {"command": command, "Python, file": [*python, "file"], "Python, iterable": [*python, "iterable"]}
        times = {name: [] for name in contestants}
        calls = {name: [] for name in contestants}
        hashes = set()
        for _ in range(given.rounds):
            for name, words in contestants.items():
                start = time.perf_counter()
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                times[name].append(time.perf_counter() - start)
                calls[name].append(float(done.stdout) if name != "command" else times[name][-1])
                hashes.add(hashlib.sha256(out.read_bytes()).hexdigest())
        print("| | process, s | call, s | process to command | call to command |")
        print("| --- | --- | --- | --- | --- |")
        for name in contestants:
            pairs = list(zip(times[name], calls[name], times["command"]))
            print(
                f"| {name} | {statistics.median(times[name]):.2f} | {statistics.median(calls[name]):.2f} "
                f"| {statistics.median(whole / command for whole, _, command in pairs):.3f} "
                f"| {statistics.median(call / command for _, call, command in pairs):.3f} |"
            )
        print("the same model" if len(hashes) == 1 else f"{len(hashes)} different models")


if __name__ == "__main__":
    main()
