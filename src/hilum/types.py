"""The carriers, in the order in which data meets them. This module imports no torch at run time."""

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
Severity: TypeAlias = Literal["info", "warning", "error"]
Gray: TypeAlias = "NDArray[np.uint8] | NDArray[np.uint16]"

Box: TypeAlias = tuple[float, float, float, float]

SPLIT_NAMES: tuple[SplitName, ...] = ("train", "val", "test")
UNKNOWN_LABEL = -1
"""In an array of class numbers: the label is not known."""
NO_LABEL = "(no label)"
"""In a table of classes: the row of records without a label."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check has to say.

    Attributes:
        check: The name of the check, in snake case: ``mask_size``, ``brightness``.
        severity: ``error`` refuses the file or the data; ``warning`` lets it pass.
        message: What was measured, against which bound.
        records: The files it concerns, as given by the user; empty when it concerns them all.
    """

    check: str
    severity: Severity
    message: str
    records: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """One row of the index.

    ``None`` means unknown, never zero: a radiograph without a mask has ``mask_path=None`` and takes no part
    in the segmentation loss. ``group`` joins images that must not cross a split (one patient, near-duplicates).
    ``region_path`` (a mask of what the label stands for) and ``boxes`` (x, y, width, height, as fractions of the
    image) are for measuring localization; nothing is trained on them.
    """

    image_path: Path
    mask_path: Path | None = None
    label: str | None = None
    group: str | None = None
    source: str | None = None
    split: SplitName | None = None
    region_path: Path | None = None
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Radiograph:
    """One decoded radiograph, bright where the image is bright (MONOCHROME2 sense).

    Attributes:
        pixels: (H, W), uint8 or uint16, spanning ``[0, 2**bits_stored - 1]``.
        bits_stored: Significant bits of a pixel, 1 to 16; the scale is declared, never guessed from values.
        photometric_interpretation: That of the file, before inversion (``MONOCHROME1``, ``RGB``, ``L``, ...).
        view_position: ``PA``, ``AP``, ``LL``, ... where the file says so (DICOM), else None.
        origin: The path or name the user gave.
        color_difference: Mean absolute difference between the color channels, in 8-bit gray levels; 0 for gray.
    """

    pixels: Gray
    bits_stored: int = 8
    photometric_interpretation: str = "MONOCHROME2"
    view_position: str | None = None
    origin: str = ""
    color_difference: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.pixels.shape
        return height, width


class Batch(NamedTuple):
    """N training examples. What is not known is absent, never zero: masks are packed, labels may be -1."""

    image: torch.Tensor  # (N, C, H, W) float32 in [0, 1]
    mask: torch.Tensor  # (M, 1, H, W) float32 in {0, 1}, of the M <= N examples that have one
    mask_rows: torch.Tensor  # (M,) int64, which of the N those are
    label: torch.Tensor  # (N,) int64, -1 where unknown
    row: torch.Tensor  # (N,) int64, the row, plus the data set's length for each repetition: seeds what is random


class ModelOutput(NamedTuple):
    """What every network returns: logits, and the evidence that adds up to them.

    ``evidence[n, k]`` sums over h and w to ``class_logits[n, k]`` less the class's bias. It is None for a
    network whose classifier does not decompose over the image (the seed's ``unet``). ``features`` is the mean over
    h, w of the encoder's map that the classes are read from: what the gate measures an image's distance to training by.
    """

    mask_logits: torch.Tensor  # (N, 1, H, W)
    class_logits: torch.Tensor  # (N, K)
    evidence: torch.Tensor | None = None  # (N, K, h, w)
    features: torch.Tensor | None = None  # (N, F)


def class_names_of(records: Sequence[Record]) -> tuple[str, ...]:
    """The sorted labels of the records that have one."""
    return tuple(sorted({record.label for record in records if record.label is not None}))
