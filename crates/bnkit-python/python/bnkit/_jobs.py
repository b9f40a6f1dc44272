"""The jobs that look at a model, fold it, or compare two."""

from __future__ import annotations

import os
from typing import Any, Iterable, Iterator, Mapping, Optional

from . import _bnkit
from ._arguments import Globs, Path, Shapes, _globs, _proof
from ._bnkit import BatchNorm
from ._errors import InputError
from ._results import DiffResult, FoldResult, InspectResult, MergeResult, VerifyResult


class Stats(Mapping[str, BatchNorm]):
    """The parameters of the BatchNorms of a model, by name, in the order of the graph."""

    def __init__(self, layers: Iterable[BatchNorm]) -> None:
        self._layers = {}
        for layer in layers:
            # Names repeat in bodies of loops and in functions only; there the scope tells them apart.
            name = layer.name if layer.name not in self._layers else f"{layer.scope}/{layer.name}"
            if name in self._layers:
                raise InputError(f"two BatchNorms are called {name!r}")
            self._layers[name] = layer

    def __getitem__(self, name: str) -> BatchNorm:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        lines = [f"  {name}: {layer.channels} channels" for name, layer in self.items()]
        return "\n".join([f"<Stats: {len(self)} BatchNorms>", *lines])


def inspect(model: Any, *, hash: bool = True) -> InspectResult:
    """Say what is in a checkpoint, and what :func:`fold` would do with each BatchNorm.

    Args:
        model: an ONNX model or a state dict, as for :func:`fold`.
        hash: put the SHA-256 of the file into the result.

    Raises:
        InputError: the model cannot be read.
    """
    return InspectResult(_bnkit.inspect(model, hash))


def stats(model: Any, *, only: Globs = (), skip: Globs = (), assume_constant: bool = False) -> Stats:
    """Read the parameters of all BatchNorms that have running statistics.

    Args:
        model: an ONNX model or a state dict, as for :func:`fold`.
        only, skip: globs of node names.
        assume_constant: take initializers that are graph inputs too for constants.

    Returns:
        A mapping from names to :class:`BatchNorm`, whose ``mean``, ``var``, ``gamma`` and ``beta`` are float64 arrays of shape
        (channels,): the stored values, exactly.

    Raises:
        InputError: the model cannot be read.
    """
    return Stats(_bnkit.stats(model, _globs(only), _globs(skip), assume_constant))


def fold(
    model: Any,
    out: Optional[Path] = None,
    *,
    only: Globs = (),
    skip: Globs = (),
    merge_branches: bool = False,
    data: Any = None,
    through_branches: bool = False,
    aggressive: bool = False,
    lower: bool = False,
    per_channel_scales: bool = False,
    assume_constant: bool = False,
    allow_bad_statistics: bool = False,
    keep_stats: Optional[Path] = None,
    graph: Any = None,
    pairs: Optional[Path] = None,
    preset: Optional[str] = None,
    yes: bool = False,
    eps: Optional[float] = None,
    identity_bn: bool = False,
    verify: bool = True,
    samples: int = 4,
    seed: int = 0,
    shapes: Shapes = None,
    atol: Optional[float] = None,
    rtol: Optional[float] = None,
    tolerance_factor: float = 8.0,
    require_end_to_end: bool = False,
    require_all_folded: bool = False,
    min_folded: Optional[float] = None,
    provenance: bool = False,
    dry_run: bool = False,
    force: bool = False,
    hash: bool = True,
) -> FoldResult:
    """Fold every BatchNorm that can be folded exactly, and prove that the model computes the same.

    A state dict does not say which layer feeds which BatchNorm: one of ``graph``, ``pairs`` and ``preset`` does.

    Args:
        model: the ONNX model, or a state dict: the path of a ``.safetensors`` file or of the index of a sharded one, or the bytes of
            such a file.
        out: the file to write. Without it the model is the result's ``model``, as bytes.
        only, skip: globs of node names; without a graph of module names.
        merge_branches: make one Conv of branches that are added.
        data: samples that the proof runs on: a path, an array or a dict of arrays. Random ones without.
        through_branches, aggressive, lower, per_channel_scales: other ways of folding, as the command's options of these names.
        assume_constant: take initializers that are graph inputs too for constants.
        allow_bad_statistics: keep BatchNorms with NaN or negative variance and go on, instead of failing.
        keep_stats: a file for what undoing the fold needs.
        graph: for a state dict: the ONNX export of the same network, as any model.
        pairs: for a state dict: a pairing file, as ``bnkit pair`` writes it.
        preset: for a state dict: a naming scheme, as ``"torchvision"``, or ``"auto"``.
        yes: the pairs of the preset are right. Without it nothing is written, and the exception's ``result["state"]["pairs"]`` are
            what to look at.
        eps: ε of the BatchNorms where the pairing file does not say it, or instead of the preset's.
        identity_bn: keep the BatchNorms of a state dict as identities, so that unmodified model code loads it.
        verify: prove it. Without, the verdict is ``skipped``.
        samples, seed: how many samples the proof runs, and the seed of random ones.
        shapes: sizes of inputs, batch included: a dict by name, or one shape if there is one input.
        atol, rtol, tolerance_factor: what is accepted; see the command.
        require_end_to_end, require_all_folded, min_folded: gates.
        provenance: write the SHA-256 of the input and the verdict into the model's metadata.
        dry_run: plan only; nothing is proved or written.
        force: replace a file that exists.
        hash: put SHA-256 of the files into the result.

    Raises:
        FailedError: not equivalent, bad statistics, a gate was missed, or the pairs of a preset were not agreed to. No model was
            written; ``result`` says all.
        InputError: the model cannot be read or the output not be written.
        KeyboardInterrupt: Ctrl-C, within a second or two; no model was written, unless it was being written already.
    """
    options = {
        "only": _globs(only),
        "skip": _globs(skip),
        "assume_constant": assume_constant,
        "allow_bad_statistics": allow_bad_statistics,
        "through_branches": through_branches,
        "aggressive": aggressive,
        "lower": lower,
        "merge_branches": merge_branches,
        "per_channel_scales": per_channel_scales,
        "graph": graph,
        "pairs": pairs,
        "preset": preset,
        "yes": yes,
        "eps": eps,
        "identity_bn": identity_bn,
        "verify": verify,
        "require_end_to_end": require_end_to_end,
        "require_all_folded": require_all_folded,
        "min_folded": min_folded,
        "keep_stats": keep_stats,
        "provenance": provenance,
        "force": force,
        "dry_run": dry_run,
    }
    proof = _proof(samples, seed, shapes, atol, rtol, tolerance_factor)
    result = FoldResult(*_bnkit.fold(model, out, options, proof, data, hash))
    result.raise_for_failure()
    return result


def verify(
    a: Any,
    b: Any,
    *,
    data: Any = None,
    samples: int = 4,
    seed: int = 0,
    shapes: Shapes = None,
    atol: Optional[float] = None,
    rtol: Optional[float] = None,
    tolerance_factor: float = 8.0,
    require_end_to_end: bool = False,
    hash: bool = True,
) -> VerifyResult:
    """Run two models on the same inputs: are they numerically equivalent?

    Args:
        a: the yardstick: an ONNX model. A state dict has no network to run (:func:`fold` proves its own work on one).
        b: the model in question.
        data, samples, seed, shapes, atol, rtol, tolerance_factor, require_end_to_end: as for :func:`fold`.

    Returns:
        The answer is ``result.ok``; "no" raises nothing (``result.raise_for_failure()`` does).

    Raises:
        InputError: a model cannot be read or run.
        KeyboardInterrupt: Ctrl-C, within a second or two.
    """
    proof = _proof(samples, seed, shapes, atol, rtol, tolerance_factor)
    return VerifyResult(_bnkit.verify(a, b, proof, data, require_end_to_end, hash))


def diff(a: Any, b: Any, *, eps: Optional[float] = None) -> DiffResult:
    """Say what changed between two checkpoints.

    Args:
        a, b: ONNX models or state dicts, as for :func:`fold`.
        eps: the ε of BatchNorms whose file does not say it (default 1e-5).

    Raises:
        InputError: one cannot be read.
    """
    return DiffResult(_bnkit.diff(a, b, eps))


def merge(
    partials: Iterable[Path],
    model: Any,
    out: Optional[Path] = None,
    *,
    fold: bool = False,
    force: bool = False,
    hash: bool = True,
) -> MergeResult:
    """Put together what the shards of ``bnkit recalibrate --shard I/N --partial FILE`` saw.

    Args:
        partials: the files of all shards, in any order.
        model: the model that they were made with.
        out: the file to write. Without it the model is the result's ``model``, as bytes.
        fold: fold the result too, and prove it.
        force: replace a file that exists.
        hash: put SHA-256 of the files into the result.

    Raises:
        FailedError: the fold failed; no model was written.
        InputError: the files are not all shards of one job on this model, or something cannot be read or written.
    """
    result = MergeResult(*_bnkit.merge([os.fspath(path) for path in partials], model, out, fold, force, hash))
    result.raise_for_failure()
    return result
