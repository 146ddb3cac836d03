"""End-to-end demo on phantoms: generate, index, split, train, evaluate, export, predict with both backends, compare.

    make demo

Output is in ``demo/``. The demo fails unless the model reaches a mean Dice of 0.95 and a macro F1 of 0.90 on unseen
phantom patients, and both backends give the same predictions.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

MINIMUM = {"dice": 0.95, "macro_f1": 0.90}
TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder, emptied first")
    parser.add_argument("--count", type=int, default=480, help="phantoms to train and test on")
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    out: Path = arguments.output
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    data, run, images = out / "data", out / "run", out / "images"
    hilum("phantom", data, "--count", arguments.count)
    hilum("index", data, "--output", out / "index.csv")
    hilum("split", out / "index.csv", "--output", out / "split.json")
    hilum(
        "train", out / "index.csv", "--split-file", out / "split.json", "--output", run,
        "--size", 96, "--epochs", arguments.epochs,
    )  # fmt: skip
    hilum("evaluate", run)
    hilum("export", run, "--output", out / "demo.hilum")
    hilum("phantom", images, "--count", 24, "--seed", 1)
    for backend in ("onnxruntime", "pytorch"):
        overlays = ["--save-overlays", "--save-masks"] if backend == "onnxruntime" else []
        hilum(
            "predict", images, "--bundle", out / "demo.hilum", "--backend", backend,
            "--output", out / backend, *overlays,
        )  # fmt: skip
    require_agreement(out / "onnxruntime" / "predictions.csv", out / "pytorch" / "predictions.csv")
    require_quality(run / "test" / "report.json")
    print(f"\nDone in {time.perf_counter() - started:.0f} s. Results:")
    print(f"  {out / 'onnxruntime' / 'overlays'}    images with lung outline, evidence and legend")
    print(f"  {run / 'plots'}    training curves")
    print(f"  {run / 'test'}    report.html, plots, sample overlays")
    print("The images are synthetic: their metrics say nothing about patients.")


def hilum(*words: object) -> None:
    """Print and run one hilum command."""
    command = [str(word) for word in words]
    print(f"\n$ hilum {shlex.join(command)}", flush=True)
    subprocess.run([str(Path(sys.executable).with_name("hilum")), *command], check=True)


def require_agreement(one: Path, two: Path) -> None:
    """Exit unless two prediction tables have the same files, labels and, within TOLERANCE, probabilities."""
    tables = []
    for path in (one, two):
        with path.open(encoding="utf-8", newline="") as stream:
            tables.append(list(csv.DictReader(stream)))
    worst = 0.0
    for left, right in zip(*tables, strict=True):
        if (left["file"], left["status"], left["predicted_label"]) != (
            right["file"],
            right["status"],
            right["predicted_label"],
        ):
            sys.exit(
                f"The backends disagree on {left['file']}: {left['predicted_label']} and {right['predicted_label']}."
            )
        columns = [name for name in left if name.startswith("prob_") and left[name]]
        worst = max([worst, *(abs(float(left[name]) - float(right[name])) for name in columns)])
    if worst > TOLERANCE:
        sys.exit(f"The backends' probabilities differ by {worst:.1e}, tolerance {TOLERANCE:.0e}.")
    images = len(tables[0])
    print(f"\nONNX Runtime and PyTorch: {images} images, same labels, probabilities within {worst:.0e}.")


def require_quality(report: Path) -> None:
    """Exit unless the metrics on the test split reach MINIMUM."""
    figures = json.loads(report.read_text(encoding="utf-8"))["figures"]
    values = {figure["metric"]: figure["value"] for figure in figures if not (figure["class_name"] or figure["source"])}
    for name, least in MINIMUM.items():
        value = values[name]
        if value < least:
            sys.exit(f"Expected {name} of at least {least} on unseen phantoms, got {value:.3f}.")


if __name__ == "__main__":
    main()
