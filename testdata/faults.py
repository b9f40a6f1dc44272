"""What becomes of files when a run is killed, the disk is full, a folder is read-only, an input changes under the reader …

    cargo build --release
    python -m pip install -r testdata/requirements.txt
    python testdata/faults.py model.onnx [--kills 200] [--seed 0]

Prints a table; the exit code is 1 if any line is bad. The model should take some time to write: a ResNet-50, say. Linux only. As root a small tmpfs
is mounted for the full disk, and what concerns permissions runs as "nobody"; otherwise the full disk is left out, and the table says so.
"""

import argparse
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx

BNKIT = Path(__file__).resolve().parent.parent / "target" / "release" / "bnkit"
ROWS = []


def row(what, cases, good, note=""):
    ROWS.append((what, cases, good, note))
    print(f"{'ok ' if cases == good else 'BAD'} {what}: {good} of {cases} {note}", flush=True)


def run(*words, **options):
    words = [str(word) for word in (BNKIT, *words)]
    return subprocess.run(words, capture_output=True, text=True, **options)


def state(path):
    """Hash of a file, None if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".bnkit-"))


def kills(model, external, count, rng):
    """kill -9 at random moments of a fold that replaces a model (and its data)."""
    what = "kill -9 while replacing a model" + (" and its data" if external else "")
    with tempfile.TemporaryDirectory(dir=model.parent) as name:
        folder = Path(name)
        source = folder / "in.onnx"
        if external:
            proto = onnx.load(model)
            onnx.save_model(proto, source, save_as_external_data=True, location="in.data", size_threshold=0)
        else:
            shutil.copy(model, source)
        out = folder / "out.onnx"
        files = [out] + ([folder / "out.onnx.data"] if external else [])
        fold = ("fold", source, "-o", out, "--no-verify", "--quiet", "--force")
        assert run(*fold).returncode == 0
        new = [state(path) for path in files]
        assert run(*fold, "--only", "nothing-is-called-so").returncode == 0
        kept = [path.with_name(path.name + ".old") for path in files]
        for path, copy in zip(files, kept):
            shutil.copy(path, copy)
        old = [state(path) for path in files]
        assert old != new and not leftovers(folder)
        start = time.monotonic()
        assert run(*fold).returncode == 0
        whole = time.monotonic() - start
        good, found, restored = 0, {"old": 0, "new": 0, "brought back": 0}, 0
        for _ in range(count):
            for path, copy in zip(files, kept):
                shutil.copy(copy, path)
            process = subprocess.Popen([str(word) for word in (BNKIT, *fold)], stderr=subprocess.DEVNULL)
            # Half of the kills at the end, where names change.
            share = rng.uniform(0, 1.1) if rng.random() < 0.5 else rng.uniform(0.85, 1.05)
            time.sleep(whole * share)
            process.send_signal(signal.SIGKILL)
            process.wait()
            left = leftovers(folder)
            restored += bool(left)
            now = [state(path) for path in files]
            word = {tuple(old): "old", tuple(new): "new"}.get(tuple(now))
            # Anything that writes into the folder cleans up.
            other = folder / "other.onnx"
            clean = run("fold", source, "-o", other, "--no-verify", "--quiet").returncode == 0
            for path in (other, folder / "other.onnx.data"):
                path.unlink(missing_ok=True)
            if word is None and now[0] is None:
                # Between two names there is no model to open, and the next run brings both files back.
                now = [state(path) for path in files]
                word = "brought back" if tuple(now) == tuple(old) else None
            if word and clean and not leftovers(folder):
                good += 1
                found[word] += 1
            else:
                print(f"  {share:.2f}: {now} {left} {leftovers(folder)}")
        note = ", ".join(f"{value} {key}" for key, value in found.items())
        row(what, count, good, f"({note}; {restored} with leftovers, all cleaned by the next run)")


def full_disk(model):
    if os.geteuid() != 0:
        return row("disk full", 0, 0, "left out: needs root for a small tmpfs")
    with tempfile.TemporaryDirectory() as name:
        size = model.stat().st_size
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size // 2}", "tmpfs", name])
        if mounted.returncode != 0:
            return row("disk full", 0, 0, "left out: no tmpfs can be mounted")
        try:
            folder, good, cases = Path(name), 0, 0
            (folder / "old.onnx").write_bytes(b"old")
            for words in (
                ("fold", model, "--no-verify", "-o", folder / "new.onnx"),
                ("fold", model, "--no-verify", "-o", folder / "old.onnx", "--force"),
                ("fold", model, "-o", folder / "new.onnx"),
                ("convert", model, "-o", folder / "new.safetensors"),
                ("release", model, "-o", folder / "new.onnx"),
            ):
                done = run(*words)
                cases += 1
                names = sorted(path.name for path in folder.iterdir())
                told = "No space left" in done.stderr
                kept = (folder / "old.onnx").read_bytes() == b"old"
                if done.returncode == 2 and told and kept and names == ["old.onnx"]:
                    good += 1
                else:
                    print("  ", words[0], done.returncode, done.stderr.strip(), names)
            row("disk full", cases, good, "(exit 2, said so, nothing left, old file intact)")
        finally:
            subprocess.run(["umount", name], check=True)


def as_nobody(words):
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *words] if os.geteuid() == 0 else words


def permissions(small):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        program = folder / "bnkit"
        shutil.copy(BNKIT, program)
        shutil.copy(small, folder / "in.onnx")
        shutil.copy(small, folder / "secret.onnx")
        (folder / "in.onnx").chmod(0o644)
        (folder / "secret.onnx").chmod(0o000)
        locked = folder / "locked"
        locked.mkdir()
        locked.chmod(0o555)
        good, cases = 0, [
            (["fold", "in.onnx", "-o", "locked/out.onnx"], "locked/out.onnx"),
            (["fold", "in.onnx", "-o", "out.onnx"], "out.onnx"),
            (["inspect", "in.onnx", "--report", "locked/r.json"], "locked/r.json"),
            (["convert", "in.onnx", "-o", "locked/x.safetensors"], "locked/x.safetensors"),
            (["release", "in.onnx", "-o", "locked/out.onnx"], "locked"),
            (["fold", "in.onnx", "-o", "/dev/null/x.onnx"], "/dev/null"),
            (["inspect", "secret.onnx"], "secret.onnx"),
            (["check", "secret.onnx"], "secret.onnx"),
        ]
        folder.chmod(0o555)
        for words, part in cases:
            done = subprocess.run(as_nobody([str(program), *words]), cwd=folder, capture_output=True, text=True)
            if done.returncode == 2 and part in done.stderr and not list(locked.iterdir()):
                good += 1
            else:
                print("  ", words, done.returncode, done.stderr.strip())
        row("read-only folder, permission denied", len(cases), good, "(exit 2, names the file)")


def handles(small):
    with tempfile.TemporaryDirectory() as name:
        good, cases = 0, list(range(3, 16))
        for limit in cases:
            out = Path(name) / "out.onnx"
            done = subprocess.run(
                [str(BNKIT), "fold", str(small), "-o", str(out), "--threads", "1"],
                capture_output=True, text=True,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
            )
            written = out.exists()
            fine = (done.returncode == 0) == written and done.returncode in (0, 2) and not leftovers(Path(name))
            # A loader without handles ends with 127 before the program begins.
            good += fine or (done.returncode == 127 and not written)
            if not fine:
                print("  ", limit, done.returncode, done.stderr.strip()[:200])
            out.unlink(missing_ok=True)
        row("out of file handles (3 to 15)", len(cases), good, "(done, or exit 2 and nothing written)")


def closed_stdout(small):
    good, cases = 0, [
        (f"'{BNKIT}' explain | head -n 1", 0, ""),
        (f"'{BNKIT}' inspect '{small}' --verbose | true", 0, ""),
        (f"'{BNKIT}' inspect '{small}' --format json | head -c 10", 0, ""),
        (f"'{BNKIT}' --help | true", 0, ""),
        (f"'{BNKIT}' inspect '{small}' > /dev/full", 2, "stdout"),
    ]
    for line, code, part in cases:
        done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True)
        if done.returncode == code and part in done.stderr and "panic" not in done.stderr:
            good += 1
        else:
            print("  ", line, done.returncode, done.stderr.strip())
    row("stdout closed or full", len(cases), good, "(a reader that goes away is no error)")


def changing_input(model, count, rng):
    """The input is cut short, or replaced, while it is read."""
    good, found = 0, {}
    with tempfile.TemporaryDirectory(dir=model.parent) as name:
        folder = Path(name)
        source, out = folder / "in.onnx", folder / "out.onnx"
        shutil.copy(model, source)
        start = time.monotonic()
        assert run("fold", source, "-o", out, "--quiet").returncode == 0
        whole, expected = time.monotonic() - start, state(out)
        for number in range(count):
            shutil.copy(model, source)
            out.unlink(missing_ok=True)
            process = subprocess.Popen(
                [str(BNKIT), "fold", str(source), "-o", str(out), "--quiet"], stderr=subprocess.PIPE, text=True)
            time.sleep(rng.uniform(0, whole))
            if number % 2:
                os.truncate(source, rng.randrange(source.stat().st_size))
            else:
                with open(source, "r+b") as file:
                    file.seek(rng.randrange(source.stat().st_size - 4096))
                    file.write(bytes(4096))
            said = process.communicate()[1].strip()
            code = process.returncode
            found[code] = found.get(code, 0) + 1
            if (code == 0 and state(out) == expected) or (code in (1, 2) and said and not out.exists()):
                good += 1
            else:
                print("  ", number, code, said[:200], out.exists())
    note = ", ".join(f"exit {code}: {times}" for code, times in sorted(found.items()))
    row("input cut short or overwritten while it is read", count, good, f"({note}; no signal, no wrong output)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    model = options.model.resolve()
    small = Path(__file__).resolve().parent / "models" / "tiny_resnet.onnx"
    kills(model, False, options.kills, rng)
    kills(model, True, options.kills, rng)
    changing_input(model, 20, rng)
    full_disk(model)
    permissions(small)
    handles(small)
    closed_stdout(small)
    print("\n| fault | cases | as it should be | |\n| --- | --- | --- | --- |")
    for what, cases, good, note in ROWS:
        print(f"| {what} | {cases} | {good} | {note.strip('()')} |")
    sys.exit(any(cases != good for _, cases, good, _ in ROWS))


if __name__ == "__main__":
    main()
