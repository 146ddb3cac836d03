"""The result of one image: a prediction, or the reasons why there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hilum.config import PreprocessSpec
from hilum.errors import DataError, OutputError
from hilum.gate.verdict import OrientationFix
from hilum.inference.png import png_bytes
from hilum.inference.render import LONGEST_SIDE, class_evidence, draw_overlay
from hilum.inference.zones import Lungs, patient_left, split_lungs, summary
from hilum.storage import atomic_path, write_text
from hilum.types import Finding, Radiograph

Status: TypeAlias = Literal["ok", "refused", "unreadable"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Result:
    """The result of one image. Attributes that do not apply are None: a refused image has no label and no mask.

    Attributes:
        origin: Path or name of the image.
        status: ``ok``; ``refused`` by the input check or the post-inference check; ``unreadable``.
        class_names: The K classes of the model, in the order of its outputs.
        bundle_id: SHA-256 of the bundle, 64 hexadecimal digits.
        findings: Findings of the checks. Errors refuse the image; warnings accompany a prediction.
        radiograph: The decoded image (H0, W0), or None if it could not be read.
        label: The predicted class, which has the highest probability.
        probabilities: Class to calibrated probability in [0, 1], summing to 1, in the order of ``class_names``.
        prediction_set: Conformal prediction set: the classes that are not ruled out at the coverage
            ``prediction_set_level`` of the bundle, most probable first (hilum.bundle.prediction_sets). ``(label,)`` if
            the bundle has no quantiles.
        abstained: True if the probability of ``label`` is below the bundle's abstention threshold (``threshold_of``
            of its manifest), so that a person should decide. ``label`` is still the most probable class.
        mask: (H0, W0) bool, lung mask at the image's own size.
        lung_fraction: Fraction of the image's pixels in ``mask``, in [0, 1].
        evidence: (K, h, w) float32, contribution of each cell of the network's square input to each class's logit; see
            ``evidence_map``. None if the network has no evidence.
        evidence_zones: Share in [0, 1] of the evidence in favor of ``label`` in each zone of the patient's lungs
            (``right_upper``, ..., ``left_lower``) and ``outside_lungs``, summing to 1 (hilum.inference.zones). None if
            the network has no evidence, or less than 0.1 logits are in favor.
        preprocess: Preprocessing of the image.
        orientation_fix: Correction that was applied before the prediction; ``mask`` and ``evidence`` refer to the image
            in the file all the same. Of a refused image, the correction that would make it acceptable, or None.
    """

    origin: str
    status: Status
    class_names: tuple[str, ...] = ()
    bundle_id: str = ""
    findings: tuple[Finding, ...] = ()
    radiograph: Radiograph | None = None
    label: str | None = None
    probabilities: Mapping[str, float] | None = None
    prediction_set: tuple[str, ...] | None = None
    abstained: bool | None = None
    mask: NDArray[np.bool_] | None = None
    lung_fraction: float | None = None
    evidence: NDArray[np.float32] | None = None
    evidence_zones: Mapping[str, float] | None = None
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    orientation_fix: OrientationFix | None = None

    def __repr__(self) -> str:
        if not isinstance(self, Prediction):
            return f"Result(origin={self.origin!r}, status={self.status!r}, reason={self.reason!r})"
        uncertain = ", abstained=True" if self.abstained else ""
        return f"Result(origin={self.origin!r}, label={self.label!r}, probability={self.probability:.4f}{uncertain})"

    @property
    def ok(self) -> bool:
        """Whether there is a prediction."""
        return self.status == "ok"

    @property
    def probability(self) -> float | None:
        """The probability of ``label``, in [0, 1]."""
        return None if self.probabilities is None or self.label is None else self.probabilities[self.label]

    @property
    def reason(self) -> str:
        """The messages of all findings in one line; empty where there are none."""
        return "; ".join(finding.message for finding in self.findings)

    @property
    def evidence_summary(self) -> str | None:
        """``evidence_zones`` in words; None without a prediction, or if the network has no evidence."""
        if self.label is None or self.evidence is None:
            return None
        return summary(self.label, self.evidence_zones)

    @property
    def lungs(self) -> Lungs | None:
        """The patient's right and left lung, masks (H0, W0) bool that together are ``mask``; None without a prediction.

        Each has the name of its side: ``lungs.right``, ``lungs.left``.
        """
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes except arrays as JSON types, as printed by ``hilum predict --json``."""
        return {
            "file": self.origin,
            "status": self.status,
            "predicted_label": self.label,
            "probabilities": None if self.probabilities is None else dict(self.probabilities),
            "prediction_set": None if self.prediction_set is None else list(self.prediction_set),
            "abstained": self.abstained,
            "lung_fraction": self.lung_fraction,
            "evidence_zones": None if self.evidence_zones is None else dict(self.evidence_zones),
            "evidence_summary": self.evidence_summary,
            "findings": [
                {"check": found.check, "severity": found.severity, "message": found.message} for found in self.findings
            ],
            "bundle_id": self.bundle_id,
        }

    def to_json(self) -> str:
        """Return ``to_dict`` as one line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def evidence_map(self, class_name: str | None = None) -> NDArray[np.float32] | None:
        """Return the evidence for a class at the image's own size, (H0, W0) float32, in logits per evidence cell.

        Args:
            class_name: One of ``class_names``; the predicted class by default.

        Returns:
            The evidence map; None without a prediction, or if the network has no evidence.

        Raises:
            DataError: There is no such class.
        """
        self._check_class(class_name)
        if not isinstance(self, Prediction):
            return None
        return class_evidence(self, self.mask.shape, self.preprocess, class_name=class_name)

    def _check_class(self, class_name: str | None) -> None:
        if class_name is not None and class_name not in self.class_names:
            raise DataError(f"Unknown class {class_name!r}.", hint=f"The classes are {', '.join(self.class_names)}.")

    def overlay(self, class_name: str | None = None, *, longest_side: int = LONGEST_SIDE) -> Image.Image:
        """Return an image with the lung outlined, evidence as filled contours, and a legend.

        Args:
            class_name: The class whose evidence is drawn; the predicted class by default.
            longest_side: Largest side of the drawn image without the legend, pixels.

        Returns:
            An RGB image; see hilum.inference.render.overlay for its size.

        Raises:
            DataError: There is no prediction to draw, or no such class.
        """
        self._check_class(class_name)
        if not isinstance(self, Prediction):
            raise DataError(f"Cannot draw {self.origin}, which has no prediction: {self.status} ({self.reason}).")
        return Image.fromarray(draw_overlay(self, class_name=class_name, longest_side=longest_side))

    def save(self, path: str | Path) -> None:
        """Write ``to_json`` to a ``.json`` file, or ``overlay`` to an image file (``.png``, ``.jpg``, ``.webp``, ...).

        Raises:
            DataError: There is no prediction to draw.
            OutputError: The suffix names no image format, the folder cannot be written, or the disk is full.
        """
        path = Path(path)
        if path.suffix.lower() == ".json":
            write_text(path, self.to_json() + "\n")
            return
        image = self.overlay()
        try:
            with atomic_path(path) as temporary:
                image.save(temporary)
        except ValueError as error:
            raise OutputError(f"Cannot write an image as '{path}'.", hint="Use .png, .jpg, .webp or .json.") from error

    def _repr_png_(self) -> bytes | None:
        """Return the overlay as PNG, for display in Jupyter."""
        return png_bytes(np.asarray(self.overlay(), np.uint8)) if self.ok else None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prediction(Result):
    """A Result with status ``ok``, in which only ``evidence`` and ``evidence_zones`` may be None.

    See Result for the attributes.
    """

    status: Literal["ok"] = "ok"
    radiograph: Radiograph
    label: str
    probabilities: Mapping[str, float]
    prediction_set: tuple[str, ...]
    abstained: bool
    mask: NDArray[np.bool_]
    lung_fraction: float

    @property
    def probability(self) -> float:
        """The probability of ``label``, in [0, 1]."""
        return self.probabilities[self.label]

    @property
    def lungs(self) -> Lungs:
        """The patient's right and left lung, masks (H0, W0) bool that together are ``mask``."""
        turn = 0 if self.orientation_fix is None else self.orientation_fix.turn
        back = OrientationFix(turn)
        upright: NDArray[np.bool_] = np.rot90(self.mask, turn)
        left = patient_left(self.radiograph, turn)
        return Lungs(*(back.back(lung) for lung in split_lungs(upright, patient_left=left)))
