"""Ctrl-C ends a job within a moment, wherever it is, and leaves nothing behind."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnkit

# How long a job may go on after the signal: an operator, or the loading of a model, with what else this machine does.
SOON = 5


def interrupted(job):
    """Runs a job that would take minutes, with a Ctrl-C after half a second; how long it went on then."""
    sent = []

    def press():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.5, press)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            job()
    finally:
        timer.cancel()
    return time.monotonic() - sent[0]


@pytest.fixture(scope="module")
def long():
    """A network, and images on which each of its operators takes moments, and all of them minutes."""
    random = np.random.default_rng(0)
    nodes, constants, value = [], [], "x"
    for number in range(16):
        shapes = {"w": (8, 8, 3, 3), "scale": (8,), "shift": (8,), "mean": (8,), "var": (8,)}
        for name, shape in shapes.items():
            array = random.uniform(0.01, 0.2, shape).astype(np.float32)
            constants.append(numpy_helper.from_array(array, f"{name}{number}"))
        convolved, value, before = f"c{number}", f"y{number}", value
        nodes.append(helper.make_node("Conv", [before, f"w{number}"], [convolved], pads=[1, 1, 1, 1]))
        norm = [f"{name}{number}" for name in ("scale", "shift", "mean", "var")]
        nodes.append(helper.make_node("BatchNormalization", [convolved, *norm], [value], f"bn{number}"))
    of = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8, "h", "w"])  # noqa: E731
    graph = helper.make_graph(nodes, "long", [of("x")], [of(value)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    return model, random.standard_normal((16, 8, 384, 384)).astype(np.float32)


def test_a_fold_ends_in_the_middle_of_its_proof(tiny, long, tmp_path):
    out, (model, images) = tmp_path / "out.onnx", long
    assert interrupted(lambda: bnkit.fold(model, out, data=images, samples=16)) < SOON
    assert list(tmp_path.iterdir()) == []
    # And the next one is not ended by the signal before it.
    assert bnkit.fold(tiny, out).verdict == "equivalent"


def test_a_comparison_ends(long):
    model, images = long
    assert interrupted(lambda: bnkit.verify(model, model, data=images, samples=16)) < SOON


def test_a_recalibration_ends_after_its_batch(tiny, tmp_path):
    batch = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    out = tmp_path / "out.onnx"

    def endless():
        while True:
            yield batch

    assert interrupted(lambda: bnkit.recalibrate(tiny, endless(), out)) < SOON
    assert list(tmp_path.iterdir()) == []
    steps = bnkit.Recalibrator(tiny)
    assert interrupted(lambda: [steps.observe(batch) for _ in range(10**6)]) < SOON
    # What was observed before counts, and more can follow.
    seen = steps.batches
    assert seen > 0
    steps.observe(batch)
    assert steps.batches == seen + 1


def test_callbacks_and_iterators_run_on_the_thread_that_called(tiny):
    threads = set()

    def batches():
        for _ in range(3):
            threads.add(threading.get_ident())
            yield np.ones((2, 3, 32, 32), np.float32) * np.arange(2, dtype=np.float32)[:, None, None, None]

    bnkit.recalibrate(tiny, batches(), progress=lambda done, total: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_other_threads_of_python_go_on(tiny):
    """The lock is released while a job works."""
    counted, done = [0], threading.Event()

    def count():
        while not done.is_set():
            counted[0] += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    before = counted[0]
    bnkit.fold(tiny, samples=16)
    after = counted[0]
    done.set()
    counter.join()
    assert after - before > 10
