"""The jobs, held to ONNX Runtime and to the values that onnx reads, on the project's own model."""

import json
import pickle
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnkit
from conftest import ROOT


def session(model):
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_a_folded_model_computes_the_same_in_onnx_runtime(tiny):
    result = bnkit.fold(tiny)
    assert result["summary"]["folded"] == 9 and result.verdict == "equivalent"
    folded = result.to_model()
    assert not [node for node in folded.graph.node if node.op_type == "BatchNormalization"]
    x = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    before, after = session(tiny), session(result.model)
    name = before.get_inputs()[0].name
    expected, found = before.run(None, {name: x})[0], after.run(None, {name: x})[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_what_is_folded_can_be_chosen(tiny):
    names = list(bnkit.stats(tiny))
    decided = lambda **how: {site["node"]: site["decision"] for site in bnkit.fold(tiny, dry_run=True, **how)["sites"]}  # noqa: E731
    assert set(decided().values()) == {"folded"}
    for how in [dict(only=names[0]), dict(skip=names[1:]), dict(only="*", skip=(name for name in names[1:]))]:
        assert decided(**how) == {name: "folded" if name == names[0] else "skipped" for name in names}


def test_branches_are_merged_on_request():
    model = str(ROOT / "testdata" / "golden" / "merge_rep_vgg.onnx")
    convolutions = lambda result: sum(node.op_type == "Conv" for node in result.to_model().graph.node)  # noqa: E731
    apart, merged = bnkit.fold(model), bnkit.fold(model, merge_branches=True)
    assert convolutions(merged) < convolutions(apart) and merged["merges"]
    before, after = session(model), session(merged.model)
    shape = [size if isinstance(size, int) else 2 for size in before.get_inputs()[0].shape]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected, found = (run.run(None, {run.get_inputs()[0].name: x})[0] for run in (before, after))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_paths_bytes_and_protos_are_one_model(tiny, tmp_path):
    out = tmp_path / "out.onnx"
    of_path = bnkit.fold(tiny, out)
    assert of_path.path == str(out) and of_path.model is None
    content = open(tiny, "rb").read()
    of_bytes, of_proto = bnkit.fold(content), bnkit.fold(onnx.load_model_from_string(content))
    assert of_bytes.model == out.read_bytes() and of_bytes["input"]["path"] == "<bytes>"
    assert of_proto["summary"] == of_path["summary"]


def test_stats_are_the_stored_values(tiny):
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(tiny).graph.initializer}
    found = bnkit.stats(tiny)
    nodes = [node for node in onnx.load(tiny).graph.node if node.op_type == "BatchNormalization"]
    assert list(found) == [node.name for node in nodes]
    for node in nodes:
        layer = found[node.name]
        for values, name in zip((layer.gamma, layer.beta, layer.mean, layer.var), node.input[1:]):
            assert values.dtype == np.float64
            np.testing.assert_array_equal(values, tensors[name].astype(np.float64))
        epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
        assert layer.eps == np.float32(epsilon)


def test_the_dict_is_the_json_of_the_command(tiny, tmp_path):
    command = [sys.executable, "-m", "bnkit"]
    run = lambda *args: subprocess.run([*command, *args], capture_output=True, text=True)  # noqa: E731
    printed = run("inspect", tiny, "--format", "json")
    assert printed.returncode == 0, printed.stderr
    assert bnkit.inspect(tiny).to_dict() == json.loads(printed.stdout)
    out = str(tmp_path / "out.onnx")
    result = bnkit.fold(tiny, out)
    printed = run("fold", tiny, "-o", out, "--force", "--format", "json")
    assert result.to_dict() == json.loads(printed.stdout)
    assert run("fold", str(tmp_path / "none.onnx")).returncode == 2


def test_no_is_an_answer_or_an_exception_with_the_result(tiny):
    model = onnx.load(tiny)
    weight = next(t for t in model.graph.initializer if t.name.endswith("weight"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.01, weight.name))
    different = bnkit.verify(tiny, model)
    assert not different.ok and "<bytes> is not equivalent to" in different.failure
    with pytest.raises(bnkit.FailedError) as caught:
        different.raise_for_failure()
    assert caught.value.exit_code == 1 and caught.value.result is different
    with pytest.raises(bnkit.FailedError, match="200.0 % are required"):
        bnkit.fold(tiny, min_folded=2.0)


def test_errors_name_the_input_and_nothing_is_written(tiny, tmp_path):
    for bad, said in [(b"junk", "<bytes>"), (str(tmp_path / "none.onnx"), "none.onnx")]:
        with pytest.raises(bnkit.InputError, match=said) as caught:
            bnkit.fold(bad)
        assert caught.value.exit_code == 2 and isinstance(caught.value, bnkit.Error)
    out = tmp_path / "out.onnx"
    out.write_text("mine")
    with pytest.raises(bnkit.InputError, match="exists already"):
        bnkit.fold(tiny, out)
    assert out.read_text() == "mine"
    with pytest.raises(TypeError, match="a model is"):
        bnkit.fold(3)


def test_results_are_tables(tiny):
    result = bnkit.fold(tiny, dry_run=True)
    assert result.model is None and "/bn1/BatchNormalization" in repr(result)
    assert "<td>/bn1/BatchNormalization</td>" in result._repr_html_()
    assert pickle.loads(pickle.dumps(result)).to_dict() == result.to_dict()
    frame = pytest.importorskip("pandas") and result.to_frame()
    assert list(frame["decision"]) == ["folded"] * 9
