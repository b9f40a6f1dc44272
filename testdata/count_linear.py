"""Prints instructions per BatchNorm, for graphs of 100 to 10,000 BatchNorms: free of the noise that times have.

    cargo build --release --workspace
    python testdata/count_linear.py [--graphs chain]

Needs valgrind, numpy and onnx (requirements.txt). The models are those of bench_linear.py. A pass that is quadratic in the number of BatchNorms
would show as ten times the instructions from one column to the next. Cachegrind's model of the last level of the cache says what else
makes a larger graph slower: the memory that it takes, which no longer fits there.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from bench_linear import COMMANDS, SHAPES, made  # noqa: E402
from gen.timing import table  # noqa: E402

LAST_LEVEL = 32 << 20


def counted(program, options, model, folder):
    """Instructions, and misses of the last level of the cache."""
    command = [str(folder / "out.onnx") if part == "{out}" else part for part in [options[0], str(model), *options[1:], "--threads", "1"]]
    valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=yes", f"--LL={LAST_LEVEL},16,64", "--cachegrind-out-file=/dev/null"]
    done = subprocess.run([*valgrind, program, *command], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")

    def number(what):
        return int(re.search(rf"{what}:\s+([\d,]+)", done.stderr).group(1).replace(",", ""))

    return number("I +refs"), number("LL misses")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/bnkit")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--graphs", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for shape in given.graphs:
            found = {name: [] for name in COMMANDS}
            for count in given.sizes:
                model = made(shape, count, folder)
                for name, options in COMMANDS.items():
                    instructions, misses = counted(given.program, options, model, folder)
                    found[name].append((instructions / count / 1e3, misses / count))
                    print(shape, count, name, instructions, misses, file=sys.stderr)
                model.unlink()
            for name, values in found.items():
                rows.append([shape, name, *(f"{instructions:.0f}" for instructions, _ in values), *(f"{misses:.0f}" for _, misses in values)])
    heads = [f"{count:,}" for count in given.sizes]
    text = f"valgrind's cachegrind, one thread, a last-level cache of {LAST_LEVEL >> 20} MiB.\n\n"
    text += table(["graph", "per BatchNorm", *(f"10³ instructions, {head}" for head in heads), *(f"cache misses, {head}" for head in heads)], rows)
    print(text)


if __name__ == "__main__":
    main()
