"""The audit: of the files, of what the data let a model cheat by, and of whether a model does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum._version import __version__
from hilum.audit.duplicates import Pair, find_duplicates, summarize
from hilum.audit.erasure import has_lungs
from hilum.audit.findings import model_findings, verdicts
from hilum.audit.leakage import leak_findings
from hilum.audit.model_shortcuts import audit_model
from hilum.audit.probes import run_probes
from hilum.audit.report import AuditFinding, AuditReport, DataFacts
from hilum.audit.robustness import robustness, robustness_findings
from hilum.audit.scan import Scan, lung_finder, scan
from hilum.backends.base import Backend
from hilum.backends.open import open_backend
from hilum.bundle.bundle import Bundle, load_bundle
from hilum.bundle.training_hashes import known_images
from hilum.data.cache import cache_folder, open_cache
from hilum.data.index import Index, build_index
from hilum.data.split import load_split
from hilum.errors import DataError, OutputError, extra_hint
from hilum.imaging.preprocess import to_uint8
from hilum.imaging.read import read_radiograph
from hilum.progress import Step
from hilum.storage import as_json, write_text
from hilum.types import Finding, Record, SplitName

REPORT_FILE = "audit.json"
PAGE_FILE = "audit.html"
MOST_RECORDS = 100
MOST_PAIRS = 12
_PAIR_SIDE = 256
_RANK = {"error": 0, "warning": 1, "info": 2}


@dataclass
class _Parts:
    """What the parts of an audit leave, as they are run."""

    findings: list[Finding] = field(default_factory=list)
    sections: dict[str, Any] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)


def audit(
    data: Path,
    out: Path,
    *,
    model: Path | None = None,
    classes: Sequence[str] | None = None,
    split_file: Path | None = None,
    limit: int = 500,
    permutations: int = 199,
    resamples: int = 1000,
    seed: int = 0,
    step: Step | None = None,
) -> AuditReport:
    """Audit a data set, and a model on it; ``audit.json`` and ``audit.html`` go into ``out``.

    Args:
        data, out: see build_index; a folder, made if absent.
        model: a bundle, measured on the test split, or on all images where the data have none. Where any image lacks a
            mask, the probes take all lungs from it.
        classes: keep only these labels.
        split_file: a split.json of ``hilum split``, where the data have no ``split`` column.
        limit: images for the robustness to changes, at most; 0 leaves that part out.
        permutations, resamples, seed: of the labels for the probes' chance bands; of the bootstrap; of both.
        step: is told of the long parts.

    Raises:
        DataError: there is nothing to audit, or the model knows other classes.
        BundleError: the model cannot be opened.
        OutputError: ``out`` cannot be written.
    """
    started = time.monotonic()
    step = step or Step()
    bundle = load_bundle(model) if model is not None else None
    backend = open_backend(bundle) if bundle is not None else None
    index = _index(data, classes, split_file)
    if bundle is not None:
        from hilum.evaluation.measure import (
            labels_of,  # here: it needs matplotlib, which is better missed now than last
        )

        labels_of(_measured(index.records)[1], bundle.manifest.class_names)
    _make_folder(out)
    step.found(index.findings)
    names = [index.key(record) for record in index.records]
    finder = None
    if bundle is not None and backend is not None and any(record.mask_path is None for record in index.records):
        finder = lung_finder(backend, bundle.manifest.preprocess, bundle.manifest.mask_threshold)
    scanned = scan(index.records, names, find_lungs=finder, progress=step.begin("Reading images"))
    records = scanned.records
    parts = _Parts(findings=[*index.findings, *scanned.findings])
    _duplicates(parts, records, [names[row] for row in scanned.rows], scanned, step)
    _probes(parts, records, index.class_names, scanned, permutations, seed, step)
    if bundle is not None and backend is not None:
        _model(parts, replace(index, records=records), bundle, backend, limit, resamples, seed, step)
    else:
        parts.not_run["model"] = "No bundle was given: name one with --bundle."
    report = AuditReport(
        hilum_version=__version__,
        data=_facts(data, index, scanned),
        findings=tuple(_ranked(parts.findings)),
        not_run=parts.not_run,
        seconds=round(time.monotonic() - started, 1),
        **parts.sections,
    )
    _write(report, out, parts.images)
    return report


def _make_folder(out: Path) -> None:
    """Before the work, not after it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"Expected a folder at {out}, or none, got: {error.strerror or error}.", hint="Choose another folder."
        ) from error


def _index(data: Path, classes: Sequence[str] | None, split_file: Path | None) -> Index:
    index = build_index(data, classes=classes, check=False)
    if split_file is None:
        return index
    assignment = load_split(split_file).assignment
    keys = [index.key(record) for record in index.records]
    if missing := [key for key in keys if key not in assignment]:
        raise DataError(
            f"Expected every image in {split_file}, got {len(missing)} that are not there (first: {missing[0]}).",
            hint="Give the split of the same data.",
        )
    return replace(
        index, records=tuple(replace(r, split=assignment[key]) for r, key in zip(index.records, keys, strict=True))
    )


def _duplicates(parts: _Parts, records: Sequence[Record], names: Sequence[str], scanned: Scan, step: Step) -> None:
    pairs = find_duplicates(scanned.prints, scanned.sha256, progress=step.begin("Comparing images"))
    splits = [record.split for record in records]
    parts.findings += leak_findings(records, names, pairs, splits)
    parts.sections["duplicates"] = {
        **as_json(summarize(pairs, records, splits)),
        "pairs": [_pair(pair, names) for pair in pairs[: 10 * MOST_RECORDS]],
    }
    for pair in _telling(pairs, records)[:MOST_PAIRS]:
        one, other = (records[place].image_path for place in (pair.first, pair.second))
        parts.images[f"{names[pair.first]}\n{names[pair.second]}"] = _side_by_side(one, other)


def _probes(
    parts: _Parts,
    records: Sequence[Record],
    class_names: tuple[str, ...],
    scanned: Scan,
    permutations: int,
    seed: int,
    step: Step,
) -> None:
    if len(class_names) < 2:
        parts.not_run["probes"] = f"Probes tell classes apart, the data have {len(class_names)}."
        return
    if find_spec("scipy") is None:
        parts.not_run["probes"] = f"They need SciPy. {extra_hint('train')}"
        return
    number = {name: place for place, name in enumerate(class_names)}
    results = run_probes(
        scanned.features,
        np.array([-1 if record.label is None else number[record.label] for record in records], np.int64),
        class_names,
        [record.group or f"\0{row}" for row, record in enumerate(records)],
        [record.source for record in records],
        permutations=permutations,
        seed=seed,
        progress=step.begin("Probing for shortcuts"),
    )
    parts.findings += verdicts(results)
    parts.sections["probes"] = as_json(results)


def _model(
    parts: _Parts, index: Index, bundle: Bundle, backend: Backend, limit: int, resamples: int, seed: int, step: Step
) -> None:
    manifest = bundle.manifest
    name, records = _measured(index.records)
    if not records:
        parts.not_run["model"] = "No image has a label, so that no answer can be right or wrong."
        return
    spec = manifest.preprocess
    cache = open_cache(records, spec, cache_folder(), progress=step.begin(f"Decoding {name}"))
    from hilum.evaluation.measure import score_records

    scored = score_records(
        backend, cache, records, [index.key(r) for r in records], manifest.class_names, spec, split=name,
        temperature=manifest.temperature, mask_threshold=manifest.mask_threshold, keep_lungs=True,
        distances=False, progress=step.begin(f"Measuring {name}"),
    )  # fmt: skip
    parts.findings += _seen(bundle, index, records, cache.images)
    labels, clusters = scored.scores.labels, scored.scores.clusters()
    settings: dict[str, Any] = {"temperature": manifest.temperature, "resamples": resamples, "seed": seed}
    if scored.lungs is None or not has_lungs(scored.lungs).any():
        parts.not_run["model"] = "The model finds no lung in any image, and there are no masks: nothing can be erased."
    else:
        shortcuts = audit_model(
            backend, cache.images, scored.lungs, labels, manifest.class_names, clusters, spec,
            progress=step.begin("Erasing lungs"), **settings,
        )  # fmt: skip
        parts.findings += model_findings(shortcuts)
        parts.sections["model"] = {**as_json(shortcuts), "name": manifest.name, "id": manifest.bundle_id, "split": name}
    if not limit:
        parts.not_run["robustness"] = "Left out by --limit 0."
        return
    points = robustness(
        backend, cache.images, labels, manifest.class_names, clusters, spec, limit=limit,
        mask_threshold=manifest.mask_threshold, progress=step.begin("Changing images"), **settings,
    )  # fmt: skip
    parts.findings += robustness_findings(points)
    parts.sections["robustness"] = as_json(points)


def _measured(records: Sequence[Record]) -> tuple[SplitName | Literal["all"], list[Record]]:
    """Return the labeled records that the model is measured on, and the name of their split."""
    test = any(record.split == "test" for record in records)
    return ("test" if test else "all"), [r for r in records if r.label is not None and (r.split == "test" or not test)]


def _seen(bundle: Bundle, index: Index, records: Sequence[Record], images: NDArray[np.uint8]) -> list[Finding]:
    """A warning where images to measure the model on are in its training data."""
    seen = known_images(bundle).find(images)
    if seen is None or not seen.any():
        return []
    names = tuple(index.key(record) for record, hit in zip(records, seen, strict=True) if hit)
    message = (
        f"{len(names):,} of {len(records):,} images that the model is measured on are in its training data: what "
        "follows is not of a test"
    )
    return [Finding("model_seen", "warning", message, names)]


def _facts(data: Path, index: Index, scanned: Scan) -> DataFacts:
    records = index.records
    sources = sorted({record.source for record in records if record.source is not None})
    return DataFacts(
        name=data.resolve().name,
        images=len(records),
        readable=len(scanned.rows),
        with_masks=sum(record.mask_path is not None for record in records),
        groups=len({record.group or f"\0{row}" for row, record in enumerate(records)}),
        classes=_count(record.label for record in records),
        sources={name: _count(r.label for r in records if r.source == name) for name in sources},
        splits=_count(record.split for record in records),
    )


def _count(names: Any) -> dict[str, int]:
    return {name or "(none)": count for name, count in sorted(Counter(names).items(), key=lambda item: item[0] or "")}


def _ranked(findings: Sequence[Finding]) -> list[AuditFinding]:
    """Worst first; among equals the probes last, since there is one for every pair of classes."""

    def weight(finding: Finding) -> tuple[int, bool]:
        return _RANK[finding.severity], finding.check.startswith(("shortcut_", "probe_"))

    return [
        AuditFinding(
            check=finding.check,
            severity=finding.severity,
            message=finding.message,
            records=finding.records[:MOST_RECORDS],
            count=len(finding.records),
        )
        for finding in sorted(findings, key=weight)
    ]


def _pair(pair: Pair, names: Sequence[str]) -> dict[str, Any]:
    return {**as_json(pair), "first": names[pair.first], "second": names[pair.second]}


def _telling(pairs: Sequence[Pair], records: Sequence[Record]) -> list[Pair]:
    """Pairs worth looking at first: across splits, then across classes, then the near ones, the least alike first."""

    def weight(pair: Pair) -> tuple[bool, bool, bool, float]:
        one, other = records[pair.first], records[pair.second]
        return (one.split == other.split, one.label == other.label, pair.exact, pair.similarity)

    return sorted(pairs, key=weight)


def _side_by_side(*paths: Path) -> bytes:
    """Two images in one PNG, each fitted into a square."""
    squares: list[NDArray[np.uint8]] = []
    for path in paths:
        gray = to_uint8(read_radiograph(path))
        scale = _PAIR_SIDE / max(gray.shape)
        height, width = (max(1, round(scale * side)) for side in gray.shape)
        small = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)
        square = np.zeros((_PAIR_SIDE, _PAIR_SIDE), np.uint8)
        square[: small.shape[0], : small.shape[1]] = small
        squares.append(square)
    return cv2.imencode(".png", np.hstack(squares))[1].tobytes()


def _write(report: AuditReport, out: Path, images: Mapping[str, bytes]) -> None:
    from hilum.audit.page import write_page

    write_page(report, out / PAGE_FILE, images=images)
    write_text(out / REPORT_FILE, report.model_dump_json(indent=2) + "\n")
