"""What a network runs on: labels, folders of images, and arrays whose memory is shared or copied. NumPy, ONNX Runtime and Pillow's
pixels (``testdata/images``) are the yardstick."""

import json
import pathlib
import shutil
import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import bnkit

IMAGES = pathlib.Path(__file__).resolve().parents[3] / "testdata" / "images"


@pytest.fixture(scope="module")
def labelled(digits):
    return np.load(digits / "test_images.npy"), np.load(digits / "test_labels.npy")


def accuracy(model, images, labels):
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    scores = session.run(None, {session.get_inputs()[0].name: images})[0]
    return int((scores.argmax(axis=1) == labels).sum())


def test_labels_say_how_often_the_network_is_right(digits, labelled, tmp_path):
    images, labels = labelled
    model = str(digits / "digits_perturbed.onnx")
    result = bnkit.recalibrate(model, images, labels=labels, batch_size=64)
    stages = result["accuracy"]["stages"]
    expected = [accuracy(model, images, labels), accuracy(result.model, images, labels)]
    assert expected[0] < expected[1]
    assert [stage["top1"] for stage in stages] == expected
    text = tmp_path / "labels.csv"
    text.write_text("label\n" + "\n".join(map(str, labels)))
    for form in [labels.tolist(), labels.astype(np.uint8)[:, None], text, str(digits / "test_labels.npy")]:
        again = bnkit.validate(model, images, labels=form, batch_size=64)
        assert again["accuracy"]["top1"] == expected[0]


def test_labels_that_are_none_and_a_drop_are_told(digits, labelled):
    images, labels = labelled
    model = str(digits / "digits.onnx")
    for wrong, said in [
        (labels[:-1], "labels for"),
        (labels.astype(float), "labels are integers"),
        (["a"] * len(labels), "labels are integers"),
        ("none.npy", "none.npy"),
    ]:
        with pytest.raises(bnkit.InputError, match=said):
            bnkit.validate(model, images, labels=wrong)
    with pytest.raises(bnkit.InputError, match="labels: the data is an iterable"):
        bnkit.recalibrate(model, [images], labels=labels)
    with pytest.raises(bnkit.InputError, match="needs labels"):
        bnkit.recalibrate(model, images, max_accuracy_drop=0.1)
    # Statistics of the last two images alone are right for nothing else.
    last = dict(method="ema", momentum=0.0, batch_size=2, drop_last=True, labels=labels)
    assert bnkit.recalibrate(model, images, **last)["accuracy"]["stages"][1]["top1"] < 0.9 * len(images)
    with pytest.raises(bnkit.FailedError, match="2.00 %") as caught:
        bnkit.recalibrate(model, images, max_accuracy_drop=0.02, **last)
    assert caught.value.result["accuracy"]["max_drop"] == 0.02


def one_norm(channels):
    """A network of a BatchNorm alone: its statistics are those of the pixels."""
    vector = lambda name, value: helper.make_tensor(name, TensorProto.FLOAT, [channels], [value] * channels)  # noqa: E731
    node = helper.make_node("BatchNormalization", ["x", "scale", "shift", "mean", "var"], ["y"], "bn")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", channels, "h", "w"])],
        [vector("scale", 1), vector("shift", 0), vector("mean", 0), vector("var", 1)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def test_a_folder_of_images_is_preprocessed(tmp_path):
    """The mean of a channel is that of Pillow's pixels, normalised by NumPy."""
    cases = json.loads((IMAGES / "cases.json").read_text())
    golden = np.load(IMAGES / "golden.npz")
    whole = [
        (number, case)
        for number, case in enumerate(cases)
        if case["step"] == 1 and case["steps"].get("layout", "nchw") == "nchw" and case["dims"][0] == 3
        and case["steps"].get("preset") != "tensorflow"
    ]
    assert whole
    for number, case in whole[::7]:
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(IMAGES / f"{case['image']}.png", folder)
        expected = golden[f"{number:02}"].astype(np.float64).reshape(3, -1)
        result = bnkit.recalibrate(one_norm(3), folder, preprocess=case["steps"])
        (layer,) = bnkit.stats(result.model).values()
        np.testing.assert_allclose(layer.mean, expected.mean(axis=1), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(layer.var, expected.var(axis=1), rtol=1e-5, atol=1e-6)
        yaml = tmp_path / f"{number}.yaml"
        yaml.write_text(json.dumps(case["steps"]))
        assert bnkit.recalibrate(one_norm(3), folder, preprocess=yaml).model == result.model


def test_preprocessing_that_makes_no_sense_is_told(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(next(IMAGES.glob("*.png")), folder)
    with pytest.raises(bnkit.InputError, match="say how they are prepared"):
        bnkit.recalibrate(one_norm(3), folder)
    for wrong, said in [("imagnet", "there are imagenet"), ({"crop": 3}, "preprocess"), ({"cropp": [1, 2]}, "cropp")]:
        with pytest.raises(bnkit.InputError, match=said):
            bnkit.recalibrate(one_norm(3), folder, preprocess=wrong)


def test_memory_of_bytes_is_shared_and_all_other_is_copied():
    """However an array lies in memory, its statistics are NumPy's."""
    plain = np.random.default_rng(0).standard_normal((6, 3, 4, 5)).astype(np.float32)
    immutable = np.frombuffer(b"head" + plain.tobytes(), np.float32, offset=4).reshape(plain.shape)
    readonly = plain.copy()
    readonly.flags.writeable = False
    for array in [plain, immutable, immutable[2:], immutable[::2], readonly, np.asfortranarray(plain), plain.astype(">f4")]:
        result = bnkit.recalibrate(one_norm(3), array, batch_size=2)
        (layer,) = bnkit.stats(result.model).values()
        np.testing.assert_allclose(layer.mean, array.astype(np.float64).mean(axis=(0, 2, 3)), rtol=0, atol=1e-6)
        np.testing.assert_allclose(layer.var, array.astype(np.float64).var(axis=(0, 2, 3)), rtol=1e-5)


def test_an_array_may_change_while_the_library_works(digits):
    """What it was when it was handed over counts."""
    images = np.load(digits / "train_images.npy")
    model, ours = str(digits / "digits_reset.onnx"), images.copy()
    expected = bnkit.recalibrate(model, images, batch_size=64).model
    over = threading.Event()

    def scribble(done, total):
        ours.fill(float(done))
        over.set()

    assert bnkit.recalibrate(model, ours, batch_size=64, progress=scribble).model == expected
    assert over.is_set()


def test_the_fold_behind_a_recalibration_is_proved_on_its_data(digits):
    images = np.load(digits / "test_images.npy")
    result = bnkit.recalibrate(str(digits / "digits_reset.onnx"), images[:3], batch_size=3, fold=True)
    assert result["fold"]["verification"]["samples"] == 3
    assert not [node for node in onnx.load_model_from_string(result.model).graph.node if node.op_type == "BatchNormalization"]
