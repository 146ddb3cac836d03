"""Bootstrap confidence intervals that resample whole groups within strata, and hold for strata of few groups.

Images of one patient are not independent, so groups are resampled (cluster bootstrap, Field & Welsh 2007, J. R.
Statist. Soc. B 69:369), within strata (one per class), so that every resample contains every class. A resample is a
vector of image weights, so that all statistics are computed in one pass. From n groups of a stratum, n - 1 are drawn
and weighted by n / (n - 1): the plain bootstrap's variance is too small by the inverse of this factor (Rao & Wu 1988,
J. Am. Stat. Assoc. 83:231).

An interval is the value plus or minus Student's t times the standard error, on the logit scale where the figure is
bounded (Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 12 and 13). That of a share of images, such
as a recall, is Wilson's (1927, J. Am. Stat. Assoc. 22:209) for as many independent images as have the same standard
error, with Student's t for the normal quantile (Franco et al. 2019, J. Surv. Stat. Methodol. 7:334). That of a mean
over images, such as Dice, is extended for the skewness of the resamples (Hall 1992, J. R. Statist. Soc. B 54:221). The
degrees of freedom are Welch's (1947, Biometrika 34:28), from the variance that each stratum contributes; those of
AUROCs, to which few images of classes that hardly overlap contribute, also from its kurtosis (variance_degrees). The
interval of a mean of figures, such as balanced accuracy, follows from those of its parts (MOVER: Zou & Donner 2008,
Stat. Med. 27:1693).
benchmarks/coverage.py measures the coverage. A figure of few groups or few errors takes few values, so that no interval
can have a coverage near 95% at all of its true values (Brown, Cai & DasGupta 2001, Stat. Sci. 16:101): its interval is
to be read as one of at least 95% (Interval.at_least).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, hypot, lgamma, log, pi
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from hilum.errors import ConfigError
from hilum.format import format_interval
from hilum.metrics.scores import FloatArray

LEVEL = 0.95
"""Confidence level of every interval."""
MIN_GROUPS = 5
"""Groups that an interval needs, on each side of a figure that compares two sets of images."""

FEW_GROUPS = 12
"""With fewer groups on one side, or in one class that it averages, the interval of a figure is Interval.at_least."""
FEW_ERRORS = 10
"""With fewer errors among as many independent images as have its standard error, it is, too."""

NoInterval: TypeAlias = Literal["undefined", "few_groups", "no_spread"]
"""Why there is no interval: the figure is undefined; it, or a part of it, rests on fewer than MIN_GROUPS groups; or all
resamples are equal and the figure is unbounded, so that nothing is known of its spread."""

_CHUNK_CELLS = 1 << 19  # weights per chunk, 4 MiB; the statistics need a few arrays of this size
_BLOCKS = 50  # of a stratum, each of which is left out once
_ROUNDING = 1e-9  # of the distance of the bounds

Key = TypeVar("Key", bound=Hashable)
Rows: TypeAlias = "NDArray[np.bool_]"
Statistics: TypeAlias = "Callable[[FloatArray], Mapping[Key, FloatArray]]"
Bounds: TypeAlias = "tuple[float, float]"
Kind: TypeAlias = Literal["share", "mean"]


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95% confidence interval.

    Attributes:
        value: The statistic; NaN if it is undefined.
        low: Lower bound; NaN if there is no interval.
        high: Upper bound, NaN like ``low``.
        n: Number of images that the statistic depends on.
        no_interval: Why there is no interval; None if there is one.
        at_least: Whether the interval is to be read as one of at least 95%, since it may contain the true value more
            often than that: the figure rests on few groups (FEW_GROUPS) or few errors (FEW_ERRORS), or is the ECE.
    """

    value: float
    low: float
    high: float
    n: int
    no_interval: NoInterval | None = None
    at_least: bool = False

    def __str__(self) -> str:
        return format_interval(self, with_n=True)


def bootstrap(
    statistics: Statistics[Key],
    rests_on: Mapping[Key, Rows],
    clusters: NDArray[np.int64],
    *,
    strata: NDArray[np.int64] | None = None,
    bounds: Mapping[Key, Bounds] | None = None,
    sides: Mapping[Key, Sequence[Rows]] | None = None,
    parts: Mapping[Key, Sequence[Key]] | None = None,
    shares: Collection[Key] = (),
    means: Collection[Key] = (),
    aurocs: Collection[Key] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> dict[Key, Interval]:
    """Return the 95% confidence intervals of several statistics.

    Resamples in which a statistic is undefined are left out. Where all resamples agree, up to a share
    1 - 0.025^(1/G) of the groups may be unlike those seen (the exact binomial bound of 0 in G groups: Clopper & Pearson
    1934, Biometrika 26:404), and each of them may have the minimum or maximum: 20 of 20 give 0.832 to 1, and a
    difference of 0 in 20 groups gives -0.168 to 0.168.

    Args:
        statistics: Function from image weights (R, N) float64 to (R,) float64 per statistic, NaN if undefined.
        rests_on: For each statistic, the images (N,) bool that determine its n.
        clusters: (N,) int64 from 0 to G - 1, the group of each image.
        strata: (N,) int64, see resampled_weights.
        bounds: Minimum and maximum of bounded statistics, (-1, 1) for a difference of two shares; the maximum may be
            infinite. Their intervals stay inside. A statistic that is not named has no bounds.
        sides: For statistics that compare sets of images, such as the positive and negative ones of an AUROC, these
            sets. Each of them, like ``rests_on``, must have MIN_GROUPS groups.
        parts: For statistics that are the mean of others, those others. Where one of them is undefined, the interval is
            computed as that of any other statistic.
        shares: Statistics that are the share of some images that have a property; they have bounds of 0 and 1.
        means: Statistics that are the mean over some images of a value of each.
        aurocs: Statistics that are an AUROC or a mean of some, or a difference of two such.
        resamples: Number of resamples.
        seed: Random seed; equal seeds give equal intervals.

    Raises:
        ConfigError: ``resamples`` is below 2.
    """
    if resamples < 2:
        raise ConfigError(f"Expected at least 2 resamples, got {resamples}.", hint="The default is 1000.")
    values = statistics(np.ones((1, clusters.size)))
    draws = draws_of(statistics, clusters, strata=strata, resamples=resamples, seed=seed)
    without = _without_a_block(statistics, clusters, strata)
    alone: dict[Key, Interval] = {}
    for key, rows in rests_on.items():
        value, n, drawn = float(values[key][0]), int(np.count_nonzero(rows)), draws[key][np.isfinite(draws[key])]
        sets = [np.unique(clusters[side]) for side in (rows, *(sides or {}).get(key, ()))]
        trials = min(own.size for own in sets)
        low = high = np.nan
        at_least = False
        if known := not np.isnan(value) and trials >= MIN_GROUPS and drawn.size > 0:
            degrees = without.degrees_of_freedom(key, np.unique(np.concatenate(sets)), by_kurtosis=key in aurocs)
            limits = (bounds or {}).get(key, (-np.inf, np.inf))
            kind: Kind | None = "share" if key in shares else "mean" if key in means else None
            low, high = _bounds(value, drawn, limits, trials, degrees, kind)
            few = trials < FEW_GROUPS or _few_errors(value, float(drawn.var()), limits)
            at_least = few and not np.isnan(low)
        reason: NoInterval = "undefined" if np.isnan(value) else "no_spread" if known else "few_groups"
        alone[key] = Interval(value, low, high, n, reason if np.isnan(low) else None, at_least)
    return alone | {
        key: _mean_interval(alone[key], [alone[part] for part in own], np.stack([draws[part] for part in own]))
        for key, own in (parts or {}).items()
        if key in alone and not any(np.isnan(alone[part].value) for part in (key, *own))
    }


def draws_of(
    statistics: Statistics[Key],
    clusters: NDArray[np.int64],
    *,
    strata: NDArray[np.int64] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[Key, FloatArray]:
    """Return the value of each statistic in every resample, (R,) float64; the arguments are those of bootstrap."""
    drawn: dict[Key, list[FloatArray]] = {}
    for weights in resampled_weights(clusters, resamples, seed, strata=strata):
        for key, values in statistics(weights).items():
            drawn.setdefault(key, []).append(values)
    return {key: np.concatenate(chunks) for key, chunks in drawn.items()}


def resampled_weights(
    clusters: NDArray[np.int64], resamples: int, seed: int, *, strata: NDArray[np.int64] | None = None
) -> Iterator[FloatArray]:
    """Yield the image weights of all resamples in chunks (r, N) float64.

    From the n groups of a stratum, n - 1 are drawn with replacement; the weight of an image is the number of times that
    its group was drawn, times n / (n - 1), so that the weights of a stratum's groups add up to n. The only group of a
    stratum has weight 1.

    Args:
        clusters: (N,) int64 from 0 to G - 1, the group of each image.
        resamples: Total number of rows.
        seed: Random seed.
        strata: (N,) int64; a group belongs to the most frequent stratum of its images, the lowest if tied. One
            stratum by default.
    """
    groups = int(clusters.max()) + 1
    members = _members(clusters, strata)
    # One of each stratum, so that draws do not depend on chunks.
    generators = [np.random.default_rng((seed, stratum)) for stratum in range(len(members))]
    rows = max(1, _CHUNK_CELLS // clusters.size)
    for start in range(0, resamples, rows):
        chunk = min(rows, resamples - start)
        weights = np.ones((chunk, groups))
        for own, generator in zip(members, generators, strict=True):  # groups of one stratum
            if own.size > 1:
                cells = np.arange(chunk)[:, None] * own.size + generator.integers(own.size, size=(chunk, own.size - 1))
                times = np.bincount(cells.ravel(), minlength=chunk * own.size)
                weights[:, own] = times.reshape(chunk, own.size) * (own.size / (own.size - 1))
        yield weights[:, clusters]  # (r, G) -> (r, N)


def _members(clusters: NDArray[np.int64], strata: NDArray[np.int64] | None) -> list[NDArray[np.int64]]:
    """Return the groups of each stratum."""
    names, code = np.unique(np.zeros_like(clusters) if strata is None else strata, return_inverse=True)
    counts = np.zeros((int(clusters.max()) + 1, names.size), np.int64)
    np.add.at(counts, (clusters, code), 1)
    own = counts.argmax(axis=1)  # (G,)
    return [np.flatnonzero(own == stratum) for stratum in np.unique(own)]


class _WithoutBlock(NamedTuple):
    """Statistics without one block of groups each: one group, or more in a stratum of more than _BLOCKS groups."""

    values: Mapping[Hashable, FloatArray]  # (B,) each
    block_of: NDArray[np.int64]  # (G,), the block of each group, from 0; -1 for the only group of a stratum
    stratum_of: NDArray[np.int64]  # (G,)

    def degrees_of_freedom(self, key: Hashable, groups: NDArray[np.int64], *, by_kurtosis: bool = False) -> float:
        """Return Welch's degrees of freedom of a statistic that is computed from these groups.

        The variance that a stratum contributes is the jackknife's (Efron & Tibshirani 1993, chapter 11); its degrees of
        freedom are one fewer than its groups or, ``by_kurtosis``, those of variance_degrees.
        """
        values = self.values.get(key, np.empty(0))
        variance, penalty = 0.0, 0.0
        for stratum in np.unique(self.stratum_of[groups]):
            members = groups[self.stratum_of[groups] == stratum]
            own = values[np.isin(np.arange(values.size), self.block_of[members]) & np.isfinite(values)]
            if own.size > 1:
                part = (own.size - 1) * float(own.var())
                degrees = variance_degrees(own, members.size) if by_kurtosis else members.size - 1
                variance, penalty = variance + part, penalty + part**2 / degrees
        return max(1.0, variance**2 / penalty) if penalty > 0 else float(groups.size - 1)


def variance_degrees(values: FloatArray, groups: int) -> float:
    """Return the degrees of freedom of the estimated variance of a sum of independent values, one per group.

    They are 2 / (2 / (G - 1) + k / G) for G groups, where k is the excess kurtosis (O'Neill 2014, Am. Stat. 68:282),
    estimated without bias for normal values (Joanes & Gill 1998, The Statistician 47:183): where few values are far
    from all others, they tell less of their variance than normal ones. Below 0, k counts as 0. That of B blocks is
    k B / G, so that k / G is theirs divided by B.

    Args:
        values: (B,) float64, the values of B of at least 2 blocks of equal numbers of groups.
        groups: Number of groups, G.
    """
    squares, n = (values - values.mean()) ** 2, values.size
    spread, excess = float(squares.mean()), 0.0
    if n > 3 and spread > 0:
        biased = float(np.mean(squares**2)) / spread**2 - 3
        excess = max(0.0, (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * biased + 6))
    return 2 / (2 / (groups - 1) + excess / n)


def _without_a_block(
    statistics: Statistics[Key], clusters: NDArray[np.int64], strata: NDArray[np.int64] | None
) -> _WithoutBlock:
    """Compute all statistics without one block of groups each; the other groups of its stratum share its weight."""
    members = _members(clusters, strata)
    stratum_of = np.zeros(int(clusters.max()) + 1, np.int64)
    block_of = np.full(stratum_of.size, -1)
    blocks = 0
    for stratum, own in enumerate(members):
        stratum_of[own] = stratum
        if own.size > 1:
            block_of[own] = blocks + np.arange(own.size) % _BLOCKS
            blocks += min(own.size, _BLOCKS)
    values: dict[Hashable, list[FloatArray]] = {}
    rows = max(1, _CHUNK_CELLS // clusters.size)
    for start in range(0, blocks, rows):
        part = np.arange(start, min(start + rows, blocks))
        weights = np.ones((part.size, stratum_of.size))
        for row, block in enumerate(part):
            out = block_of == block
            own = members[stratum_of[np.flatnonzero(out)[0]]]
            weights[row, own] = own.size / (own.size - np.count_nonzero(out))
            weights[row, out] = 0.0
        for key, found in statistics(weights[:, clusters]).items():
            values.setdefault(key, []).append(found)
    return _WithoutBlock({key: np.concatenate(found) for key, found in values.items()}, block_of, stratum_of)


def _bounds(
    value: float, draws: FloatArray, limits: Bounds, trials: int, degrees: float, kind: Kind | None
) -> tuple[float, float]:
    """Return the interval of a statistic with minimum and maximum ``limits``; NaN if nothing is known of its spread."""
    least, greatest = limits
    bounded = bool(np.isfinite(least) and np.isfinite(greatest))
    tolerance = _ROUNDING * (greatest - least if bounded else max(1.0, abs(value)))
    if float(np.ptp(draws)) <= tolerance or min(value - least, greatest - value) <= tolerance:
        if not bounded:
            return np.nan, np.nan
        room = 1 - (0.5 * (1 - LEVEL)) ** (1 / trials)
        return value - room * (value - least), value + room * (greatest - value)
    error, t = float(draws.std()), t_quantile(degrees)
    if kind == "share":
        return wilson(value, error, t)
    inside = draws[(draws - least > tolerance) & (greatest - draws > tolerance)]
    low, high = _student(value, inside, error, t, limits)
    if kind == "mean":
        skew = float(np.mean(((draws - draws.mean()) / error) ** 3))
        low = max(least, min(low, value - error * from_symmetric(t, skew)))
        high = min(greatest, max(high, value + error * from_symmetric(t, -skew)))
    return low, high


def _few_errors(value: float, variance: float, limits: Bounds) -> bool:
    """Return whether a figure between two limits rests on the equivalent of fewer than FEW_ERRORS errors or successes.

    As many independent images as would give a share this variance have that many.
    """
    least, greatest = limits
    if not (np.isfinite(least) and np.isfinite(greatest)):
        return False
    share = (value - least) / (greatest - least)
    spread = variance / (greatest - least) ** 2
    if spread <= _ROUNDING**2:
        return True
    images = share * (1 - share) / spread
    return images * min(share, 1 - share) < FEW_ERRORS


def wilson(share: float, error: float, t: float) -> tuple[float, float]:
    """Return Wilson's interval of a share in (0, 1) with this standard error, with ``t`` for the normal quantile."""
    images = share * (1 - share) / error**2  # as many independent ones have the same standard error
    center, reach = share + t**2 / (2 * images), t * hypot(error, t / (2 * images))
    return (center - reach) / (1 + t**2 / images), (center + reach) / (1 + t**2 / images)


def _student(value: float, inside: FloatArray, error: float, t: float, bounds: Bounds) -> tuple[float, float]:
    """Return the interval by Student's t on the logit scale: log scale with one bound, the figure's own without.

    The standard error is the standard deviation of the resamples on this scale, without those at a bound; it is at
    least the delta-method estimate from the standard deviation on the original scale.
    """
    least, greatest = bounds

    def to_scale(x: FloatArray) -> FloatArray:
        if not np.isfinite(least):
            return x
        return np.asarray(np.log(x - least) - (np.log(greatest - x) if np.isfinite(greatest) else 0.0))

    def from_scale(x: float) -> float:
        if not np.isfinite(least):
            return x
        return least + (exp(x) if not np.isfinite(greatest) else (greatest - least) / (1 + exp(-x)))

    slope = 1 / (value - least) + 1 / (greatest - value) if np.isfinite(least) else 1.0
    scaled = float(to_scale(inside).std()) if inside.size else 0.0
    center, reach = float(to_scale(np.array(value))), t * max(slope * error, scaled)
    return from_scale(center - reach), from_scale(center + reach)


def _mean_interval(mean: Interval, parts: Sequence[Interval], draws: FloatArray) -> Interval:
    """Return the interval of a mean of statistics with draws (P, R), from their intervals and correlations (MOVER).

    A bound is as far from the mean as the bounds of the parts are from theirs, added as standard errors are.
    """
    missing = next((part.no_interval for part in parts if part.no_interval), None)
    if missing:
        return Interval(mean.value, np.nan, np.nan, mean.n, missing)
    centered = draws[:, np.isfinite(draws).all(axis=0)]
    centered = centered - centered.mean(axis=1, keepdims=True)
    norm = np.sqrt((centered**2).sum(axis=1))
    scaled = centered / np.where(norm > 0, norm, 1.0)[:, None]
    correlation = scaled @ scaled.T  # (P, P)
    np.fill_diagonal(correlation, 1.0)
    below, above = (
        np.array([abs(bound - part.value) for part, bound in zip(parts, ends, strict=True)]) / len(parts)
        for ends in ([part.low for part in parts], [part.high for part in parts])
    )
    low, high = (float(np.sqrt(max(0.0, reach @ correlation @ reach))) for reach in (below, above))
    at_least = mean.at_least or any(part.at_least for part in parts)
    return Interval(mean.value, mean.value - low, mean.value + high, mean.n, at_least=at_least)


def to_symmetric(t: float, skew: float) -> float:
    """Return Hall's (1992) monotone transform of t, whose distribution is less skewed."""
    return t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6


def from_symmetric(t: float, skew: float) -> float:
    """Return the inverse of to_symmetric."""
    return t if abs(skew) < _ROUNDING else float(3 / skew * (np.cbrt(1 + skew * (t - skew / 6)) - 1))


def t_quantile(degrees: float) -> float:
    """Return Student's t quantile of the upper end of a two-sided interval, for at least 1 degree of freedom.

    The density is integrated numerically: the lean install, which bootstraps too, has no SciPy.
    """
    x = np.linspace(0.0, 13.0, 4001)  # the quantile is at most 12.7
    scale = lgamma((degrees + 1) / 2) - lgamma(degrees / 2) - 0.5 * log(degrees * pi)
    density = np.exp(scale - (degrees + 1) / 2 * np.log1p(x**2 / degrees))
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2) * (x[1] - x[0])])
    return float(np.interp(LEVEL / 2, area, x))
