"""Encode results as JSON schemas: images as base64, masks as run lengths."""

from __future__ import annotations

import base64
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from hilum.inference.evidence_file import encode_evidence, step_of
from hilum.inference.render import mask_png, overlay, png_bytes
from hilum.inference.result import Prediction, Result
from hilum.service.problems import problem
from hilum.service.schemas import EvidenceSchema, FileResult, FindingSchema, PredictionSchema, Problem, RunLength
from hilum.types import Finding

EXTRAS = ("mask", "rle", "evidence", "overlay")
"""Values of ``include``: images to add to a prediction."""


def file_result(result: Result, name: str, extras: Collection[str] = ()) -> FileResult:
    """Return the schema of one file's result.

    Args:
        result: The result.
        name: Name of the file.
        extras: Images to add, of EXTRAS.
    """
    if not isinstance(result, Prediction):
        return FileResult(file=name, status=result.status, problem=refusal_problem(result, name))
    return FileResult(file=name, status=result.status, prediction=_prediction(result, extras))


def refusal_problem(refusal: Result, name: str) -> Problem:
    """Return the problem details of a refused or unreadable file."""
    return problem(
        refusal.status, 422, refusal.reason, file=name, findings=[_finding(found) for found in refusal.findings]
    )


def run_lengths(mask: NDArray[np.bool_]) -> RunLength:
    """Return a mask (H, W) bool in COCO's uncompressed run-length encoding."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return RunLength(size=(mask.shape[0], mask.shape[1]), counts=([0] if flat.size and flat[0] else []) + counts)


def _prediction(prediction: Prediction, extras: Collection[str]) -> PredictionSchema:
    height, width = prediction.mask.shape
    evidence = prediction.evidence_map() if {"overlay", "evidence"} & set(extras) else None
    drawn = None
    if "overlay" in extras:
        drawn = _base64(png_bytes(overlay(prediction.radiograph, prediction, evidence=evidence)))
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
        findings=[_finding(found) for found in prediction.findings],
        mask_png=_base64(png_bytes(mask_png(prediction.mask))) if "mask" in extras else None,
        mask_rle=run_lengths(prediction.mask) if "rle" in extras else None,
        overlay_png=drawn,
        evidence=_evidence(prediction, evidence) if "evidence" in extras else None,
    )


def _evidence(prediction: Prediction, evidence: NDArray[np.float32] | None) -> EvidenceSchema | None:
    if prediction.evidence is None or evidence is None:
        return None
    return EvidenceSchema(
        class_names=list(prediction.class_names),
        values=prediction.evidence.tolist(),
        png=_base64(encode_evidence(evidence, prediction)),
        step=step_of(evidence),
    )


def _finding(finding: Finding) -> FindingSchema:
    return FindingSchema(check=finding.check, severity=finding.severity, message=finding.message)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
