"""What the benchmarks of whole processes share: one run with its time and its memory, rounds in turn, tables between markers."""

import collections
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"

# The system counts in KiB, the tables in MB.
KIB = 1024 / 1e6

Run = collections.namedtuple("Run", "seconds peak output")


def run(command, environment=None, codes=(0,)):
    """Runs a command, its output kept. Wall seconds, and the high-water mark of its resident set in MB (of the process itself, or of its largest child).

    `None` if it ends with another code than these: the command cannot do what it was asked.
    """
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        child = subprocess.Popen(
            [str(part) for part in command], env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL,
            stdout=said, stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        output = said.read().decode(errors="replace")
    if child.returncode not in codes:
        print(f"failed ({child.returncode}): {' '.join(map(str, command))}\n{output[-2000:]}", file=sys.stderr)
        return None
    return Run(seconds, usage.ru_maxrss * KIB, output)


def in_turn(contestants, rounds, warm_up=1):
    """Runs every contestant (name → function that gives a `Run` or None) once a round, each round beginning with another one.

    Name → runs, in the order of the rounds. Who fails is not run again and has no runs.
    """
    runs, names = {name: [] for name in contestants}, list(contestants)
    for turn in range(-warm_up, rounds):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            if runs[name] is None:
                continue
            result = contestants[name]()
            if result is None:
                runs[name] = None
            elif turn >= 0:
                runs[name].append(result)
    return {name: each or [] for name, each in runs.items()}


def spread(values, digits=2):
    """The median, with the smallest and the largest: `1.25 (0.96–1.46)`."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def table(header, rows):
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def between_markers(file, name, text):
    """Puts `text` between `<!-- name -->` and `<!-- /name -->` of a file."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    whole = file.read_text()
    if begin not in whole or end not in whole:
        sys.exit(f"{file}: there is no {begin} … {end}")
    head, rest = whole.split(begin, 1)
    _, tail = rest.split(end, 1)
    file.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}")


def machine():
    """The processor, the cores and the memory, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "an unknown processor")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"


def load():
    """What limits the numbers: the memory that cannot be seen, and a warning if something else keeps the machine busy."""
    busy, floor = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    note = f" The machine was busy (load {busy:.1f} at the start): read the ratios only." if busy > 0.7 else ""
    # The system counts what the child was before it became the command.
    return f" Peaks below about {floor:.0f} MB cannot be seen: that is the script itself.{note}"
