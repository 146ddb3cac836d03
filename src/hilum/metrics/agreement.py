"""Agreement of two readers, beside that of the model with each of them.

A second label or mask is a column of ``Scores.columns``: ``label_2``, a class name; ``dice_2``, the Dice of the
predicted lung mask with the second reader's; ``dice_readers``, that of the two readers' masks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DataError
from hilum.metrics.bootstrap import Interval, bootstrap
from hilum.metrics.scores import FloatArray, Scores, confusion_counts, divide

LABEL, DICE, BETWEEN = "label_2", "dice_2", "dice_readers"
READER_COLUMNS = (LABEL, DICE, BETWEEN)
"""Columns of a second reader in predictions.csv."""
READERS, FIRST, SECOND = "reader 1 and reader 2", "model and reader 1", "model and reader 2"
PAIRS = (READERS, FIRST, SECOND)


@dataclass(frozen=True)
class Agreement:
    """Agreement of two labelings.

    Attributes:
        agreement: Share of images with the same label.
        kappa: Cohen's kappa (1960), in [-1, 1].
        ac1: Gwet's AC1 (2008), in [-1, 1].
    """

    agreement: Interval
    kappa: Interval
    ac1: Interval


@dataclass(frozen=True)
class AgreementResult:
    """Agreement of two readers and of the model with each, on the images that both readers judged.

    Attributes:
        labels: Pair of PAIRS to the agreement of its labels; empty without second labels.
        masks: Pair of PAIRS to the mean Dice of its lung masks; empty without second masks.
        mask_difference: Mean Dice of the model with the two readers, less that between the readers; None without
            second masks.
    """

    labels: dict[str, Agreement]
    masks: dict[str, Interval]
    mask_difference: Interval | None


def cohen_kappa(counts: FloatArray) -> FloatArray:
    """Return Cohen's kappa (...) of counts (..., K, K), rows one reader, columns the other; NaN where undefined."""
    total = counts.sum(axis=(-2, -1))
    expected = divide((counts.sum(axis=-1) * counts.sum(axis=-2)).sum(axis=-1), total**2)
    return _beyond_chance(counts, expected)


def gwet_ac1(counts: FloatArray) -> FloatArray:
    """Return Gwet's AC1 (...) of counts (..., K, K); unlike kappa, it does not fall where one class prevails."""
    total, classes = counts.sum(axis=(-2, -1)), counts.shape[-1]
    share = divide(counts.sum(axis=-1) + counts.sum(axis=-2), 2 * total[..., None])
    return _beyond_chance(counts, divide((share * (1 - share)).sum(axis=-1), np.asarray(classes - 1.0)))


def _beyond_chance(counts: FloatArray, expected: FloatArray) -> FloatArray:
    observed = divide(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)))
    return divide(observed - expected, 1 - expected)


def agreement_result(scores: Scores, *, resamples: int = 1000, seed: int = 0) -> AgreementResult | None:
    """Return the agreement of the readers, with intervals at 95% clustered by group; None without a second reader.

    Args:
        scores: The evaluated split.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.

    Raises:
        DataError: A second label is not a class, or a Dice is not a number in [0, 1].
    """
    second = second_labels(scores)
    rows = scores.labeled & (second >= 0)
    labels: dict[str, Agreement] = {}
    if rows.any():
        pairs = dict(
            zip(
                PAIRS,
                ((scores.labels, second), (scores.labels, scores.predicted), (second, scores.predicted)),
                strict=True,
            )
        )
        for name, (one, other) in pairs.items():
            labels[name] = _of_labels(scores, rows, one[rows], other[rows], resamples, seed)
    masks, difference = _of_masks(scores, resamples, seed)
    return AgreementResult(labels, masks, difference) if labels or masks else None


def second_labels(scores: Scores) -> NDArray[np.int64]:
    """Return the class index of each second label, (N,) int64; -1 where there is none.

    Raises:
        DataError: A label is not a class.
    """
    number = {"": -1} | {name: k for k, name in enumerate(scores.class_names)}
    cells = scores.columns.get(LABEL, ("",) * len(scores.files))
    if unknown := sorted({*cells} - number.keys()):
        raise DataError(
            f"The column {LABEL} has {', '.join(unknown)}; the model's classes are {', '.join(scores.class_names)}.",
            hint="Empty these cells, or rename the labels.",
        )
    return np.array([number[cell] for cell in cells], np.int64)


def _of_labels(
    scores: Scores,
    rows: NDArray[np.bool_],
    one: NDArray[np.int64],
    other: NDArray[np.int64],
    resamples: int,
    seed: int,
) -> Agreement:
    measures: dict[str, Callable[[FloatArray], FloatArray]] = {
        "agreement": lambda counts: divide(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1))),
        "kappa": cohen_kappa,
        "ac1": gwet_ac1,
    }

    def statistics(weights: FloatArray) -> Mapping[str, FloatArray]:
        counts = confusion_counts(one, other, len(scores.class_names), weights)
        return {name: measure(counts) for name, measure in measures.items()}

    bounds = {"agreement": (0.0, 1.0), "kappa": (-1.0, 1.0), "ac1": (-1.0, 1.0)}
    return Agreement(**_intervals(statistics, bounds, scores, rows, resamples, seed, shares=("agreement",)))


def _of_masks(scores: Scores, resamples: int, seed: int) -> tuple[dict[str, Interval], Interval | None]:
    between, second = (_numbers(scores, name) for name in (BETWEEN, DICE))
    rows = np.isfinite(between) & np.isfinite(second) & scores.masked
    if not rows.any():
        return {}, None
    values = {READERS: between[rows], FIRST: scores.dice[rows], SECOND: second[rows]}
    values["difference"] = (values[FIRST] + values[SECOND]) / 2 - values[READERS]

    def statistics(weights: FloatArray) -> Mapping[str, FloatArray]:
        return {name: divide(weights @ own, weights.sum(axis=1)) for name, own in values.items()}

    bounds = {**dict.fromkeys(PAIRS, (0.0, 1.0)), "difference": (-1.0, 1.0)}
    found = _intervals(statistics, bounds, scores, rows, resamples, seed, means=PAIRS)
    return {name: found[name] for name in PAIRS}, found["difference"]


def _intervals(
    statistics: Callable[[FloatArray], Mapping[str, FloatArray]],
    bounds: Mapping[str, tuple[float, float]],
    scores: Scores,
    rows: NDArray[np.bool_],
    resamples: int,
    seed: int,
    *,
    shares: Collection[str] = (),
    means: Collection[str] = (),
) -> dict[str, Interval]:
    """Return the intervals of statistics of the images ``rows``; kappa needs the classes' shares to vary: no strata."""
    clusters = np.unique(scores.clusters()[rows], return_inverse=True)[1].astype(np.int64)
    every = dict.fromkeys(bounds, np.ones(clusters.size, np.bool_))
    return bootstrap(
        statistics, every, clusters, bounds=bounds, shares=shares, means=means, resamples=resamples, seed=seed
    )


def _numbers(scores: Scores, name: str) -> FloatArray:
    """Return a column as float64, NaN where it is empty or absent."""
    cells = scores.columns.get(name, ("",) * len(scores.files))
    try:
        values = np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError as error:
        raise DataError(f"The column {name} holds no number: {error}.") from error
    if np.any((values < 0) | (values > 1)):
        raise DataError(f"The column {name} must be in [0, 1].")
    return values
