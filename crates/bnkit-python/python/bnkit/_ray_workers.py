"""The actors that observe batches for :mod:`bnkit.ray`: which of them are there, and what each has to do."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Dict, List, Mapping, Optional

import ray
from ray import exceptions

from . import Moments, Recalibrator
from ._errors import Error

# How many batches a worker is given at once: one to run, one so that it need not wait for the next.
AHEAD = 2


class Observer:
    """What an actor does. Each call is on its own: nothing is left behind but the opened model."""

    def __init__(self, model: Any, options: Dict[str, Any]) -> None:
        self._model, self._options = model, options
        self._recalibrator: Optional[Recalibrator] = None

    def ready(self) -> None:
        """Answers as soon as there is somebody to answer."""

    def observe(self, index: int, batch: Any) -> Moments:
        # Not in __init__, whose errors would arrive as those of a lost worker.
        if self._recalibrator is None:
            self._recalibrator = Recalibrator(self._model, hash=False, **self._options)
        self._recalibrator.observe(batch, index)
        return self._recalibrator.take()


class Workers:
    """The actors, which of them are there, and how many batches each has."""

    def __init__(
        self,
        model: Any,
        driver: Recalibrator,
        options: Dict[str, Any],
        count: Optional[int],
        cpus: float,
        threads: Optional[int],
        max_failures: int,
        actor_options: Optional[Mapping[str, Any]],
    ) -> None:
        if count is None:
            room = ray.available_resources().get("CPU", 0) - 1
            count = max(1, int(room / cpus) if cpus > 0 else 1)
        if count < 1 or max_failures < 0:
            raise ValueError("num_workers is at least 1, and max_failures at least 0")
        self.count, self.cpus, self._max_failures = count, cpus, max_failures
        if threads is None:
            threads = max(1, int(cpus))
        settings = {**(actor_options or {}), "num_cpus": cpus, "max_restarts": 0, "max_task_retries": 0}
        self._actor = ray.remote(Observer).options(**settings)
        self._arguments = (ray.put(portable(model, driver)), {**options, "threads": threads})
        self._failures = 0
        self._load: Dict[Any, int] = {}
        self._starting: Dict[Any, Any] = {}
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        actor = self._actor.remote(*self._arguments)
        self._starting[actor.ready.remote()] = actor

    @property
    def starting(self) -> List[Any]:
        """References that are there as soon as a worker is, or will never be."""
        return list(self._starting)

    def started(self, reference: Any) -> None:
        """Looks at one of these references."""
        actor = self._starting.pop(reference)
        self._load[actor] = 0
        try:
            ray.get(reference)
        except exceptions.RayError as error:
            self.lost(actor, error)

    def free(self) -> Optional[Any]:
        """The worker with the fewest batches, unless it has enough."""
        actor = min(self._load, key=self._load.__getitem__, default=None)
        return actor if actor is not None and self._load[actor] < AHEAD else None

    def observe(self, actor: Any, index: int, batch: Any) -> Any:
        """Gives a batch to a worker. Where its moments will be."""
        self._load[actor] += 1
        return actor.observe.remote(index, batch)

    def done(self, actor: Any) -> None:
        """A worker has finished a batch, or failed to."""
        self._failures = 0
        self.release(actor)

    def release(self, actor: Any) -> None:
        """A worker has a batch less."""
        if actor in self._load:
            self._load[actor] -= 1

    def failed(self, error: Exception) -> None:
        """Counts a loss.

        Raises:
            Error: it was one too many.
        """
        self._failures += 1
        if self._failures > self._max_failures:
            raise Error(f"{self._failures} workers were lost in a row, the last one so: {error}") from error

    def lost(self, actor: Any, error: Exception) -> None:
        """Puts a new worker in the place of one that is gone, which may be said once for each of its batches."""
        if self._load.pop(actor, None) is None:
            return
        ray.kill(actor)
        self.failed(error)
        self._start()

    def end(self) -> None:
        """Ends all of them."""
        for actor in [*self._load, *self._starting.values()]:
            ray.kill(actor)


def portable(model: Any, driver: Recalibrator) -> Any:
    """The model as workers get it: its bytes where these are all of it, else its path."""
    if isinstance(model, bytes):
        return model
    if hasattr(model, "SerializeToString"):
        return model.SerializeToString()
    with open(model, "rb") as file:
        bytes_ = file.read()
    # What moments call the model is the SHA-256 of its file only if it has no other.
    alone = driver.moments.model == hashlib.sha256(bytes_).hexdigest()
    return bytes_ if alone else os.path.abspath(model)
