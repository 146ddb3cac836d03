"""Run an audit: duplicates, leaks, probes for shortcuts, and a model's use of them. The page is in ``page``."""

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
from hilum.audit.conclusion import conclude
from hilum.audit.differences import Difference, difference_of
from hilum.audit.duplicates import Pair, find_duplicates, summarize
from hilum.audit.erasure import has_lungs
from hilum.audit.estimate import estimate_seconds, workload
from hilum.audit.features import commonest_file_facts
from hilum.audit.findings import model_findings, severity_of, verdicts
from hilum.audit.leakage import leak_findings
from hilum.audit.model_shortcuts import ModelShortcuts, audit_model
from hilum.audit.probes import ProbeResult, run_probes
from hilum.audit.report import AuditFinding, AuditReport, DataFacts
from hilum.audit.robustness import robustness, robustness_findings
from hilum.audit.scan import LungFinder, Scan, lung_finder, scan
from hilum.audit.treatments import trained_treatments
from hilum.backends.base import Backend
from hilum.backends.open import open_backend
from hilum.bundle.bundle import Bundle, load_bundle
from hilum.bundle.training_hashes import known_images
from hilum.config import PreprocessSpec
from hilum.data.cache import Cache, open_cache
from hilum.data.index import Index, build_index
from hilum.data.split import load_split
from hilum.errors import DataError, OutputError, extra_hint
from hilum.imaging.preprocess import to_input, to_uint8
from hilum.imaging.read import read_radiograph
from hilum.metrics.scores import clusters_of, labels_of
from hilum.progress import Progress, Step
from hilum.storage import as_json, cache_folder, write_text
from hilum.types import Finding, Record, SplitName

REPORT_FILE = "audit.json"
PAGE_FILE = "audit.html"
MOST_RECORDS = 100
MOST_PAIRS = 12
MOST_DIFFERENCES = 6
_PAIR_SIDE = 256
_BATCH = 32
_RANK = {"error": 0, "warning": 1, "info": 2}


@dataclass
class _Parts:
    """The results of the parts of an audit, as they are run."""

    findings: list[Finding] = field(default_factory=list)
    sections: dict[str, Any] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)
    probes: tuple[ProbeResult, ...] = ()
    shortcuts: ModelShortcuts | None = None


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
    """Audit a dataset, and a model on it; write ``audit.html`` and ``audit.json``.

    Args:
        data: A folder of class folders, or a CSV; see hilum.data.index.build_index.
        out: Folder for the two files, made if absent.
        model: A bundle. It is measured on the test split, or on all images where the data have none. Where any image
            lacks a mask, the probes use the lungs that it segments in all images.
        classes: Keep only these labels.
        split_file: A split.json of ``hilum split``, for data without a ``split`` column.
        limit: Images for the robustness to changes, at most; 0 leaves that part out.
        permutations: Permutations of the labels, for the chance bands of the probes.
        resamples: Bootstrap resamples of the model's figures.
        seed: Seed of both.
        step: Progress callbacks.

    Raises:
        DataError: The data cannot be used, or have a class that the model does not know.
        BundleError: The model cannot be opened.
        OutputError: ``out`` cannot be written.
    """
    started = time.monotonic()
    step = step or Step()
    bundle = load_bundle(model) if model is not None else None
    backend = open_backend(bundle, "onnxruntime", precision="fp32") if bundle is not None else None
    index = _index(data, classes, split_file)
    if bundle is not None:
        labels_of(_measured(index.records)[1], bundle.manifest.class_names)  # raises now, not after minutes of reading
    _make_folder(out)
    step.found(index.findings)
    names = [index.key(record) for record in index.records]
    finder = None
    if bundle is not None and backend is not None and any(record.mask_path is None for record in index.records):
        finder = lung_finder(backend, bundle.manifest.preprocess, bundle.manifest.mask_threshold)
    _estimate(index.records, names, finder, bundle, backend, limit, permutations, step)
    scanned = scan(index.records, names, find_lungs=finder, progress=step.begin("Reading images"))
    records = scanned.records
    parts = _Parts(findings=[*index.findings, *scanned.findings])
    _duplicates(parts, records, [names[row] for row in scanned.rows], scanned, step)
    _probes(parts, records, index.class_names, scanned, permutations, seed, step)
    if bundle is not None and backend is not None:
        _model(parts, replace(index, records=records), bundle, backend, limit, resamples, seed, step)
    else:
        parts.not_run["model"] = "No model was given; name one with --bundle."
    step.begin("Writing the report")
    findings = tuple(_ranked(parts.findings))
    report = AuditReport(
        hilum_version=__version__,
        conclusion=conclude(parts.probes, parts.shortcuts, findings, parts.not_run, has_model=bundle is not None),
        data=_facts(data, index, scanned),
        files=_files(scanned),
        findings=findings,
        not_run=parts.not_run,
        seconds=round(time.monotonic() - started, 1),
        **parts.sections,
    )
    _write(report, out, parts.images, _differences(parts.probes, scanned))
    return report


def _estimate(
    records: Sequence[Record],
    names: Sequence[str],
    finder: LungFinder | None,
    bundle: Bundle | None,
    backend: Backend | None,
    limit: int,
    permutations: int,
    step: Step,
) -> None:
    """Tell how long the audit will take, where anybody listens."""
    if step.expected is None:
        return
    step.begin("Estimating the time")
    measured = len(_measured(records)[1]) if bundle is not None else 0
    work = workload(records, measured=measured, limit=limit, permutations=permutations, probes_run=_has_scipy())
    spec = bundle.manifest.preprocess if bundle is not None else None
    classes = len(bundle.manifest.class_names) if bundle is not None else 0
    seconds = estimate_seconds(work, records, names, find_lungs=finder, backend=backend, spec=spec, classes=classes)
    if seconds is not None:
        step.expected(seconds, str(work))


def _make_folder(out: Path) -> None:
    """Make the output folder before the work, so that a path that cannot be used fails at once."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"'{out}' cannot be used as the output folder: {error.strerror or error}.",
            hint="Choose another --output.",
        ) from error


def _index(data: Path, classes: Sequence[str] | None, split_file: Path | None) -> Index:
    index = build_index(data, classes=classes, check=False)
    if split_file is None:
        return index
    assignment = load_split(split_file).assignment
    keys = [index.key(record) for record in index.records]
    if missing := [key for key in keys if key not in assignment]:
        raise DataError(
            f"{len(missing):,} images are not in '{split_file}' (first: {missing[0]}).",
            hint="Use the split file of the same data.",
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


def _has_scipy() -> bool:
    return find_spec("scipy") is not None


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
        parts.not_run["probes"] = f"Probes compare classes; the data have {len(class_names)}."
        return
    if not _has_scipy():
        parts.not_run["probes"] = f"Probes need SciPy. {extra_hint('train')}"
        return
    number = {name: place for place, name in enumerate(class_names)}
    parts.probes = run_probes(
        scanned.features,
        np.array([-1 if record.label is None else number[record.label] for record in records], np.int64),
        class_names,
        [record.group or f"\0{row}" for row, record in enumerate(records)],
        [record.source for record in records],
        permutations=permutations,
        seed=seed,
        progress=step.begin("Probing for shortcuts"),
    )
    parts.findings += verdicts(parts.probes)
    parts.sections["probes"] = [{**as_json(result), "severity": severity_of(result)} for result in parts.probes]


def _model(
    parts: _Parts, index: Index, bundle: Bundle, backend: Backend, limit: int, resamples: int, seed: int, step: Step
) -> None:
    manifest = bundle.manifest
    name, records = _measured(index.records)
    if not records:
        parts.not_run["model"] = "No image has a label, so no prediction can be right or wrong."
        return
    spec, class_names = manifest.preprocess, manifest.class_names
    labels, clusters = labels_of(records, class_names), clusters_of(record.group for record in records)
    cache = open_cache(records, spec, cache_folder(), progress=step.begin(f"Decoding {name} images"))
    parts.findings += _seen(bundle, index, records, cache.images, step.begin("Looking for training images"))
    lungs = _lungs(backend, cache, spec, manifest.mask_threshold, step.begin("Segmenting lungs"))
    settings: dict[str, Any] = {"temperature": manifest.applied_temperature, "resamples": resamples, "seed": seed}
    if not has_lungs(lungs).any():
        parts.not_run["model"] = "No image has a mask, and the model finds no lungs: there is nothing to erase."
    else:
        shortcuts = audit_model(
            backend, cache.images, lungs, labels, class_names, clusters, spec,
            trained_on=trained_treatments(manifest.training), progress=step.begin("Testing the model without lungs"),
            **settings,
        )  # fmt: skip
        parts.shortcuts = shortcuts
        parts.findings += model_findings(shortcuts)
        parts.sections["model"] = {**as_json(shortcuts), "name": manifest.name, "id": manifest.bundle_id, "split": name}
    if not limit:
        parts.not_run["robustness"] = "Left out by --limit 0."
        return
    points = robustness(
        backend, cache.images, labels, class_names, clusters, spec, limit=limit,
        mask_threshold=manifest.mask_threshold, progress=step.begin("Testing the model on changed images"), **settings,
    )  # fmt: skip
    parts.findings += robustness_findings(points)
    parts.sections["robustness"] = as_json(points)


def _measured(records: Sequence[Record]) -> tuple[SplitName | Literal["all"], list[Record]]:
    """Return the labeled records that the model is measured on, and the name of their split."""
    test = any(record.split == "test" for record in records)
    return ("test" if test else "all"), [r for r in records if r.label is not None and (r.split == "test" or not test)]


def _lungs(
    backend: Backend, cache: Cache, spec: PreprocessSpec, threshold: float, progress: Progress | None
) -> NDArray[np.bool_]:
    """The reference mask of each image, or the predicted one where there is none: (N, S, S) bool."""
    lungs = np.zeros(cache.images.shape, np.bool_)
    known = cache.mask_row >= 0
    lungs[known] = cache.masks[cache.mask_row[known]] > 0
    rest = np.flatnonzero(~known)
    for start in range(0, rest.size, _BATCH):
        rows = rest[start : start + _BATCH]
        lungs[rows] = backend.run(to_input(cache.images[rows], spec)).segmentation[:, 0] > threshold
        if progress:
            progress(start + rows.size, rest.size)
    return lungs


def _seen(
    bundle: Bundle, index: Index, records: Sequence[Record], images: NDArray[np.uint8], progress: Progress | None
) -> list[Finding]:
    """A warning where images that the model is measured on are in its training data."""
    seen = known_images(bundle).find(images, progress)
    if seen is None or not seen.any():
        return []
    names = tuple(index.key(record) for record, hit in zip(records, seen, strict=True) if hit)
    message = (
        f"{len(names):,} of the {len(records):,} images that the model is measured on are in its training data, so "
        "its figures are better than on new images."
    )
    return [Finding("model_seen", "warning", message, names)]


def _differences(probes: Sequence[ProbeResult], scanned: Scan) -> list[Difference]:
    """The mean images of the flagged pairs of classes, the most distinct first; of the rest only where no pair is."""
    flagged = [result for result in probes if severity_of(result) != "info"]
    flagged = [result for result in flagged if result.pairwise] or flagged
    flagged.sort(key=lambda result: -result.auc.value)
    pairs = list(dict.fromkeys((result.positive, result.negative) for result in flagged))
    return [difference_of(scanned.means, *pair) for pair in pairs[:MOST_DIFFERENCES]]


def _facts(data: Path, index: Index, scanned: Scan) -> DataFacts:
    records = index.records
    sources = sorted({record.source for record in records if record.source is not None})
    return DataFacts(
        name=data.resolve().name,
        images=len(records),
        readable=len(scanned.rows),
        with_masks=sum(record.mask_path is not None for record in records),
        groups=np.unique(clusters_of(record.group for record in records)).size,
        classes=_count(record.label for record in records),
        sources={name: _count(r.label for r in records if r.source == name) for name in sources},
        splits=_count(record.split for record in records),
    )


def _files(scanned: Scan) -> dict[str, dict[str, dict[str, Any]]]:
    """The commonest file facts of each class."""
    labels = np.array([record.label or "" for record in scanned.records])
    table = scanned.features["file"]
    return {str(label): commonest_file_facts(table[labels == label]) for label in np.unique(labels) if label}


def _count(names: Any) -> dict[str, int]:
    return {name or "(none)": count for name, count in sorted(Counter(names).items(), key=lambda item: item[0] or "")}


def _ranked(findings: Sequence[Finding]) -> list[AuditFinding]:
    """The findings, worst first; among equals the probes last, since there is one per pair of classes."""

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
    """The pairs in the order to look at them: across splits, across classes, near ones, the least alike first."""

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


def _write(report: AuditReport, out: Path, images: Mapping[str, bytes], differences: Sequence[Difference]) -> None:
    from hilum.audit.page import write_page

    write_page(report, out / PAGE_FILE, images=images, differences=differences)
    write_text(out / REPORT_FILE, report.model_dump_json(indent=2) + "\n")
