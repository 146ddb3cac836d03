"""The learned gate: a small network that recognizes frontal chest radiographs and their orientation.

Size, exposure and contrast are checked first, then the kind of image and, for frontal radiographs, inversion,
rotation and whether the lungs are in view. ``hilum train-gate`` trains the network and sets the thresholds
(hilum.gate_training).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from hilum.config import PreprocessSpec
from hilum.errors import BundleError
from hilum.gate.declared import declared_readings
from hilum.gate.post_check import AnswerThresholds, FeatureReference, LungShape, distance_readings, lung_readings
from hilum.gate.verdict import FLAGS, FRONTAL, KIND_REASONS, KINDS, TURNS, OrientationFix, Reading, Verdict
from hilum.imaging.preprocess import fit_image, placement, to_input
from hilum.onnx_session import OnnxSession
from hilum.types import Radiograph

GATE_INPUT = "image"
GATE_OUTPUTS = ("kind", "turn", "flags")
_HALVED = 3
"""Images are downsampled by powers of 2 to at least this multiple of the network's input size before resizing."""


class LearnedThresholds(BaseModel):
    """Thresholds of the learned gate; a value equal to its threshold passes. Probabilities are in [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum_side: int = Field(default=64, ge=1, description="Minimum length of the shorter side, pixels.")
    dark: float = Field(default=8.0, ge=0, le=255, description="Minimum mean, 8-bit gray levels.")
    bright: float = Field(default=247.0, ge=0, le=255, description="Maximum mean, 8-bit gray levels.")
    contrast: float = Field(default=6.0, ge=0, description="Minimum standard deviation, 8-bit gray levels.")
    color: float = Field(default=8.0, ge=0, description="Maximum mean difference of two color channels, gray levels.")
    frontal: float = Field(default=0.5, ge=0, le=1, description="Minimum probability of a frontal chest radiograph.")
    upright: float = Field(default=0.5, ge=0, le=1, description="Minimum probability of an upright image.")
    inverted: float = Field(default=0.5, ge=0, le=1, description="Maximum probability of an inverted gray scale.")
    cropped: float = Field(default=0.5, ge=0, le=1, description="Maximum probability that the lungs are cut off.")
    mirrored: float = Field(default=0.5, ge=0, le=1, description="Maximum probability of a mirrored image.")
    annotated: float = Field(default=0.5, ge=0, le=1, description="Maximum probability of burned-in text or arrows.")


class GateReading(NamedTuple):
    """Output of the gate's network for N images, probabilities."""

    kind: NDArray[np.float32]  # (N, 6), of KINDS; sums to 1
    turn: NDArray[np.float32]  # (N, 4), of TURNS; sums to 1
    flags: NDArray[np.float32]  # (N, 4), of FLAGS


class GateEngine:
    """The gate's network in ONNX Runtime, on one thread, since images are checked in several threads.

    Args:
        model: Content of the ONNX file.

    Raises:
        BundleError: The graph cannot be loaded, or is not that of a gate.
    """

    def __init__(self, model: bytes) -> None:
        self._session = OnnxSession(model, "the gate's ONNX graph", threads=1)
        inputs = self._session.inputs
        if [*inputs] != [GATE_INPUT] or tuple(self._session.outputs) != GATE_OUTPUTS:
            raise BundleError(
                f"The ONNX graph is not that of a gate, from {GATE_INPUT} to {', '.join(GATE_OUTPUTS)}.",
                hint="Use the folder that hilum train-gate wrote.",
            )
        try:
            self.spec = PreprocessSpec(size=(inputs[GATE_INPUT] or [0])[-1])
        except ValueError as error:
            raise BundleError(
                f"The gate's ONNX graph has an input of shape {inputs[GATE_INPUT]}.", hint="Train or copy it again."
            ) from error
        self.read(np.zeros((1, 1, self.spec.size, self.spec.size), np.float32))

    def read(self, images: NDArray[np.float32]) -> GateReading:
        """Run the network on images (N, 1, S, S) in [0, 1], preprocessed with ``spec``, and return a GateReading.

        Raises:
            BundleError: The graph cannot be run, or returns arrays of other shapes.
        """
        read = GateReading(*self._session.run({GATE_INPUT: images}))
        sizes = (len(KINDS), len(TURNS), len(FLAGS))
        if [output.shape for output in read] != [(len(images), size) for size in sizes]:
            raise BundleError("The gate's ONNX graph returns arrays of other shapes than a gate's.")
        return read


class LearnedGate:
    """Input check by a trained network, with a post-inference check.

    Args:
        model: Content of the ONNX file.
        thresholds: Thresholds set for this network.
        answer: Thresholds of the post-inference check.
        reference: Feature statistics of the training images of the main network; None disables the feature distance.

    Raises:
        BundleError: The graph cannot be loaded, or is not that of a gate.
    """

    name = "learned"

    def __init__(
        self,
        model: bytes,
        thresholds: LearnedThresholds | None = None,
        answer: AnswerThresholds | None = None,
        reference: FeatureReference | None = None,
    ) -> None:
        self._engine = GateEngine(model)
        self._thresholds = thresholds or LearnedThresholds()
        self._answer, self._reference = answer or AnswerThresholds(), reference

    def __call__(self, radiograph: Radiograph) -> Verdict:
        """Return the verdict on an image of any size. The orientation is checked only for frontal radiographs."""
        bounds = self._thresholds
        fitted = fit_image(halved(radiograph, _HALVED * self._engine.spec.size), self._engine.spec)
        readings = plain_readings(radiograph, fitted, self._engine.spec, bounds)
        if not (verdict := Verdict.of(readings, radiograph.origin)).accepted:
            return verdict
        read = self._engine.read(to_input(fitted, self._engine.spec)[None])
        readings += (frontal_reading(read, bounds),)
        if not readings[-1].passed:
            return Verdict.of(readings, radiograph.origin)
        placed = geometry_readings(read, bounds)
        return Verdict.of(readings + placed, radiograph.origin, _orientation_fix(placed, read))

    def check_output(self, lung: NDArray[np.bool_], features: NDArray[np.float32] | None) -> tuple[Reading, ...]:
        """Return the measurements of the lung shape and, if features and reference exist, of the feature distance."""
        readings = lung_readings(LungShape.of(lung), self._answer)
        if features is None or self._reference is None:
            return readings
        return readings + distance_readings(float(self._reference.distance(features[None])[0]), self._answer)


def halved(radiograph: Radiograph, longest: int) -> Radiograph:
    """Return the image downsampled by powers of 2 until its longer side is below twice ``longest``.

    Each step averages 2 x 2 pixels and drops an odd last row or column. This is faster on large images than fit_image
    alone.
    """
    pixels = radiograph.pixels
    while max(pixels.shape) >= 2 * longest and min(pixels.shape) >= 2:
        height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
        even = pixels[: 2 * height, : 2 * width]
        pixels = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]  # same dtype
    return replace(radiograph, pixels=pixels)


def plain_readings(
    radiograph: Radiograph, fitted: NDArray[np.uint8], spec: PreprocessSpec, bounds: LearnedThresholds
) -> tuple[Reading, ...]:
    """Return the measurements of size, exposure, contrast and color.

    Args:
        radiograph: The image.
        fitted: The image resized by fit_image; its gray levels are measured, without padding.
        spec: The preprocessing of ``fitted``.
        bounds: The thresholds.
    """
    top, left, height, width = placement(radiograph.square_shape, spec)
    content = fitted[top : top + height, left : left + width]
    mean, spread, side = float(content.mean()), float(content.std()), min(radiograph.shape)
    color = radiograph.color_difference
    return (
        Reading.at_least("too_small", "shorter side, pixels:", side, bounds.minimum_side),
        Reading.at_least("too_dark", "mean gray level", mean, bounds.dark),
        Reading.at_most("too_bright", "mean gray level", mean, bounds.bright),
        Reading.at_least("too_flat", "standard deviation of gray levels", spread, bounds.contrast),
        Reading.at_most("burned_in_color", "difference of the color channels", color, bounds.color, "warning"),
        *declared_readings(radiograph),
    )


def frontal_reading(read: GateReading, bounds: LearnedThresholds) -> Reading:
    """Return the measurement whether the first image of ``read`` is a frontal chest radiograph."""
    value, reason = float(read.kind[0, FRONTAL]), KIND_REASONS[KINDS[1 + int(read.kind[0, 1:].argmax())]]
    return Reading.at_least(
        "frontal", "probability of a frontal chest radiograph", value, bounds.frontal, reason=reason
    )


def geometry_readings(read: GateReading, bounds: LearnedThresholds) -> tuple[Reading, ...]:
    """Return the measurements of orientation, cropping and annotations of the first image of ``read``."""
    flags: dict[str, float] = dict(zip(FLAGS, read.flags[0].tolist(), strict=True))
    upright, turned = float(read.turn[0, 0]), f"rotated {TURNS[_turn(read)]} degrees clockwise"
    most = Reading.at_most
    return (
        most("inverted", "probability of an inverted gray scale", flags["inverted"], bounds.inverted, "error",
             "inverted gray scale"),
        Reading.at_least("rotated", "probability of an upright image", upright, bounds.upright, "error", turned),
        most("cropped", "probability that lung is cut off", flags["cropped"], bounds.cropped, "error",
             "cropped: lungs cut off"),
        most("mirrored", "probability of a mirrored image", flags["mirrored"], bounds.mirrored, "warning"),
        most("annotated", "probability of words or arrows on it", flags["annotated"], bounds.annotated, "warning",
             "burned-in annotations"),
    )  # fmt: skip


def _turn(read: GateReading) -> int:
    """Return the most probable rotation of the first image other than 0, in quarter turns clockwise."""
    return 1 + int(read.turn[0, 1:].argmax())


def _orientation_fix(readings: Sequence[Reading], read: GateReading) -> OrientationFix | None:
    """Return the orientation fix, if inversion and rotation are the only errors."""
    failed = {reading.check for reading in readings if not reading.passed and reading.severity == "error"}
    if not failed or failed - {"inverted", "rotated"}:
        return None
    return OrientationFix(_turn(read) if "rotated" in failed else 0, "inverted" in failed)
