"""Align the scores of two models: the same files, classes, groups and sources in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DataError
from hilum.metrics.scores import Scores

_NAMED = 3  # how many differing files an error names


def aligned(a: Scores, b: Scores) -> tuple[Scores, Scores]:
    """Return both in A's order of files and classes, with the same groups and sources.

    Groups and sources are those of either, where only one gives them. Metrics of masks (``dice``, ``iou``,
    ``hd95_share``) are kept where both have them, and become NaN elsewhere.

    Raises:
        DataError: Files, labels, classes, groups or sources of the two differ, or a file is listed twice.
    """
    if set(a.class_names) != set(b.class_names):
        raise DataError(
            f"The two models have different classes: {', '.join(a.class_names)} and {', '.join(b.class_names)}."
        )
    _check_files(a.files, b.files)
    place = {file: row for row, file in enumerate(b.files)}
    order = np.array([place[file] for file in a.files])
    columns = [b.class_names.index(name) for name in a.class_names]
    renumbered = np.array([*(a.class_names.index(name) for name in b.class_names), -1])  # label -1 stays
    labels = renumbered[b.labels[order]]
    names = (*a.class_names, "no label")
    _check_equal("labels", [names[k] for k in a.labels], [names[k] for k in labels], a.files)
    groups = _merged("groups", a.groups, tuple(b.groups[row] for row in order), a.files)
    sources = _merged("sources", a.sources, tuple(b.sources[row] for row in order), a.files)
    both = a.masked & b.masked[order]
    b = replace(
        b, files=a.files, labels=labels, class_names=a.class_names, probabilities=b.probabilities[order][:, columns],
        logits=None if b.logits is None else b.logits[order][:, columns], dice=b.dice[order], iou=b.iou[order],
        hd95_share=None if b.hd95_share is None else b.hd95_share[order], groups=groups, sources=sources,
        seen=None if b.seen is None else b.seen[order],
    )  # fmt: skip
    return _restricted(replace(a, groups=groups, sources=sources), both), _restricted(b, both)


def _restricted(scores: Scores, masked: NDArray[np.bool_]) -> Scores:
    """The scores with mask metrics only where ``masked`` (N,) is true."""
    distance = None if scores.hd95_share is None else np.where(masked, scores.hd95_share, np.nan)
    dice, iou = (np.where(masked, values, np.nan) for values in (scores.dice, scores.iou))
    return replace(scores, dice=dice, iou=iou, hd95_share=distance)


def _check_files(a: Sequence[str], b: Sequence[str]) -> None:
    for model, files in (("A", a), ("B", b)):
        if len(set(files)) < len(files):
            twice = next(file for row, file in enumerate(files) if file in files[:row])
            raise DataError(f"The file {twice} is listed twice in {model}.")
    only_a, only_b = sorted({*a} - {*b}), sorted({*b} - {*a})
    if only_a or only_b:
        parts = [
            f"{len(files):,} only in {model} ({_some(files)})"
            for model, files in (("A", only_a), ("B", only_b))
            if files
        ]
        raise DataError(
            f"The models were evaluated on different files: {' and '.join(parts)}; {len({*a} & {*b}):,} are shared.",
            hint="Evaluate both on the same dataset and split.",
        )


def _check_equal(what: str, a: Sequence[Any], b: Sequence[Any], files: Sequence[str]) -> None:
    differing = [f"{file}: {x} and {y}" for file, x, y in zip(files, a, b, strict=True) if x != y]
    if differing:
        raise DataError(
            f"The two tables give different {what} for {len(differing):,} files ({_some(differing)}).",
            hint="Evaluate both on the same dataset and split.",
        )


def _merged(what: str, a: tuple[Any, ...], b: tuple[Any, ...], files: Sequence[str]) -> tuple[Any, ...]:
    """A's values, or B's where A's table has none."""
    if not any(a) or not any(b):
        return a if any(a) else b
    _check_equal(what, a, b, files)
    return a


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
