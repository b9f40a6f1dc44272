"""Keyword arguments as the native module takes them: dicts with every key of a struct."""

from __future__ import annotations

import os
from typing import Any, Iterable, List, Mapping, Optional, Tuple, Union

Path = Union[str, "os.PathLike[str]"]
Globs = Union[str, Iterable[str]]
Shapes = Union[None, Iterable[int], Mapping[str, Iterable[int]]]
Preprocess = Union[None, str, "os.PathLike[str]", Mapping[str, Any]]


def _globs(globs: Globs) -> List[str]:
    return [globs] if isinstance(globs, str) else list(globs)


def _shapes(shapes: Shapes) -> List[Tuple[str, List[int]]]:
    if shapes is None:
        return []
    if isinstance(shapes, Mapping):
        return [(name, list(sizes)) for name, sizes in shapes.items()]
    return [("", list(shapes))]


def _proof(samples: int, seed: int, shapes: Shapes, atol: Optional[float], rtol: Optional[float], factor: float) -> dict:
    return {
        "samples": samples,
        "seed": seed,
        "shapes": _shapes(shapes),
        "atol": atol,
        "rtol": rtol,
        "tolerance_factor": factor,
    }


def _estimate(
    method: str,
    convention: str,
    only: Globs,
    skip: Globs,
    assume_constant: bool,
    until_stable: bool,
    dropout: Optional[int],
    threads: int,
    graph: Any,
    momentum: Optional[float] = None,
    tolerance: float = 1e-4,
    passes: int = 20,
) -> dict:
    return {
        "method": method,
        "convention": convention,
        "momentum": momentum,
        "tolerance": tolerance,
        "passes": passes,
        "only": _globs(only),
        "skip": _globs(skip),
        "assume_constant": assume_constant,
        "until_stable": until_stable,
        "dropout": dropout,
        "threads": threads,
        "graph": graph,
    }


def _cut(
    batch_size: Optional[int],
    drop_last: bool,
    max_batches: Optional[int],
    max_samples: Optional[int],
    shuffle: Optional[int],
    shapes: Shapes,
    preprocess: Preprocess,
    labels: Any,
    max_accuracy_drop: Optional[float] = None,
) -> dict:
    return {
        "batch_size": batch_size,
        "drop_last": drop_last,
        "max_batches": max_batches,
        "max_samples": max_samples,
        "shuffle": shuffle,
        "shapes": _shapes(shapes),
        "preprocess": preprocess,
        "labels": labels,
        "max_accuracy_drop": max_accuracy_drop,
    }


def _drift(max_mean_drift: float, max_var_drift: float, max_kl: float, worst: int) -> dict:
    return {"max_mean_drift": max_mean_drift, "max_var_drift": max_var_drift, "max_kl": max_kl, "worst": worst}
