"""The command ``bnkit``, as the wheel installs it."""

from __future__ import annotations

import sys

from . import _bnkit


def main() -> int:
    """Run the command with the arguments of this process; gives the exit code."""
    return _bnkit.command(["bnkit", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
