"""Data types shared by several packages: records, radiographs, batches and outputs.

Types of a single package live in that package. This module imports neither NumPy nor torch at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:  # this module is imported by `hilum --help`, which must answer at once
    import numpy as np
    import torch
    from numpy.typing import NDArray

SplitName: TypeAlias = Literal["train", "val", "test"]
CalibratedPer: TypeAlias = Literal["all", "predicted-class"]
"""What has a temperature and an abstention threshold of its own: all images together, or each predicted class."""
Severity: TypeAlias = Literal["info", "warning", "error"]
Gray: TypeAlias = "NDArray[np.uint8] | NDArray[np.uint16]"

Box: TypeAlias = tuple[float, float, float, float]

SPLIT_NAMES: tuple[SplitName, ...] = ("train", "val", "test")
UNKNOWN_LABEL = -1
"""Class index of an unknown label."""
NO_LABEL = "(no label)"
"""Name under which tables count records without a label."""


@dataclass(frozen=True)
class Finding:
    """One result of a check on a file or a dataset.

    Attributes:
        check: Name of the check in snake case, such as ``mask_size`` or ``brightness``.
        severity: ``error`` (the file or dataset is not used), ``warning`` (it is used) or ``info``.
        message: The measured value and the bound that it was compared with.
        records: The files concerned, as named by the user; empty if the finding concerns all files.
    """

    check: str
    severity: Severity
    message: str
    records: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """One image of a dataset with its annotations. ``None`` means unknown.

    Attributes:
        image_path: Path of the image.
        mask_path: Path of the lung mask. A record without one does not contribute to the segmentation loss.
        label: Class name.
        group: Name shared by images that must stay in the same split: one patient, or near-duplicates.
        source: Name of the institution or dataset that the image comes from.
        split: The split given by the dataset.
        region_path: Path of a mask of the finding that the label names. Used to evaluate localization, not in training.
        boxes: Bounding boxes of the finding as (x, y, width, height) in fractions of the image. Used like
            ``region_path``.
        second_label: Class name given by a second reader. Used to measure the readers' agreement, never in training.
        second_mask_path: Path of a second reader's lung mask. Used like ``second_label``.
        columns: Other columns of the table as (name, text), such as age or sex; empty cells are left out. Used to
            evaluate subgroups, never in training.
    """

    image_path: Path
    mask_path: Path | None = None
    label: str | None = None
    group: str | None = None
    source: str | None = None
    split: SplitName | None = None
    region_path: Path | None = None
    boxes: tuple[Box, ...] = ()
    second_label: str | None = None
    second_mask_path: Path | None = None
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Radiograph:
    """One decoded radiograph in MONOCHROME2 sense: larger values are brighter.

    Attributes:
        pixels: (H, W) uint8 or uint16 in ``[0, 2**bits_stored - 1]``.
        bits_stored: Significant bits per pixel, 1 to 16, as declared by the file; never estimated from the values.
        photometric_interpretation: Color model of the file before conversion (``MONOCHROME1``, ``RGB``, ``L``, ...).
        view_position: DICOM view position (``PA``, ``AP``, ``LL``, ...), or None if unknown.
        origin: Path or name given by the user.
        color_difference: Mean absolute difference between the color channels in 8-bit gray levels; 0 for gray images.
        pixel_aspect: Height of a pixel over its width, as DICOM declares it; 1 for square pixels.
        patient_left: Side of the image on which the patient's left is: ``right``, as radiographs are displayed, unless
            DICOM declares otherwise (Patient Orientation).
        modality: DICOM modality (``DX``, ``CR``, ...), or None if unknown.
        body_part: DICOM body part examined (``CHEST``, ...), or None if unknown.
        burned_in_annotation: DICOM's declaration whether the pixels show text (``YES``, ``NO``), or None if unknown.
    """

    pixels: Gray
    bits_stored: int = 8
    photometric_interpretation: str = "MONOCHROME2"
    view_position: str | None = None
    origin: str = ""
    color_difference: float = 0.0
    pixel_aspect: float = 1.0
    patient_left: Literal["left", "right"] = "right"
    modality: str | None = None
    body_part: str | None = None
    burned_in_annotation: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.pixels.shape
        return height, width

    @property
    def square_shape(self) -> tuple[int, int]:
        """(H, W) of the image resampled to square pixels; ``shape`` where they are square."""
        return square_shape(self.shape, self.pixel_aspect)


def square_shape(shape: tuple[int, int], pixel_aspect: float) -> tuple[int, int]:
    """Return (H, W) after resampling to square pixels, enlarging one axis.

    Args:
        shape: (H0, W0) in pixels.
        pixel_aspect: Height of a pixel over its width.
    """
    height, width = shape
    return max(1, round(height * max(1.0, pixel_aspect))), max(1, round(width * max(1.0, 1 / pixel_aspect)))


class Batch(NamedTuple):
    """A batch of N training examples. Only examples with a lung mask have a row in ``mask``."""

    image: torch.Tensor  # (N, C, H, W) float32 in [0, 1]
    mask: torch.Tensor  # (M, 1, H, W) float32 in {0, 1}, for the M <= N examples with a mask
    mask_rows: torch.Tensor  # (M,) int64, indices of those examples in the batch
    label: torch.Tensor  # (N,) int64, -1 if unknown
    row: torch.Tensor  # (N,) int64, dataset row plus the dataset's length per repetition; seeds the augmentation


class ModelOutput(NamedTuple):
    """Output of every network.

    ``evidence[n, k]`` summed over h and w equals ``class_logits[n, k]`` minus the bias of class k. It is None for
    networks whose classifier does not decompose over the image (the original project's ``unet``). ``features`` is the
    spatial mean of the feature map that the classifier reads; the post-inference check measures its distance to the
    training images.
    """

    mask_logits: torch.Tensor  # (N, 1, H, W)
    class_logits: torch.Tensor  # (N, K)
    evidence: torch.Tensor | None = None  # (N, K, h, w)
    features: torch.Tensor | None = None  # (N, F)


def class_names_of(records: Sequence[Record]) -> tuple[str, ...]:
    """Return the sorted class names that occur in the records."""
    return tuple(sorted({record.label for record in records if record.label is not None}))
