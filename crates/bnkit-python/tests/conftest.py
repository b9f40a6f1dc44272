"""Where models and data are. The collection is not part of the project: without it, tests that need it say so."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
TINY = ROOT / "testdata" / "models" / "tiny_resnet.onnx"


@pytest.fixture
def tiny():
    return str(TINY)


@pytest.fixture(scope="session")
def digits():
    models = pathlib.Path(os.environ.get("BNKIT_MODELS", ROOT.parent / "shared" / "models"))
    folder = models / "digits"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder
