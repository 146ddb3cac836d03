"""Who trains, who validates, who tests: stratified, grouped, and proved to be so each time it is used."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from hilum.config import SplitConfig
from hilum.data.index import Index
from hilum.errors import SplitError
from hilum.storage import sha256_text, write_json
from hilum.types import SPLIT_NAMES, Record, SplitName

FORMAT = "hilum-split-1"
NO_LABEL = "(no label)"


@dataclass(frozen=True)
class Split:
    """Which record is in which split.

    Attributes:
        assignment: Index.key of each record -> ``train``, ``val`` or ``test``.
        seed: of the drawing; None for a split that the data brought along.
        origin: ``given`` by the data's ``split`` column, or ``drawn``.
        digest: SHA-256 of the sorted assignment; every published figure names it.
        counts: split -> label -> number of records.
        fractions: the shares of ``val`` and ``test`` asked for; empty for a given split.
    """

    assignment: Mapping[str, SplitName]
    seed: int | None
    origin: Literal["given", "drawn"]
    digest: str
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    fractions: Mapping[str, float] = field(default_factory=dict)


def make_split(index: Index, config: SplitConfig) -> Split:
    """The data's own split if every record has one, else one drawn by ``config``.

    Drawn: scikit-learn deals the groups into folds, stratified by label, and by label and source where such a
    stratum has at least as many groups as there are folds; whole folds then make up val and test. The same
    records and seed give the same split, in whatever order the records come.

    Raises:
        SplitError: some records have a split and others not, a group is in two splits, or a class would be
            missing from one of them.
    """
    given = [record for record in index.records if record.split is not None]
    if given and len(given) < len(index.records):
        raise SplitError(
            f"Expected a split for all records or for none, got one for {len(given)} of {len(index.records)}.",
            cure="Fill the `split` column, or empty it to let hilum draw the split.",
        )
    if given:
        assignment = {index.key(record): cast("SplitName", record.split) for record in given}
        split = _seal(index, assignment, seed=None, fractions={})
    else:
        from hilum.data.folds import draw_split  # needs scikit-learn, which a given split does not

        fractions = {"val": config.val_fraction, "test": config.test_fraction}
        split = _seal(
            index,
            draw_split({index.key(record): record for record in index.records}, config),
            seed=config.split_seed,
            fractions=fractions,
        )
    check_split(index, split)
    _require_every_class(index, split.counts)
    return split


def check_split(index: Index, split: Split) -> None:
    """Prove that ``split`` is of these records and that no group crosses it.

    Raises:
        SplitError: a record has no split, the split names other records, its digest is not that of its
            assignment, or a group is in two splits.
    """
    keys = {index.key(record) for record in index.records}
    without = sorted(keys - split.assignment.keys())
    foreign = sorted(split.assignment.keys() - keys)
    if without or foreign:
        first = f" (first: {(without or foreign)[0]})"
        raise SplitError(
            f"Expected a split of these {len(keys)} records, got one that lacks {len(without)} of them and names "
            f"{len(foreign)} others{first}.",
            cure="The split is stale: draw it again with `hilum split`, or index the same data and classes.",
        )
    if split.digest != _digest(split.assignment):
        raise SplitError(
            "Expected the split's digest to be that of its assignment, got another.", cure="Draw it again."
        )
    if crossing := _crossing_groups(index, split.assignment):
        shown = "; ".join(f"{group}: {places}" for group, places in list(crossing.items())[:3])
        raise SplitError(
            f"Expected every group in one split, got {len(crossing)} groups in more than one ({shown}).",
            cure="Move each group's records into one split, or empty the `split` column to let hilum draw it.",
        )


def records_of(index: Index, split: Split, name: SplitName) -> tuple[Record, ...]:
    """The records of one split, in the order of the index.

    Raises:
        SplitError: a record is not in the split.
    """
    try:
        return tuple(record for record in index.records if split.assignment[index.key(record)] == name)
    except KeyError as error:
        raise SplitError(
            f"Expected {error} in the split, got nothing.", cure="The split is stale: draw it again."
        ) from error


def save_split(split: Split, path: Path) -> None:
    """Write the split as JSON, atomically.

    Raises:
        OutputError: the file cannot be written.
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
        SplitError: the file cannot be read, is of another format, or its digest is not that of its assignment.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise SplitError(f"Expected a split of format {FORMAT} in {path}, got {content['format']!r}.")
        fields = ("assignment", "seed", "origin", "digest", "counts", "fractions")
        split = Split(**{name: content[name] for name in fields})
        digest = _digest(split.assignment)
        known = set(split.assignment.values()) <= set(SPLIT_NAMES)
    except OSError as error:
        raise SplitError(f"Expected a split at {path}, got: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SplitError(f"Expected a split in {path}, got something else ({error}).", cure="Draw it again.") from error
    if digest != split.digest or not known:
        raise SplitError(
            f"Expected the digest {split.digest} of {path}, got {digest}: it was changed.", cure="Draw it again."
        )
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
                f"Expected records of {label} in train, val and test, got none in {' and '.join(empty)} ({table}).",
                cure="Each class needs at least three groups: add data, merge classes, or leave this one out.",
            )
