"""Compare PyTorch and ONNX Runtime on the same files through the whole predictor.

    python benchmarks/parity.py --bundle RUN/bundle                 phantoms of several sizes
    python benchmarks/parity.py --bundle RUN/bundle --data DIR      class folders or a CSV

Each file is read, preprocessed and predicted, and its mask restored to the file's own size, by
hilum.inference.Predictor, once with each backend of the bundle. The input check is off, so that every readable file
counts. Exit code 1 unless probabilities agree within 1e-4, at least 99.99% of all mask pixels are equal, and every
predicted class is equal.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import publish

from hilum.bundle.bundle import load_bundle
from hilum.data.find import find_images
from hilum.data.table import read_table
from hilum.export.parity import MASK_AGREEMENT, TOLERANCE
from hilum.gate import NoGate
from hilum.inference.png import save_png
from hilum.inference.predictor import Predictor
from hilum.inference.result import Prediction, Result
from hilum.phantoms.chest import PHANTOM_CLASSES, draw_phantom

SIZES = (224, 256, 299, 320, 512)


@dataclass
class Totals:
    """What has been compared so far."""

    files: int = 0
    skipped: int = 0
    probabilities: float = 0.0
    pixels: int = 0
    equal_pixels: int = 0
    equal_labels: int = 0

    def add(self, first: Result, second: Result) -> None:
        """Count one file's two results; a file that neither could read is skipped."""
        if not isinstance(first, Prediction) or not isinstance(second, Prediction):
            if type(first) is not type(second):
                raise SystemExit(f"{first.origin}: one backend answered, the other did not")
            self.skipped += 1
            return
        # np.maximum, not max: it keeps a NaN.
        largest = max(abs(first.probabilities[name] - second.probabilities[name]) for name in first.class_names)
        self.probabilities = float(np.maximum(self.probabilities, largest))
        self.files += 1
        self.pixels += first.mask.size
        self.equal_pixels += int((first.mask == second.mask).sum())
        self.equal_labels += first.label == second.label


def draw_images(folder: Path, n: int) -> list[Path]:
    """``n`` phantoms of all classes and several sizes."""
    for number in range(n):
        label, size = PHANTOM_CLASSES[number % len(PHANTOM_CLASSES)], SIZES[number % len(SIZES)]
        save_png(draw_phantom(10_000 + number, label, size=size).image, folder / f"{number:05d}.png")
    return list(find_images(folder))


def chosen_files(data: Path, n: int) -> list[Path]:
    """At most ``n`` images of a folder or CSV, by a fixed seed."""
    files = [record.image_path for record in read_table(data)] if data.is_file() else find_images([data])
    return sorted(random.Random(0).sample(files, min(n, len(files))))


def compare(bundle: Path, files: Iterable[Path]) -> Totals:
    """Both backends on every file."""
    opened, files = load_bundle(bundle), list(files)
    predictors = (Predictor(opened, backend=name, gate=NoGate()) for name in ("pytorch", "onnxruntime"))
    totals = Totals()
    for one, two in zip(*(predictor.predict_many(files) for predictor in predictors), strict=True):
        totals.add(one, two)
    return totals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="class folders or a CSV; the default is phantoms")
    parser.add_argument("--n", type=int, default=200, help="maximum number of files")
    parser.add_argument("--name", help="name of the data in the result")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures: benchmarks/results/parity.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        files = chosen_files(arguments.data, arguments.n) if arguments.data else draw_images(Path(scratch), arguments.n)
        totals = compare(arguments.bundle, files)
    if not totals.files:
        raise SystemExit("none of the files could be read")
    drawn = f"phantoms of {min(SIZES)} to {max(SIZES)} px"
    result: dict[str, Any] = {
        "files": totals.files,
        "skipped": totals.skipped,
        "data": arguments.name or ("files given" if arguments.data else drawn),
        "probabilities": totals.probabilities,
        "mask_pixels": totals.pixels,
        "mask_agreement": totals.equal_pixels / totals.pixels,
        "labels_equal": totals.equal_labels / totals.files,
        "bounds": {"probabilities": TOLERANCE, "mask_agreement": MASK_AGREEMENT, "labels_equal": 1.0},
        "bundle_id": load_bundle(arguments.bundle).manifest.bundle_id,
    }
    passed = (
        result["probabilities"] <= TOLERANCE
        and result["mask_agreement"] >= MASK_AGREEMENT
        and result["labels_equal"] == 1
    )
    publish("parity", result | {"passed": passed}, arguments.json)
    sys.exit(0 if passed else "A BOUND IS NOT MET")


if __name__ == "__main__":
    main()
