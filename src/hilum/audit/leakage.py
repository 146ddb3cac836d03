"""Find images and patients that are in more than one split, and copies of an image with different labels.

Test images whose copy or patient is in the training split make test results too good (Roberts et al. 2021, Nature
Machine Intelligence 3:199). The pairs of copies come from ``duplicates``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from hilum.audit.duplicates import Pair, joined
from hilum.errors import DataError
from hilum.types import SPLIT_NAMES, Finding, Record, Severity, SplitName

_SHOWN = 3


_COPIES_CROSS = "Give the copies one `group` and split again."
_GROUPS_CROSS = "Split again by group."


class _Data(NamedTuple):
    records: Sequence[Record]
    names: Sequence[str]
    splits: Sequence[SplitName | None]


def leak_findings(
    records: Sequence[Record], names: Sequence[str], pairs: Sequence[Pair], splits: Sequence[SplitName | None]
) -> tuple[Finding, ...]:
    """Return what duplicates, groups, labels and splits show together, errors first; one Finding per check.

    - ``duplicate_across_splits`` (error): copies of an image are in two splits.
    - ``group_across_splits`` (error): images of one group are in two splits.
    - ``label_conflict`` (error): copies of an image have different labels.
    - ``duplicate_across_groups`` (warning): copies of an image share no group, so that a split may separate them.
    - ``duplicate_within_split`` (warning): copies of an image are in one split; without splits, in the data.

    Images are copies when pairs join them, directly or through others. The checks across splits are not run where no
    image has a split; images without one take no part in them.

    Args:
        records: N records, in the order of the pairs' rows.
        names: N names for the findings.
        pairs: The result of find_duplicates.
        splits: N split names, None where there is none.

    Raises:
        DataError: The lengths differ.
    """
    if not len(records) == len(names) == len(splits):
        lengths = f"{len(names)} names and {len(splits)} splits for {len(records)} records"
        raise DataError(f"Names and splits must match the records in number, got {lengths}.")
    data = _Data(records, names, splits)
    copies = _copies(pairs, len(records))
    groups = _groups(records)
    found = (
        _across_splits(
            data, copies, "duplicate_across_splits", "image has copies", "images have copies", _COPIES_CROSS
        ),
        _across_splits(data, groups, "group_across_splits", "group has images", "groups have images", _GROUPS_CROSS),
        _conflict(data, copies),
        _across_groups(data, copies),
        _within(data, copies),
    )
    return tuple(finding for finding in found if finding is not None)


def _copies(pairs: Sequence[Pair], count: int) -> list[list[int]]:
    """The rows of each image that occurs more than once."""
    members: defaultdict[int, list[int]] = defaultdict(list)
    for row, cluster in enumerate(joined(pairs, count).tolist()):
        members[cluster].append(row)
    return [rows for rows in members.values() if len(rows) > 1]


def _groups(records: Sequence[Record]) -> list[list[int]]:
    """The rows of each group."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        if record.group is not None:
            members[record.group].append(row)
    return list(members.values())


def _across_splits(data: _Data, sets: list[list[int]], check: str, one: str, more: str, remedy: str) -> Finding | None:
    """Copies or groups, given by their rows, of which some are in one split and some in another."""
    hits = _crossing(data, sets)
    text = f"{_counted(len(hits), one, more)} in more than one split ({_between(data, hits)}). {remedy}"
    return _finding(check, "error", data, hits, text, lambda row: str(data.splits[row]))


def _conflict(data: _Data, copies: list[list[int]]) -> Finding | None:
    labels = [[data.records[row].label for row in rows] for rows in copies]
    hits = [rows for rows, own in zip(copies, labels, strict=True) if len({*own} - {None}) > 1]
    text = (
        f"{_counted(len(hits), 'image has copies', 'images have copies')} with different labels, of which at most one "
        "is right. Keep the copy whose label is certain, or none."
    )
    return _finding("label_conflict", "error", data, hits, text, lambda row: str(data.records[row].label))


def _across_groups(data: _Data, copies: list[list[int]]) -> Finding | None:
    groups = [[data.records[row].group for row in rows] for rows in copies]
    hits = [rows for rows, own in zip(copies, groups, strict=True) if len({*own}) > 1 or own[0] is None]
    text = (
        f"{_counted(len(hits), 'image has copies', 'images have copies')} without a common group, which a split may "
        "separate. Give the copies one `group` before splitting."
    )
    return _finding(
        "duplicate_across_groups", "warning", data, hits, text, lambda row: data.records[row].group or "no group"
    )


def _within(data: _Data, copies: list[list[int]]) -> Finding | None:
    has_splits = any(split is not None for split in data.splits)
    hits: list[list[int]] = []
    surplus = Counter[str]()
    for rows in copies:
        together: defaultdict[str | None, list[int]] = defaultdict(list)
        for row in rows:
            together[data.splits[row]].append(row)
        kept = {split: own for split, own in together.items() if len(own) > 1 and (split or not has_splits)}
        hits += kept.values()
        surplus.update({split or "": len(own) - 1 for split, own in kept.items()})
    more = ", ".join(f"{surplus[name]:,} in {name}" for name in SPLIT_NAMES if surplus[name])
    where = "the same split" if has_splits else "the data"
    text = (
        f"{_counted(len(hits), 'image has copies', 'images have copies')} in {where} "
        f"(surplus: {more or f'{surplus.total():,} files'}), so n overstates the number of different images. Keep one "
        "copy of each."
    )
    return _finding("duplicate_within_split", "warning", data, hits, text)


def _crossing(data: _Data, sets: Iterable[list[int]]) -> list[list[int]]:
    """Those of the sets of rows that are in two splits or more, without their rows that have none."""
    known = ([row for row in rows if data.splits[row] is not None] for rows in sets)
    return [rows for rows in known if len({data.splits[row] for row in rows}) > 1]


def _between(data: _Data, hits: list[list[int]]) -> str:
    """How many each pair of splits shares: ``train and test 12, train and val 3``."""
    ways = Counter(tuple(name for name in SPLIT_NAMES if name in {data.splits[r] for r in rows}) for rows in hits)
    return ", ".join(f"{' and '.join(way)} {times:,}" for way, times in ways.most_common())


def _finding(
    check: str,
    severity: Severity,
    data: _Data,
    hits: Sequence[Sequence[int]],
    text: str,
    detail: Callable[[int], str] | None = None,
) -> Finding | None:
    """A finding of ``text`` and the first sets, two images each; None without a hit."""
    if not hits:
        return None
    examples = []
    for rows in hits[:_SHOWN]:
        # The first two that differ show the point better than the first two.
        first = rows[0]
        other = next((row for row in rows[1:] if detail and detail(row) != detail(first)), rows[1])
        shown = [f"{data.names[row]} ({detail(row)})" if detail else data.names[row] for row in (first, other)]
        examples.append(" and ".join(shown))
    more = f"; and {len(hits) - _SHOWN:,} more" if len(hits) > _SHOWN else ""
    named = tuple(data.names[row] for rows in hits for row in rows)
    return Finding(check, severity, f"{text} First: {'; '.join(examples)}{more}.", named)


def _counted(number: int, one: str, more: str) -> str:
    return f"1 {one}" if number == 1 else f"{number:,} {more}"
