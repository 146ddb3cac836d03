"""Shared code of the wrappers of the original project's scripts: error messages and inference."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from hilum.data.find import sample_files
from hilum.data.index import build_index
from hilum.errors import DataError, HilumError, OutputError, extra_hint
from hilum.inference.result import Prediction
from hilum.storage import write_bytes, write_csv

if TYPE_CHECKING:
    from hilum.inference.predictor import Predictor

CHECKPOINT = Path("model_checkpoints", "best_covid_model.pth")
TABLE = "inference_predictions.csv"
SEED = 42


class Sample(NamedTuple):
    """A file to predict on and its class, `unknown` if it has no label."""

    file: Path
    true_class: str = "unknown"


def run(main: Callable[[], None]) -> None:
    """Run a script; errors that a user can act on are printed as a message, with exit code 2."""
    try:
        main()
    except HilumError as error:
        sys.exit(_say(f"Error: {error.message}", error.hint))
    except ModuleNotFoundError as error:
        sys.exit(_say(f"Error: {error.name} is not installed.", extra_hint("train")))


def find_checkpoint(file: Path) -> Path:
    """Return the named file or, if it does not exist, the .safetensors next to it, written by model_arch.py."""
    twin = file.with_suffix(".safetensors")
    return twin if twin.exists() and not file.exists() else file


def parse_inference(parser: argparse.ArgumentParser, save_dir: str) -> argparse.Namespace:
    """Add the options of both inference scripts, and parse the command line."""
    parser.add_argument("--data_dir", type=Path, help="dataset of class folders; not needed with --images")
    parser.add_argument("--save_dir", type=Path, default=Path(save_dir), help="folder for images and table")
    parser.add_argument("--num_samples", type=int, default=12, help="number of random files of the dataset")
    parser.add_argument("--images", type=Path, nargs="*", help="files to predict on instead of a dataset")
    arguments = parser.parse_args()
    if not arguments.images and arguments.data_dir is None:
        parser.error("one of --data_dir and --images is required")
    if arguments.num_samples < 1:
        parser.error("--num_samples must be at least 1")
    return arguments


def choose_samples(arguments: argparse.Namespace, class_names: Sequence[str]) -> list[Sample]:
    """Return the files of --images, or random files of --data_dir with classes of the model."""
    if arguments.images:
        return [Sample(file) for file in arguments.images]
    records = build_index(arguments.data_dir, check=False).records
    labels = {record.image_path: record.label for record in records if record.label in class_names}
    if not labels:
        raise DataError(
            f"No images of the classes {', '.join(class_names)} found in '{arguments.data_dir}'.",
            hint="Check --data_dir.",
        )
    return [Sample(file, labels[file] or "unknown") for file in sample_files(list(labels), arguments.num_samples, SEED)]


def answer(predictor: Predictor, samples: Sequence[Sample], save_dir: Path, prefix: str) -> None:
    """Write an image `<prefix>_<number>_<name>` of each prediction, and the table with a row for every file."""
    rows: list[list[object]] = []
    names = predictor.manifest.class_names
    answers = predictor.predict_many(sample.file for sample in samples)
    for number, (sample, result) in enumerate(zip(samples, answers, strict=True), start=1):
        if isinstance(result, Prediction):
            image = cv2.cvtColor(np.asarray(result.overlay()), cv2.COLOR_RGB2BGR)
            _write_image(image, save_dir / f"{prefix}_{number}_{sample.file.name}")
            probabilities = [f"{value:.6f}" for value in result.probabilities.values()]
            rows.append([sample.file, sample.true_class, result.label, *probabilities, "ok", ""])
        else:
            print(f"Skipped {sample.file}: {result.reason}")
            rows.append([sample.file, sample.true_class, "", *[""] * len(names), result.status, result.reason])
    header = ["image_path", "true_class", "pred_class", *[f"prob_{name}" for name in names], "status", "reason"]
    write_csv(save_dir / TABLE, header, rows)
    print(f"Images and {TABLE} are in {save_dir}.")


def _write_image(image: cv2.typing.MatLike, path: Path) -> None:
    """Write an image in the format of its suffix, or as PNG for DICOM files."""
    if not cv2.haveImageWriter(path.name.lower()):
        path = path.with_name(f"{path.name}.png")
    done, content = cv2.imencode(path.suffix.lower(), image)
    if not done:
        raise OutputError(f"Cannot encode '{path}'.")
    write_bytes(path, content.tobytes())


def _say(*lines: str) -> int:
    print(*filter(None, lines), sep="\n", file=sys.stderr)
    return 2
