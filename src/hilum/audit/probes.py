"""Probes for shortcuts: how well simple classifiers tell classes apart without seeing the lungs.

Their cross-validated AUROC is compared with that under permuted labels. A probe is linear in rank-normalized features.
Per training fold it is fitted dense (ridge) and sparse (features whose correlation with the label is near the strongest
one's, after Tibshirani et al. 2002, PNAS 99:6567), and an inner cross-validation chooses between them. Permuted labels
are further columns of one matrix, so a hundred refits cost little more than one. Groups are never split, and whole
groups change labels when these are permuted.

A test by the out-of-fold AUC alone misses a weak shortcut that one feature shows, since the fit must find it among
hundreds with four fifths of the images. The statistic is therefore the AUC plus the strongest single feature's
product with the label, both in standard deviations of their permutations; the AUC is what is reported.

The p-value is that of the largest statistic over the family of all shortcut probes and contrasts (Westfall & Young
1993, Resampling-Based Multiple Testing): without any association, the probability of one finding in the whole report is
at most the level asked for. Contrasts are permuted apart and combined as if independent, which is
conservative where they share a class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.errors import ConfigError, DataError
from hilum.metrics.bootstrap import Interval, bootstrap
from hilum.metrics.scores import FloatArray, clusters_of, divide, weighted_auc

SHORTCUT_PROBES = ("file", "border", "outside_lung", "source")
"""Probes that see nothing of the lungs. Other probes are reported and stay out of the family of tests."""

REST = "the rest"
"""``negative`` of a contrast of one class against all others."""

MIN_GROUPS = 10
"""Groups of each class that a contrast needs to be measurable."""

MAX_IMAGES = 4000
"""Largest number of images of one contrast; of more, whole groups are drawn at random, balanced by class."""

FOLDS = 5

_MOST_SOURCES = 40
_RIDGE = (0.03, 0.3, 3.0)  # times the number of features
_SPARSE = (0.9, 0.6)  # shares of the strongest correlation
_INDICATOR_VALUES = 8


@dataclass(frozen=True)
class ProbeResult:
    """The result of one probe on one contrast.

    Attributes:
        probe: The key of the features, or ``source``.
        positive: The class that high scores mean.
        negative: The other class, or REST.
        auc: Of the out-of-fold scores, with its interval clustered by group; NaN where it is not measurable.
        chance_low: 2.5th percentile of the AUC over permuted labels.
        chance_high: 97.5th percentile.
        p_value: Of the AUC and the strongest feature together (see the module); over the family of all shortcut
            probes and contrasts for a shortcut probe, of its own for the others.
        counts: Images of the positive and of the negative class that were used.
        groups: Groups of each, likewise.
    """

    probe: str
    positive: str
    negative: str
    auc: Interval
    chance_low: float
    chance_high: float
    p_value: float
    counts: tuple[int, int]
    groups: tuple[int, int]

    @property
    def shortcut(self) -> bool:
        """Whether the probe sees nothing of the lungs."""
        return self.probe in SHORTCUT_PROBES

    @property
    def pairwise(self) -> bool:
        """Whether the contrast is between two classes, not against REST."""
        return self.negative != REST

    @property
    def measurable(self) -> bool:
        """Whether there were enough images."""
        return bool(np.isfinite(self.auc.value))


class _Contrast(NamedTuple):
    positive: str
    negative: str
    rows: NDArray[np.int64]  # (n,) of the dataset
    target: NDArray[np.bool_]  # (n,)


class _Measured(NamedTuple):
    result: ProbeResult  # without its p-value
    statistics: FloatArray  # (1 + permutations,), the observed one first; empty where it is not measurable


def run_probes(
    features: Mapping[str, NDArray[np.float32]],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    groups: Sequence[str],
    sources: Sequence[str | None],
    *,
    permutations: int = 199,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[ProbeResult, ...]:
    """Run every probe on every pair of classes and, with three classes or more, on each class against the rest.

    A row with a NaN is left out of that probe. ``source`` is added where two or more sources are named.

    Args:
        features: Probe to (N, F) float32.
        labels: (N,) int64, index into ``class_names``, -1 where unknown.
        class_names: K names.
        groups: N group names; images of one group stay together. An empty name is a group of one.
        sources: N source names or None.
        permutations: Number of label permutations.
        seed: Seed of folds, permutations and draws; equal seeds give equal results.
        progress: Called with (probes done, in all).

    Raises:
        DataError: Lengths differ.
        ConfigError: Fewer than 19 permutations, which cannot give p = 0.05.
    """
    count = labels.size
    lengths = {"groups": len(groups), "sources": len(sources), **{name: len(rows) for name, rows in features.items()}}
    if wrong := {name: length for name, length in lengths.items() if length != count}:
        raise DataError(f"Expected {count} rows, one per label, got {wrong}.")
    if permutations < 19:
        raise ConfigError(f"Expected at least 19 permutations, got {permutations}.", hint="199 is the default.")
    clusters = clusters_of(groups)
    tables = {name: np.asarray(rows, np.float64) for name, rows in features.items()}
    if len(set(sources) - {None}) > 1:
        tables["source"] = _one_hot(sources)
    contrasts = _contrasts(labels, class_names)
    measured: list[_Measured] = []
    for number, contrast in enumerate(contrasts):
        for name, table in tables.items():
            rng = np.random.default_rng((seed, number))  # the same permutations for every probe, where rows agree
            measured.append(_measure(name, contrast, table, clusters, permutations, rng))
            if progress is not None:
                progress(len(measured), len(contrasts) * len(tables))
    return _with_p_values(measured, permutations)


def _one_hot(sources: Sequence[str | None]) -> FloatArray:
    """(N, S) of the commonest sources; the others, and None, share the last column."""
    names, code, counts = np.unique([name or "" for name in sources], return_inverse=True, return_counts=True)
    rank = np.argsort(np.argsort(-counts, kind="stable"), kind="stable")
    return np.eye(_MOST_SOURCES + 1)[np.minimum(rank[code], _MOST_SOURCES)][:, : names.size]


def _contrasts(labels: NDArray[np.int64], class_names: Sequence[str]) -> list[_Contrast]:
    contrasts = []
    for one, two in combinations(range(len(class_names)), 2):
        # "COVID against Normal" reads better than the reverse; the AUC is the same.
        positive, negative = (two, one) if class_names[one].lower() == "normal" else (one, two)
        rows = np.flatnonzero((labels == one) | (labels == two))
        contrasts.append(_Contrast(class_names[positive], class_names[negative], rows, labels[rows] == positive))
    if len(class_names) > 2:
        known = np.flatnonzero(labels >= 0)
        contrasts += [_Contrast(name, REST, known, labels[known] == k) for k, name in enumerate(class_names)]
    return contrasts


def _measure(
    probe: str,
    contrast: _Contrast,
    table: FloatArray,
    clusters: NDArray[np.int64],
    permutations: int,
    rng: np.random.Generator,
) -> _Measured:
    usable = np.isfinite(table[contrast.rows]).all(axis=1)
    rows, target = contrast.rows[usable], contrast.target[usable]
    drawn = _draw(target, clusters[rows], rng)
    rows, target = rows[drawn], target[drawn]
    own = np.unique(clusters[rows], return_inverse=True)[1].astype(np.int64) if rows.size else rows
    counts = (int(target.sum()), int((~target).sum()))
    groups = (np.unique(own[target]).size, np.unique(own[~target]).size)
    mostly = _majority(target, own)
    if min(*groups, mostly.sum(), (~mostly).sum()) < MIN_GROUPS:
        nothing = Interval(np.nan, np.nan, np.nan, rows.size)
        result = ProbeResult(
            probe, contrast.positive, contrast.negative, nothing, np.nan, np.nan, np.nan, counts, groups
        )
        return _Measured(result, np.empty(0))
    columns = np.column_stack([target, _permuted(target, own, permutations, rng)]).astype(np.float64)
    folds = _folds(target, own, rng)
    inputs = _normalized(table[rows])
    scores = out_of_fold(inputs, columns, folds)
    areas = _areas(scores, columns, folds)
    interval = bootstrap(
        lambda weights: {"auc": area_within_folds(scores[:, 0], target, folds, weights)},
        {"auc": np.ones(target.size, np.bool_)},
        own,
        strata=target.astype(np.int64),
        bounds={"auc": (0.0, 1.0)},
        sides={"auc": (target, ~target)},
        aurocs=("auc",),
    )["auc"]
    low, high = (float(bound) for bound in np.percentile(areas[1:], [2.5, 97.5]))
    result = ProbeResult(probe, contrast.positive, contrast.negative, interval, low, high, np.nan, counts, groups)
    strongest = _strongest(inputs, columns, own)
    return _Measured(result, _standardized(_standardized(areas) + _standardized(strongest)))


def _draw(target: NDArray[np.bool_], clusters: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The rows (m,) of at most MAX_IMAGES images; a class above its half gives way by whole groups."""
    if target.size <= MAX_IMAGES:
        return np.arange(target.size)
    kept = []
    half = MAX_IMAGES // 2
    smaller = min(int(target.sum()), int((~target).sum()))
    for side in (target, ~target):
        own = np.flatnonzero(side)
        order = rng.permutation(int(clusters.max()) + 1)[clusters[own]]
        room = max(half, MAX_IMAGES - smaller)
        kept.append(own[np.argsort(order, kind="stable")][:room])
    return np.sort(np.concatenate(kept))


def _permuted(
    target: NDArray[np.bool_], clusters: NDArray[np.int64], permutations: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(n, permutations): the labels moved between groups. A group of both labels counts as its commoner one."""
    of_group = _majority(target, clusters)
    return np.stack([rng.permutation(of_group)[clusters] for _ in range(permutations)], axis=1)


def _majority(target: NDArray[np.bool_], clusters: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(G,) the label of most images of each group; False of equals."""
    most: NDArray[np.bool_] = np.bincount(clusters, target) > 0.5 * np.bincount(clusters)
    return most


def _folds(target: NDArray[np.bool_], clusters: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) the fold of each image, stratified by class, groups whole.

    Within a class the groups are dealt out in turn, the largest first, in random order among equals; scikit-learn's
    StratifiedGroupKFold does the like in a loop over groups, which takes longer than all the fits.
    """
    size = np.bincount(clusters)
    order = np.lexsort((rng.random(size.size), -size, _majority(target, clusters)))
    turn = np.empty_like(order)
    turn[order] = np.arange(order.size)
    folds: NDArray[np.int64] = (turn % FOLDS)[clusters]
    return folds


def _normalized(table: FloatArray) -> FloatArray:
    """(n, M): normal scores of each column and, standardized, their square; an indicator per value of a coarse one."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    parts: list[FloatArray] = []
    for column in table.T:
        values, code = np.unique(column, return_inverse=True)
        if values.size <= _INDICATOR_VALUES:
            parts += list(np.eye(values.size)[:, code]) if values.size > 1 else []
            continue
        normal = ndtri((rankdata(column) - 0.5) / column.size)
        parts += [normal, normal**2]
    return np.stack(parts, axis=1) if parts else np.zeros((table.shape[0], 1))


def out_of_fold(inputs: FloatArray, columns: FloatArray, folds: NDArray[np.int64]) -> FloatArray:
    """Return scores (n, T) of every image by models that have not seen its fold.

    Per column the kind of model is chosen by the correlation of its scores within the training folds; the scores of
    fold j come from a model that has seen neither j nor the held-out fold.

    Args:
        inputs: (n, M) float64.
        columns: (n, T) float64 in {0, 1}, T labelings.
        folds: (n,) int64.
    """
    used = np.unique(folds).tolist()
    inner = {}
    for one, two in combinations(used, 2):
        out = (folds == one) | (folds == two)
        inner[one, two] = _fit_and_score(inputs, columns, ~out, out)  # (Q, n_out, T)
    scores = np.zeros_like(columns)
    for fold in used:
        held_out = folds == fold
        products: list[FloatArray] = []
        for other in used:
            if other != fold:
                pair = (min(fold, other), max(fold, other))
                seen = folds[(folds == pair[0]) | (folds == pair[1])] == other
                truth = columns[folds == other]
                products.append(np.einsum("qnt,nt->qt", inner[pair][:, seen], truth - truth.mean(axis=0)))
        best = np.sum(products, axis=0).argmax(axis=0)  # (T,)
        candidates = _fit_and_score(inputs, columns, ~held_out, held_out)
        scores[held_out] = np.take_along_axis(candidates, best[None, None], axis=0)[0]
    return scores


def _fit_and_score(
    inputs: FloatArray, columns: FloatArray, train: NDArray[np.bool_], test: NDArray[np.bool_]
) -> FloatArray:
    """(Q, n_test, T) scores of the Q kinds of model, each of unit spread and zero mean on the training rows."""
    own = inputs[train]
    spread = own.std(axis=0)
    scale = np.where(spread > 1e-9, 1 / np.maximum(spread, 1e-9), 0)
    own = (own - own.mean(axis=0)) * scale
    new = (inputs[test] - inputs[train].mean(axis=0)) * scale
    truth = columns[train] - columns[train].mean(axis=0)
    products = own.T @ truth / own.shape[0]  # (M, T)
    covariance = own.T @ own / own.shape[0]
    values, vectors = np.linalg.eigh(covariance)
    turned = vectors.T @ products
    weights = [vectors @ (turned / (values + alpha * own.shape[1] / own.shape[0] * 10)[:, None]) for alpha in _RIDGE]
    largest = np.abs(products).max(axis=0)
    weights += [np.sign(products) * np.maximum(np.abs(products) - share * largest, 0) for share in _SPARSE]
    scores = []
    for weight in weights:
        variance = np.einsum("mt,mt->t", weight, covariance @ weight)
        scores.append(new @ weight / np.sqrt(np.maximum(variance, 1e-18)))
    return np.stack(scores)


def _areas(scores: FloatArray, columns: FloatArray, folds: NDArray[np.int64]) -> FloatArray:
    """(T,) what area_within_folds gives for each column, by rank sums, ties at half."""
    from scipy.stats import rankdata

    won, pairs = np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
    for fold in np.unique(folds):
        own = columns[folds == fold]
        positive = own.sum(axis=0)
        won += (rankdata(scores[folds == fold], axis=0) * own).sum(axis=0) - positive * (positive + 1) / 2
        pairs += positive * (own.shape[0] - positive)
    return divide(won, pairs)


def area_within_folds(
    scores: FloatArray, target: NDArray[np.bool_], folds: NDArray[np.int64], weights: FloatArray
) -> FloatArray:
    """Return the AUROC (R,) of scores (n,) over the pairs of images of one fold, for R weightings (R, n).

    Scores of two folds are never compared: they come from two models, with two scales.
    """
    won, pairs = np.zeros(weights.shape[0]), np.zeros(weights.shape[0])
    for fold in np.unique(folds):
        own = folds == fold
        truth, times = target[own], weights[:, own]
        counted = times[:, truth].sum(axis=1) * times[:, ~truth].sum(axis=1)
        won += np.where(counted > 0, counted * np.nan_to_num(weighted_auc(truth, scores[own], times)), 0)
        pairs += counted
    return divide(won, pairs)


def _strongest(inputs: FloatArray, columns: FloatArray, clusters: NDArray[np.int64]) -> FloatArray:
    """(T,) the largest of a labeling's products with single features, each in its standard deviations.

    The deviation is that of labels permuted between groups: the root of the summed squares of the group sums.
    """
    centered = inputs - inputs.mean(axis=0)
    sums = np.zeros((int(clusters.max()) + 1, inputs.shape[1]))
    np.add.at(sums, clusters, centered)
    spread = np.sqrt((sums**2).sum(axis=0))
    products = centered.T @ (columns - columns.mean(axis=0))  # (M, T)
    largest: FloatArray = np.abs(products[spread > 1e-6] / spread[spread > 1e-6, None]).max(axis=0, initial=0.0)
    return largest


def _standardized(values: FloatArray) -> FloatArray:
    """In standard deviations over the permutations, so that large and small contrasts can be compared.

    The observed one, the first, takes part in the mean and the deviation: all are exchangeable, the test is exact.
    """
    spread = values.std()
    return (values - values.mean()) / spread if spread > 1e-9 else np.zeros_like(values)


def _with_p_values(measured: Sequence[_Measured], permutations: int) -> tuple[ProbeResult, ...]:
    family = [one.statistics for one in measured if one.result.shortcut and one.statistics.size]
    largest = np.max(family, axis=0)[1:] if family else np.empty(0)
    results = []
    for result, statistics in measured:
        if statistics.size:
            null = largest if result.shortcut else statistics[1:]
            p_value = (1 + int((null >= statistics[0] - 1e-12).sum())) / (1 + permutations)
            result = replace(result, p_value=p_value)
        results.append(result)
    return tuple(results)
