"""Split a dataset into train, val and test, stratified by class and grouped, and check splits before use."""

from __future__ import annotations

import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from hilum.config import SplitConfig
from hilum.data.index import Index
from hilum.errors import SplitError
from hilum.storage import sha256_text, write_json
from hilum.types import NO_LABEL, SPLIT_NAMES, Record, SplitName

FORMAT = "hilum-split-1"


@dataclass(frozen=True)
class Split:
    """Assignment of records to splits.

    Attributes:
        assignment: Index.key of each record to ``train``, ``val`` or ``test``.
        seed: Random seed of a drawn split; None for a given one.
        origin: ``given`` by the dataset's ``split`` column, or ``drawn``.
        digest: SHA-256 of the sorted assignment, named in every report.
        counts: Split to label to number of records.
        fractions: Requested fractions of ``val`` and ``test``; empty for a given split.
    """

    assignment: Mapping[str, SplitName]
    seed: int | None
    origin: Literal["given", "drawn"]
    digest: str
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    fractions: Mapping[str, float] = field(default_factory=dict)


def make_split(index: Index, config: SplitConfig) -> Split:
    """Return the dataset's own split if every record has one; otherwise draw one.

    To draw a split, scikit-learn's StratifiedGroupKFold divides the groups into folds, stratified by label, and by
    label and source where such a stratum has at least as many groups as there are folds. Whole folds then form val
    and test. The split depends on the records and the seed, not on the order of the records.

    Args:
        index: The records to split.
        config: Fractions and seed of a drawn split.

    Raises:
        SplitError: Only some records have a split, a group is in two splits, or a class is missing from a split.
    """
    given = [record for record in index.records if record.split is not None]
    if given and len(given) < len(index.records):
        raise SplitError(
            f"Only {len(given)} of {len(index.records)} records have a value in the `split` column.",
            hint="Fill the column completely, or empty it to let hilum draw the split.",
        )
    if given:
        assignment = {index.key(record): cast("SplitName", record.split) for record in given}
        split = _seal(index, assignment, seed=None, fractions={})
    else:
        fractions = {"val": config.val_fraction, "test": config.test_fraction}
        split = _seal(
            index,
            draw_split({index.key(record): record for record in index.records}, config),
            seed=config.seed,
            fractions=fractions,
        )
    check_split(index, split)
    _require_every_class(index, split.counts)
    return split


def check_split(index: Index, split: Split) -> None:
    """Check that a split covers exactly the records of an index and that no group is in two splits.

    Raises:
        SplitError: A record has no split, the split names other records, its digest does not match its assignment, or
            a group is in two splits.
    """
    keys = {index.key(record) for record in index.records}
    without = sorted(keys - split.assignment.keys())
    foreign = sorted(split.assignment.keys() - keys)
    if without or foreign:
        first = f" (first: {(without or foreign)[0]})"
        raise SplitError(
            f"The split does not match the dataset: of {len(keys)} records, {len(without)} are not in the split, and "
            f"it names {len(foreign)} others{first}.",
            hint="Draw the split again with `hilum split`, or index the same data and classes.",
        )
    if split.digest != _digest(split.assignment):
        raise SplitError("The split was changed: its digest does not match.", hint="Draw the split again.")
    if crossing := _crossing_groups(index, split.assignment):
        shown = "; ".join(f"{group}: {places}" for group, places in list(crossing.items())[:3])
        raise SplitError(
            f"{len(crossing)} groups are in more than one split ({shown}).",
            hint="Put each group into one split, or empty the `split` column to let hilum draw the split.",
        )


def records_of(index: Index, split: Split, name: SplitName) -> tuple[Record, ...]:
    """Return the records of one split, in the order of the index.

    Raises:
        SplitError: A record is not in the split.
    """
    try:
        return tuple(record for record in index.records if split.assignment[index.key(record)] == name)
    except KeyError as error:
        raise SplitError(f"The split does not contain {error}.", hint="Draw the split again.") from error


def save_split(split: Split, path: Path) -> None:
    """Write the split as JSON, atomically.

    Raises:
        OutputError: The file cannot be written.
    """
    content = {
        "format": FORMAT,
        "origin": split.origin,
        "seed": split.seed,
        "fractions": dict(split.fractions),
        "digest": split.digest,
        "counts": {name: dict(counts) for name, counts in split.counts.items()},
        "assignment": dict(sorted(split.assignment.items())),
    }
    write_json(path, content)


def load_split(path: Path) -> Split:
    """Read a split written by save_split.

    Raises:
        SplitError: The file cannot be read, has another format, or its digest does not match its assignment.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise SplitError(
                f"Expected format {FORMAT} in '{path}', got {content['format']!r}.", hint="Draw the split again."
            )
        fields = ("assignment", "seed", "origin", "digest", "counts", "fractions")
        split = Split(**{name: content[name] for name in fields})
        digest = _digest(split.assignment)
        known = set(split.assignment.values()) <= set(SPLIT_NAMES)
    except OSError as error:
        raise SplitError(f"Cannot read the split '{path}': {error.strerror}.", hint="Check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SplitError(f"'{path}' is not a valid split: {error}.", hint="Draw the split again.") from error
    if not known:
        raise SplitError(f"'{path}' has splits other than {', '.join(SPLIT_NAMES)}.", hint="Draw the split again.")
    if digest != split.digest:
        raise SplitError(f"The split '{path}' was changed: its digest does not match.", hint="Draw the split again.")
    return split


def _digest(assignment: Mapping[str, SplitName]) -> str:
    return sha256_text(json.dumps(sorted(assignment.items())))


def _seal(
    index: Index, assignment: Mapping[str, SplitName], *, seed: int | None, fractions: Mapping[str, float]
) -> Split:
    counts: dict[str, Counter[str]] = {name: Counter() for name in SPLIT_NAMES}
    for record in index.records:
        counts[assignment[index.key(record)]][record.label or NO_LABEL] += 1
    ordered = {name: dict(sorted(counter.items())) for name, counter in counts.items()}
    origin: Literal["given", "drawn"] = "given" if seed is None else "drawn"
    return Split(assignment, seed, origin, _digest(assignment), ordered, fractions)


def _crossing_groups(index: Index, assignment: Mapping[str, SplitName]) -> dict[str, dict[str, int]]:
    places: dict[str, Counter[str]] = defaultdict(Counter)
    for record in index.records:
        if record.group is not None:
            places[record.group][assignment[index.key(record)]] += 1
    return {group: dict(counter) for group, counter in sorted(places.items()) if len(counter) > 1}


def _require_every_class(index: Index, counts: Mapping[str, Mapping[str, int]]) -> None:
    table = ", ".join(f"{name} {dict(counts[name])}" for name in SPLIT_NAMES)
    for label in index.class_names or (NO_LABEL,):
        if empty := [name for name in SPLIT_NAMES if not counts[name].get(label)]:
            raise SplitError(
                f"Class {label} has no records in {' and '.join(empty)} ({table}).",
                hint="Each class needs at least three groups: add images, merge classes, or leave the class out.",
            )


_MOST_FOLDS = 100


_DRAWS = 256


def draw_split(records: Mapping[str, Record], config: SplitConfig) -> dict[str, SplitName]:
    """Assign records, by key, to train, val and test. A record without a group is a group of its own.

    Numbers of folds are tried in order of how well they meet the fractions, until every class is in all three splits;
    small datasets are therefore split with fewer folds.

    Args:
        records: Records by Index.key.
        config: Fractions and seed.

    Raises:
        SplitError: A class has fewer than three groups, or no division puts every class into every split.
    """
    keys = sorted(records)
    ordered = [records[key] for key in keys]
    # The prefix distinguishes keys of records from names of groups.
    names = [f"g{r.group}" if r.group is not None else f"k{key}" for key, r in zip(keys, ordered, strict=True)]
    _require_groups(ordered, names)
    groups = np.unique(names, return_inverse=True)[1]  # (N,)
    labels = np.unique([record.label or "" for record in ordered], return_inverse=True)[1]  # (N,)
    required = np.unique(labels[[record.label is not None for record in ordered]])
    for folds, n_val, n_test in _fold_counts(config.val_fraction, config.test_fraction, int(groups.max()) + 1):
        fold_of = _deal(_strata(ordered, groups, folds), groups, folds, config.seed)
        table = np.zeros((folds, int(labels.max()) + 1))  # (folds, K) records
        np.add.at(table, (fold_of, labels), 1)
        part = _choose_folds(table, required, n_val, n_test, config)
        if part is not None:
            return {key: SPLIT_NAMES[part[fold]] for key, fold in zip(keys, fold_of, strict=True)}
    raise SplitError(
        f"No split of the {len(keys)} records puts every class into train, val and test.",
        hint="The groups are too few or too uneven: add images, or assign them in a `split` column.",
    )


def _require_groups(records: Sequence[Record], names: Sequence[str]) -> None:
    members: dict[str, set[str]] = defaultdict(set)
    for record, name in zip(records, names, strict=True):
        members[record.label or NO_LABEL].add(name)
    labeled = [label for label in members if label != NO_LABEL] or list(members)
    if few := {label: len(members[label]) for label in sorted(labeled) if len(members[label]) < 3}:
        got = ", ".join(f"{label} {count}" for label, count in few.items())
        raise SplitError(
            f"Each class needs at least 3 groups (or ungrouped images), one per split; got {got}.",
            hint="Add images, merge classes, or select the other classes with --class.",
        )


def _fold_counts(val: float, test: float, n_groups: int) -> Iterator[tuple[int, int, int]]:
    """Yield (folds, folds of val, folds of test), best match of the fractions first, then fewest folds."""
    choices = []
    for folds in range(3, min(_MOST_FOLDS, n_groups) + 1):
        n_val, n_test = max(1, round(val * folds)), max(1, round(test * folds))
        if n_val + n_test < folds:
            miss = abs(n_val / folds - val) + abs(n_test / folds - test)
            choices.append((round(miss, 2), folds, n_val, n_test))
    for _, folds, n_val, n_test in sorted(choices):
        yield folds, n_val, n_test


def _strata(records: Sequence[Record], groups: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Return (N,) codes of label and source, or of the label alone if that stratum has fewer groups than folds."""
    members: dict[tuple[str | None, str | None], set[int]] = defaultdict(set)
    for record, group in zip(records, groups, strict=True):
        members[record.label, record.source].add(int(group))
    large = {stratum for stratum, found in members.items() if len(found) >= folds}
    names = [(r.label, r.source if (r.label, r.source) in large else None) for r in records]
    return np.unique([json.dumps(name) for name in names], return_inverse=True)[1]


def _deal(strata: NDArray[np.int64], groups: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each record, (N,). Without groups, the ungrouped splitter is 100 times faster."""
    grouped = len(np.unique(groups)) < len(groups)
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # a given split does without

    if grouped:  # shuffled here: before scikit-learn 1.8, the splitter's own shuffle ignores the strata
        place = np.unique(groups, return_inverse=True)[1]
        order = np.arange(place.max() + 1)
        np.random.RandomState(seed).shuffle(order)  # as scikit-learn does since 1.8
        groups = np.argsort(order)[place]
    splitter = StratifiedGroupKFold(folds) if grouped else StratifiedKFold(folds, shuffle=True, random_state=seed)
    fold_of = np.zeros(len(groups), np.int64)
    if np.bincount(strata).max() < folds:  # rejected by the splitters: no stratum is large enough
        strata = np.zeros_like(strata)
    with warnings.catch_warnings():
        # Rare classes are handled by _choose_folds.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for fold, (_, rows) in enumerate(splitter.split(strata, strata, groups if grouped else None)):
            fold_of[rows] = fold
    return fold_of


def _choose_folds(
    table: NDArray[np.float64], required: NDArray[np.int64], n_val: int, n_test: int, config: SplitConfig
) -> NDArray[np.int64] | None:
    """Choose the folds of val and test, from random draws, whose class fractions are nearest to the requested ones.

    Args:
        table: (folds, K) records of each class in each fold.
        required: Columns of ``table`` that must be in all three splits.
        n_val: Number of folds of val.
        n_test: Number of folds of test.
        config: Fractions and seed.

    Returns:
        (folds,) 0 train, 1 val, 2 test; None if no draw puts every required class into every split.
    """
    train = 1 - config.val_fraction - config.test_fraction
    targets = np.array([[train], [config.val_fraction], [config.test_fraction]])
    random = np.random.default_rng(config.seed)
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
