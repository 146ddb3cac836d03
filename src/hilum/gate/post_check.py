"""Post-inference check: measurements of the network's output that indicate an out-of-distribution image.

It measures the shape of the predicted lungs and the Mahalanobis distance of the features to those of the training
images (Lee et al. 2018, NeurIPS).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from hilum.arrays import read_archive
from hilum.errors import BundleError
from hilum.gate.verdict import Reading
from hilum.imaging.components import connected_components
from hilum.types import Severity

Floats = NDArray[np.float32]

_PART = 0.05
"""Minimum size of a connected component that is counted, as a fraction of the lung area."""


class AnswerThresholds(BaseModel):
    """Thresholds of the post-inference check; a value equal to its threshold passes; None disables a measurement.

    ``hilum export`` sets them on the validation images. Networks trained without masks have no thresholds of the lung
    shape. Fractions are in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lungs_found: float | None = Field(None, ge=0, le=1, description="Minimum lung fraction of the image; else refused.")
    lung_least: float | None = Field(None, ge=0, le=1, description="Minimum lung fraction without a warning.")
    lung_most: float | None = Field(None, ge=0, le=1, description="Maximum lung fraction without a warning.")
    parts: int | None = Field(None, ge=1, description="Maximum number of lung components.")
    symmetry: float | None = Field(None, ge=0, le=1, description="Minimum ratio of the lung areas of both sides.")
    border: float | None = Field(None, ge=0, description="Maximum lung at the image's edge; see LungShape.")
    distance_refused: float | None = Field(None, ge=0, description="Maximum feature distance; else refused.")
    distance_warned: float | None = Field(None, ge=0, description="Maximum feature distance without a warning.")


@dataclass(frozen=True)
class FeatureReference:
    """Feature statistics of the training images.

    Attributes:
        mean: (F,) float32.
        whitening: (F, F) float32, maps differences from the mean to uncorrelated units of variance 1.
    """

    mean: Floats
    whitening: Floats

    def distance(self, features: Floats) -> NDArray[np.float64]:
        """Return the Mahalanobis distance of features (N, F) over sqrt(F), as (N,); about 1 for training images."""
        units = (features.astype(np.float64) - self.mean) @ self.whitening
        return np.asarray(np.sqrt(np.mean(units**2, axis=1)), np.float64)

    def content(self) -> bytes:
        """Return the statistics as the content of an uncompressed NumPy archive."""
        stream = io.BytesIO()
        np.savez(stream, mean=self.mean, whitening=self.whitening)
        return stream.getvalue()

    @classmethod
    def read(cls, content: bytes) -> FeatureReference:
        """Read the statistics from the result of ``content``, without pickle.

        Raises:
            BundleError: The content is damaged.
        """
        try:
            arrays = read_archive(content)
            mean, whitening = (arrays[name].astype(np.float32) for name in ("mean", "whitening"))
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"Cannot read the feature statistics: {error}.", hint="Export the bundle again."
            ) from error
        if mean.ndim != 1 or whitening.shape != (mean.size, mean.size):
            raise BundleError(
                f"Expected feature statistics of shape (F,) and (F, F), got {mean.shape} and {whitening.shape}.",
                hint="Export the bundle again.",
            )
        return cls(mean, whitening)


@dataclass(frozen=True)
class LungShape:
    """Measurements of a lung mask.

    Attributes:
        share: Lung area as a fraction of the image.
        parts: Number of connected components with at least 5% of the lung area.
        symmetry: Ratio of the smaller to the larger lung area of the left and right half of the image.
        border: Number of lung pixels at the image's edge, divided by the square root of the lung area in pixels.
    """

    share: float
    parts: int
    symmetry: float
    border: float

    @classmethod
    def of(cls, lung: NDArray[np.bool_]) -> LungShape:
        """Measure a mask (H, W) bool of the image without padding."""
        area = int(np.count_nonzero(lung))
        if not area:
            return cls(0.0, 0, 0.0, 0.0)
        parts = int(np.count_nonzero(connected_components(lung).areas[1:] >= _PART * area))
        middle = lung.shape[1] // 2
        left, right = (int(np.count_nonzero(side)) for side in (lung[:, :middle], lung[:, lung.shape[1] - middle :]))
        edge = area - int(np.count_nonzero(lung[1:-1, 1:-1]))
        return cls(area / lung.size, parts, min(left, right) / max(left, right, 1), edge / area**0.5)


def lung_readings(shape: LungShape, bounds: AnswerThresholds) -> tuple[Reading, ...]:
    """Return the measurements of the lung shape. Missing lungs are an error; others warn, as disease alters shape."""
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
    """Return the measurements of the feature distance: an error if very large, a warning if large."""
    what, said = "feature distance", "unlike the training images"
    return _measured(
        (Reading.at_most, "unlike_training", what, distance, bounds.distance_refused, "error", said),
        (Reading.at_most, "far_from_training", what, distance, bounds.distance_warned, "warning", said),
    )


_Measurement: TypeAlias = "tuple[Callable[..., Reading], str, str, float, float | None, Severity, str]"


def _measured(*measurements: _Measurement) -> tuple[Reading, ...]:
    """Return the measurements that have a threshold."""
    return tuple(make(*facts) for make, *facts in measurements if facts[3] is not None)
