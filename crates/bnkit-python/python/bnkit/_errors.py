"""The exceptions: one class for each exit code of the command, with the command's messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from ._results import Result


class Error(Exception):
    """What all exceptions of bnkit have in common.

    Attributes:
        exit_code: what the command would end with.
    """

    exit_code: int = 2


class FailedError(Error):
    """The tool worked and the answer is no (exit code 1): not equivalent, drifted, a gate missed. No model was written.

    Attributes:
        result: everything that is known, as if there had been no objection.
    """

    exit_code = 1

    def __init__(self, message: str, result: "Optional[Result]" = None) -> None:
        super().__init__(message)
        self.result = result

    def __reduce__(self):  # Exceptions are pickled by their arguments.
        return (type(self), (str(self), self.result))


class InputError(Error):
    """The tool could not work (exit code 2): bad arguments, unreadable or unsupported input, a file that cannot be written."""

    exit_code = 2
