"""Write and read ``predictions.csv``, one row per image, from which every metric can be computed again."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DataError
from hilum.metrics.scores import FloatArray, Scores, none_if_nan
from hilum.storage import csv_text, write_csv

PREDICTIONS_FILE = "predictions.csv"

_FACTS = ("file", "label", "predicted_label", "group", "source")
_OVERLAP = ("dice", "iou", "hd95_share")
_SEEN = "in_training_data"
_FORMER = "hd95"  # in pixels, as earlier versions wrote it
_PROBABILITY, _LOGIT = "prob_", "logit_"


def write_predictions(scores: Scores, path: Path) -> None:
    """Write one row per image; unknown values are empty cells.

    The columns are ``file, label, predicted_label, group, source, prob_<class>..., logit_<class>..., dice, iou,
    hd95_share, in_training_data``, then those of ``scores.columns``. ``label`` is the truth, ``predicted_label`` the
    class of the highest probability. ``logit_`` columns exist where logits are known, ``hd95_share`` where it was
    measured, ``in_training_data`` (1 or 0) where the model's training images are known. Numbers are written so that
    they read back bit for bit.

    Raises:
        OutputError: The file cannot be written.
    """
    logits = np.zeros((len(scores.files), 0)) if scores.logits is None else scores.logits
    overlap = [scores.dice, scores.iou] + ([] if scores.hd95_share is None else [scores.hd95_share])
    header = [*_FACTS, *(_PROBABILITY + name for name in scores.class_names)]
    header += [_LOGIT + name for name in scores.class_names[: logits.shape[1]]] + [*_OVERLAP[: len(overlap)]]
    seen = [[int(flag)] for flag in scores.seen.tolist()] if scores.seen is not None else [[]] * len(scores.files)
    header += [_SEEN] * (scores.seen is not None)
    header += scores.columns
    others = zip(*scores.columns.values(), strict=True) if scores.columns else [()] * len(scores.files)
    labels = [scores.class_names[label] if label >= 0 else None for label in scores.labels]
    predicted = [scores.class_names[best] for best in scores.probabilities.argmax(axis=1)]
    numbers = np.column_stack([scores.probabilities, logits, *overlap]).tolist()
    rows = (
        [*facts, *map(none_if_nan, values), *flag, *cells]
        for *facts, values, flag, cells in zip(
            scores.files, labels, predicted, scores.groups, scores.sources, numbers, seen, others, strict=True
        )
    )
    write_csv(path, header, rows)


def read_predictions(path: Path, split: str) -> Scores:
    """Read ``predictions.csv``, or the table of another tool with fewer columns.

    Only ``file``, ``label`` (the truth) and one ``prob_<class>`` column per class are required, in any order. Columns
    with other names than those of write_predictions become ``Scores.columns``.

    Args:
        path: The file.
        split: Name of the split, which the file does not hold.

    Raises:
        DataError: The file cannot be read, lacks columns, rows, labels or probabilities, or a cell has the wrong type.
    """
    header, rows = _read_table(path)
    _check_truth(header, path)
    class_names = tuple(name.removeprefix(_PROBABILITY) for name in header if name.startswith(_PROBABILITY))
    place = {name: column for column, name in enumerate(header)}
    if not class_names or not {"file", "label"} <= place.keys() or len(place) < len(header):
        raise DataError(
            f"'{path}' needs the columns file, label and prob_<class>..., each once; it has {', '.join(header)}.",
            hint="Name the predictions.csv that `hilum evaluate` wrote. Optional columns: group, source, "
            "logit_<class>..., dice, iou, hd95_share.",
        )
    _check_rows(rows, header, {*class_names, ""}, place["label"], path)

    def texts(name: str) -> list[str]:
        return [row[place[name]] if name in place else "" for row in rows]

    def numbers(names: Sequence[str]) -> FloatArray:
        return _numbers([[row[place[name]] if name in place else "" for name in names] for row in rows], path)

    index = {"": -1} | {name: k for k, name in enumerate(class_names)}
    has_logits = all(_LOGIT + name in place for name in class_names)
    overlap = numbers(_OVERLAP)
    probabilities = numbers([_PROBABILITY + name for name in class_names])
    if absent := np.flatnonzero(np.isnan(probabilities).any(axis=1)).tolist():
        raise DataError(
            f"{len(absent)} of {len(rows)} rows of '{path}' have no probabilities; the first is row {absent[0] + 2}.",
            hint="Remove the rows of images without a prediction.",
        )
    return Scores(
        files=tuple(texts("file")),
        labels=np.array([index[label] for label in texts("label")], dtype=np.int64),
        probabilities=probabilities,
        class_names=class_names,
        groups=tuple(texts("group")),
        sources=tuple(source or None for source in texts("source")),
        dice=overlap[:, 0],
        iou=overlap[:, 1],
        split=split,
        logits=numbers([_LOGIT + name for name in class_names]) if has_logits else None,
        hd95_share=overlap[:, 2] if "hd95_share" in place else None,
        seen=_flags(texts(_SEEN), path) if _SEEN in place else None,
        columns={name: tuple(texts(name)) for name in header if name and not is_own_column(name)},
    )


def is_own_column(name: str) -> bool:
    """Return whether a column of predictions.csv has this name in every evaluation."""
    return name in (*_FACTS, *_OVERLAP, _SEEN, _FORMER) or name.startswith((_PROBABILITY, _LOGIT))


def _check_truth(header: Sequence[str], path: Path) -> None:
    """Refuse a table of `hilum predict`, whose labels are predictions: every metric would be perfect.

    Raises:
        DataError: There are no true labels.
    """
    of_predict = {"status", "label_set"} <= {*header}  # as written before `predicted_label` had its name
    if "label" not in header or of_predict:
        found = "`label` holds predictions (a table of `hilum predict`)" if of_predict else "there is no column `label`"
        raise DataError(
            f"No true classes in '{path}': {found}.",
            hint="Add the true class of each image as a column `label`, and name predictions `predicted_label`.",
        )


def _read_table(path: Path) -> tuple[tuple[str, ...], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            header, *rows = [[csv_text(cell) for cell in row] for row in csv.reader(stream)] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read the table '{path}': {error}.") from error
    if not rows:
        raise DataError(f"'{path}' has no row.")
    return tuple(header), rows


def _check_rows(rows: list[list[str]], header: tuple[str, ...], labels: set[str], column: int, path: Path) -> None:
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header) or row[column] not in labels:
            raise DataError(
                f"Row {line} of '{path}' needs {len(header)} cells and a label of {', '.join(sorted(labels - {''}))}: "
                f"{row}."
            )


def _flags(cells: Sequence[str], path: Path) -> NDArray[np.bool_]:
    if unknown := sorted({*cells} - {"0", "1"}):
        raise DataError(f"The column {_SEEN} of '{path}' holds {unknown[0]!r}, neither 0 nor 1.")
    return np.array([cell == "1" for cell in cells], np.bool_)


def _numbers(cells: Sequence[Sequence[str]], path: Path) -> FloatArray:
    """The cells as float64, NaN where empty."""
    try:
        return np.array([[float(cell or math.nan) for cell in row] for row in cells], dtype=np.float64)
    except ValueError as error:
        raise DataError(f"A numeric column of '{path}' holds no number: {error}.") from error
