"""Time per BatchNorm, and memory, of whole processes, for graphs of 10 to 10,000 BatchNorms: a table for docs/benchmarks.md and a plot.

    cargo build --release --workspace
    python testdata/bench_linear.py --write           # table and docs/linear.svg; without --write the table is printed
    python testdata/bench_linear.py --make 30000 OUT  # only makes the models, for a profiler

Needs numpy and onnx (requirements.txt). Channels are few and kernels 1×1, so that what is measured is what a node costs, not what its elements cost.
In turn, several rounds, medians. The start of a process is a part of each time, so 10 BatchNorms cost more each than 10,000.
`fold`'s proof end to end is tract's work, some of which grows with the square: it is measured up to --proof BatchNorms.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gen.timing import DOCS, between_markers, load, machine, run, table  # noqa: E402

CHANNELS = 4
SIZES = [10, 100, 1000, 10000]
COMMANDS = {
    "fold --no-verify": ["fold", "--no-verify", "--force", "--quiet", "-o", "{out}"],
    "inspect": ["inspect", "--quiet"],
    "check": ["check", "--quiet"],
}
PROOF = ["fold", "--force", "--quiet", "--samples", "1", "-o", "{out}"]


class Builder:
    """Nodes and initializers in the making, of the main graph or of a body."""

    def __init__(self, prefix="", seed=0):
        self.prefix, self.nodes, self.constants = prefix, [], []
        self.rng = np.random.default_rng(seed)

    def constant(self, name, shape, low, high):
        values = self.rng.uniform(low, high, shape).astype(np.float32)
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op_type, inputs, name, **attributes):
        self.nodes.append(helper.make_node(op_type, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def norm(self, value, index, relu=True):
        """Conv, BatchNorm and Relu behind `value`; kernels and statistics of which long chains neither vanish nor overflow."""
        name = f"{self.prefix}{index}"
        weight = self.constant(f"{name}.w", (CHANNELS, CHANNELS, 1, 1), -0.5, 0.5)
        value = self.node("Conv", [value, weight], f"{name}.conv")
        parameters = [
            self.constant(f"{name}.{part}", (CHANNELS,), low, high)
            for part, low, high in (("g", 0.5, 1.5), ("b", -0.5, 0.5), ("m", -0.1, 0.1), ("v", 0.1, 0.5))
        ]
        value = self.node("BatchNormalization", [value, *parameters], f"{name}.bn")
        return self.node("Relu", [value], f"{name}.relu") if relu else value


def image(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", CHANNELS, 8, 8])


def finish(builder, value, extra_inputs=()):
    nodes = [*builder.nodes, helper.make_node("Identity", [value], ["y"], name="last")]
    graph = helper.make_graph(nodes, "g", [image("x"), *extra_inputs], [image("y")], builder.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def chain(count):
    """Conv, BatchNorm, Relu, again and again."""
    builder, value = Builder(), "x"
    for index in range(count):
        value = builder.norm(value, index)
    return finish(builder, value)


def residual(count):
    """Blocks of two BatchNorms around which the input goes, added; every tenth block has four side by side instead."""
    builder, value, index = Builder(), "x", 0
    while index < count:
        wide = index % 20 >= 16 and count - index >= 4
        lanes = [builder.norm(value, index + lane, relu=False) for lane in range(4 if wide else 1)]
        index += len(lanes)
        if not wide and index < count:
            lanes = [value, builder.norm(builder.node("Relu", lanes, f"inner{index}"), index, relu=False)]
            index += 1
        for lane in lanes[1:]:
            lanes[0] = builder.node("Add", [lanes[0], lane], f"add{lane}")
        value = builder.node("Relu", [lanes[0]], f"block{index}")
    return finish(builder, value)


def nested(count):
    """Ten BatchNorms in each branch of an If, one If behind the other (less than ten in the last)."""
    builder, value, index = Builder(), "x", 0
    while index < count:
        branches = []
        for branch in ("then", "else"):
            inner, inside = Builder(f"{branch}{index}/", seed=index), value
            share = min(10, count - index) if branch == "then" else 0
            for each in range(share):
                inside = inner.norm(inside, each)
            inside = inner.node("Identity", [inside], f"{branch}{index}/last")
            output = helper.make_tensor_value_info(inside, TensorProto.FLOAT, None)
            branches.append(helper.make_graph(inner.nodes, branch, [], [output], inner.constants))
        value = builder.node("If", ["c"], f"if{index}", then_branch=branches[0], else_branch=branches[1])
        index += 10
    return finish(builder, value, [helper.make_tensor_value_info("c", TensorProto.BOOL, [])])


def shared(count):
    """A chain whose BatchNorms all read the same four parameters."""
    builder, value = Builder(), "x"
    for index in range(count):
        value = builder.norm(value, index)
    for node in builder.nodes:
        if node.op_type == "BatchNormalization":
            for slot, part in enumerate("gbmv", 1):
                node.input[slot] = f"0.{part}"
    read = {name for node in builder.nodes for name in node.input}
    builder.constants = [tensor for tensor in builder.constants if tensor.name in read]
    return finish(builder, value)


def unnamed(count):
    """A chain whose nodes have no names, with numbers for values, as converters write them."""
    model = chain(count)
    names = {"x": "x", "y": "y"}
    for node in model.graph.node:
        node.name = ""
        for slots in (node.input, node.output):
            for slot, name in enumerate(slots):
                slots[slot] = names.setdefault(name, str(len(names)))
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    return model


def cheap(count):
    """A deep chain of operators that carry an affine or let it pass: nothing to compute, but a recursion would end there."""
    builder, value = Builder(), "x"
    for index in range(count):
        value = builder.node(("Identity", "Relu", "Dropout", "Neg")[index % 4], [value], f"n{index}")
    return finish(builder, builder.norm(value, "last"))


SHAPES = {"chain": chain, "residual": residual, "nested": nested, "shared": shared, "unnamed": unnamed}


def made(shape, count, folder):
    path = folder / f"{shape}-{count}.onnx"
    if not path.exists():
        # In a process of its own: what this one ever took would count as memory of every command that it starts.
        subprocess.run([sys.executable, __file__, "--one", shape, str(count), path], check=True)
    return path


def timed(program, options, model, folder):
    command = [options[0], model, *(str(folder / "out.onnx") if part == "{out}" else part for part in options[1:])]
    return run([program, *command], codes=(0, 1))


def measure(given, folder):
    """Milliseconds per BatchNorm: (shape, command) → {count: median}; and (shape, command) → MB at most of the largest graph."""
    found, peaks = {}, {}
    for shape in SHAPES:
        for count in given.sizes:
            model = made(shape, count, folder)
            commands = dict(COMMANDS)
            if count <= given.proof:
                commands["fold"] = PROOF
            times = {name: [] for name in commands}
            for turn in range(given.rounds):
                names = list(commands)
                for name in names[turn % len(names):] + names[:turn % len(names)]:
                    result = timed(given.program, commands[name], model, folder)
                    times[name].append(result.seconds)
                    peaks[shape, name] = max(result.peak, peaks.get((shape, name), 0) if count == given.sizes[-1] else 0)
            for name, seconds in times.items():
                found.setdefault((shape, name), {})[count] = 1e3 * statistics.median(seconds) / count
            print(f"{shape} {count}", {name: f"{statistics.median(s):.3f} s" for name, s in times.items()}, file=sys.stderr)
            model.unlink()
    return found, peaks


COLOURS = ["#4477aa", "#cc6677", "#228833", "#aa8800", "#aa3377"]


def plot(found, sizes):
    """Milliseconds per BatchNorm over the number of BatchNorms, both logarithmic; one colour for each graph, one panel for each command."""
    panels, width, height, left, top = list(COMMANDS), 220, 190, 52, 30
    low, high = 0.01, 10.0

    def x(count):
        return np.log10(count / sizes[0]) / np.log10(sizes[-1] / sizes[0]) * (width - 30) + 10

    def y(milliseconds):
        clipped = min(max(milliseconds, low), high)
        return height * (1 - np.log10(clipped / low) / np.log10(high / low))

    total = left + len(panels) * width
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {top + height + 58}" font-family="sans-serif" font-size="11">',
           "<style>text{fill:#555}line,path{fill:none;stroke:#8888;stroke-width:1}.d{stroke-width:2}"
           "@media(prefers-color-scheme:dark){text{fill:#bbb}}</style>",
           f'<text x="4" y="14">milliseconds per BatchNorm (whole process, median)</text>']
    for at, command in enumerate(panels):
        out.append(f'<g transform="translate({left + at * width},{top})"><text x="{(width - 20) / 2:.0f}" y="{height + 34}" text-anchor="middle">{command}</text>')
        for tick in (0.01, 0.1, 1, 10):
            out.append(f'<line x1="0" x2="{width - 20}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
            if at == 0:
                out.append(f'<text x="-6" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>')
        for count in sizes:
            out.append(f'<text x="{x(count):.1f}" y="{height + 16}" text-anchor="middle">{count}</text>')
        for colour, shape in zip(COLOURS, SHAPES):
            points = [f"{x(count):.1f},{y(value):.1f}" for count, value in found[shape, command].items()]
            out.append(f'<path class="d" style="stroke:{colour}" d="M{" L".join(points)}"/>')
        out.append("</g>")
    for at, (colour, shape) in enumerate(zip(COLOURS, SHAPES)):
        across = left + at * 110
        out.append(f'<path class="d" style="stroke:{colour}" d="M{across},{top + height + 48} h16"/><text x="{across + 20}" y="{top + height + 52}">{shape}</text>')
    return "\n".join([*out, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/bnkit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--proof", type=int, default=1000, help="the most BatchNorms for which fold proves, too")
    parser.add_argument("--write", action="store_true", help="table and plot into docs")
    parser.add_argument("--make", nargs=2, metavar=("COUNT", "FOLDER"), help="only make the models, and a chain of as many cheap operators")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        shape, count, path = given.one
        onnx.save({**SHAPES, "cheap": cheap}[shape](int(count)), path)
        return
    if given.make:
        for shape in (*SHAPES, "cheap"):
            print(made(shape, int(given.make[0]), Path(given.make[1])))
        return
    busy = load()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found, peaks = measure(given, folder)
        deep = statistics.median(
            timed(given.program, COMMANDS["fold --no-verify"], made("cheap", 100_000, folder), folder).seconds for _ in range(3)
        )
    rows = [
        [
            shape, command, *(f"{values[count]:.3f}" if count in values else "" for count in given.sizes),
            f"{peaks[shape, command]:.0f}" if given.sizes[-1] in values else "",
        ]
        for (shape, command), values in found.items()
    ]
    text = f"{machine()}; {given.rounds} rounds.{busy}\n\n"
    text += table(["graph", "command, ms per BatchNorm", *(f"{count:,}" for count in given.sizes), f"peak MB at {given.sizes[-1]:,}"], rows)
    text += f"\n\nA chain of 100,000 cheap operators with one BatchNorm at its end: `fold --no-verify` {deep:.2f} s."
    if given.write:
        between_markers(DOCS / "benchmarks.md", "bench_linear", text)
        (DOCS / "linear.svg").write_text(plot(found, given.sizes))
    else:
        print(text)


if __name__ == "__main__":
    main()
