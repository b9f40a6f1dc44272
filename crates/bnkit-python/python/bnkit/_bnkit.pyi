"""The native module: see the package for what its functions mean."""

from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import numpy.typing as npt

__version__: str

class BatchNorm:
    """The parameters of one BatchNorm; arrays are float64 of shape (channels,)."""

    name: str
    scope: str
    channels: int
    mean_name: str
    var_name: str
    mean: npt.NDArray[np.float64]
    var: npt.NDArray[np.float64]
    gamma: npt.NDArray[np.float64]
    beta: npt.NDArray[np.float64]
    eps: Optional[float]
    momentum: Optional[float]

class Moments:
    """What batches showed of the BatchNorms of a model."""

    batches: int
    samples: int
    model: str
    method: str
    missing: List[Tuple[int, int]]
    def __add__(self, other: Moments) -> Moments: ...
    def __radd__(self, other: int) -> Moments: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(bytes: bytes) -> Moments: ...

class Recalibrator:
    batches: int
    samples: int
    def __init__(self, model: Any, estimate: Dict[str, Any], fold: bool, hash: bool) -> None: ...
    def observe(self, batch: Any, index: Optional[int]) -> int: ...
    def moments(self) -> Moments: ...
    def take(self) -> Moments: ...
    def absorb(self, moments: Moments) -> None: ...
    def is_stable(self) -> bool: ...
    def result(self) -> str: ...
    def write(self, out: Any, force: bool) -> Tuple[str, Optional[bytes]]: ...
    def validate(self, drift: Dict[str, Any]) -> str: ...

def command(args: List[str]) -> int: ...
def inspect(model: Any, hash: bool) -> str: ...
def stats(model: Any, only: List[str], skip: List[str], assume_constant: bool) -> List[BatchNorm]: ...
def fold(
    model: Any, out: Any, options: Dict[str, Any], proof: Dict[str, Any], data: Any, hash: bool
) -> Tuple[str, Optional[bytes]]: ...
def recalibrate(
    model: Any,
    data: Any,
    out: Any,
    estimate: Dict[str, Any],
    cut: Dict[str, Any],
    fold: bool,
    force: bool,
    hash: bool,
    callback: Any,
) -> Tuple[str, Optional[bytes]]: ...
def validate(
    model: Any,
    data: Any,
    estimate: Dict[str, Any],
    cut: Dict[str, Any],
    drift: Dict[str, Any],
    hash: bool,
    callback: Any,
) -> str: ...
def verify(a: Any, b: Any, proof: Dict[str, Any], data: Any, end_to_end: bool, hash: bool) -> str: ...
def diff(a: Any, b: Any, eps: Optional[float]) -> str: ...
def merge(
    partials: List[Any], model: Any, out: Any, fold: bool, force: bool, hash: bool
) -> Tuple[str, Optional[bytes]]: ...
