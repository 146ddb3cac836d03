"""What is saved of an answer beside its row in the table: pictures, evidence, DICOM objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hilum.bundle.bundle import Manifest
from hilum.data.find import DICOM_FOLDER, DICOM_SUFFIXES
from hilum.errors import ConfigError, DataError
from hilum.inference.evidence_file import save_evidence, step_of
from hilum.inference.predictor import Answer, Predictor
from hilum.inference.render import class_evidence, mask_png, overlay, save_png
from hilum.storage import write_bytes
from hilum.types import Prediction


@dataclass(frozen=True)
class Wanted:
    """What to save.

    Attributes:
        overlays, masks: PNGs under ``overlays/`` and ``masks/``; a mask is 0/255 at the file's own size.
        evidence: of the predicted class, at the file's own size, under ``evidence/`` (hilum.inference.evidence_file).
        dicom_seg, dicom_sr: under ``dicom/`` a Segmentation of each DICOM file that was predicted on, and a report of
            each that was predicted on or refused (hilum.inference.dicom_out).
    """

    overlays: bool = False
    masks: bool = False
    evidence: bool = False
    dicom_seg: bool = False
    dicom_sr: bool = False

    def check(self, manifest: Manifest) -> None:
        """That the bundle can give it.

        Raises:
            ConfigError: evidence is asked of a network that gives none.
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
        remark: why there is no DICOM object where one was asked for; empty otherwise.
    """

    evidence: NDArray[np.float32] | None = None
    objects: Mapping[str, bytes] = field(default_factory=dict)
    remark: str = ""

    @property
    def evidence_step(self) -> float | str:
        """Logits per gray level in the evidence's file; empty where there is none."""
        return "" if self.evidence is None else step_of(self.evidence)


def make_extras(file: Path, answer: Answer, predictor: Predictor, wanted: Wanted) -> Extras:
    """What ``wanted`` asks of one file's answer; a film that no DICOM object can be made of gets a remark."""
    if answer.radiograph is None:
        return Extras()
    evidence = None
    if isinstance(answer.result, Prediction) and (wanted.overlays or wanted.evidence):
        evidence = class_evidence(answer.result, answer.radiograph.shape, predictor.manifest.preprocess)
    try:
        return Extras(evidence, _objects(file, answer, predictor, wanted))
    except DataError as error:
        return Extras(evidence, remark=f"no DICOM object: {error}")


def write_extras(extras: Extras, answer: Answer, out: Path, name: Path, wanted: Wanted) -> None:
    """Write them under ``out``.

    Args:
        extras: from make_extras.
        answer: what they are of.
        out: the folder.
        name: the relative path of the file's pictures, which ends in ``.png``.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    for kind, content in extras.objects.items():
        write_bytes(out / DICOM_FOLDER / name.with_suffix(DICOM_SUFFIXES[kind]), content)
    prediction, radiograph = answer.result, answer.radiograph
    if not isinstance(prediction, Prediction) or radiograph is None:
        return
    if wanted.masks:
        save_png(mask_png(prediction.mask), out / "masks" / name)
    if wanted.evidence and extras.evidence is not None:
        save_evidence(out / "evidence" / name, extras.evidence, prediction)
    if wanted.overlays:
        save_png(overlay(radiograph, prediction, evidence=extras.evidence), out / "overlays" / name)


def _objects(file: Path, answer: Answer, predictor: Predictor, wanted: Wanted) -> dict[str, bytes]:
    if not (wanted.dicom_seg or wanted.dicom_sr):
        return {}
    from hilum.inference.dicom_out import encoded, report, segmentation, source_header  # highdicom: most of a second

    header = source_header(file)
    made = {}
    if wanted.dicom_seg and isinstance(answer.result, Prediction):
        made["seg"] = encoded(segmentation(header, answer.result, predictor.manifest, predictor.settings))
    if wanted.dicom_sr:
        made["sr"] = encoded(report(header, answer.result, predictor.manifest, predictor.settings))
    return made
