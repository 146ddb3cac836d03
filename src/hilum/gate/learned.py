"""The learned gate: a small network that tells frontal chest radiographs from all else, and which way up they are.

Plain measurements come first (size, exposure, contrast), then the network's readings: what kind of image it is, and
of a frontal radiograph its gray scale, its turn, whether the lungs are in view. ``hilum train-gate`` trains it and sets
its bounds.
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
from hilum.gate.post_check import AnswerThresholds, FeatureReference, LungShape, distance_readings, lung_readings
from hilum.gate.verdict import FLAGS, FRONTAL, KIND_REASONS, KINDS, TURNS, OrientationFix, Reading, Verdict
from hilum.imaging.preprocess import fit_image, placement, to_input
from hilum.types import Radiograph

GATE_INPUT = "image"
GATE_OUTPUTS = ("kind", "turn", "flags")
_HALVED = 3
"""Images are halved to no less than this many times the gate's input before they are fitted into it."""
_FRONTAL_VIEWS = ("PA", "AP")


class LearnedThresholds(BaseModel):
    """The bounds of the learned gate; a value on its bound passes. Probabilities are in [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum_side: int = Field(default=64, ge=1, description="Least length of the shorter side, pixels.")
    dark: float = Field(default=8.0, ge=0, le=255, description="Least mean, 8-bit gray levels.")
    bright: float = Field(default=247.0, ge=0, le=255, description="Largest mean, 8-bit gray levels.")
    contrast: float = Field(default=6.0, ge=0, description="Least standard deviation, 8-bit gray levels.")
    color: float = Field(default=8.0, ge=0, description="Largest mean difference of two color channels, gray levels.")
    frontal: float = Field(default=0.5, ge=0, le=1, description="Least probability of a frontal chest image.")
    upright: float = Field(default=0.5, ge=0, le=1, description="Least probability that it has not been turned.")
    inverted: float = Field(default=0.5, ge=0, le=1, description="Largest probability of an inverted gray scale.")
    cropped: float = Field(default=0.5, ge=0, le=1, description="Largest probability that the lungs are cut off.")
    mirrored: float = Field(default=0.5, ge=0, le=1, description="Largest probability that it is mirrored.")
    annotated: float = Field(default=0.5, ge=0, le=1, description="Largest probability of words or arrows drawn on it.")


class GateReading(NamedTuple):
    """Probabilities that the network gives N images."""

    kind: NDArray[np.float32]  # (N, 6), of KINDS; sums to 1
    turn: NDArray[np.float32]  # (N, 4), of TURNS; sums to 1
    flags: NDArray[np.float32]  # (N, 4), of FLAGS


class GateEngine:
    """The network in ONNX Runtime, on one thread, since images are read and examined in several.

    Args:
        model: The bytes of the graph.

    Raises:
        BundleError: The graph cannot be loaded, or is not a gate's.
    """

    def __init__(self, model: bytes) -> None:
        import onnxruntime  # thresholds are read where no gate is opened, and should not wait for it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own classes share no other base
            raise BundleError(f"Expected a gate as an ONNX graph, ONNX Runtime says: {error}.") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [value.name for value in inputs] != [GATE_INPUT] or tuple(value.name for value in outputs) != GATE_OUTPUTS:
            raise BundleError(f"Expected a gate's graph, from {GATE_INPUT} to {', '.join(GATE_OUTPUTS)}; got another.")
        self.spec = PreprocessSpec(size=int(inputs[0].shape[-1]))

    def read(self, images: NDArray[np.float32]) -> GateReading:
        """(N, 1, S, S) in [0, 1], from hilum.imaging.preprocess with ``spec``, to a GateReading."""
        return GateReading(*self._session.run(None, {GATE_INPUT: images}))


class LearnedGate:
    """The gate that knows a chest radiograph.

    Args:
        model: The bytes of its ONNX graph.
        thresholds: Those that were set for this network.
        answer: The bounds of the second stage.
        reference: Where the features of the main network's training images lie; None: the distance is not measured.
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
        """The verdict on an image of any size.

        What an image is comes first: of one that is no frontal radiograph it is not said which way up it is.
        """
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
        """The shape of the lungs, and the distance of the features where both are there to measure it."""
        readings = lung_readings(LungShape.of(lung), self._answer)
        if features is None or self._reference is None:
            return readings
        return readings + distance_readings(float(self._reference.distance(features[None])[0]), self._answer)


def halved(radiograph: Radiograph, longest: int) -> Radiograph:
    """The image halved, means of 2 x 2 pixels, until its longer side is below twice ``longest``.

    It leaves little for fit_image's reduction by any factor, which takes long on large images; an odd last row or
    column is cut.
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
    """Size, exposure, contrast and color; the gray levels are those of ``fitted``, without its padding."""
    top, left, height, width = placement(radiograph.shape, spec)
    content = fitted[top : top + height, left : left + width]
    mean, spread, side = float(content.mean()), float(content.std()), min(radiograph.shape)
    color = radiograph.color_difference
    return (
        Reading.at_least("too_small", "shorter side, pixels:", side, bounds.minimum_side),
        Reading.at_least("too_dark", "mean gray level", mean, bounds.dark),
        Reading.at_most("too_bright", "mean gray level", mean, bounds.bright),
        Reading.at_least("too_flat", "standard deviation of gray levels", spread, bounds.contrast),
        Reading.at_most("burned_in_color", "difference of the color channels", color, bounds.color, "warning"),
        *_declared_view(radiograph.view_position),
    )


def _declared_view(view: str | None) -> tuple[Reading, ...]:
    """What a DICOM file says of its view, where it says anything; headers are often wrong, so it is a warning."""
    if not view:
        return ()
    passed, expected = view.upper() in _FRONTAL_VIEWS, " or ".join(_FRONTAL_VIEWS)
    return (Reading("declared_view", f"view position {view}", expected, passed, "warning", "declared as another view"),)


def frontal_reading(read: GateReading, bounds: LearnedThresholds) -> Reading:
    """Whether the first image of ``read`` is a frontal chest radiograph, and what it is otherwise."""
    value, reason = float(read.kind[0, FRONTAL]), KIND_REASONS[KINDS[1 + int(read.kind[0, 1:].argmax())]]
    return Reading.at_least(
        "frontal", "probability of a frontal chest radiograph", value, bounds.frontal, reason=reason
    )


def geometry_readings(read: GateReading, bounds: LearnedThresholds) -> tuple[Reading, ...]:
    """What is read of a frontal radiograph, the first of ``read``."""
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
    """The likeliest turn of the first image other than none, in quarter turns clockwise."""
    return 1 + int(read.turn[0, 1:].argmax())


def _orientation_fix(readings: Sequence[Reading], read: GateReading) -> OrientationFix | None:
    """How to put it right, where a wrong gray scale and a turn are all that speaks against it."""
    failed = {reading.check for reading in readings if not reading.passed and reading.severity == "error"}
    if not failed or failed - {"inverted", "rotated"}:
        return None
    return OrientationFix(_turn(read) if "rotated" in failed else 0, "inverted" in failed)
