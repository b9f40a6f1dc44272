"""Fold BatchNorm out of trained checkpoints, exactly, and prove it; re-estimate running statistics.

Everywhere, a *model* is a path, ``bytes`` or an ``onnx.ModelProto``. *Data* is one of

* a path to ``.npy``, ``.npz``, ``.safetensors``, ONNX ``.pb`` or a folder of these,
* an array, or a dict of arrays by input name: all samples, along the leading axis; it is cut into batches,
* an iterable of batches (a ``DataLoader``, a generator, a list), each an array, a dict of arrays, or a tuple that begins with one of
  these, as ``(images, labels)``. Batches are taken as they come.

An array is NumPy's, or anything with ``__dlpack__`` or ``__array__``, as PyTorch's tensors.

Functions give a :class:`Result`: a mapping with the JSON that the command prints with ``--format json``.
"""

from __future__ import annotations

import os
from typing import Any, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

from . import _bnkit
from ._bnkit import BatchNorm, Moments, __version__
from ._errors import Error, FailedError, InputError
from ._progress import Progress, callback
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

Path = Union[str, "os.PathLike[str]"]
Globs = Union[str, Iterable[str]]
Shapes = Union[None, Iterable[int], Mapping[str, Iterable[int]]]


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
    graph: Optional[Path],
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
) -> dict:
    return {
        "batch_size": batch_size,
        "drop_last": drop_last,
        "max_batches": max_batches,
        "max_samples": max_samples,
        "shuffle": shuffle,
        "shapes": _shapes(shapes),
    }


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
        model: an ONNX model, or the path of a state dict (``.safetensors``, or the index of a sharded one).
        hash: put the SHA-256 of the file into the result.

    Raises:
        InputError: the model cannot be read.
    """
    return InspectResult(_bnkit.inspect(model, hash))


def stats(model: Any, *, only: Globs = (), skip: Globs = (), assume_constant: bool = False) -> Stats:
    """Read the parameters of all BatchNorms that have running statistics.

    Args:
        model: an ONNX model, or the path of a state dict.
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

    Args:
        model: the ONNX model.
        out: the file to write. Without it the model is the result's ``model``, as bytes.
        only, skip: globs of node names.
        merge_branches: make one Conv of branches that are added.
        data: samples that the proof runs on: a path, an array or a dict of arrays. Random ones without.
        through_branches, aggressive, lower, per_channel_scales: other ways of folding, as the command's options of these names.
        assume_constant: take initializers that are graph inputs too for constants.
        allow_bad_statistics: keep BatchNorms with NaN or negative variance and go on, instead of failing.
        keep_stats: a file for what undoing the fold needs.
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
        FailedError: not equivalent, bad statistics, or a gate was missed. No model was written; ``result`` says all.
        InputError: the model cannot be read or the output not be written.
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


def recalibrate(
    model: Any,
    data: Any,
    out: Optional[Path] = None,
    *,
    method: str = "precise",
    convention: str = "onnx",
    momentum: Optional[float] = None,
    tolerance: float = 1e-4,
    passes: int = 20,
    only: Globs = (),
    skip: Globs = (),
    assume_constant: bool = False,
    batch_size: Optional[int] = None,
    drop_last: bool = False,
    max_batches: Optional[int] = None,
    max_samples: Optional[int] = None,
    shuffle: Optional[int] = None,
    shapes: Shapes = None,
    until_stable: bool = False,
    dropout: Optional[int] = None,
    graph: Optional[Path] = None,
    fold: bool = False,
    threads: int = 0,
    progress: Progress = None,
    force: bool = False,
    hash: bool = True,
) -> RecalibrateResult:
    """Re-estimate the running statistics from data.

    Args:
        model: the ONNX model, or the path of a state dict (then ``graph`` is needed).
        data: see the package's documentation.
        out: the file to write. Without it the model is the result's ``model``, as bytes.
        method: ``precise``, ``average``, ``ema``, or (where data is no iterable of batches) ``sequential``.
        convention: ``onnx``, ``torch`` or ``keras``: how momentum is read and which variance is stored.
        momentum: for ``ema``, instead of what each node says.
        tolerance, passes: for ``sequential``.
        only, skip: globs of node names.
        assume_constant: take initializers that are graph inputs too for constants.
        batch_size: samples per batch (default 32). Not for an iterable of batches, and so for all the following but ``max_batches``.
        drop_last: leave out a last batch that is not full.
        max_batches, max_samples: run no more than that.
        shuffle: a seed to shuffle the samples with.
        shapes: sizes of inputs, as for :func:`fold`.
        until_stable: stop as soon as enough was seen.
        dropout: leave Dropout on, with this seed.
        graph: the ONNX export of a state dict's network.
        fold: fold the result too, and prove it.
        threads: how many threads run the network; 0 for all there are.
        progress: ``True`` for a bar of tqdm (if installed), or a callable ``(samples done, samples in all or None)``.
        force: replace a file that exists.
        hash: put SHA-256 of the files into the result.

    Raises:
        FailedError: the fold failed; no model was written.
        InputError: something cannot be read, run or written.
        KeyboardInterrupt: Ctrl-C, after the batch that was running; no model was written.
    """
    estimate = _estimate(
        method, convention, only, skip, assume_constant, until_stable, dropout, threads, graph, momentum, tolerance, passes
    )
    cut = _cut(batch_size, drop_last, max_batches, max_samples, shuffle, shapes)
    with callback(progress) as call:
        result = RecalibrateResult(*_bnkit.recalibrate(model, data, out, estimate, cut, fold, force, hash, call))
    result.raise_for_failure()
    return result


def validate(
    model: Any,
    data: Any,
    *,
    method: str = "precise",
    convention: str = "onnx",
    only: Globs = (),
    skip: Globs = (),
    assume_constant: bool = False,
    max_mean_drift: float = 0.1,
    max_var_drift: float = 0.2,
    max_kl: float = 0.02,
    worst: int = 10,
    batch_size: Optional[int] = None,
    drop_last: bool = False,
    max_batches: Optional[int] = None,
    max_samples: Optional[int] = None,
    shuffle: Optional[int] = None,
    shapes: Shapes = None,
    until_stable: bool = False,
    dropout: Optional[int] = None,
    graph: Optional[Path] = None,
    threads: int = 0,
    progress: Progress = None,
    hash: bool = True,
) -> ValidateResult:
    """Compare the stored statistics with those of data.

    Args:
        model, data: as for :func:`recalibrate`, and so for the options of these names.
        max_mean_drift: the largest ``|Δμ| / √(σ²+ε)`` that is no drift.
        max_var_drift: the largest ``|ln((σ²_observed+ε) / (σ²+ε))|``.
        max_kl: the largest symmetric KL divergence.
        worst: how many of the worst channels the result lists.

    Returns:
        The verdict is ``result.valid``; drift is an answer and raises nothing (``result.raise_for_failure()`` does).

    Raises:
        InputError: something cannot be read or run.
        KeyboardInterrupt: Ctrl-C, after the batch that was running.
    """
    estimate = _estimate(method, convention, only, skip, assume_constant, until_stable, dropout, threads, graph)
    cut = _cut(batch_size, drop_last, max_batches, max_samples, shuffle, shapes)
    drift = _drift(max_mean_drift, max_var_drift, max_kl, worst)
    with callback(progress) as call:
        return ValidateResult(_bnkit.validate(model, data, estimate, cut, drift, hash, call))


def _drift(max_mean_drift: float, max_var_drift: float, max_kl: float, worst: int) -> dict:
    return {"max_mean_drift": max_mean_drift, "max_var_drift": max_var_drift, "max_kl": max_kl, "worst": worst}


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
        a: the yardstick.
        b: the model in question.
        data, samples, seed, shapes, atol, rtol, tolerance_factor, require_end_to_end: as for :func:`fold`.

    Returns:
        The answer is ``result.ok``; "no" raises nothing (``result.raise_for_failure()`` does).

    Raises:
        InputError: a model cannot be read or run.
    """
    proof = _proof(samples, seed, shapes, atol, rtol, tolerance_factor)
    return VerifyResult(_bnkit.verify(a, b, proof, data, require_end_to_end, hash))


def diff(a: Any, b: Any, *, eps: Optional[float] = None) -> DiffResult:
    """Say what changed between two checkpoints.

    Args:
        a, b: ONNX models, or paths of state dicts.
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


class Recalibrator:
    """A recalibration in steps: batches are brought one by one, by one process or by many.

    The statistics are those of :func:`recalibrate` on the same batches, bit for bit, whoever saw which of them::

        worker = bnkit.Recalibrator("net.onnx")
        worker.observe(batch, index=17)
        moments = worker.moments            # pickle it, send it

        driver = bnkit.Recalibrator("net.onnx")
        for moments in arriving:
            driver.absorb(moments)
        driver.write("new.onnx")

    Args:
        model: the ONNX model, or the path of a state dict (then ``graph`` is needed).
        method: ``precise``, ``average`` or ``ema``.
        fold: let :meth:`write` fold the result too, and prove it.
        convention, momentum, only, skip, assume_constant, dropout, graph, threads, hash: as for :func:`recalibrate`.

    Raises:
        InputError: the model cannot be read, or has nothing to estimate.
    """

    def __init__(
        self,
        model: Any,
        method: str = "precise",
        *,
        convention: str = "onnx",
        momentum: Optional[float] = None,
        only: Globs = (),
        skip: Globs = (),
        assume_constant: bool = False,
        dropout: Optional[int] = None,
        graph: Optional[Path] = None,
        fold: bool = False,
        threads: int = 0,
        hash: bool = True,
    ) -> None:
        estimate = _estimate(
            method, convention, only, skip, assume_constant, False, dropout, threads, graph, momentum=momentum
        )
        self._native = _bnkit.Recalibrator(model, estimate, fold, hash)

    def observe(self, batch: Any, index: Optional[int] = None) -> int:
        """Run a whole batch.

        Args:
            batch: an array, a dict of arrays by input name, or a tuple that begins with one of these. Samples run along the leading
                axis; every BatchNorm needs at least two elements per channel.
            index: the number of the batch among all batches of the job, from 0: it says in which order batches are taken up, and one
                that is observed again counts once. Without it, the batch comes after all that were observed or absorbed.

        Returns:
            The number of the batch.

        Raises:
            InputError: it does not fit the model, has a NaN or an infinity, or a different batch has its number. Nothing of it counts.
        """
        return self._native.observe(batch, index)

    @property
    def moments(self) -> Moments:
        """What was seen so far, as a value: it can be pickled and added to others."""
        return self._native.moments()

    def take(self) -> Moments:
        """What was seen so far, which is forgotten here: for workers that hand it over bit by bit. Numbers go on."""
        return self._native.take()

    def absorb(self, moments: Moments) -> None:
        """Add what others have seen.

        Raises:
            InputError: they are of another model or other options, or have a different batch of the same number. Nothing changed.
        """
        self._native.absorb(moments)

    @property
    def batches(self) -> int:
        """How many batches were seen."""
        return self._native.batches

    @property
    def samples(self) -> int:
        """How many samples were seen."""
        return self._native.samples

    @property
    def stable(self) -> bool:
        """Whether enough was seen: ``until_stable`` of :func:`recalibrate` would stop here."""
        return self._native.is_stable()

    def result(self) -> RecalibrateResult:
        """The statistics so far; nothing is written.

        Raises:
            InputError: no batch was seen.
        """
        return RecalibrateResult(self._native.result())

    def write(self, out: Optional[Path] = None, *, force: bool = False) -> RecalibrateResult:
        """Write a copy of the model with the new statistics.

        Args:
            out: the file. Without it the model is the result's ``model``, as bytes.
            force: replace a file that exists.

        Raises:
            FailedError: it was to be folded, and that failed. No model was written.
            InputError: no batch was seen, or the file cannot be written.
        """
        result = RecalibrateResult(*self._native.write(out, force))
        result.raise_for_failure()
        return result

    def validate(
        self, *, max_mean_drift: float = 0.1, max_var_drift: float = 0.2, max_kl: float = 0.02, worst: int = 10
    ) -> ValidateResult:
        """Compare the stored statistics with what was seen, as :func:`validate` does.

        Raises:
            InputError: fewer than two batches were seen, or the method is ``ema``.
        """
        return ValidateResult(self._native.validate(_drift(max_mean_drift, max_var_drift, max_kl, worst)))
