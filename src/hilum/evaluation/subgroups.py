"""Measure a model in subgroups by age, sex or any other column of the table, and describe such a column."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DataError
from hilum.evaluation.limits import FEW_IMAGES
from hilum.evaluation.options import SubgroupColumn
from hilum.evaluation.predictions import is_own_column
from hilum.metrics.bootstrap import Interval
from hilum.metrics.scores import Scores
from hilum.metrics.table import figures_of
from hilum.types import Record

DEMOGRAPHICS = ("age", "sex", "view")
"""Columns that are described in every report whose data have them."""
SOURCE = "source"
"""The one column of the index that can define subgroups, too."""
NOT_RECORDED = "not recorded"
FEW_GROUPS = 10
"""With fewer groups, or fewer than FEW_IMAGES images, a subgroup is called thin."""

_METRICS = ("accuracy", "balanced_accuracy", "macro_roc_auc", "dice")
_MOST_VALUES = 20
_FEW_NUMBERS = 6  # up to so many different numbers are codes, such as 0 and 1, or grades
_UNKNOWN = frozenset({"", "unknown", "na", "n/a", "nan", "none", "null"})
_DICOM_AGE = re.compile(r"(\d{3})([YMWD])")  # value representation AS
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


@dataclass(frozen=True)
class Subgroup:
    """The metrics on the images of one subgroup.

    Attributes:
        name: The value, or the range, of the column.
        images: All images.
        groups: Their groups.
        labeled: Images with a label.
        thin: Whether there are fewer than FEW_IMAGES images or FEW_GROUPS groups.
        few: Classes with images, but fewer than FEW_IMAGES.
        metrics: ``accuracy``, ``balanced_accuracy``, ``macro_roc_auc`` and ``dice``, where they are defined.
        recalls: Class to its recall, for the classes that the subgroup has.
    """

    name: str
    images: int
    groups: int
    labeled: int
    thin: bool
    few: tuple[str, ...]
    metrics: dict[str, Interval]
    recalls: dict[str, Interval]


@dataclass(frozen=True)
class Subgroups:
    """The subgroups by one column.

    Attributes:
        column: Name of the column.
        cuts: Cut points of a numeric column, stated or the quartiles of these images; empty for text.
        rows: The subgroups; those without a value come last.
    """

    column: str
    cuts: tuple[float, ...]
    rows: tuple[Subgroup, ...]


@dataclass(frozen=True)
class ColumnFacts:
    """The values of a column among some records.

    Attributes:
        known: Number of records with a value.
        missing: Number of records without one.
        counts: Value to its records; empty for a numeric column.
        quartiles: Lower quartile, median and upper quartile of a numeric column; None for text.
        extremes: Least and greatest value of a numeric column; None for text.
    """

    known: int
    missing: int
    counts: dict[str, int]
    quartiles: tuple[float, float, float] | None = None
    extremes: tuple[float, float] | None = None


def columns_of(records: Sequence[Record], subgroups: Iterable[SubgroupColumn]) -> dict[str, tuple[str, ...]]:
    """Return the columns that a report needs, with one text per record: those of DEMOGRAPHICS and of the subgroups.

    Raises:
        DataError: No record has a value in the column of a subgroup, or predictions.csv has a column of this name.
    """
    cells = [dict(record.columns) for record in records]
    found = dict.fromkeys(name for own in cells for name in own)
    wanted = [spec.column for spec in subgroups]
    if taken := [name for name in wanted if is_own_column(name) and name != SOURCE]:
        raise DataError(f"The column {taken[0]} has the name of a column of predictions.csv.", hint="Rename it.")
    own = {name: tuple(row.get(name, "") for row in cells) for name in (*DEMOGRAPHICS, *wanted) if name in found}
    sources = [SOURCE] if any(record.source for record in records) else []
    require_columns(wanted, [*found, *sources])
    return own


def require_columns(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Check that the columns of the subgroups are there.

    Args:
        wanted: Names of the columns.
        known: Names of all columns of the data.

    Raises:
        DataError: A column is missing; the hint lists those that the data have.
    """
    if missing := [name for name in wanted if name not in known]:
        listed = f"The data have the columns {', '.join(sorted(known))}." if known else "The data have no other column."
        raise DataError(f"No column {', '.join(missing)} with values, which --subgroup names.", hint=listed)


def subgroup_results(
    scores: Scores, subgroups: Iterable[SubgroupColumn], *, resamples: int = 1000, seed: int = 0
) -> tuple[Subgroups, ...]:
    """Return the metrics of every subgroup with 95% intervals clustered by group.

    Args:
        scores: The evaluated split, with the columns.
        subgroups: The columns.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.

    Raises:
        DataError: A column is missing, has cut points and a text that is no number, or more than 20 different texts.
    """
    specs = tuple(subgroups)
    sources = {SOURCE: tuple(source or "" for source in scores.sources)} if any(scores.sources) else {}
    own = {**scores.columns, **sources}
    require_columns([spec.column for spec in specs], list(own))
    found = []
    for spec in specs:
        names, cuts = divide_column(own[spec.column], spec)
        edges = [*(cut - 1 for cut in cuts[:1]), *cuts]
        order = [_range(edge, cuts) for edge in edges] if cuts else sorted({*names} - {NOT_RECORDED})
        order = [name for name in (*order, NOT_RECORDED) if name in names]
        column = np.array(names)
        rows = tuple(_measure(scores, name, column == name, resamples, seed) for name in order)
        found.append(Subgroups(spec.column, cuts, rows))
    return tuple(found)


def divide_column(cells: Sequence[str], spec: SubgroupColumn) -> tuple[list[str], tuple[float, ...]]:
    """Return the subgroup of each cell, and the cut points of a numeric column.

    A column of numbers (also ages as DICOM writes them) is divided at the stated cut points, or at its quartiles if it
    has more than six different numbers. A cell that is empty, ``unknown``, ``na``, ``nan`` or ``none`` is not recorded.

    Raises:
        DataError: See subgroup_results.
    """
    values = [number_of(cell) for cell in cells]
    known = [cell for cell in cells if not _is_unknown(cell)]
    numeric = all(value is not None for value, cell in zip(values, cells, strict=True) if not _is_unknown(cell))
    if spec.cuts and not numeric:
        wrong = next(c for c, value in zip(cells, values, strict=True) if value is None and not _is_unknown(c))
        raise DataError(f"The column {spec.column} has cut points, but holds {wrong!r}, which is no number.")
    cuts = spec.cuts
    numbers = np.array([value for value in values if value is not None])
    if numeric and not cuts and np.unique(numbers).size > _FEW_NUMBERS:
        quartiles = np.unique(np.quantile(numbers, (0.25, 0.5, 0.75), method="higher"))
        cuts = tuple(float(cut) for cut in quartiles if cut > numbers.min())
    if cuts:
        return [NOT_RECORDED if value is None else _range(value, cuts) for value in values], cuts
    if len({*known}) > _MOST_VALUES:
        raise DataError(
            f"The column {spec.column} has {len({*known})} different values, more than {_MOST_VALUES}.",
            hint="Use a column with fewer values, or numbers with cut points: --subgroup NAME:10,20",
        )
    return [NOT_RECORDED if _is_unknown(cell) else cell for cell in cells], ()


def column_facts(records: Sequence[Record], name: str) -> ColumnFacts:
    """Describe a column: quartiles of numbers, else the number of records with each value."""
    cells = [dict(record.columns).get(name, "") for record in records]
    known = [cell for cell in cells if not _is_unknown(cell)]
    values = [value for cell in known if (value := number_of(cell)) is not None]
    missing = len(cells) - len(known)
    if len(values) == len(known) and len({*values}) > _FEW_NUMBERS:
        low, middle, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
        return ColumnFacts(len(known), missing, {}, (low, middle, high), (min(values), max(values)))
    return ColumnFacts(len(known), missing, dict(sorted(Counter(known).most_common(_MOST_VALUES))))


def number_of(cell: str) -> float | None:
    """Return a cell as a number; an age in the DICOM format, such as ``045Y``, in years. None for other text."""
    if age := _DICOM_AGE.fullmatch(cell):
        return int(age[1]) * _YEARS[age[2]]
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _measure(scores: Scores, name: str, rows: NDArray[np.bool_], resamples: int, seed: int) -> Subgroup:
    own = scores.subset(rows)
    own = replace(own, sources=(None,) * len(own.files))  # no figures within a source of the subgroup
    figures = figures_of(own, resamples=resamples, seed=seed)
    counts = {c: int((own.labels == k).sum()) for k, c in enumerate(own.class_names)}
    groups = int(own.clusters().max()) + 1
    overall = {key.metric: interval for key, interval in figures.items() if key.class_name is None}
    return Subgroup(
        name=name,
        images=len(own.files),
        groups=groups,
        labeled=int(own.labeled.sum()),
        thin=len(own.files) < FEW_IMAGES or groups < FEW_GROUPS,
        few=tuple(c for c, n in counts.items() if 0 < n < FEW_IMAGES),
        metrics={metric: overall[metric] for metric in _METRICS if metric in overall},
        recalls={
            str(key.class_name): interval
            for key, interval in figures.items()
            if key.metric == "recall" and counts[str(key.class_name)]
        },
    )


def _is_unknown(cell: str) -> bool:
    return cell.strip().lower() in _UNKNOWN


def _range(value: float, cuts: Sequence[float]) -> str:
    place = int(np.searchsorted(cuts, value, side="right"))
    if not place:
        return f"below {cuts[0]:g}"
    if place == len(cuts):
        return f"{cuts[-1]:g} and above"
    return f"{cuts[place - 1]:g} to below {cuts[place]:g}"
