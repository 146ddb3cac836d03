"""The gate's second stage: what the main network's own answer says against the image.

An image that passed the first stage can still be one that the network does not know: its lungs come out as no lungs do,
or its features lie far from those of the images it was trained on (Lee et al. 2018, NeurIPS: Mahalanobis distance).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from hilum.errors import BundleError
from hilum.gate.verdict import Reading
from hilum.types import Severity

Floats = NDArray[np.float32]

_PART = 0.05
"""A connected piece of at least this share of the lungs counts as a part."""


class AnswerThresholds(BaseModel):
    """The bounds of the second stage; a value on its bound passes, None is not measured. Shares are in [0, 1].

    ``hilum export`` sets them on the validation images, so that a network whose masks mean nothing, since it was
    trained on none, refuses nothing by them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lungs_found: float | None = Field(None, ge=0, le=1, description="Least share of the image that is lung, to answer.")
    lung_least: float | None = Field(None, ge=0, le=1, description="Least usual share of the image that is lung.")
    lung_most: float | None = Field(None, ge=0, le=1, description="Largest usual share of the image that is lung.")
    parts: int | None = Field(None, ge=1, description="Most pieces of lung.")
    symmetry: float | None = Field(None, ge=0, le=1, description="Least lung on one side over that on the other.")
    border: float | None = Field(None, ge=0, description="Most lung on the image's edge: see LungShape.")
    distance_refused: float | None = Field(None, ge=0, description="Largest feature distance, to answer.")
    distance_warned: float | None = Field(None, ge=0, description="Largest usual feature distance.")


@dataclass(frozen=True)
class FeatureReference:
    """Where the features of the training images lie.

    Attributes:
        mean: (F,) float32.
        whitening: (F, F) float32, which turns a difference from the mean into uncorrelated units.
    """

    mean: Floats
    whitening: Floats

    def distance(self, features: Floats) -> NDArray[np.float64]:
        """(N, F) to (N,): the Mahalanobis distance over the root of F, so that a training radiograph's is about 1."""
        units = (features.astype(np.float64) - self.mean) @ self.whitening
        return np.asarray(np.sqrt(np.mean(units**2, axis=1)), np.float64)

    def content(self) -> bytes:
        """As an uncompressed NumPy archive."""
        stream = io.BytesIO()
        np.savez(stream, mean=self.mean, whitening=self.whitening)
        return stream.getvalue()

    @classmethod
    def read(cls, content: bytes) -> FeatureReference:
        """From ``content``; nothing in it can execute.

        Raises:
            BundleError: It is damaged.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                mean, whitening = archive["mean"].astype(np.float32), archive["whitening"].astype(np.float32)
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(f"Expected statistics of features as a NumPy archive, got: {error}.") from error
        if mean.ndim != 1 or whitening.shape != (mean.size, mean.size):
            raise BundleError(f"Expected (F,) and (F, F), got {mean.shape} and {whitening.shape}.")
        return cls(mean, whitening)


@dataclass(frozen=True)
class LungShape:
    """What is measured of one lung mask.

    Attributes:
        share: Of the image that is lung.
        parts: Connected pieces of at least a twentieth of the lungs.
        symmetry: Lung on the side of the image's middle that has less, over that on the other.
        border: Lung pixels on the image's edge, over the square root of the lungs' pixels.
    """

    share: float
    parts: int
    symmetry: float
    border: float

    @classmethod
    def of(cls, lung: NDArray[np.bool_]) -> LungShape:
        """Of a mask (H, W) of the image alone, without padding."""
        area = int(np.count_nonzero(lung))
        if not area:
            return cls(0.0, 0, 0.0, 0.0)
        _, _, facts, _ = cv2.connectedComponentsWithStats(lung.astype(np.uint8))
        parts = int(np.count_nonzero(facts[1:, cv2.CC_STAT_AREA] >= _PART * area))
        middle = lung.shape[1] // 2
        left, right = (int(np.count_nonzero(side)) for side in (lung[:, :middle], lung[:, lung.shape[1] - middle :]))
        edge = area - int(np.count_nonzero(lung[1:-1, 1:-1]))
        return cls(area / lung.size, parts, min(left, right) / max(left, right, 1), edge / area**0.5)


def lung_readings(shape: LungShape, bounds: AnswerThresholds) -> tuple[Reading, ...]:
    """Whether the lungs look like lungs. None found refuses; all else warns, since disease deforms them too."""
    area, one_side = "share of the image that is lung", "lung on one side over that on the other"
    return _measured(
        (Reading.at_least, "lungs_found", area, shape.share, bounds.lungs_found, "error", "no lungs found"),
        (Reading.at_least, "lung_least", area, shape.share, bounds.lung_least, "warning", "unusually small lungs"),
        (Reading.at_most, "lung_most", area, shape.share, bounds.lung_most, "warning", "unusually large lungs"),
        (Reading.at_most, "lung_parts", "pieces of lung:", shape.parts, bounds.parts, "warning", "lungs in pieces"),
        (Reading.at_least, "lung_symmetry", one_side, shape.symmetry, bounds.symmetry, "warning", "one small lung"),
        (Reading.at_most, "lung_border", "lung on the image's edge", shape.border, bounds.border, "warning",
         "lungs touch the image's edge"),
    )  # fmt: skip


def distance_readings(distance: float, bounds: AnswerThresholds) -> tuple[Reading, ...]:
    """How far the image lies from those of training: very far refuses, far warns."""
    what, said = "feature distance", "unlike the training images"
    return _measured(
        (Reading.at_most, "unlike_training", what, distance, bounds.distance_refused, "error", said),
        (Reading.at_most, "far_from_training", what, distance, bounds.distance_warned, "warning", said),
    )


_Measurement: TypeAlias = "tuple[Callable[..., Reading], str, str, float, float | None, Severity, str]"


def _measured(*measurements: _Measurement) -> tuple[Reading, ...]:
    """The readings of all that have a bound."""
    return tuple(make(*facts) for make, *facts in measurements if facts[3] is not None)
