"""Bootstrap confidence intervals that resample whole groups within strata.

Images of one patient are not independent, so groups are resampled (cluster bootstrap, Field & Welsh 2007, J. R.
Statist. Soc. B 69:369), within strata (one per class), so that every resample contains every class. A resample is a
vector of image weights, so that all statistics are computed in one pass.

Bounded statistics have intervals from the bootstrap standard error on the logit scale and Student's t (Efron &
Tibshirani 1993, An Introduction to the Bootstrap, chapters 12 and 13), others have percentile intervals, which are too
narrow near a bound and for few groups; benchmarks/coverage.py measures the coverage.
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

_CHUNK_CELLS = 1 << 19  # weights per chunk, 4 MiB; the statistics need a few arrays of this size

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95% confidence interval.

    Attributes:
        value: The statistic; NaN if it is undefined.
        low: Lower bound; NaN if the statistic depends on fewer than two groups, so that its spread is unknown.
        high: Upper bound, NaN like ``low``.
        n: Number of images that the statistic depends on.
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
    """Return the 95% confidence intervals of several statistics.

    Resamples in which a statistic is undefined are left out. A statistic equal to 0 or 1 does not vary over the
    resamples; its other bound is then the exact binomial one with the number of groups as trials (Clopper & Pearson
    1934, Biometrika 26:404), so that the interval of 20 of 20 is 0.832–1.

    Args:
        statistics: Function from image weights (R, N) float64 to (R,) float64 per statistic, NaN if undefined.
        rests_on: For each statistic, the images (N,) bool that it depends on, which determine its n and groups.
        clusters: (N,) int64 from 0 to G - 1, the group of each image.
        strata: (N,) int64, see resampled_weights.
        bounds: Minimum and maximum of bounded statistics; the maximum may be infinite. Their intervals stay inside;
            others have percentile intervals.
        resamples: Number of resamples.
        seed: Random seed; equal seeds give equal intervals.

    Raises:
        ConfigError: ``resamples`` is below 2.
    """
    if resamples < 2:
        raise ConfigError(f"Expected at least 2 resamples, got {resamples}.", hint="The default is 1000.")
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
    """Yield the image weights of all resamples in chunks (r, N) float64.

    From the G_s groups of a stratum, G_s are drawn with replacement; the weight of an image is the number of times that
    its group was drawn.

    Args:
        clusters: (N,) int64 from 0 to G - 1, the group of each image.
        resamples: Total number of rows.
        seed: Random seed.
        strata: (N,) int64; a group belongs to the most frequent stratum of its images, the lowest if tied. One
            stratum by default.
    """
    groups = int(clusters.max()) + 1
    members = _members(clusters, np.zeros_like(clusters) if strata is None else strata)
    generators = [
        np.random.default_rng((seed, stratum)) for stratum in range(len(members))
    ]  # draws do not depend on chunks
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
    """Return the groups of each stratum."""
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
    """Return the interval by Student's t on the logit scale (log scale without an upper bound).

    The standard error is the standard deviation of the resamples on this scale, without those at a bound; it is at
    least the delta-method estimate from the standard deviation on the original scale.
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
