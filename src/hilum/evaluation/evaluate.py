"""The files of an evaluated split: report, predictions and plots, and the lines that a command prints."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilum.errors import DataError
from hilum.evaluation.intervals import Interval, bootstrap_intervals
from hilum.evaluation.metrics import FloatArray, Scores, class_metrics, none_if_nan
from hilum.evaluation.plots import confusion_matrix_plot, roc_curves_plot
from hilum.storage import write_csv, write_json

REPORT_FILE = "classification_report.json"
PREDICTIONS_FILE = "predictions.csv"
CONFUSION_FILE = "confusion_matrix.png"
ROC_FILE = "roc_curves.png"

_PREFIX = "prob_"
_LEADING = ("file", "label", "group", "source")
_TRAILING = ("dice", "iou")


def write_evaluation(scores: Scores, folder: Path, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Write all that is known of an evaluated split into ``folder``, and return the report.

    Files: ``classification_report.json``, ``predictions.csv`` and, where an image has a label,
    ``confusion_matrix.png`` and ``roc_curves.png``; where none has, plots of an earlier evaluation are removed.

    The report holds what ``class_metrics`` gives (where an image has a label) and ``split``, ``images``,
    ``groups``, ``labelled``, ``with_masks`` (counts) and ``intervals``: name to ``{value, low, high, n}``, as
    ``bootstrap_intervals`` names them. What is undefined is None; there is no NaN in it.

    Raises:
        DataError: a class has a name that the report uses itself.
        ConfigError: ``resamples`` is below 2.
        OutputError: the folder cannot be written.
    """
    labelled = bool(scores.labelled.any())
    report = class_metrics(scores.labels, scores.probabilities, scores.class_names) if labelled else {}
    intervals = bootstrap_intervals(scores, resamples=resamples, seed=seed)
    report["split"] = scores.split
    report["images"] = len(scores.files)
    report["groups"] = int(scores.clusters().max()) + 1
    report["labelled"] = int(scores.labelled.sum())
    report["with_masks"] = int(scores.masked.sum())
    report["intervals"] = {name: _to_json(interval) for name, interval in intervals.items()}
    write_predictions(scores, folder / PREDICTIONS_FILE)
    if labelled:
        matrix = report["confusion_matrix"]
        confusion_matrix_plot(matrix, scores.class_names, folder / CONFUSION_FILE, split=scores.split)
        roc_curves_plot(scores, folder / ROC_FILE, intervals)
    else:
        for name in (CONFUSION_FILE, ROC_FILE):
            (folder / name).unlink(missing_ok=True)
    write_json(folder / REPORT_FILE, report)  # last: a report stands for a finished evaluation
    return report


def summary_lines(report: dict[str, Any]) -> list[str]:
    """A report in a few lines for a terminal, each number with its 95% interval and n.

    Args:
        report: what ``write_evaluation`` returned, or read back from classification_report.json.
    """
    intervals = {name: _from_json(entry) for name, entry in report["intervals"].items()}
    entries: list[tuple[str, str]] = []
    for name, words in (("accuracy", "accuracy"), ("macro_f1", "macro F1"), ("macro_roc_auc", "macro ROC-AUC")):
        if name in intervals:
            entries.append((words, str(intervals[name])))
    for name in report.get("class_names", ()):
        entries.append((f"{name} recall", str(intervals[f"recall/{name}"])))
        entries.append((f"{name} precision", str(intervals[f"precision/{name}"])))
    entries += [
        (words, str(intervals[name])) for name, words in (("dice", "Dice"), ("iou", "IoU")) if name in intervals
    ]
    width = max((len(words) for words, _ in entries), default=0)
    head = (
        f"{report['split']} split: {report['images']} images in {report['groups']} groups, "
        f"{report['labelled']} labelled, {report['with_masks']} with masks; 95% intervals"
    )
    return [head, *(f"  {words:<{width}}  {text}" for words, text in entries)]


def write_predictions(scores: Scores, path: Path) -> None:
    """Write one row per image: ``file, label, group, source, prob_<class>..., dice, iou``; unknown is empty.

    Raises:
        OutputError: the file cannot be written.
    """
    header = [*_LEADING, *(_PREFIX + name for name in scores.class_names), *_TRAILING]
    labels = [scores.class_names[label] if label >= 0 else None for label in scores.labels]
    columns = zip(
        scores.files, labels, scores.groups, scores.sources, scores.probabilities.tolist(),
        scores.dice.tolist(), scores.iou.tolist(), strict=True,
    )  # fmt: skip
    rows = (
        [file, label, group, source, *row, none_if_nan(dice), none_if_nan(iou)]
        for file, label, group, source, row, dice, iou in columns
    )
    write_csv(path, header, rows)


def read_predictions(path: Path, split: str) -> Scores:
    """Read ``predictions.csv`` back, equal to what was written.

    Args:
        path: the file.
        split: the name of the split that it is of; the file does not say.

    Raises:
        DataError: the file cannot be read, has other columns or no row, or a cell is not what its column holds.
    """
    header, rows = _read_table(path)
    class_names = tuple(name.removeprefix(_PREFIX) for name in header[len(_LEADING) : -len(_TRAILING)])
    expected = (*_LEADING, *(_PREFIX + name for name in class_names), *_TRAILING)
    if header != expected:
        raise DataError(
            f"Expected columns {', '.join((*_LEADING, _PREFIX + '<class>...', *_TRAILING))} in {path}, "
            f"got {', '.join(header)}.",
            cure="Give the predictions.csv that `hilum evaluate` wrote.",
        )
    index = {"": -1} | {name: k for k, name in enumerate(class_names)}
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header) or row[1] not in index:
            raise DataError(
                f"Expected {len(header)} cells and a label of {list(class_names)} in row {line} of {path}, got {row}."
            )
    return Scores(
        files=tuple(row[0] for row in rows),
        labels=np.array([index[row[1]] for row in rows], dtype=np.int64),
        probabilities=_numbers([row[len(_LEADING) : -len(_TRAILING)] for row in rows], path),
        class_names=class_names,
        groups=tuple(row[2] for row in rows),
        sources=tuple(row[3] or None for row in rows),
        dice=_numbers([row[-2:-1] for row in rows], path)[:, 0],
        iou=_numbers([row[-1:] for row in rows], path)[:, 0],
        split=split,
    )


def _read_table(path: Path) -> tuple[tuple[str, ...], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            header, *rows = list(csv.reader(stream)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Expected a table of predictions at {path}, got: {error}.") from error
    if not rows:
        raise DataError(f"Expected a header and at least one row in {path}, got {len(header)} columns and no row.")
    return tuple(header), rows


def _numbers(cells: Sequence[Sequence[str]], path: Path) -> FloatArray:
    """Cells as float64, NaN where empty."""
    try:
        return np.array([[float(cell or math.nan) for cell in row] for row in cells], dtype=np.float64)
    except ValueError as error:
        raise DataError(f"Expected numbers in the columns of numbers of {path}: {error}.") from error


def _to_json(interval: Interval) -> dict[str, float | int | None]:
    low, high = none_if_nan(interval.low), none_if_nan(interval.high)
    return {"value": none_if_nan(interval.value), "low": low, "high": high, "n": interval.n}


def _from_json(entry: dict[str, Any]) -> Interval:
    value, low, high = (math.nan if entry[key] is None else entry[key] for key in ("value", "low", "high"))
    return Interval(value, low, high, entry["n"])
