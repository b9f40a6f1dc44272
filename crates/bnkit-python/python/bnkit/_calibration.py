"""The jobs that run a network on data: in one go, and in steps."""

from __future__ import annotations

from typing import Any, Optional

from . import _bnkit
from ._arguments import Globs, Path, Preprocess, Shapes, _cut, _drift, _estimate
from ._bnkit import Moments
from ._progress import Progress, callback
from ._results import RecalibrateResult, ValidateResult


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
    preprocess: Preprocess = None,
    labels: Any = None,
    max_accuracy_drop: Optional[float] = None,
    until_stable: bool = False,
    dropout: Optional[int] = None,
    graph: Any = None,
    fold: bool = False,
    threads: int = 0,
    progress: Progress = None,
    force: bool = False,
    hash: bool = True,
) -> RecalibrateResult:
    """Re-estimate the running statistics from data.

    Args:
        model: the ONNX model, or a state dict (a path, or the bytes of a ``.safetensors`` file); then ``graph`` is needed.
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
        shapes: sizes of inputs, as for :func:`bnkit.fold`.
        preprocess: for a folder of images: ``"imagenet"``, ``"inception"``, ``"tensorflow"``, the path of a YAML file, or a dict with
            what such a file says: ``preset``, ``resize``, ``crop``, ``color``, ``scale``, ``mean``, ``std``, ``layout``.
        labels: the class of each sample, from 0: an array or a list of integers, or the path of a ``.npy`` or of a text with a label
            (or ``FILE,LABEL``) a line. The result's ``accuracy`` says how often the network is right, before and after.
        max_accuracy_drop: the share by which the labels may be hit less often afterwards, as 0.01; more is a failure.
        until_stable: stop as soon as enough was seen.
        dropout: leave Dropout on, with this seed.
        graph: the ONNX export of a state dict's network, as any model.
        fold: fold the result too, and prove it, on the first samples of data that is no iterable of batches and no images.
        threads: how many threads run the network; 0 for all there are.
        progress: ``True`` for a bar of tqdm (if installed), or a callable ``(samples done, samples in all or None)``.
        force: replace a file that exists.
        hash: put SHA-256 of the files into the result.

    Raises:
        FailedError: the fold failed, or the accuracy dropped too far; no model was written.
        InputError: something cannot be read, run or written.
        KeyboardInterrupt: Ctrl-C, after the batch that was running; no model was written.
    """
    estimate = _estimate(
        method, convention, only, skip, assume_constant, until_stable, dropout, threads, graph, momentum, tolerance, passes
    )
    cut = _cut(
        batch_size, drop_last, max_batches, max_samples, shuffle, shapes, preprocess, labels, max_accuracy_drop
    )
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
    preprocess: Preprocess = None,
    labels: Any = None,
    until_stable: bool = False,
    dropout: Optional[int] = None,
    graph: Any = None,
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
    cut = _cut(batch_size, drop_last, max_batches, max_samples, shuffle, shapes, preprocess, labels)
    drift = _drift(max_mean_drift, max_var_drift, max_kl, worst)
    with callback(progress) as call:
        return ValidateResult(_bnkit.validate(model, data, estimate, cut, drift, hash, call))


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
        model: the ONNX model, or a state dict (a path, or the bytes of a ``.safetensors`` file); then ``graph`` is needed.
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
        graph: Any = None,
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
