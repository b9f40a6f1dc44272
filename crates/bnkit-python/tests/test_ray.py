"""Statistics do not depend on the cluster: bit for bit those of one process, and those of the command."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install bnkit[ray]")
pytest.importorskip("ray.data", reason="Ray's data library is not installed: pip install bnkit[ray]")

import bnkit
import bnkit.ray
from bnkit._ray_workers import AHEAD

BESIDE = pathlib.Path(__file__).resolve().parents[4] / "shared" / "models"
DIGITS = pathlib.Path(os.environ.get("BNKIT_MODELS", BESIDE)) / "digits"
MODEL = DIGITS / "digits_perturbed.onnx"
METHODS = ["precise", "average", "ema"]
BATCH = 64

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason=f"no {MODEL}: set BNKIT_MODELS")


@pytest.fixture(autouse=True)
def bounded():
    """No test of this file waits for ever."""

    def stop(*_):
        raise TimeoutError("this test takes too long")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(180)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def one_machine():
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=128 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def images():
    return np.load(DIGITS / "train_images.npy")


@pytest.fixture(scope="module")
def batches(images):
    return [images[at : at + BATCH] for at in range(0, len(images), BATCH)]


@pytest.fixture(scope="module")
def expected(images):
    """What one process makes of the data, by method."""
    results = {method: bnkit.recalibrate(MODEL, images, method=method, batch_size=BATCH) for method in METHODS}
    return {method: bits(result.model) for method, result in results.items()}


def bits(model):
    """All statistics of a model, as bytes."""
    return {name: (norm.mean.tobytes(), norm.var.tobytes()) for name, norm in bnkit.stats(model).items()}


def unlike(result, expected):
    """The layers whose statistics are not the same bits."""
    found = bits(result.model)
    assert found.keys() == expected.keys() and len(found) == 10
    return [name for name in expected if found[name] != expected[name]]


def test_all_statistics_change_and_by_the_method(expected):
    stored = bits(MODEL)
    for name in stored:
        assert len({stored[name], *(expected[method][name] for method in METHODS)}) == 4


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_any_number_of_workers(one_machine, images, expected, method, workers):
    dataset = ray.data.from_numpy(images)
    result = bnkit.ray.recalibrate(MODEL, dataset, method=method, batch_size=BATCH, num_workers=workers)
    assert unlike(result, expected[method]) == []
    assert (result["data"]["samples"], result["data"]["batches"]) == (len(images), 23)


@pytest.mark.parametrize("method", METHODS)
def test_the_command(expected, method, tmp_path):
    """In one go, and in three shards."""

    def bnkit_command(*words):
        command = [sys.executable, "-m", "bnkit", *map(str, words), "--quiet"]
        subprocess.run(command, check=True, timeout=120, cwd=tmp_path)

    options = ["--data", DIGITS / "train_images.npy", "--batch-size", BATCH, "--method", method]
    bnkit_command("recalibrate", MODEL, *options, "-o", "one.onnx")
    assert bits(tmp_path / "one.onnx") == expected[method]
    for shard in [1, 2, 3]:
        bnkit_command("recalibrate", MODEL, *options, "--shard", f"{shard}/3", "--partial", f"{shard}.json")
    bnkit_command("merge", "3.json", "1.json", "2.json", "--model", MODEL, "-o", "merged.onnx")
    assert bits(tmp_path / "merged.onnx") == expected[method]


def test_two_nodes():
    """In a process of its own: a process belongs to one cluster."""
    script = pathlib.Path(__file__).with_name("two_nodes.py")
    done = subprocess.run([sys.executable, str(script), str(MODEL)], capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().splitlines()[-1] == "same on 2 nodes, and with one of them lost"


def deadly(array, index, log, dies):
    """A batch that writes down when it is observed, and may end the process that does so first."""

    # Inside, so that it is pickled with its code: workers cannot import a test.
    class Deadly:
        def __array__(self, dtype=None, copy=None):
            with open(log, "a") as file:
                file.write(f"{index}\n")
            if dies and not os.path.exists(f"{log}.died"):
                open(f"{log}.died", "x").close()
                os._exit(1)
            return array

    return Deadly()


@pytest.mark.parametrize("method, workers", [("precise", 2), ("average", 1), ("ema", 1), ("ema", 2)])
def test_a_worker_that_dies(one_machine, batches, expected, tmp_path, method, workers):
    log = str(tmp_path / "observed")
    data = (deadly(batch, index, log, index == 11) for index, batch in enumerate(batches))
    result = bnkit.ray.recalibrate(MODEL, data, method=method, num_workers=workers)
    assert os.path.exists(f"{log}.died")
    assert unlike(result, expected[method]) == []
    assert (result["data"]["samples"], result["data"]["batches"]) == (1437, 23)
    # Observed again: what it died of, and the batch before if its moments had not left the worker. The one behind was not begun.
    observed = [int(line) for line in open(log)]
    assert set(observed) == set(range(23)) and observed.count(11) == 2
    assert len(observed) <= 23 + AHEAD


def test_a_worker_that_is_killed(one_machine, batches, expected):
    """From outside, by its process, while there is work."""
    killed = []

    def killing():
        for index, batch in enumerate(batches):
            # A second worker may still be starting; one of those that are there is enough.
            if index == 12:
                killed.append(observers()[0])
                os.kill(killed[0], signal.SIGKILL)
            yield batch

    result = bnkit.ray.recalibrate(MODEL, killing(), method="ema", num_workers=2)
    assert len(killed) == 1
    assert unlike(result, expected["ema"]) == []


def observers():
    """The processes below this one that are workers of bnkit."""
    parents, names = {}, {}
    for folder in pathlib.Path("/proc").iterdir():
        try:
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[pid] = (folder / "cmdline").read_text()
        except (ValueError, OSError):
            continue

    def below(pid):
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return [pid for pid in names if "Observer" in names[pid] and below(pid)]


def test_workers_that_always_die_are_given_up(one_machine, batches, tmp_path):
    class Poison:
        def __array__(self, dtype=None, copy=None):
            os._exit(1)

    out = tmp_path / "out.onnx"
    with pytest.raises(bnkit.Error, match="2 workers were lost in a row"):
        bnkit.ray.recalibrate(MODEL, [batches[0], Poison()], out=out, num_workers=1, max_failures=1)
    assert not out.exists()


def test_references_bytes_and_progress(one_machine, batches, expected):
    told = []
    result = bnkit.ray.recalibrate(
        MODEL.read_bytes(),
        [ray.put(batch) for batch in batches],
        num_workers=2,
        progress=lambda done, total: told.append(done),
    )
    assert unlike(result, expected["precise"]) == []
    assert told == [min(BATCH * (n + 1), 1437) for n in range(23)]


def test_a_dataset_is_read_in_its_order(one_machine, images, expected):
    """Though its first block is ready last. Other columns than inputs are not looked at."""

    def slow(batch):
        time.sleep(1.5 if batch["number"][0] == 0 else 0.0)
        return batch

    rows = [{"number": number, "input": image} for number, image in enumerate(images)]
    dataset = ray.data.from_items(rows, override_num_blocks=4).map_batches(slow, batch_size=None)
    options = dataset.context.execution_options
    assert not options.preserve_order
    result = bnkit.ray.recalibrate(MODEL, dataset, method="ema", batch_size=BATCH, num_workers=1)
    assert unlike(result, expected["ema"]) == []
    assert not options.preserve_order


def test_a_dataset_needs_a_cpu_too(one_machine, images):
    """Workers that take all of them would make it wait for ever. Nothing is read here."""
    dataset = ray.data.from_numpy(images).map_batches(lambda batch: batch)
    with pytest.warns(RuntimeWarning, match="fewer workers"), pytest.raises(bnkit.InputError, match="no batch"):
        bnkit.ray.recalibrate(MODEL, dataset, max_batches=0, num_workers=2)


def test_validate(one_machine, images):
    options = {"method": "average", "batch_size": BATCH}
    ours = bnkit.ray.validate(MODEL, ray.data.from_numpy(images), num_workers=2, **options)
    theirs = bnkit.validate(MODEL, images, **options)
    assert not ours.valid
    assert ours["layers"] == theirs["layers"] and len(ours["layers"]) == 10
    trained = bnkit.ray.validate(DIGITS / "digits.onnx", ray.data.from_numpy(images), num_workers=1)
    assert trained.valid


def test_what_is_refused(one_machine, batches, tmp_path):
    bad = batches[1].copy()
    bad[3] = np.nan
    with pytest.raises(bnkit.InputError, match="batch 1: .*NaN|NaN"):
        bnkit.ray.recalibrate(MODEL, [batches[0], bad], num_workers=1)
    (tmp_path / "there.onnx").write_bytes(b"mine")
    with pytest.raises(bnkit.InputError, match="there.onnx: exists already"):
        bnkit.ray.recalibrate(MODEL, batches, out=tmp_path / "there.onnx")
    assert (tmp_path / "there.onnx").read_bytes() == b"mine"
    with pytest.raises(bnkit.InputError, match="sequential needs all data"):
        bnkit.ray.recalibrate(MODEL, batches, method="sequential")
    with pytest.raises(bnkit.InputError, match="exponential average"):
        bnkit.ray.validate(MODEL, batches, method="ema")
    with pytest.raises(bnkit.InputError, match="no batch"):
        bnkit.ray.recalibrate(MODEL, [], num_workers=1)
    with pytest.raises(bnkit.InputError, match="batch_size"):
        bnkit.ray.recalibrate(MODEL, batches, batch_size=8)
    with pytest.raises(TypeError, match="from_numpy"):
        bnkit.ray.recalibrate(MODEL, batches[0])


def test_the_page(images, expected, tmp_path):
    """What `docs/clusters.md` shows is what happens."""
    page = (pathlib.Path(__file__).parents[3] / "docs" / "clusters.md").read_text(encoding="utf-8")
    script, shown = page.split("```python\n")[1].split("```")[0], page.split("```text\n")[1].split("```")[0]
    for name in ["digits_perturbed.onnx", "train_images.npy"]:
        (tmp_path / name).symlink_to(DIGITS / name)
    bnkit.recalibrate(MODEL, images, tmp_path / "digits.onnx", batch_size=BATCH)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=170, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown
    assert bits(tmp_path / "ray.onnx") == expected["precise"]


def test_without_ray():
    script = "import sys; sys.modules['ray'] = None; import bnkit.ray"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip().splitlines()[-1].endswith("pip install bnkit[ray]")
