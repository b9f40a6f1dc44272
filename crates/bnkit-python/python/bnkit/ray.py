"""Recalibration on a Ray cluster (``pip install bnkit[ray]``).

The workers are actors: each opens the model once, observes whole batches and hands back their :class:`bnkit.Moments`. The caller takes
them up in the order of the batches, so the statistics are those of :func:`bnkit.recalibrate` on the same batches, bit for bit, however
many workers there are and whichever of them are lost. This module moves batches and moments; it computes nothing.

What it relies on: a batch has a number, and counts once under it; a batch is only forgotten when its moments have arrived; and
nothing is retried by Ray itself, so that a lost worker is seen here. All nodes need the same processor features (AVX-512 or not), since
the network's own arithmetic depends on them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections import deque
from typing import Any, Deque, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

try:
    import ray
    import ray.data
    from ray import exceptions
except ImportError as error:
    raise ImportError("bnkit.ray needs Ray and its data library: pip install bnkit[ray]") from error

from ._arguments import Globs, Path, _drift
from ._bnkit import Moments
from ._calibration import Recalibrator
from ._errors import Error, InputError
from ._progress import Callback, Progress
from ._ray_workers import Workers
from ._results import RecalibrateResult, ValidateResult

__all__ = ["recalibrate", "validate"]

# How many batches for each worker may be on their way, or finished and waiting for an earlier one.
_WINDOW = 4


def recalibrate(
    model: Any,
    dataset: Any,
    *,
    out: Optional[Path] = None,
    method: str = "precise",
    convention: str = "onnx",
    momentum: Optional[float] = None,
    only: Globs = (),
    skip: Globs = (),
    assume_constant: bool = False,
    dropout: Optional[int] = None,
    graph: Optional[Path] = None,
    fold: bool = False,
    batch_size: Optional[int] = None,
    drop_last: bool = False,
    max_batches: Optional[int] = None,
    num_workers: Optional[int] = None,
    cpus_per_worker: float = 1,
    threads: Optional[int] = None,
    max_failures: int = 3,
    actor_options: Optional[Mapping[str, Any]] = None,
    progress: Progress = None,
    force: bool = False,
    hash: bool = True,
) -> RecalibrateResult:
    """Re-estimate the running statistics from data, on the workers of a Ray cluster.

    Args:
        model: the ONNX model, as for :func:`bnkit.recalibrate`. It travels through the object store, once; one with external data, or
            a state dict, is read from its path by every node.
        dataset: a :class:`ray.data.Dataset`, whose columns are named as the model's inputs (one column may have any name) and whose rows
            are samples; it is read in its order. Or an iterable of batches, as for :func:`bnkit.recalibrate`, or of ``ObjectRef`` to
            such batches, which then do not pass through the caller.
        out: the file to write. Without it the model is the result's ``model``, as bytes.
        method: ``precise``, ``average`` or ``ema``.
        convention, momentum, only, skip, assume_constant, dropout, graph: as for :func:`bnkit.recalibrate`.
        fold: fold the result too, and prove it.
        batch_size: samples per batch of a dataset (default 32). Batches of an iterable are taken as they come.
        drop_last: leave out a last batch of a dataset that is not full.
        max_batches: run no more than that.
        num_workers: how many actors (default: as many as the cluster has room for now, but one, which reads a dataset). The result
            does not depend on it.
        cpus_per_worker: the CPUs that an actor reserves.
        threads: how many threads run the network in each actor (default: as many as it has CPUs).
        max_failures: how many workers may be lost in a row, no batch being finished in between.
        actor_options: more options of ``ray.remote`` for the actors, as ``{"resources": {"fast": 1}}``.
        progress: ``True`` for a bar of Ray's own tqdm, or a callable ``(samples done, None)``.
        force: replace a file that exists.
        hash: put SHA-256 of the files into the result.

    Raises:
        FailedError: the fold failed; no model was written.
        InputError: something cannot be read, run or written.
        Error: too many workers were lost. No model was written.
        KeyboardInterrupt: Ctrl-C; no model was written.
    """
    if out is not None and not force and os.path.exists(out):
        raise InputError(f"{os.fspath(out)}: exists already; force=True replaces it")
    options = dict(
        method=method, convention=convention, momentum=momentum, only=only, skip=skip, assume_constant=assume_constant
    )
    options.update(dropout=dropout, graph=graph)
    driver = Recalibrator(model, fold=fold, hash=hash, **options)
    cut = (batch_size, drop_last, max_batches)
    _observe(driver, model, options, dataset, cut, (num_workers, cpus_per_worker, threads, max_failures, actor_options), progress)
    return driver.write(out, force=force)


def validate(
    model: Any,
    dataset: Any,
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
    dropout: Optional[int] = None,
    graph: Optional[Path] = None,
    batch_size: Optional[int] = None,
    drop_last: bool = False,
    max_batches: Optional[int] = None,
    num_workers: Optional[int] = None,
    cpus_per_worker: float = 1,
    threads: Optional[int] = None,
    max_failures: int = 3,
    actor_options: Optional[Mapping[str, Any]] = None,
    progress: Progress = None,
    hash: bool = True,
) -> ValidateResult:
    """Compare the stored statistics with those of data, on the workers of a Ray cluster.

    Args:
        model, dataset: as for :func:`recalibrate`, and so for the options of these names.
        max_mean_drift, max_var_drift, max_kl, worst: as for :func:`bnkit.validate`.

    Returns:
        The verdict is ``result.valid``; drift is an answer and raises nothing (``result.raise_for_failure()`` does).

    Raises:
        InputError: something cannot be read or run.
        Error: too many workers were lost.
        KeyboardInterrupt: Ctrl-C.
    """
    options = dict(method=method, convention=convention, only=only, skip=skip, assume_constant=assume_constant)
    options.update(dropout=dropout, graph=graph)
    driver = Recalibrator(model, hash=hash, **options)
    drift = _drift(max_mean_drift, max_var_drift, max_kl, worst)
    if method == "ema":
        driver.validate(**drift)  # Which says, before anything is run, why that cannot be.
    cut = (batch_size, drop_last, max_batches)
    _observe(driver, model, options, dataset, cut, (num_workers, cpus_per_worker, threads, max_failures, actor_options), progress)
    return driver.validate(**drift)


def _observe(driver: Recalibrator, model: Any, options: dict, dataset: Any, cut: tuple, staff: tuple, progress: Progress) -> None:
    """Brings the driver the moments of all batches: ``cut`` goes to :func:`_batches`, ``staff`` to :class:`Workers`."""
    with _batches(dataset, *cut) as batches:
        workers = Workers(model, driver, options, *staff)
        _leave_room(dataset, workers.count * workers.cpus)
        _run(driver, workers, batches, progress)


@contextlib.contextmanager
def _batches(
    dataset: Any, batch_size: Optional[int], drop_last: bool, max_batches: Optional[int]
) -> Iterator[Iterator[Any]]:
    """The batches, in an order that is the same each time."""
    if not ray.is_initialized():
        ray.init()
    if isinstance(dataset, ray.data.Dataset):
        # Blocks come in the order of the rows, not as they are finished.
        execution = dataset.context.execution_options
        before, execution.preserve_order = execution.preserve_order, True
        batches = dataset.iter_batches(
            batch_size=32 if batch_size is None else batch_size, batch_format="numpy", drop_last=drop_last
        )
        try:
            yield itertools.islice(batches, max_batches)
        finally:
            execution.preserve_order = before
        return
    if batch_size is not None or drop_last:
        raise InputError("batch_size and drop_last are for a ray.data.Dataset: an iterable brings its own batches")
    no_batches = isinstance(dataset, (str, bytes, os.PathLike, Mapping))
    if no_batches or hasattr(dataset, "__array__") or hasattr(dataset, "__dlpack__") or not isinstance(dataset, Iterable):
        raise TypeError(
            f"expected a ray.data.Dataset or an iterable of batches, not {type(dataset).__name__} (ray.data.from_numpy makes a Dataset of an array)"
        )
    yield itertools.islice(dataset, max_batches)


def _leave_room(dataset: Any, taken: float) -> None:
    """Warns where the workers leave nothing to the tasks that read a dataset: both would wait for ever."""
    lazy = isinstance(dataset, ray.data.Dataset) and not isinstance(dataset, ray.data.dataset.MaterializedDataset)
    there = ray.cluster_resources().get("CPU", 0)
    if lazy and there - taken < 1:
        warnings.warn(
            f"the workers take {taken:g} of {there:g} CPUs, and reading the dataset needs one: if the cluster does not grow, it"
            " waits for ever. Ask for fewer workers, or give dataset.materialize()",
            RuntimeWarning,
            stacklevel=4,
        )


def _run(driver: Recalibrator, workers: Workers, batches: Iterator[Any], progress: Progress) -> None:
    """Lets the workers observe all batches, and the driver absorb their moments in the order of the batches."""
    numbered = enumerate(batches)
    again: Deque[Tuple[int, Any]] = deque()
    running: Dict[Any, Tuple[Any, int, Any]] = {}
    arrived: Dict[int, Moments] = {}
    absorbed, more = 0, True
    with contextlib.ExitStack() as stack:
        stack.callback(workers.end)
        report = stack.enter_context(_reporting(progress))
        while more or again or running:
            while (again or more) and (actor := workers.free()) is not None:
                # What is behind the window waits, so that neither batches nor moments pile up behind a slow worker.
                if not again and len(running) + len(arrived) >= _WINDOW * workers.count:
                    break
                index, batch = again.popleft() if again else next(numbered, (-1, None))
                if index < 0:
                    more = False
                    break
                batch = batch if isinstance(batch, ray.ObjectRef) else ray.put(batch)
                running[workers.observe(actor, index, batch)] = actor, index, batch
            if not running and not again and not more:
                break
            waiting = [*running, *workers.starting]
            (reference,), _ = ray.wait(waiting, num_returns=1)
            if reference not in running:
                workers.started(reference)
                continue
            actor, index, batch = running.pop(reference)
            moments = _moments(workers, reference, actor)
            if moments is None:
                again.append((index, batch))
                continue
            arrived[index] = moments
            while absorbed in arrived:
                driver.absorb(arrived.pop(absorbed))
                absorbed += 1
                report(driver.samples, None)


def _moments(workers: Workers, reference: Any, actor: Any) -> Optional[Moments]:
    """What a worker made of a batch; ``None`` if it, or the node with its answer, is no more."""
    try:
        moments = ray.get(reference)
    except exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        raise (cause if isinstance(cause, Error) else error) from None
    except exceptions.RayActorError as error:
        workers.lost(actor, error)
        return None
    except (exceptions.ObjectLostError, exceptions.NodeDiedError, exceptions.OutOfMemoryError) as error:
        workers.release(actor)
        workers.failed(error)
        return None
    workers.done(actor)
    return moments


@contextlib.contextmanager
def _reporting(progress: Progress) -> Iterator[Callback]:
    """What is told how many samples were absorbed."""
    if progress is None or progress is False:
        yield lambda done, total: None
    elif progress is True:
        from ray.experimental import tqdm_ray

        bar = tqdm_ray.tqdm(desc="bnkit", unit="sample")
        try:
            yield lambda done, total: bar.update(done - bar.n)
        finally:
            bar.close()
    elif callable(progress):
        yield progress
    else:
        raise TypeError("progress is a callable (done, total), True or None")
