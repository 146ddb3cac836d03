"""Find images that occur more than once: equal files, and copies that were resized, cropped, rotated or re-encoded.

Copies are common in public collections of chest radiographs and, across splits, make test results too good (Maguolo &
Nanni 2021, Information Fusion 76:1; Roberts et al. 2021, Nature Machine Intelligence 3:199).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hilum.audit.candidates import find_candidates
from hilum.audit.verify import THRESHOLD, similarities
from hilum.data.fingerprint import Prints
from hilum.errors import DataError
from hilum.types import NO_LABEL, SPLIT_NAMES, Record, SplitName


@dataclass(frozen=True, order=True)
class Pair:
    """Two files of one image.

    Attributes:
        first: Row of the image.
        second: Row of the other, greater than ``first``.
        exact: The files have equal bytes.
        similarity: 1 for equal bytes, else at least THRESHOLD, see verify.similarity.
    """

    first: int
    second: int
    exact: bool
    similarity: float


@dataclass(frozen=True)
class DuplicateSummary:
    """Counts of copies. Two files are a pair here when ``joined`` puts them into one cluster.

    Attributes:
        exact_pairs: Pairs found with equal bytes; n equal files give n - 1.
        near_pairs: Pairs found by pixels.
        clusters: Images that occur more than once.
        images: Files of those images.
        surplus: Files that can be left out: ``images`` less ``clusters``.
        class_names: K names, NO_LABEL last where an image of a pair has none.
        by_class: (K, K) int64, symmetric: pairs within a class on the diagonal, between two classes off it.
        split_names: Those of SPLIT_NAMES that have images.
        by_split: (S, S) int64, likewise; images without a split take no part.
    """

    exact_pairs: int
    near_pairs: int
    clusters: int
    images: int
    surplus: int
    class_names: tuple[str, ...]
    by_class: NDArray[np.int64]
    split_names: tuple[SplitName, ...]
    by_split: NDArray[np.int64]


def find_duplicates(
    prints: Prints,
    sha256: Sequence[str],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Pair, ...]:
    """Return the pairs of files that show the same image, sorted.

    Of equal files the first represents all: the others are paired with it, and it alone is compared by pixels.
    Copies are found after resizing, cropping 5% off every edge, monotone changes of the gray scale, JPEG, rotation by
    3 degrees, added borders, and two of these at once. Mirrored and inverted copies are not searched for.

    Args:
        prints: Fingerprints of N images.
        sha256: N digests of the files' bytes.
        workers: threads; the number of processors by default.
        progress: Called with (pairs compared, pairs to compare).

    Raises:
        DataError: Not one digest per image.
    """
    if len(sha256) != len(prints):
        raise DataError(f"Expected one digest per fingerprint, {len(prints)}, got {len(sha256)}.")
    first_of: dict[str, int] = {}
    pairs = []
    for row, digest in enumerate(sha256):
        first = first_of.setdefault(digest, row)
        if first != row:
            pairs.append(Pair(first, row, True, 1.0))
    rows = np.fromiter(first_of.values(), np.int64, len(first_of))
    candidates = find_candidates(prints, rows)
    values = similarities(prints, candidates, workers=workers, progress=progress)
    best: dict[tuple[int, int], float] = {}
    for hit in np.flatnonzero(values >= THRESHOLD):
        ends = sorted((int(candidates.first[hit]), int(candidates.second[hit])))
        key = (ends[0], ends[1])
        best[key] = max(best.get(key, 0.0), float(values[hit]))
    pairs += [Pair(first, second, False, value) for (first, second), value in best.items()]
    return tuple(sorted(pairs))


def joined(pairs: Sequence[Pair], n: int) -> NDArray[np.int64]:
    """Return the cluster of each image, (N,) int64: the lowest row that pairs join it to, directly or not."""
    root = list(range(n))

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for pair in pairs:
        low, high = sorted((find(pair.first), find(pair.second)))
        root[high] = low
    return np.array([find(row) for row in range(n)], np.int64)


def summarize(pairs: Sequence[Pair], records: Sequence[Record], splits: Sequence[SplitName | None]) -> DuplicateSummary:
    """Count the pairs per pair of classes and per pair of splits.

    Args:
        pairs: The result of find_duplicates.
        records: N, in the order of the rows.
        splits: N names, None where there is none.

    Raises:
        DataError: Not one split per record.
    """
    if len(splits) != len(records):
        raise DataError(f"Expected one split per record, {len(records)}, got {len(splits)}.")
    clusters = joined(pairs, len(records))
    shared = np.flatnonzero(np.bincount(clusters, minlength=1)[clusters] > 1)
    labels = [record.label if record.label is not None else NO_LABEL for record in records]
    names = sorted({record.label for record in records if record.label is not None})
    if any(labels[row] == NO_LABEL for row in shared):
        names.append(NO_LABEL)
    present = tuple(name for name in SPLIT_NAMES if name in splits)
    images = int(np.unique(clusters[shared]).size)
    return DuplicateSummary(
        exact_pairs=sum(pair.exact for pair in pairs),
        near_pairs=sum(not pair.exact for pair in pairs),
        clusters=images,
        images=int(shared.size),
        surplus=int(shared.size) - images,
        class_names=tuple(names),
        by_class=_count(clusters[shared], [labels[row] for row in shared], names),
        split_names=present,
        by_split=_count(clusters[shared], [splits[int(row)] for row in shared], present),
    )


def _count(clusters: NDArray[np.int64], kinds: Sequence[str | None], names: Sequence[str]) -> NDArray[np.int64]:
    """Pairs of images of one cluster by the kind of their ends, (K, K) symmetric; other kinds take no part."""
    code = {name: number for number, name in enumerate(names)}
    found, cluster = np.unique(clusters, return_inverse=True)
    counts = np.zeros((found.size, len(names)), np.int64)
    for row, kind in zip(cluster, kinds, strict=True):
        if kind in code:
            counts[row, code[kind]] += 1
    table: NDArray[np.int64] = counts.T @ counts
    table[np.diag_indices_from(table)] = (counts * (counts - 1) // 2).sum(axis=0)
    return table
