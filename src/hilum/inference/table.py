"""Columns and rows of the prediction table, and the names of the images saved beside it. Writes no file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hilum.bundle.bundle import Manifest
from hilum.data.find import DICOM_FOLDER, DICOM_SUFFIXES
from hilum.filesystems import RemoteFile, is_uri
from hilum.imaging.read import IMAGE_SUFFIXES
from hilum.inference.result import Prediction, Result
from hilum.inference.saving import KIND_NAMES, REMARKS, Wanted
from hilum.inference.zones import OUTSIDE, ZONES
from hilum.storage import sha256_bytes

_LONGEST_STEM = 240
"""Maximum length of a file name in bytes, which leaves room for ``.seg.dcm``."""


def table_header(manifest: Manifest, *, with_step: bool = False) -> list[str]:
    """Return the columns of ``predictions.csv``.

    Args:
        manifest: Manifest of the bundle that predicts.
        with_step: Add the column ``evidence_step``.
    """
    probabilities = [f"prob_{name}" for name in manifest.class_names]
    steps = ["evidence_step"] if with_step else []
    tail = ["lung_fraction", *(f"evidence_{zone}" for zone in _zones(manifest)), *steps, "reason"]
    return ["file", "status", "predicted_label", "prediction_set", "abstained", *probabilities, *tail]


def table_row(
    file: str | Path, result: Result, manifest: Manifest, steps: Sequence[object] = (), remark: str = ""
) -> list[object]:
    """Return one image's row of ``predictions.csv``.

    Args:
        file: Value of the first column.
        result: The result of the image.
        manifest: Manifest of the bundle that predicts.
        steps: Its ``evidence_step``, if the table has this column.
        remark: Text to append to the messages of the findings.
    """
    shares = result.evidence_zones or {}
    zones = [f"{shares[zone]:.4f}" if zone in shares else "" for zone in _zones(manifest)]
    tail = [*zones, *steps, "; ".join(filter(None, [result.reason, remark]))]
    if not isinstance(result, Prediction):
        return [file, result.status, "", "", "", *[""] * len(result.class_names), "", *tail]
    probabilities = [f"{value:.6f}" for value in result.probabilities.values()]
    answer = [result.label, ";".join(result.prediction_set), int(result.abstained)]
    return [file, result.status, *answer, *probabilities, f"{result.lung_fraction:.4f}", *tail]


def _zones(manifest: Manifest) -> tuple[str, ...]:
    return (*ZONES, OUTSIDE) if "evidence" in manifest.outputs else ()


@dataclass
class Tally:
    """Counts over the rows of a table.

    Attributes:
        statuses: Number of images by ``Result.status``.
        labels: Number of predictions by predicted label.
        uncertain: Number of predictions that abstained.
        objects: Number of DICOM objects by kind (hilum.inference.saving.KIND_NAMES), and under ``none`` the number of
            images that lack a requested one.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    uncertain: int = 0
    objects: Counter[str] = field(default_factory=Counter)

    def add(self, status: str, label: str | None, abstained: bool, objects: Sequence[str]) -> None:
        """Count an image."""
        self.statuses[status] += 1
        if label:
            self.labels[label] += 1
        self.uncertain += abstained
        self.objects.update(objects)


def objects_on_disk(out: Path, name: str | None, reason: str, save: Wanted) -> list[str]:
    """Return the DICOM objects of an image that was predicted earlier, as Tally counts them."""
    if not save.kinds or name is None:
        return []
    stem = f"{out}/{DICOM_FOLDER}/{name.removesuffix('.png')}"
    made: list[str] = [kind for kind in KIND_NAMES if os.path.exists(stem + DICOM_SUFFIXES[kind])]  # noqa: PTH110
    return [*made, *(["none"] if any(remark in reason for remark in REMARKS) else [])]


def image_names(files: Sequence[Path | RemoteFile]) -> dict[Path | RemoteFile, str]:
    """Return the relative path of the output images of each file: its path below the common folder, as ``.png``.

    The original suffix is kept (``image.dcm.png``) if two files would otherwise have the same name. The end of a name
    that is too long is replaced by a digest.
    """
    if not files:
        return {}
    absolute = [_absolute(str(file)) for file in files]
    common = os.path.commonpath({os.path.dirname(path) for path in absolute})  # noqa: PTH120
    relative = [path[len(common) :].lstrip(os.sep) for path in absolute]
    whole = [_with_png(path) for path in relative]
    plain = []
    for path, kept in zip(relative, whole, strict=True):
        stem, suffix = os.path.splitext(path)  # noqa: PTH122
        plain.append(_with_png(stem) if suffix.lower() in IMAGE_SUFFIXES else kept)
    taken = Counter(plain)
    names = [name if taken[name] == 1 else kept for name, kept in zip(plain, whole, strict=True)]
    return dict(zip(files, names if len({*names}) == len(names) else whole, strict=True))


def _absolute(name: str) -> str:
    """Return an absolute path, or an address without its scheme."""
    if is_uri(name):
        return f"/{name.partition('://')[2]}"
    return os.path.abspath(name)  # noqa: PTH100  # Path takes ten times as long


def _with_png(path: str) -> str:
    folder, _, stem = path.rpartition(os.sep)
    if len(stem) * 4 > _LONGEST_STEM and len(encoded := os.fsencode(stem)) > _LONGEST_STEM:
        stem = f"{encoded[: _LONGEST_STEM - 17].decode('utf-8', 'ignore')}-{sha256_bytes(encoded)[:16]}"
    return f"{folder}{os.sep}{stem}.png" if folder else f"{stem}.png"
