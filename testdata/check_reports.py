"""Holds SARIF and JUnit reports against the schemas of those who read them. See docs/testing.md.

Needs jsonschema, and xmlschema for --junit-schema. A report that its schema rejects ends with exit code 1.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import jsonschema

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE / "golden"
RESNET = HERE / "models" / "tiny_resnet.onnx"
KEPT = GOLDEN / "shared_output.onnx"
BAD = GOLDEN / "bad_nan_variance.onnx"

# Exit code and command; OUT is a file that does not exist yet.
COMMANDS = [
    (0, ["fold", RESNET, "-o", "OUT"]),
    (0, ["fold", KEPT, "-o", "OUT"]),
    (1, ["fold", KEPT, "-o", "OUT", "--require-all-folded"]),
    (1, ["fold", BAD, "-o", "OUT"]),
    (0, ["inspect", BAD]),
    (0, ["check", RESNET]),
    (1, ["check", BAD]),
    (0, ["check", BAD, "--suppress", "bad-statistics:*=known](x) {0}"]),
    (0, ["verify", RESNET, RESNET]),
    (0, ["diff", RESNET, RESNET]),
    (0, ["stats", RESNET]),
]


def problems_of(folder, sarif, junit):
    log = json.loads((folder / "r.sarif").read_text())
    problems = [f"SARIF {error.json_path}: {error.message}" for error in sarif.iter_errors(log)]
    if junit:
        errors = junit.iter_errors(folder / "r.xml")
        problems += [f"JUnit {error.path}: {error.reason}" for error in errors]
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bnkit", required=True, type=pathlib.Path)
    parser.add_argument("--junit-schema", type=pathlib.Path)
    args = parser.parse_args()
    schema = json.loads((HERE / "schema" / "sarif-2.1.0-rtm.5.json").read_text())
    sarif = jsonschema.Draft4Validator(schema)
    if sarif.is_valid({"version": "2.1.0", "runs": [{"tool": {}}]}):
        sys.exit("the schema of SARIF accepts what is none")
    junit = None
    if args.junit_schema:
        import xmlschema

        junit = xmlschema.XMLSchema(args.junit_schema)
    else:
        print("no --junit-schema: JUnit reports are not looked at")
    wrong = 0
    for code, command in COMMANDS:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            words = [str(folder / "out.onnx") if word == "OUT" else str(word) for word in command]
            reports = ["--report", folder / "r.sarif", "--report", folder / "r.xml"]
            run = subprocess.run([args.bnkit.resolve(), *words, *reports], capture_output=True, text=True)
            if run.returncode == code:
                problems = problems_of(folder, sarif, junit)
            else:
                problems = [f"exit code {run.returncode}: {run.stderr}"]
        print(f"{words[0]:8} {problems or 'fine'}")
        wrong += bool(problems)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
