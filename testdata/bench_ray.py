"""What a second worker of Ray is worth: the recalibration of one model on the same batches, with one worker and with two, in turn.

    maturin build --release --manifest-path crates/bnkit-python/Cargo.toml      # and pip install the wheel, and ray[data]
    python testdata/bench_ray.py MODEL.onnx [--batches 12] [--batch 16] [--rounds 3]

The images are random, 3 × 224 × 224, and lie in the object store before the clock starts. Each worker has one thread. "call" is all of
`bnkit.ray.recalibrate`, with the start of the workers; "batches" is the time from the first batch that came back to the last, which is what
grows with the data. One process without Ray, with one thread and with two, is the yardstick. All give the same model, which is compared.
"""

import argparse
import hashlib
import statistics
import time


def main():
    import numpy as np
    import ray

    import bnkit
    import bnkit.ray

    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model")
    arguments.add_argument("--batches", type=int, default=12)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    random = np.random.default_rng(0)
    batches = [random.random((given.batch, 3, 224, 224), dtype=np.float32) for _ in range(given.batches)]
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=768 * 2**20, log_to_driver=False)
    references = [ray.put(batch) for batch in batches]

    def alone(threads):
        return lambda told: bnkit.recalibrate(given.model, iter(batches), threads=threads, progress=told)

    def workers(count):
        return lambda told: bnkit.ray.recalibrate(given.model, references, num_workers=count, progress=told)

    contestants = {
        "one process, 1 thread": alone(1),
        "one process, 2 threads": alone(2),
        "Ray, 1 worker": workers(1),
        "Ray, 2 workers": workers(2),
    }
    calls, rests, hashes = {name: [] for name in contestants}, {name: [] for name in contestants}, set()
    for _ in range(given.rounds):
        for name, run in contestants.items():
            told = []
            start = time.perf_counter()
            result = run(lambda done, total: told.append((done, time.perf_counter())))
            calls[name].append(time.perf_counter() - start)
            (first, began), (last, ended) = told[0], told[-1]
            rests[name].append((ended - began) / (last - first))
            hashes.add(hashlib.sha256(result.model).hexdigest())
    assert len(hashes) == 1, "the models differ"
    for name in contestants:
        call, rest = statistics.median(calls[name]), 1000 * statistics.median(rests[name])
        print(f"{name:24} call {call:6.2f} s ({min(calls[name]):.2f}-{max(calls[name]):.2f})   {rest:6.1f} ms an image")


main()
