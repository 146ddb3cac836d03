"""The difference of two models on the same images: its interval, its tests, and the adjustment for many figures.

A difference is judged by Student's t: difference / standard error, with one degree of freedom fewer than the groups it
rests on, or those of its standard error where they are known and fewer (hilum.metrics.delong). It is corrected for
skewness (Hall 1992, J. R. Statist. Soc. B 54:221) where that makes it smaller: figures near 1 have wider intervals
towards 0. Where two models do not differ on any group, the exact binomial bound takes its place
(Clopper & Pearson 1934, Biometrika 26:404).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.metrics.bootstrap import LEVEL, draws_of, from_symmetric, to_symmetric
from hilum.metrics.delong import Ranked, Spread, delong_spread
from hilum.metrics.scores import FloatArray, Scores
from hilum.metrics.table import (
    RANKED,
    WITHIN_SOURCES,
    Key,
    Rows,
    ranking,
    rests_on,
    sides_of,
    statistics_of,
    within_sources,
)  # fmt: skip

_SPANS = {"mcc": 2.0, "hd95_share": math.inf}
_REFERENCE = 10_000  # draws of the reference of max-T
_ROUNDING = 1e-12  # differences and errors below this are rounding errors of 0


@dataclass(frozen=True)
class Paired:
    """A difference, B minus A, with its standard error.

    Attributes:
        difference: The difference; NaN if undefined.
        error: Its standard error; NaN if unknown.
        groups: Number of groups that it rests on, of the class with the fewest.
        span: The greatest possible difference; infinite for an unbounded figure.
        skew: Skewness of the distribution of the estimated difference.
        degrees: Degrees of freedom of the standard error, where they are known.
    """

    difference: float
    error: float
    groups: int
    span: float = 1.0
    skew: float = 0.0
    degrees: float = math.inf

    @property
    def known(self) -> bool:
        """Whether the difference and its spread are known, from two groups or more."""
        return math.isfinite(self.difference) and math.isfinite(self.error) and self.groups > 1

    @property
    def _degrees(self) -> float:
        return min(self.degrees, self.groups - 1)

    @property
    def constant(self) -> bool:
        """Whether the models do not differ on any group."""
        return abs(self.difference) < _ROUNDING and self.error < _ROUNDING

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the bounds of the confidence interval, within plus and minus ``span``; NaN if not ``known``."""
        tail = (1 - level) / 2
        if not self.known or (self.constant and math.isinf(self.span)):
            return math.nan, math.nan
        if self.constant:
            reach = self.span * (1 - tail ** (1 / self.groups))
            return -reach, reach
        from scipy.special import stdtrit  # late: the lean install has no SciPy

        t = float(stdtrit(self._degrees, 1 - tail))
        down, up = (self.error * max(t, from_symmetric(t, skew)) for skew in (self.skew, -self.skew))
        return max(self.difference - down, -self.span), min(self.difference + up, self.span)

    def p(self) -> float:
        """Return the two-sided p value of no difference; NaN if not ``known``."""
        return min(2 * min(self.p_above(0.0), self.p_below(0.0)), 1.0)  # in this order, NaN stays

    def p_above(self, bound: float) -> float:
        """Return the one-sided p value of the hypothesis that the true difference is at most ``bound``."""
        if not self.known:
            return math.nan
        if self.constant:
            return 1.0 if bound >= 0 else max(0.0, 1 + bound / self.span) ** self.groups
        if not self.error:  # the same difference on every group
            return float(self.difference <= bound)
        from scipy.special import stdtr

        t = (self.difference - bound) / self.error
        return float(stdtr(self._degrees, -min(t, to_symmetric(t, self.skew))))

    def p_below(self, bound: float) -> float:
        """Return the one-sided p value of the hypothesis that the true difference is at least ``bound``."""
        return Paired(-self.difference, self.error, self.groups, self.span, -self.skew, self.degrees).p_above(-bound)

    def z(self) -> float:
        """Return the normal quantile of ``p``, at least 0, which is smaller than |t| where the groups are few."""
        from scipy.special import ndtri

        return float(-ndtri(self.p() / 2))


def paired_draws(a: Scores, b: Scores, resamples: int, seed: int) -> dict[Key, FloatArray]:
    """Return the differences (R,) of every figure in R resamples of groups, which are the same for both models.

    Args:
        a: Scores of model A.
        b: Scores of model B, of the same images in the same order.
        resamples: Number of resamples, R.
        seed: Random seed.
    """
    of_a, of_b = statistics_of(a), statistics_of(b)

    def differences(weights: FloatArray) -> dict[Key, FloatArray]:
        drawn_a, drawn_b = of_a(weights), of_b(weights)
        return {key: drawn_b[key] - drawn_a[key] for key in drawn_a if key in drawn_b}

    return draws_of(differences, a.clusters(), strata=a.labels, resamples=resamples, seed=seed)


def paired_figures(
    a: Scores, b: Scores, differences: Mapping[Key, float], draws: Mapping[Key, FloatArray]
) -> dict[Key, Paired]:
    """Return each figure's difference with its standard error: DeLong's for those in RANKED, else the bootstrap's.

    Args:
        a: Scores of model A.
        b: Scores of model B, of the same images in the same order.
        differences: The values for B minus those for A.
        draws: The differences (R,) in the resamples.
    """
    rows_a, rows_b, clusters = rests_on(a), rests_on(b), a.clusters()
    rows = {key: rows_a[key] | rows_b[key] for key in differences}
    sides = sides_of(a, rows)
    every = [Key("roc_auc", name) for name in a.class_names]
    averaged = {Key("macro_roc_auc"): every, Key(WITHIN_SOURCES): within_sources(a)}
    found = {}
    for key, difference in differences.items():
        groups = min(np.unique(clusters[side]).size for side in (rows[key], *sides.get(key, ())))
        spread, drawn = Spread(math.nan), draws[key]
        if key.metric in RANKED:
            spread = _auroc_spread(a, b, averaged.get(key, [key]), rows_a, clusters)
        elif groups > 1 and (defined := drawn[np.isfinite(drawn)]).size:
            error = float(defined.std())
            skew = float(np.mean(((defined - defined.mean()) / error) ** 3)) if error > _ROUNDING else 0.0
            spread = Spread(error, skew)
        found[key] = Paired(difference, spread.error, groups, _SPANS.get(key.metric, 1.0), spread.skew, spread.degrees)
    return found


def _auroc_spread(
    a: Scores, b: Scores, averaged: Sequence[Key], rows_of: Mapping[Key, Rows], clusters: NDArray[np.int64]
) -> Spread:
    """Spread of the difference of a mean of AUROCs, by DeLong's method."""
    aurocs = []
    for key in averaged:
        rows = a.labeled if key.versus is None else rows_of[key]
        positive = a.labels[rows] == a.class_names.index(str(key.class_name))
        if positive.any() and not positive.all():
            aurocs.append(Ranked(rows, positive, ranking(a, key, rows), ranking(b, key, rows)))
    if not aurocs:
        return Spread(math.nan)
    one = a.labels == a.class_names.index(str(averaged[0].class_name))
    return delong_spread(aurocs, a.labels if len(averaged) > 1 else one.astype(np.int64), clusters)


def adjusted_p(paired: Mapping[Key, Paired], draws: Mapping[Key, FloatArray], seed: int = 0) -> dict[Key, float]:
    """Return p values adjusted for the number of figures, by step-down max-T (see max_t).

    The reference is normal with the correlations of the figures in shared resamples (Hothorn, Bretz & Westfall 2008,
    Biom. J. 50:346). The resamples themselves have heavy tails in figures of few groups, which would decide for all.

    Args:
        paired: The figures.
        draws: Their differences (R,) in the same resamples.
        seed: Random seed of the reference.

    Returns:
        The p value of each figure: 1 where the models do not differ on any group, NaN where the spread is unknown.
        Neither counts in the number of figures.
    """
    adjusted = {key: 1.0 if own.known else math.nan for key, own in paired.items()}
    columns = {}
    for key, own in paired.items():
        drawn = draws[key]
        if own.known and not own.constant and np.isfinite(drawn).any() and (spread := float(np.nanstd(drawn))) > 0:
            columns[key] = np.nan_to_num((drawn - np.nanmean(drawn)) / spread)
    if columns:
        standard = np.stack(list(columns.values()), axis=1)  # (R, J)
        values, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
        root = vectors * np.sqrt(np.maximum(values, 0))  # (J, J)
        reference = np.abs(np.random.default_rng(seed).standard_normal((_REFERENCE, len(columns))) @ root.T)
        found = max_t(np.array([paired[key].z() for key in columns]), reference)
        adjusted.update(zip(columns, found.tolist(), strict=True))
    return adjusted


def max_t(observed: FloatArray, reference: FloatArray) -> FloatArray:
    """Return p values adjusted for their number, by step-down max-T.

    A figure is compared with the greatest of itself and all less significant ones in each draw, so that the dependence
    of the figures counts (Westfall & Young 1993, Resampling-Based Multiple Testing, algorithm 2.8).

    Args:
        observed: (J,) float64, absolute statistics in standard errors.
        reference: (R, J) float64, R draws of the same where no figure differs.

    Returns:
        (J,) float64 in [1 / (R + 1), 1].
    """
    order = np.argsort(-observed)
    greatest = np.maximum.accumulate(reference[:, order[::-1]], axis=1)[:, ::-1]  # of this figure and all below it
    reached = np.count_nonzero(greatest >= observed[order], axis=0)
    adjusted = np.empty_like(observed)
    adjusted[order] = np.maximum.accumulate((1 + reached) / (1 + len(reference)))
    return adjusted
