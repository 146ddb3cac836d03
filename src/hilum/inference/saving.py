"""What is saved of an answer beside its row in the table: images, evidence, DICOM objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hilum.bundle.bundle import Manifest
from hilum.data.find import DICOM_FOLDER, DICOM_SUFFIXES, IMAGE_FOLDERS
from hilum.errors import ConfigError, DataError
from hilum.inference.evidence_file import save_evidence, step_of
from hilum.inference.predictor import Predictor
from hilum.inference.render import mask_png, overlay, save_png
from hilum.inference.result import Prediction, Result
from hilum.storage import write_bytes


@dataclass(frozen=True)
class Wanted:
    """What to save.

    Attributes:
        overlays, masks: PNGs under ``overlays/`` and ``masks/``; a mask is 0/255 at the file's own size.
        evidence: Of the predicted class, at the file's own size, under ``evidence/`` (hilum.inference.evidence_file).
        dicom_seg, dicom_sr: Under ``dicom/`` a Segmentation of each DICOM file that was predicted on, and a report of
            each that was predicted on or refused (hilum.inference.dicom_out).
    """

    overlays: bool = False
    masks: bool = False
    evidence: bool = False
    dicom_seg: bool = False
    dicom_sr: bool = False

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that it makes beside the table."""
        images = tuple(name for name in IMAGE_FOLDERS if getattr(self, name))
        return (*images, DICOM_FOLDER) if self.dicom_seg or self.dicom_sr else images

    def check(self, manifest: Manifest) -> None:
        """That the bundle can give it.

        Raises:
            ConfigError: Evidence is asked of a network that gives none.
        """
        if self.evidence and "evidence" not in manifest.outputs:
            raise ConfigError(
                f"Expected a model with evidence for --save-evidence, got {manifest.name} ({manifest.model.name}), "
                "whose network gives none.",
                hint="Leave --save-evidence out, or use a bundle of the network evidence or encoder-unet.",
            )


@dataclass(frozen=True)
class Extras:
    """What was made of one answer, not yet written.

    Attributes:
        evidence: (H0, W0) float32, or None.
        objects: DICOM files by their kind, ``seg`` or ``sr``.
        remark: Why there is no DICOM object where one was asked for; empty otherwise.
    """

    evidence: NDArray[np.float32] | None = None
    objects: Mapping[str, bytes] = field(default_factory=dict)
    remark: str = ""

    @property
    def evidence_step(self) -> float | str:
        """Logits per gray level in the evidence's file; empty where there is none."""
        return "" if self.evidence is None else step_of(self.evidence)


def make_extras(file: Path, result: Result, predictor: Predictor, wanted: Wanted) -> Extras:
    """What ``wanted`` asks of one file's answer; an image that no DICOM object can be made of gets a remark."""
    if result.radiograph is None:
        return Extras()
    evidence = result.evidence_map() if wanted.overlays or wanted.evidence else None
    try:
        return Extras(evidence, _objects(file, result, predictor, wanted))
    except DataError as error:
        return Extras(evidence, remark=f"no DICOM object: {error}")


def write_extras(extras: Extras, result: Result, out: Path, name: Path, wanted: Wanted) -> None:
    """Write them under ``out``.

    Args:
        extras: From make_extras.
        result: What they are of.
        out: The folder.
        name: The relative path of the file's images, which ends in ``.png``.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    for kind, content in extras.objects.items():
        write_bytes(out / DICOM_FOLDER / name.with_suffix(DICOM_SUFFIXES[kind]), content)
    if not isinstance(result, Prediction):
        return
    if wanted.masks:
        save_png(mask_png(result.mask), out / "masks" / name)
    if wanted.evidence and extras.evidence is not None:
        save_evidence(out / "evidence" / name, extras.evidence, result)
    if wanted.overlays:
        save_png(overlay(result.radiograph, result, evidence=extras.evidence), out / "overlays" / name)


def _objects(file: Path, result: Result, predictor: Predictor, wanted: Wanted) -> dict[str, bytes]:
    if not (wanted.dicom_seg or wanted.dicom_sr):
        return {}
    from hilum.inference.dicom_out import encoded, report, segmentation, source_header  # highdicom: most of a second

    header = source_header(file)
    made = {}
    if wanted.dicom_seg and isinstance(result, Prediction):
        made["seg"] = encoded(segmentation(header, result, predictor.manifest, predictor.settings))
    if wanted.dicom_sr:
        made["sr"] = encoded(report(header, result, predictor.manifest, predictor.settings))
    return made
