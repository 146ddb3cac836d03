"""Confidence intervals by the bootstrap, resampling whole groups within strata.

Images of one patient are not independent, so groups are drawn, not images: the cluster bootstrap (Field & Welsh
2007, J. R. Statist. Soc. B 69:369). Groups are drawn within strata (one per class), so that every resample has every
class. A resample is a vector of image weights, which lets all statistics be computed in bulk.

A figure with bounds gets the bootstrap's standard error on the logit scale and Student's t (Efron & Tibshirani 1993,
An Introduction to the Bootstrap, chapters 12 and 13); one without gets the percentile interval. Percentiles alone
are too narrow near a bound and for few groups; benchmarks/coverage.py measures the coverage.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hilum.errors import ConfigError
from hilum.format import format_interval
from hilum.metrics.scores import FloatArray

LEVEL = 0.95
"""Confidence level of every interval."""

_CHUNK_CELLS = 1 << 19  # weights held at once, 4 MiB: the statistics need a few arrays of this size

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95% interval.

    Attributes:
        value: The statistic on the split itself; NaN where it is undefined.
        low: Lower bound; NaN where fewer than two groups bear on the statistic, since nothing can then be said
            of its spread.
        high: Upper bound, likewise.
        n: How many images the statistic rests on.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return format_interval(self, with_n=True)


def bootstrap(
    statistics: Callable[[FloatArray], Mapping[Key, FloatArray]],
    rests_on: Mapping[Key, NDArray[np.bool_]],
    clusters: NDArray[np.int64],
    *,
    strata: NDArray[np.int64] | None = None,
    bounds: Mapping[Key, tuple[float, float]] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[Key, Interval]:
    """The 95% interval of many statistics at once.

    Resamples in which a statistic is undefined are left out. A statistic that is 0 or 1 on the
    split has no spread over the resamples; its other bound is then the exact binomial one with as many trials as
    groups bear on it (Clopper & Pearson 1934, Biometrika 26:404), so that 20 of 20 is 0.832–1, not 1–1.

    Args:
        statistics: From weights (R, N) float64, how often each image counts, to (R,) float64 per statistic;
            NaN where it is undefined.
        rests_on: Per statistic, which images (N,) bear on it: its n, and its groups.
        clusters: (N,) int64 from 0 to G - 1, the group of each image.
        strata: (N,) int64, see resampled_weights.
        bounds: Per statistic, the least and the greatest value that it can have; the greatest may be infinite. Its
            interval stays inside. Those that are not named get the percentile interval.
        resamples: How many times the groups are drawn.
        seed: Of the draws; equal seeds give equal intervals.

    Raises:
        ConfigError: ``resamples`` is below 2.
    """
    if resamples < 2:
        raise ConfigError(f"Expected at least 2 resamples, got {resamples}.", hint="1000 is usual.")
    values = statistics(np.ones((1, clusters.size)))
    draws: dict[Key, list[FloatArray]] = {key: [] for key in rests_on}
    for weights in resampled_weights(clusters, resamples, seed, strata=strata):
        drawn = statistics(weights)
        for key, chunks in draws.items():
            chunks.append(drawn[key])
    known = bounds or {}
    return {
        key: _interval(float(values[key][0]), np.concatenate(draws[key]), clusters[rows], known.get(key))
        for key, rows in rests_on.items()
    }


def resampled_weights(
    clusters: NDArray[np.int64], resamples: int, seed: int, *, strata: NDArray[np.int64] | None = None
) -> Iterator[FloatArray]:
    """How often each image is drawn, in chunks (r, N) float64 that add up to ``resamples`` rows.

    Of the G_s groups of a stratum, G_s are drawn with replacement; all images of a group are drawn as often as it.

    Args:
        clusters: (N,) int64 from 0 to G - 1, the group of each image.
        resamples: R, how many rows in all.
        seed: Of the draws.
        strata: (N,) int64, any numbers; a group belongs to the commonest stratum of its images, the lowest of
            equals. One stratum by default.
    """
    groups = int(clusters.max()) + 1
    members = _members(clusters, np.zeros_like(clusters) if strata is None else strata)
    generators = [np.random.default_rng((seed, stratum)) for stratum in range(len(members))]  # chunks change no draw
    rows = max(1, _CHUNK_CELLS // clusters.size)
    for start in range(0, resamples, rows):
        chunk = min(rows, resamples - start)
        offset = np.arange(chunk)[:, None] * groups
        times = np.zeros(chunk * groups, np.int64)
        for own, generator in zip(members, generators, strict=True):  # groups of one stratum
            drawn = own[generator.integers(own.size, size=(chunk, own.size))] + offset
            times += np.bincount(drawn.ravel(), minlength=chunk * groups)
        yield times.reshape(chunk, groups)[:, clusters].astype(np.float64)  # (r, G) -> (r, N)


def _members(clusters: NDArray[np.int64], strata: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The groups of each stratum."""
    names, code = np.unique(strata, return_inverse=True)
    counts = np.zeros((int(clusters.max()) + 1, names.size), np.int64)
    np.add.at(counts, (clusters, code), 1)
    own = counts.argmax(axis=1)  # (G,)
    return [np.flatnonzero(own == stratum) for stratum in np.unique(own)]


def _interval(
    value: float, draws: FloatArray, clusters: NDArray[np.int64], bounds: tuple[float, float] | None
) -> Interval:
    defined = draws[np.isfinite(draws)]
    groups = np.unique(clusters).size
    if np.isnan(value) or groups < 2 or not defined.size:
        return Interval(value, np.nan, np.nan, clusters.size)
    if bounds is not None and bounds[0] < value < bounds[1]:
        low, high = _within_bounds(value, defined, groups, bounds)
        return Interval(value, low, high, clusters.size)
    low, high = (float(bound) for bound in np.percentile(defined, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]))
    least, greatest = bounds or (0.0, 1.0)
    if low == high and value in (least, greatest) and np.isfinite(greatest):
        room = (greatest - least) * (1 - (0.5 * (1 - LEVEL)) ** (1 / groups))
        low, high = (greatest - room, greatest) if value == greatest else (least, least + room)
    return Interval(value, low, high, clusters.size)


def _within_bounds(value: float, draws: FloatArray, groups: int, bounds: tuple[float, float]) -> tuple[float, float]:
    """Value and standard error on the logit scale (the log scale without an upper bound), and Student's t.

    The standard error is the spread of the resamples there. It leaves out those at a bound, which makes it too small
    where they are many; so it is at least what the delta method makes of the spread on the plain scale.
    """
    from scipy.special import stdtrit  # late: what the lean install bootstraps has no bounds

    least, greatest = bounds

    def to_scale(x: FloatArray) -> FloatArray:
        upper = np.log(greatest - x) if np.isfinite(greatest) else 0.0
        return np.asarray(np.log(x - least) - upper)

    slope = 1 / (value - least) + (1 / (greatest - value) if np.isfinite(greatest) else 0.0)
    inside = draws[(draws > least) & (draws < greatest)]
    error = max(slope * float(draws.std()), float(to_scale(inside).std()) if inside.size else 0.0)
    reach = float(stdtrit(groups - 1, 0.5 * (1 + LEVEL))) * error
    center = float(to_scale(np.array(value)))
    low, high = (_from_scale(center + step, least, greatest) for step in (-reach, reach))
    return low, high


def _from_scale(x: float, least: float, greatest: float) -> float:
    if not np.isfinite(greatest):
        return float(least + np.exp(x))
    return float(least + (greatest - least) / (1 + np.exp(-x)))
