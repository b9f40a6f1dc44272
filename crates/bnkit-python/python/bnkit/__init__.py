"""Fold BatchNorm out of trained checkpoints, exactly, and prove it; re-estimate running statistics.

Everywhere, a *model* is a path, ``bytes`` or an ``onnx.ModelProto``; where a state dict will do, the path or the bytes of a
``.safetensors`` file. *Data* is one of

* a path to ``.npy``, ``.npz``, ``.safetensors``, ONNX ``.pb``, a folder of these, or a folder of images (with ``preprocess=``),
* an array, or a dict of arrays by input name: all samples, along the leading axis; it is cut into batches,
* an iterable of batches (a ``DataLoader``, a generator, a list), each an array, a dict of arrays, or a tuple that begins with one of
  these, as ``(images, labels)``. Batches are taken as they come.

An array is NumPy's, or anything with ``__dlpack__`` or ``__array__``, as PyTorch's tensors.

Functions give a :class:`Result`: a mapping with the JSON that the command prints with ``--format json``.
"""

from __future__ import annotations

from ._bnkit import BatchNorm, Moments, __version__
from ._calibration import Recalibrator, recalibrate, validate
from ._errors import Error, FailedError, InputError
from ._jobs import Stats, diff, fold, inspect, merge, stats, verify
from ._results import (
    DiffResult,
    FoldResult,
    InspectResult,
    MergeResult,
    RecalibrateResult,
    Result,
    ValidateResult,
    VerifyResult,
)

__all__ = [
    "BatchNorm",
    "DiffResult",
    "Error",
    "FailedError",
    "FoldResult",
    "InputError",
    "InspectResult",
    "MergeResult",
    "Moments",
    "Recalibrator",
    "RecalibrateResult",
    "Result",
    "Stats",
    "ValidateResult",
    "VerifyResult",
    "__version__",
    "diff",
    "fold",
    "inspect",
    "merge",
    "recalibrate",
    "stats",
    "validate",
    "verify",
]
