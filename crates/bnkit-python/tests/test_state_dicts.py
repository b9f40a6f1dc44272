"""State dicts, held to NumPy's fold in f64 (``testdata/state``), to the files that the command writes, and to PyTorch's statistics."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import pytest
from safetensors import numpy as safetensors

import bnkit

RESNET = pathlib.Path(__file__).resolve().parents[3] / "testdata" / "state" / "resnet"
STATE, GRAPH = str(RESNET / "model.safetensors"), str(RESNET / "model.onnx")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    file = tmp_path_factory.mktemp("pairs") / "pairs.yaml"
    command = [sys.executable, "-m", "bnkit", "pair", STATE, "--eps", "1e-5", "-o", str(file), "--quiet"]
    subprocess.run(command, check=True)
    return str(file)


def test_every_way_of_pairing_gives_the_fold_of_numpy(pairs):
    expected = safetensors.load_file(RESNET / "folded.safetensors")
    ways = [dict(graph=GRAPH), dict(pairs=pairs), dict(preset="auto", yes=True), dict(preset="torchvision", yes=True)]
    for way in ways:
        result = bnkit.fold(STATE, **way)
        assert result["summary"]["folded"] == 12
        found = safetensors.load(result.model)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            # In f64 and rounded once, by both: at most the order of two operations is between them.
            np.testing.assert_array_max_ulp(found[name], tensor, maxulp=1)
    assert bnkit.fold(STATE, graph=GRAPH).verdict == "equivalent"
    assert bnkit.fold(STATE, pairs=pairs).verdict == "equivalent-local"


def test_the_files_are_those_of_the_command(tmp_path):
    ways = [
        (["--graph", GRAPH], dict(graph=GRAPH)),
        (["--graph", GRAPH, "--identity-bn"], dict(graph=GRAPH, identity_bn=True)),
        (["--preset", "auto", "--yes", "--eps", "1e-3"], dict(preset="auto", yes=True, eps=1e-3)),
        (["--graph", GRAPH, "--skip", "*downsample*"], dict(graph=GRAPH, skip="*downsample*")),
    ]
    written = set()
    for number, (words, way) in enumerate(ways):
        ours, theirs = tmp_path / f"{number}.safetensors", tmp_path / "command.safetensors"
        result = bnkit.fold(STATE, ours, **way)
        command = [sys.executable, "-m", "bnkit", "fold", STATE, *words, "-o", str(theirs), "--force", "--format", "json"]
        printed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        assert ours.read_bytes() == theirs.read_bytes()
        assert result["state"] == printed["state"] and result["sites"] == printed["sites"]
        written.add(ours.read_bytes())
    assert len(written) == len(ways)


def test_bytes_and_protos_are_as_good_as_paths():
    expected = bnkit.fold(STATE, graph=GRAPH).model
    content = pathlib.Path(STATE).read_bytes()
    result = bnkit.fold(content, graph=onnx.load(GRAPH))
    assert result.model == expected
    assert (result["input"]["path"], result["state"]["pairing_file"]) == ("<bytes>", "<graph>")
    assert list(bnkit.stats(content)) == list(bnkit.stats(STATE))


def test_pairs_of_a_preset_want_to_be_looked_at(tmp_path):
    out = tmp_path / "out.safetensors"
    with pytest.raises(bnkit.FailedError, match="look at them") as caught:
        bnkit.fold(STATE, out, preset="auto")
    expected = json.loads((RESNET / "expect.json").read_text())
    pairs = caught.value.result["state"]["pairs"]
    assert [[pair["layer"], pair["batch_norm"]] for pair in pairs] == expected["pairs"]
    assert all(pair["epsilon"] == expected["eps"] for pair in pairs)
    assert not out.exists()


def test_what_does_not_go_together_is_refused(tiny, pairs):
    for model, options, said in [
        (STATE, {}, "does not say which layer feeds"),
        (STATE, dict(graph=GRAPH, pairs=pairs), "give one"),
        (STATE, dict(graph=GRAPH, keep_stats="kept"), "keep-stats"),
        (STATE, dict(graph=GRAPH, eps=1e-3), "eps"),
        (STATE, dict(graph=GRAPH, lower=True), "lower"),
        (STATE, dict(graph=b"no model"), "<graph>"),
        (tiny, dict(graph=GRAPH), "is an ONNX model"),
        (tiny, dict(identity_bn=True), "is an ONNX model"),
    ]:
        with pytest.raises(bnkit.InputError, match=said):
            bnkit.fold(model, **options)
    with pytest.raises(bnkit.InputError, match="model.safetensors"):
        bnkit.verify(STATE, STATE)


def test_recalibrated_statistics_are_those_of_pytorch(digits, tmp_path):
    state, graph = str(digits / "digits_swa_stale.safetensors"), str(digits / "digits_swa_stale.onnx")
    images = np.load(digits / "train_images.npy")
    batches = [images[at : at + 64] for at in range(0, len(images), 64)]
    expected = safetensors.load_file(digits / "truth_digits_swa_stale_pooled_keeplast.safetensors")
    out = tmp_path / "new.safetensors"
    result = bnkit.recalibrate(state, batches, out, graph=graph, convention="torch")
    assert result["summary"]["updated"] == 10
    found = safetensors.load_file(out)
    for name, layer in expected.items():
        if name in found and name.endswith(("running_mean", "running_var")):
            np.testing.assert_allclose(found[name], layer, rtol=0, atol=1e-5 * np.abs(layer).max())
    same = bnkit.recalibrate(open(state, "rb").read(), batches, graph=open(graph, "rb").read(), convention="torch")
    assert same.model == out.read_bytes()
    steps = bnkit.Recalibrator(state, convention="torch", graph=graph)
    for batch in batches:
        steps.observe(batch)
    assert steps.write().model == out.read_bytes()
    assert not bnkit.validate(state, batches, graph=graph).valid
    assert bnkit.validate(str(out), batches, graph=graph, convention="torch").valid
    with pytest.raises(bnkit.InputError, match="graph"):
        bnkit.recalibrate(state, batches)
