"""Create and write the images, evidence maps and DICOM objects of a result, in addition to its table row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.bundle.bundle import Manifest
from hilum.data.find import DICOM_FOLDER, DICOM_SUFFIXES, IMAGE_FOLDERS
from hilum.errors import ConfigError, DataError
from hilum.filesystems import RemoteFile
from hilum.inference.evidence_file import encode_evidence, step_of
from hilum.inference.png import png_bytes
from hilum.inference.predictor import Predictor
from hilum.inference.render import LONGEST_SIDE, draw_overlay
from hilum.inference.result import Prediction, Result

if TYPE_CHECKING:
    from hilum.inference.dicom_names import Kind


KIND_NAMES: Mapping[Kind, str] = {
    "seg": "segmentations", "sr": "reports", "sc": "secondary captures", "pr": "presentation states",
}  # fmt: skip
"""What the kinds of DICOM objects are called in messages."""

OverlayFormat: TypeAlias = Literal["png", "jpg", "webp"]

_NO_OBJECT, _NO_STATE = "no DICOM object: ", "no presentation state: "
REMARKS = (_NO_OBJECT, _NO_STATE)
"""Beginnings of ``Extras.remark``, which the table appends to the reason."""

_QUALITY = 90
"""Of JPEG and WebP overlays, from 1 to 100."""


@dataclass(frozen=True)
class Wanted:
    """Selection of the files to save for each image.

    Attributes:
        overlays: Overlays in ``overlays/``.
        masks: Lung masks as 1-bit PNG, white for lung, at the image's own size, in ``masks/``.
        evidence: Evidence for the predicted class, at the image's own size, in ``evidence/``
            (hilum.inference.evidence_file).
        dicom_seg: A DICOM Segmentation of each DICOM file with a prediction, in ``dicom/`` (hilum.inference.dicom_out).
        dicom_sr: A structured report of each DICOM file with a prediction or refused, in ``dicom/``, with the
            segmentation that it refers to.
        dicom_sc: A Secondary Capture of the overlay of each DICOM file with a prediction, in ``dicom/``.
        dicom_pr: A presentation state of each gray DICOM file with a prediction, in ``dicom/``.
        overlay_format: Format of the overlays; ``jpg`` and ``webp`` are lossy.
        overlay_size: Largest side of the image in overlays, without the legend, pixels.
    """

    overlays: bool = False
    masks: bool = False
    evidence: bool = False
    dicom_seg: bool = False
    dicom_sr: bool = False
    dicom_sc: bool = False
    dicom_pr: bool = False
    overlay_format: OverlayFormat = "png"
    overlay_size: int = LONGEST_SIDE

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of DICOM objects to create."""
        wanted = {"seg": self.dicom_seg, "sr": self.dicom_sr, "sc": self.dicom_sc, "pr": self.dicom_pr}
        return tuple(kind for kind in KIND_NAMES if wanted[kind])

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the output folders next to the table."""
        images = tuple(name for name in IMAGE_FOLDERS if getattr(self, name))
        return (*images, DICOM_FOLDER) if self.kinds else images

    def check(self, manifest: Manifest) -> None:
        """Check that the bundle can provide the selected files.

        Raises:
            ConfigError: Evidence is selected, and the network has none.
        """
        if self.evidence and "evidence" not in manifest.outputs:
            raise ConfigError(
                f"{manifest.name} (network {manifest.model.name}) has no evidence to save.",
                hint="Omit --save-evidence, or use a bundle of the network evidence or encoder-unet.",
            )


@dataclass(frozen=True)
class Extras:
    """Evidence and DICOM objects of one result, not yet written.

    Attributes:
        evidence: (H0, W0) float32, or None.
        objects: Contents of DICOM files by kind.
        remark: Reason why a requested DICOM object could not be created; empty otherwise.
    """

    evidence: NDArray[np.float32] | None = None
    objects: Mapping[str, bytes] = field(default_factory=dict)
    remark: str = ""

    @property
    def evidence_step(self) -> float | str:
        """Logits per gray level of the evidence PNG; an empty string without evidence."""
        return "" if self.evidence is None else step_of(self.evidence)


def make_extras(file: Path | RemoteFile, result: Result, predictor: Predictor, wanted: Wanted) -> Extras:
    """Create the evidence and DICOM objects that ``wanted`` selects for one result."""
    if result.radiograph is None:
        return Extras()
    evidence = result.evidence_map() if wanted.evidence else None
    try:
        objects = _objects(file, result, predictor, wanted)
        no_state = wanted.dicom_pr and result.ok and "pr" not in objects
        return Extras(evidence, objects, f"{_NO_STATE}the image has color" if no_state else "")
    except DataError as error:
        return Extras(evidence, remark=f"{_NO_OBJECT}{error}")


def files_of(extras: Extras, result: Result, name: str, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """Yield the selected files of one result: the path relative to the output folder, and the content.

    Args:
        extras: Evidence and DICOM objects, from make_extras.
        result: The result.
        name: Relative path of the output images, which ends in ``.png``.
        wanted: The files to create.
    """
    stem = name.removesuffix(".png")
    for kind, content in extras.objects.items():
        yield f"{DICOM_FOLDER}/{stem}{DICOM_SUFFIXES[kind]}", content
    if not isinstance(result, Prediction):
        return
    if wanted.masks:
        yield f"masks/{name}", png_bytes(result.mask)
    if wanted.evidence and extras.evidence is not None:
        yield f"evidence/{name}", encode_evidence(extras.evidence, result)
    if wanted.overlays:
        drawn = draw_overlay(result, longest_side=wanted.overlay_size)
        yield f"overlays/{stem}.{wanted.overlay_format}", _encoded(drawn, wanted.overlay_format)


def _encoded(image: NDArray[np.uint8], kind: OverlayFormat) -> bytes:
    """Return an image (H, W, 3) RGB as the content of a file."""
    if kind == "png":
        return png_bytes(image)
    quality = cv2.IMWRITE_JPEG_QUALITY if kind == "jpg" else cv2.IMWRITE_WEBP_QUALITY
    return cv2.imencode(f".{kind}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [quality, _QUALITY])[1].tobytes()


def _objects(file: Path | RemoteFile, result: Result, predictor: Predictor, wanted: Wanted) -> dict[str, bytes]:
    if not wanted.kinds:
        return {}
    from hilum.inference.dicom_out import encoded, objects_of, source_header  # highdicom takes almost a second

    header = source_header(file.read() if isinstance(file, RemoteFile) else file)
    made = objects_of(header, result, predictor.manifest, predictor.settings, kinds=wanted.kinds)
    return {kind: encoded(dataset) for kind, dataset in made.items()}
