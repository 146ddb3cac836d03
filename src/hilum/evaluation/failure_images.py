"""Draw the failures of an evaluation: the image alone, and with its lung outline and evidence.

The drawing is hilum.inference.render's, as in ``hilum predict --save-overlays``; only the size and the encoding are
chosen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.errors import ReadError
from hilum.evaluation.report import Failure
from hilum.imaging.preprocess import restore_probability, to_input, to_uint8
from hilum.imaging.read import read_radiograph
from hilum.inference.contour import evidence_scale
from hilum.inference.render import annotate, class_evidence
from hilum.inference.result import Prediction
from hilum.metrics.scores import Scores
from hilum.types import Radiograph, Record

if TYPE_CHECKING:
    from hilum.evaluation.measure import Subject

_SHORTER_SIDE = 512  # pixels at which an image is drawn: hilum.inference.render enlarges anything smaller
_LONGEST = 440  # pixels: two beside each other on a page, still sharp on a screen of twice the density
_QUALITY = 85


class FailureImages(NamedTuple):
    """One failure as JPEG files.

    Attributes:
        plain: The image as the file has it.
        overlay: The image with the outline of the predicted lung mask and the evidence for the predicted class.
        has_evidence: Whether evidence is drawn; None where the network gives none.
    """

    plain: bytes
    overlay: bytes
    has_evidence: bool | None


def failure_images(
    subject: Subject,
    records: Sequence[Record],
    scores: Scores,
    images: NDArray[np.uint8],
    failures: Sequence[Failure],
) -> dict[str, FailureImages]:
    """Draw the failures; one whose file can no longer be read is left out.

    Args:
        subject: The network.
        records: N records.
        scores: Scores of the same records.
        images: (N, S, S) uint8, fitted.
        failures: Failures among them.

    Returns:
        The name in ``scores.files`` to the drawings.
    """
    rows = {name: row for row, name in enumerate(scores.files)}
    found = {}
    for failure in failures:
        row = rows[failure.file]
        try:
            radiograph = read_radiograph(records[row].image_path)
        except ReadError:
            continue
        probabilities = dict(zip(scores.class_names, scores.probabilities[row].tolist(), strict=True))
        found[failure.file] = _draw(subject, radiograph, images[row], probabilities)
    return found


def _draw(
    subject: Subject, radiograph: Radiograph, fitted: NDArray[np.uint8], probabilities: dict[str, float]
) -> FailureImages:
    output = subject.backend.run(to_input(fitted[None], subject.spec))
    shown = _reduced(radiograph)
    lung = restore_probability(output.segmentation[0, 0], radiograph.square_shape, subject.spec, size=shown.shape)
    mask = np.asarray(lung > subject.mask_threshold)
    label = max(probabilities, key=lambda name: probabilities[name])
    prediction = Prediction(
        origin=radiograph.origin,
        radiograph=shown,
        class_names=subject.class_names,
        label=label,
        probabilities=probabilities,
        prediction_set=(label,),
        abstained=False,
        mask=mask,
        lung_fraction=float(mask.mean()),
        evidence=None if output.evidence is None else output.evidence[0],
        preprocess=subject.spec,
    )
    evidence = class_evidence(prediction, radiograph.shape, subject.spec, size=shown.shape)
    drawn = annotate(shown, prediction, evidence=evidence)
    return FailureImages(
        plain=_jpeg(to_uint8(shown)),
        overlay=_jpeg(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)),
        has_evidence=None if evidence is None else evidence_scale(prediction, evidence) is not None,
    )


def _reduced(radiograph: Radiograph) -> Radiograph:
    """Reduce a large image before it is drawn, so that lines stay visible at the size of the page."""
    pixels = to_uint8(radiograph)
    factor = min(1.0, _SHORTER_SIDE / min(pixels.shape))
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    if factor < 1:
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return Radiograph(pixels, origin=radiograph.origin, pixel_aspect=radiograph.pixel_aspect)


def _jpeg(image: NDArray[np.uint8] | cv2.typing.MatLike) -> bytes:
    height, width = image.shape[:2]
    factor = _LONGEST / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(image, size, interpolation=interpolation)
    return cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
