"""Decision curves: the net benefit of acting on a class's probability (Vickers & Elkin 2006).

The reference strategies are to act on every image and to act on none, whose net benefit is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.metrics.bootstrap import Interval, bootstrap
from hilum.metrics.scores import FloatArray, Scores, divide

THRESHOLDS = tuple(step / 100 for step in range(1, 100))
"""Threshold probabilities of a decision curve."""
SHOWN = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Threshold probabilities of the tables."""


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of one class against the rest.

    Attributes:
        class_name: The class.
        prevalence: Share of the class that the net benefit is computed for.
        stated: Whether this prevalence was stated; otherwise it is the class's share of the labeled images.
        thresholds: Threshold probabilities, ascending.
        model: Net benefit of acting where the probability reaches the threshold.
        act_on_all: Net benefit of acting on every image.
    """

    class_name: str
    prevalence: float
    stated: bool
    thresholds: tuple[float, ...]
    model: tuple[Interval, ...]
    act_on_all: tuple[float, ...]


def decision_curves(
    scores: Scores, *, prevalence: Mapping[str, float] | None = None, resamples: int = 1000, seed: int = 0
) -> tuple[DecisionCurve, ...]:
    """Return the decision curve of every class with images and a rest.

    The net benefit at a threshold probability t is π · sensitivity − (1 − π) · (1 − specificity) · t / (1 − t), with
    the prevalence π: true positives less false positives, which weigh as much as t says (Vickers & Elkin 2006, Med.
    Decis. Making 26:565). Intervals are at 95%, clustered by group, for this prevalence.

    Args:
        scores: The evaluated split.
        prevalence: Class to its prevalence in (0, 1); by default its share of the labeled images.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.
    """
    known = scores.labeled
    labels, probabilities = scores.labels[known], scores.probabilities[known]
    stated = prevalence or {}
    clusters = np.unique(scores.clusters()[known], return_inverse=True)[1].astype(np.int64) if known.any() else None
    cost = np.array([t / (1 - t) for t in THRESHOLDS])
    curves = []
    for k, name in enumerate(scores.class_names):
        own = labels == k
        if clusters is None or not own.any() or own.all():
            continue
        share = stated.get(name, float(own.mean()))
        called = probabilities[:, k, None] >= np.array(THRESHOLDS)  # (N, T)
        intervals = bootstrap(
            _benefits(own, called.astype(np.float64), share, cost),
            dict.fromkeys(THRESHOLDS, np.ones(own.size, np.bool_)), clusters, strata=labels,
            sides=dict.fromkeys(THRESHOLDS, (own, ~own)),
            bounds={t: (-(1 - share) * c, share) for t, c in zip(THRESHOLDS, cost.tolist(), strict=True)},
            resamples=resamples, seed=seed,
        )  # fmt: skip
        curves.append(
            DecisionCurve(
                name, share, name in stated, THRESHOLDS, tuple(intervals.values()),
                tuple((share - (1 - share) * cost).tolist()),
            )
        )  # fmt: skip
    return tuple(curves)


def _benefits(
    own: NDArray[np.bool_], called: FloatArray, share: float, cost: FloatArray
) -> Callable[[FloatArray], dict[float, FloatArray]]:
    """Return a function from weights (R, N) to the net benefit (R,) at each of THRESHOLDS, for calls (N, T)."""

    def statistics(weights: FloatArray) -> dict[float, FloatArray]:
        found, alarms = (
            divide(weights[:, rows] @ called[rows], weights[:, rows].sum(axis=1)[:, None]) for rows in (own, ~own)
        )
        values = share * found - (1 - share) * cost * alarms  # (R, T)
        return {t: values[:, column] for column, t in enumerate(THRESHOLDS)}

    return statistics
