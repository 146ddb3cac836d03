"""End-to-end demo of the audit on phantoms with a shortcut: generate, train, audit dataset and model.

    make audit-demo

A bright marker stands in a corner of nine in ten images of one class, and of one in ten of the other. Everything lands
in ``audit-demo/``. It stops with an error unless the audit calls the marker an error, names where it is seen, and
ends with exit code 1, as ``--strict`` asks.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from hilum.phantoms.confound import write_confounded

STRENGTH = 0.8
PLANTED = {"shortcut_border", "shortcut_outside_lung"}
FOUND = 1  # the exit code of `hilum audit --strict`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("audit-demo"), help="folder, emptied first")
    parser.add_argument("--count", type=int, default=240, help="radiographs to generate")
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    out: Path = arguments.output
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    data, run, audit = out / "data", out / "run", out / "audit"
    print(
        f"Drawing {arguments.count} radiographs of two classes, with a marker in a corner that goes with the class",
        flush=True,
    )
    write_confounded(data, arguments.count, "marker", STRENGTH, size=128)
    hilum("train", data, "--output", run, "--size", 64, "--epochs", arguments.epochs)
    code = hilum("audit", data, "--bundle", run, "--limit", 100, "--output", audit, "--strict", expected=FOUND)
    findings = require_marker(audit / "audit.json")
    print(f"\nDone in {time.perf_counter() - started:.0f} s. The planted marker was found, exit code {code}:")
    for message in findings:
        print(f"  {message}")
    print("Images of one synthetic patient are so similar that the audit reports them as copies.")
    print("The images are synthetic: their metrics say nothing about patients.")
    print(f"Report: {audit / 'audit.html'}")


def hilum(*words: object, expected: int = 0) -> int:
    """Print and run one hilum command, and check its exit code."""
    command = [str(word) for word in words]
    print(f"\n$ hilum {shlex.join(command)}", flush=True)
    code = subprocess.run([str(Path(sys.executable).with_name("hilum")), *command], check=False).returncode
    if code != expected:
        sys.exit(f"Expected exit code {expected} of hilum {command[0]}, got {code}.")
    return code


def require_marker(report: Path) -> list[str]:
    """What the audit says of the planted marker; stop unless it is an error."""
    findings = json.loads(report.read_text(encoding="utf-8"))["findings"]
    found = [one["message"] for one in findings if one["severity"] == "error" and one["check"] in PLANTED]
    if not found:
        sys.exit(f"Expected an error out of {', '.join(sorted(PLANTED))} in {report}, got none.")
    return found


if __name__ == "__main__":
    main()
