"""How long an audit will take on this machine, from a second or two of measured work. A guide, not a promise."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hilum.audit.candidates import COMPARE_ALL, learning_moves
from hilum.audit.probes import MAX_IMAGES, SHORTCUT_PROBES, run_probes
from hilum.audit.robustness import PASSES, change_image
from hilum.audit.scan import LungFinder, Scan, scan
from hilum.audit.treatments import TREATMENTS, run_changed
from hilum.audit.verify import similarity
from hilum.backends.base import Backend
from hilum.config import PreprocessSpec
from hilum.data.fingerprint import signature
from hilum.errors import DataError
from hilum.types import Record

_IMAGES = 8
_PAIRS = 20
_PAIRS_PER_IMAGE = 6  # of at most 2 * NEIGHBORS, since most are found twice
_ROWS, _FEATURES = 400, 60  # of the table that a probe is timed on


@dataclass(frozen=True)
class Workload:
    """What an audit has to do.

    Attributes:
        images: Images to read and compare.
        contrasts: Number of images of each comparison of classes.
        probes: Probes of each comparison.
        measured: Images that the model is measured on; 0 without a model.
        changed: Images that the robustness is measured on; 0 leaves it out.
        permutations: Permutations of the labels, per probe.
    """

    images: int
    contrasts: tuple[int, ...]
    probes: int
    measured: int
    changed: int
    permutations: int

    @property
    def passes(self) -> int:
        """Forward passes of one image."""
        return len(TREATMENTS) * self.measured + PASSES * self.changed

    def __str__(self) -> str:
        """Return the amounts in words."""
        parts = [f"{self.images:,} images to read and compare"]
        if self.contrasts:
            parts.append(f"{self.probes * len(self.contrasts):,} probes to fit")
        if self.passes:
            parts.append(f"{self.passes:,} forward passes")
        return ", ".join(parts)


def workload(
    records: Sequence[Record], *, measured: int, limit: int, permutations: int, probes_run: bool = True
) -> Workload:
    """Return what the audit of these records has to do.

    Args:
        records: All records.
        measured: Images that the model is measured on; 0 without a model.
        limit: Images for the robustness, at most.
        permutations: Permutations of the labels.
        probes_run: Whether the probes are run.
    """
    labels = [record.label for record in records if record.label is not None]
    counts = [labels.count(name) for name in sorted(set(labels))]
    pairs = [one + two for place, one in enumerate(counts) for two in counts[place + 1 :]]
    rests = [sum(counts)] * len(counts) if len(counts) > 2 else []
    sources = len({record.source for record in records} - {None}) > 1
    return Workload(
        images=len(records),
        contrasts=tuple(min(n, MAX_IMAGES) for n in (*pairs, *rests)) if probes_run else (),
        probes=len(SHORTCUT_PROBES) + 2 - (not sources),
        measured=measured,
        changed=min(limit, measured),
        permutations=permutations,
    )


def estimate_seconds(
    work: Workload,
    records: Sequence[Record],
    names: Sequence[str],
    *,
    find_lungs: LungFinder | None = None,
    backend: Backend | None = None,
    spec: PreprocessSpec | None = None,
    classes: int = 0,
) -> float | None:
    """Return about how many seconds the work takes; None where none of the images that are tried can be read.

    A few images, pairs, one probe and one batch are timed, each after a first call that loads what it needs.

    Args:
        work: The result of workload.
        records: All records.
        names: Their names for messages.
        find_lungs: As for hilum.audit.scan.scan.
        backend: The inference engine, where there is a model.
        spec: Its preprocessing.
        classes: Number of its classes.
    """
    chosen = np.unique(np.linspace(0, len(records) - 1, _IMAGES).astype(int)).tolist()
    own, own_names = [records[row] for row in chosen], [names[row] for row in chosen]
    try:
        scanned = scan(own, own_names, find_lungs=find_lungs)
        seconds = work.images / len(own) * _timed(lambda: scan(own, own_names, find_lungs=find_lungs))
    except DataError:
        return None
    seconds += _comparing(scanned, work.images)
    if work.contrasts:
        seconds += _probing(work)
    if work.passes and backend is not None and spec is not None:
        gray = np.random.default_rng(0).integers(0, 256, (2 * _IMAGES, spec.size, spec.size), np.uint8)

        def batch() -> None:
            list(run_changed(backend, len(gray), lambda row: change_image(gray[row], "blur", 2), spec, classes, 16))

        batch()
        seconds += work.passes / len(gray) * _timed(batch)
    return seconds


def _comparing(scanned: Scan, images: int) -> float:
    prints = scanned.prints
    pairs = images * (images - 1) if images <= COMPARE_ALL else _PAIRS_PER_IMAGE * images
    moves = 0 if images <= COMPARE_ALL else learning_moves(images)
    compared = _timed(lambda: [similarity(prints, 0, 0) for _ in range(_PAIRS)]) / _PAIRS
    return pairs * compared / 4 + moves * _timed(lambda: [signature(prints.miniatures[0]) for _ in range(20)]) / 20


def _probing(work: Workload) -> float:
    """One probe on made-up rows, taken to grow with the number of images."""
    rows = np.random.default_rng(0).normal(size=(_ROWS, _FEATURES)).astype(np.float32)
    labels = np.arange(_ROWS) % 2

    def probe() -> None:
        groups = [str(row) for row in range(_ROWS)]
        run_probes({"border": rows}, labels, ("a", "b"), groups, [None] * _ROWS, permutations=work.permutations)

    probe()
    return _timed(probe) * work.probes * sum(max(n, _ROWS) for n in work.contrasts) / _ROWS


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
