"""Dealing groups into folds, and folds into train, val and test, with scikit-learn's stratified splitters."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from hilum.config import SplitConfig
from hilum.data.split import NO_LABEL
from hilum.errors import SplitError
from hilum.types import SPLIT_NAMES, Record, SplitName

_MOST_FOLDS = 100
_DRAWS = 256


def draw_split(records: Mapping[str, Record], config: SplitConfig) -> dict[str, SplitName]:
    """Share out the records, by key, into train, val and test. A record without a group is a group of its own.

    Fold counts are tried, those nearest to the fractions first, until every class is in all three splits; so few
    data are shared out more coarsely instead of not at all.

    Raises:
        SplitError: a class has fewer than three groups, or no division puts every class in every split.
    """
    keys = sorted(records)
    ordered = [records[key] for key in keys]
    # The prefix keeps a record's key apart from the names of groups.
    names = [f"g{r.group}" if r.group is not None else f"k{key}" for key, r in zip(keys, ordered, strict=True)]
    _require_groups(ordered, names)
    groups = np.unique(names, return_inverse=True)[1]  # (N,)
    labels = np.unique([record.label or "" for record in ordered], return_inverse=True)[1]  # (N,)
    required = np.unique(labels[[record.label is not None for record in ordered]])
    for folds, n_val, n_test in _fold_counts(config.val_fraction, config.test_fraction, int(groups.max()) + 1):
        fold_of = _deal(_strata(ordered, groups, folds), groups, folds, config.split_seed)
        table = np.zeros((folds, int(labels.max()) + 1))  # (folds, K) records
        np.add.at(table, (fold_of, labels), 1)
        part = _choose_folds(table, required, n_val, n_test, config)
        if part is not None:
            return {key: SPLIT_NAMES[part[fold]] for key, fold in zip(keys, fold_of, strict=True)}
    raise SplitError(
        f"Expected a split with every class in train, val and test, found none for {len(keys)} records.",
        cure="The groups are too few or too uneven: add data, or give the split in a `split` column.",
    )


def _require_groups(records: Sequence[Record], names: Sequence[str]) -> None:
    members: dict[str, set[str]] = defaultdict(set)
    for record, name in zip(records, names, strict=True):
        members[record.label or NO_LABEL].add(name)
    labelled = [label for label in members if label != NO_LABEL] or list(members)
    if few := {label: len(members[label]) for label in sorted(labelled) if len(members[label]) < 3}:
        got = ", ".join(f"{label} {count}" for label, count in few.items())
        raise SplitError(
            f"Expected at least 3 groups (or ungrouped images) of each class, one for each of train, val and test; "
            f"got {got}.",
            cure="Add data, merge classes, or name the others, each with --class.",
        )


def _fold_counts(val: float, test: float, n_groups: int) -> Iterator[tuple[int, int, int]]:
    """(folds, folds for val, folds for test), ordered by how well they meet the fractions, then fewest first."""
    choices = []
    for folds in range(3, min(_MOST_FOLDS, n_groups) + 1):
        n_val, n_test = max(1, round(val * folds)), max(1, round(test * folds))
        if n_val + n_test < folds:
            miss = abs(n_val / folds - val) + abs(n_test / folds - test)
            choices.append((round(miss, 2), folds, n_val, n_test))
    for _, folds, n_val, n_test in sorted(choices):
        yield folds, n_val, n_test


def _strata(records: Sequence[Record], groups: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """(N,) codes of label and source; of the label alone where that stratum has fewer groups than folds."""
    members: dict[tuple[str | None, str | None], set[int]] = defaultdict(set)
    for record, group in zip(records, groups, strict=True):
        members[record.label, record.source].add(int(group))
    large = {stratum for stratum, found in members.items() if len(found) >= folds}
    names = [(r.label, r.source if (r.label, r.source) in large else None) for r in records]
    return np.unique([json.dumps(name) for name in names], return_inverse=True)[1]


def _deal(strata: NDArray[np.int64], groups: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """(N,) the fold of each record. Without groups the plain splitter does the same, a hundred times faster."""
    grouped = len(np.unique(groups)) < len(groups)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    fold_of = np.zeros(len(groups), np.int64)
    if np.bincount(strata).max() < folds:  # the splitters refuse this: nothing is left to stratify by
        strata = np.zeros_like(strata)
    with warnings.catch_warnings():
        # Rare classes are looked after by _choose_folds.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for fold, (_, rows) in enumerate(splitter.split(strata, strata, groups if grouped else None)):
            fold_of[rows] = fold
    return fold_of


def _choose_folds(
    table: NDArray[np.float64], required: NDArray[np.int64], n_val: int, n_test: int, config: SplitConfig
) -> NDArray[np.int64] | None:
    """Of some random ways to make val and test of whole folds, the one that comes nearest in all classes' shares.

    Args:
        table: (folds, K) records of each class in each fold.
        required: the columns of ``table`` that must be in all three splits.

    Returns:
        (folds,) 0 train, 1 val, 2 test; None if every way leaves a required class out somewhere.
    """
    train = 1 - config.val_fraction - config.test_fraction
    targets = np.array([[train], [config.val_fraction], [config.test_fraction]])
    random = np.random.default_rng(config.split_seed)
    best_cost, best = np.inf, None
    for _ in range(_DRAWS):
        order = random.permutation(len(table))
        part = np.zeros(len(table), np.int64)
        part[order[:n_val]] = 1
        part[order[n_val : n_val + n_test]] = 2
        shares = np.stack([table[part == which].sum(axis=0) for which in range(3)]) / table.sum(axis=0)  # (3, K)
        cost = float(np.abs(shares - targets).mean())
        if cost < best_cost and shares[:, required].all() and shares.any(axis=1).all():
            best_cost, best = cost, part
    return best
