"""Recalibration: the same bits by every route, and PyTorch's own statistics as the yardstick."""

import collections
import pickle
import subprocess
import sys

import numpy as np
import pytest

import bnkit

METHODS = ["precise", "average", "ema"]


@pytest.fixture(scope="module")
def images(digits):
    return np.load(digits / "train_images.npy")


def batches(images):
    return [images[at : at + 64] for at in range(0, len(images), 64)]


@pytest.mark.parametrize("method", METHODS)
def test_every_route_gives_the_same_bits(digits, images, tmp_path, method):
    model, data = str(digits / "digits_perturbed.onnx"), str(digits / "train_images.npy")
    command = [sys.executable, "-m", "bnkit", "recalibrate", model, "--data", data, "--batch-size", "64"]
    command += ["--method", method, "--quiet"]
    out = tmp_path / "command.onnx"
    subprocess.run([*command, "-o", out], check=True)
    expected = out.read_bytes()
    parts = [str(tmp_path / f"{shard}.json") for shard in (1, 2, 3)]
    for shard, part in enumerate(parts, 1):
        subprocess.run([*command, "--shard", f"{shard}/3", "--partial", part], check=True)
    assert bnkit.merge(parts, model).model == expected
    assert bnkit.recalibrate(model, data, method=method, batch_size=64).model == expected
    assert bnkit.recalibrate(model, images, method=method, batch_size=64).model == expected
    assert bnkit.recalibrate(model, iter(batches(images)), method=method).model == expected
    one = bnkit.Recalibrator(model, method)
    for batch in batches(images):
        one.observe(batch)
    assert one.write().model == expected
    workers = [bnkit.Recalibrator(model, method) for _ in range(2)]
    for index in reversed(range(23)):
        workers[index % 2].observe(batches(images)[index], index=index)
    workers[0].observe(batches(images)[7], index=7)  # a task that was repeated
    moments = [pickle.loads(pickle.dumps(worker.moments)) for worker in workers]
    assert sum(moments) == moments[1] + moments[0] == one.moments
    driver = bnkit.Recalibrator(model, method)
    driver.absorb(sum(moments))
    assert driver.write().model == expected


@pytest.mark.parametrize(
    "truth, options",
    [
        ("pooled_keeplast", {"method": "precise"}),
        ("cma_keeplast", {"method": "average"}),
        ("ema01_20", {"method": "ema", "momentum": 0.1, "max_batches": 20}),
    ],
)
def test_statistics_are_those_of_pytorch(digits, images, truth, options):
    safetensors = pytest.importorskip("safetensors.numpy")
    expected = safetensors.load_file(digits / f"truth_digits_swa_stale_{truth}.safetensors")
    model = str(digits / "digits_swa_stale.onnx")
    result = bnkit.recalibrate(model, batches(images), convention="torch", **options)
    for layer in bnkit.stats(result.model).values():
        for name, values in [(layer.mean_name, layer.mean), (layer.var_name, layer.var)]:
            atol = 1e-5 * np.abs(expected[name]).max()
            np.testing.assert_allclose(values, expected[name], rtol=0, atol=atol)


class Capsule:
    """Has ``__dlpack__`` and nothing else, as arrays of other libraries."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def test_batches_may_be_tuples_dicts_and_tensors(digits, images):
    model = str(digits / "digits_reset.onnx")
    expected = bnkit.recalibrate(model, images[:128], batch_size=64).model
    first, second = images[:64], images[64:128]
    name = bnkit.inspect(model)["inputs"][0]["name"]
    pair = collections.namedtuple("pair", [name, "label"])
    forms = [
        [(first, np.arange(64)), [second]],
        [{name: first, "file": np.array(["a"] * 64)}, pair(second, 3)],
        [np.asfortranarray(first), second.astype(">f4")],
        [first.astype(np.float64), second],
    ]
    if hasattr(np, "from_dlpack"):
        forms.append([Capsule(first), Capsule(second)])
    for form in forms:
        assert bnkit.recalibrate(model, form).model == expected
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(images[:128]), torch.arange(128))
    loader = torch.utils.data.DataLoader(dataset, batch_size=64)
    assert bnkit.recalibrate(model, loader).model == expected
    leaf = torch.from_numpy(images[:128]).requires_grad_()
    assert bnkit.recalibrate(model, leaf, batch_size=64).model == expected


def test_validation_is_the_same_by_every_route(digits, images):
    model = str(digits / "digits_perturbed.onnx")
    whole = bnkit.validate(model, images, batch_size=64)
    assert not whole.valid and "drifted" in whole.failure
    steps = bnkit.validate(model, batches(images))
    recalibrator = bnkit.Recalibrator(model)
    for batch in batches(images):
        recalibrator.observe(batch)
    assert steps.to_dict() == whole.to_dict() == recalibrator.validate().to_dict()
    assert bnkit.validate(str(digits / "digits.onnx"), batches(images)).valid


def test_progress_is_told_and_its_exceptions_end_the_job(digits, images, tmp_path):
    model, told = str(digits / "digits_reset.onnx"), []
    bnkit.recalibrate(model, images, batch_size=64, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (1437, 1437) and told == sorted(told)

    def stop(done, total):
        raise KeyboardInterrupt

    out = tmp_path / "out.onnx"
    with pytest.raises(KeyboardInterrupt):
        bnkit.recalibrate(model, images, out, progress=stop)

    def broken():
        yield images[:64]
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        bnkit.recalibrate(model, broken(), out)
    assert not out.exists()


def test_progress_is_a_bar_of_tqdm_if_it_is_there(digits, images, capsys):
    pytest.importorskip("tqdm")
    bnkit.recalibrate(str(digits / "digits_reset.onnx"), images, batch_size=64, progress=True)
    assert "1437/1437" in capsys.readouterr().err


def test_what_does_not_belong_together_is_refused(digits, images):
    model = str(digits / "digits_reset.onnx")
    observed = []
    for arguments in [(model,), (model, "ema"), (str(digits / "digits.onnx"),)]:
        recalibrator = bnkit.Recalibrator(*arguments)
        recalibrator.observe(images[:64])
        observed.append(recalibrator.moments)
    for other, said in [(observed[1], "method"), (observed[2], "model")]:
        with pytest.raises(bnkit.InputError, match=said):
            observed[0] + other
    with pytest.raises(bnkit.InputError, match="batch 0 is there twice"):
        recalibrator.observe(images[64:128], index=0)
    with pytest.raises(TypeError):
        observed[0] + 1
    with pytest.raises(bnkit.InputError, match="batch_size"):
        bnkit.recalibrate(model, [images[:64]], batch_size=3)
    with pytest.raises(bnkit.InputError, match="sequential"):
        bnkit.recalibrate(model, [images[:64]], method="sequential")
