"""Progress: a callback of the caller's, or a bar of tqdm."""

from __future__ import annotations

from typing import Any, Callable, Optional, Union

Callback = Callable[[int, Optional[int]], Any]
Progress = Union[bool, Callback, None]


class Bar:
    """A bar of tqdm that counts samples. Without tqdm it says nothing."""

    def __init__(self) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            self._tqdm = None
        else:
            self._tqdm = tqdm
        self._bar: Any = None
        self._total: Optional[int] = None

    def __call__(self, done: int, total: Optional[int]) -> None:
        if self._tqdm is None:
            return
        # Each pass of the method `sequential` begins anew.
        if self._bar is None or done < self._bar.n or total != self._total:
            self.close()
            self._bar, self._total = self._tqdm(total=total, unit="sample"), total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the bar where it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class callback:
    """A context that gives what the native module calls back, and tidies up behind it."""

    def __init__(self, progress: Progress) -> None:
        if progress is True:
            self._callback: Any = Bar()
        elif progress is None or progress is False:
            self._callback = None
        elif callable(progress):
            self._callback = progress
        else:
            raise TypeError("progress is a callable (done, total), True or None")

    def __enter__(self) -> Any:
        return self._callback

    def __exit__(self, *_: object) -> None:
        if isinstance(self._callback, Bar):
            self._callback.close()
