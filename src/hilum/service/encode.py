"""Encode results as JSON schemas: images as base64, masks as run lengths."""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.bundle.bundle import Manifest
from hilum.errors import DataError, ReadError
from hilum.imaging.preprocess import placement, to_uint8
from hilum.inference.evidence_file import encode_evidence, step_of
from hilum.inference.png import png_bytes
from hilum.inference.predictor import Upload
from hilum.inference.render import draw_overlay
from hilum.inference.result import Prediction, Result
from hilum.service.problems import ProblemError, problem
from hilum.service.schemas import (
    EvidenceSchema,
    FileResult,
    FindingSchema,
    Include,
    ObjectKind,
    OrientationSchema,
    PredictionSchema,
    Problem,
    RunLength,
)
from hilum.types import Finding, Gray, Radiograph

_THUMBNAIL_SIDE = 112


def file_result(result: Result, upload: Upload, extras: Collection[Include] = ()) -> FileResult:
    """Return the schema of one file's result.

    Args:
        result: The result.
        upload: The file.
        extras: What to add to it.
    """
    name = upload.name
    if not isinstance(result, Prediction):
        return FileResult(file=name, status=result.status, problem=_refusal(result, name, extras))
    return FileResult(file=name, status=result.status, prediction=_prediction(result, extras))


def result_png(result: Result, upload: Upload, image: Include) -> bytes:
    """Return the PNG of a prediction's ``mask``, ``overlay`` or ``evidence``.

    Raises:
        ProblemError: There is no prediction, or the network has no evidence.
    """
    if not isinstance(result, Prediction):
        raise ProblemError(_refusal(result, upload.name))
    if image == "mask":
        return png_bytes(result.mask)
    if image == "overlay":
        return png_bytes(draw_overlay(result))
    evidence = result.evidence_map()
    if evidence is None:
        raise ProblemError.of("not-acceptable", 406, "The network of this bundle has no evidence.")
    return encode_evidence(evidence, result)


def result_dicom(result: Result, upload: Upload, kind: ObjectKind, manifest: Manifest, settings: str) -> bytes:
    """Return the content of a DICOM object of a result: ``seg``, ``sr``, ``sc`` or ``pr``.

    Args:
        result: The result.
        upload: The file, DICOM.
        kind: Kind of object.
        manifest: Manifest of the bundle that predicted.
        settings: Predictor.settings of the predictor.

    Raises:
        ProblemError: The file is unreadable or no DICOM, or it allows no such object; all kinds but the report need a
            prediction.
    """
    if result.status == "unreadable":
        raise ProblemError(_refusal(result, upload.name))
    from hilum.inference.dicom_out import encoded, objects_of, source_header  # highdicom takes 0.5 s to import

    try:
        made = objects_of(source_header(upload.content, upload.name), result, manifest, settings, kinds=(kind,))
    except (DataError, ReadError) as error:
        raise ProblemError.of("unreadable", 422, str(error)) from error
    if kind not in made:
        if not result.ok:
            raise ProblemError(_refusal(result, upload.name))
        raise ProblemError.of("not-acceptable", 406, f"There is no {kind} of an image in color.")
    return encoded(made[kind])


def thumbnail(radiograph: Radiograph) -> bytes:
    """Return a small JPEG of an image, its longer side at most 112 pixels."""
    height, width = radiograph.shape
    factor = min(1.0, _THUMBNAIL_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small: Gray = cv2.resize(radiograph.pixels, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    pixels = to_uint8(replace(radiograph, pixels=small))
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())


def _refusal(refusal: Result, name: str, extras: Collection[Include] = ()) -> Problem:
    radiograph = refusal.radiograph if "thumbnail" in extras else None
    return problem(
        refusal.status,
        422,
        refusal.reason,
        file=name,
        findings=[_finding(found) for found in refusal.findings],
        thumbnail=None if radiograph is None else _base64(thumbnail(radiograph)),
        orientation_fix=_orientation(refusal),
    )


def _orientation(result: Result) -> OrientationSchema | None:
    fix = result.orientation_fix
    if fix is None:
        return None
    # The fix counts the quarter turns by which the image is rotated; it is rotated back by the rest.
    return OrientationSchema.model_validate({"rotate": 90 * (-fix.turn % 4), "invert": fix.inverted})


def run_lengths(mask: NDArray[np.bool_]) -> RunLength:
    """Return a mask (H, W) bool in COCO's uncompressed run-length encoding."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return RunLength(size=(mask.shape[0], mask.shape[1]), counts=([0] if flat.size and flat[0] else []) + counts)


def _prediction(prediction: Prediction, extras: Collection[Include]) -> PredictionSchema:
    height, width = prediction.mask.shape
    evidence = prediction.evidence_map() if "evidence" in extras else None
    drawn = _base64(png_bytes(draw_overlay(prediction))) if "overlay" in extras else None
    return PredictionSchema(
        predicted_label=prediction.label,
        probabilities=dict(prediction.probabilities),
        prediction_set=list(prediction.prediction_set),
        abstained=prediction.abstained,
        lung_fraction=prediction.lung_fraction,
        evidence_zones=None if prediction.evidence_zones is None else dict(prediction.evidence_zones),
        evidence_summary=prediction.evidence_summary,
        height=height,
        width=width,
        pixel_aspect=prediction.radiograph.pixel_aspect,
        findings=[_finding(found) for found in prediction.findings],
        mask_png=_base64(png_bytes(prediction.mask)) if "mask" in extras else None,
        mask_rle=run_lengths(prediction.mask) if "rle" in extras else None,
        overlay_png=drawn,
        evidence=_evidence(prediction, evidence, extras),
        thumbnail=_base64(thumbnail(prediction.radiograph)) if "thumbnail" in extras else None,
        orientation_fix=_orientation(prediction),
    )


def _evidence(
    prediction: Prediction, evidence: NDArray[np.float32] | None, extras: Collection[Include]
) -> EvidenceSchema | None:
    if prediction.evidence is None or not {"evidence", "cells"} & set(extras):
        return None
    side = prediction.preprocess.size
    top, left, height, width = placement(prediction.radiograph.square_shape, prediction.preprocess)
    schema = EvidenceSchema(
        class_names=list(prediction.class_names),
        values=np.round(prediction.evidence.astype(np.float64), 5).tolist(),
        placement=(top / side, left / side, height / side, width / side),
    )
    if evidence is None or "evidence" not in extras:
        return schema
    png = _base64(encode_evidence(evidence, prediction))
    return schema.model_copy(update={"png": png, "step": step_of(evidence)})


def _finding(finding: Finding) -> FindingSchema:
    return FindingSchema(check=finding.check, severity=finding.severity, message=finding.message)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
