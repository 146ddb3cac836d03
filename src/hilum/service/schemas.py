"""Schemas of the service's responses."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from hilum.types import Severity

Include: TypeAlias = Literal["mask", "rle", "evidence", "cells", "overlay", "thumbnail"]
"""What a request may add to each prediction."""

ObjectKind: TypeAlias = Literal["seg", "sr", "sc", "pr"]
"""``hilum.inference.dicom_names.Kind``, whose module imports pydicom."""


class FindingSchema(BaseModel):
    """One result of a check."""

    check: str = Field(description="Name of the check.")
    severity: Severity = Field(description="error: the file is refused; warning: it is accepted.")
    message: str = Field(description="The measured value and its threshold.")


class RunLength(BaseModel):
    """A mask in COCO's uncompressed run-length encoding."""

    size: tuple[int, int] = Field(description="Height and width, pixels.")
    counts: list[int] = Field(
        description="Lengths of alternating runs of 0 and 1, starting with 0, by columns, pixels."
    )


class EvidenceSchema(BaseModel):
    """Contribution of each cell of the network's evidence map to each class's logit."""

    class_names: list[str] = Field(description="K class names, in the order of `values`.")
    values: list[list[list[float]]] = Field(
        description="(K, h, w) logits over the network's square input; the sum is the logit minus its bias."
    )
    placement: tuple[float, float, float, float] = Field(
        description="Top, left, height and width of the image inside that square, in fractions of its side."
    )
    png: str | None = Field(
        None,
        description="Evidence for the predicted class at the image's size, 16-bit PNG, base64: (gray - 32768) x step.",
    )
    step: float | None = Field(None, description="Logits per gray level of the PNG.")


class OrientationSchema(BaseModel):
    """A correction of an image that lies on a side or has an inverted gray scale."""

    rotate: Literal[0, 90, 180, 270] = Field(description="Degrees clockwise by which to rotate the image.")
    invert: bool = Field(description="Whether to invert its gray scale.")


class PredictionSchema(BaseModel):
    """The prediction for one image."""

    predicted_label: str = Field(description="The class with the highest probability.")
    probabilities: dict[str, float] = Field(description="Class to calibrated probability, in [0, 1], summing to 1.")
    prediction_set: list[str] = Field(description="Conformal prediction set, most probable class first.")
    abstained: bool = Field(description="Whether the probability is below the abstention threshold.")
    lung_fraction: float = Field(description="Fraction of the image's pixels that is lung, in [0, 1].")
    evidence_zones: dict[str, float] | None = Field(
        None,
        description="Share of the evidence in each zone of the patient's lungs (right_upper, ..., left_lower) and "
        "outside_lungs, in [0, 1], summing to 1; null without evidence in favor.",
    )
    evidence_summary: str | None = Field(None, description="The zones in words; null if the network has no evidence.")
    height: int = Field(description="Height of the image, pixels.")
    width: int = Field(description="Width of the image, pixels.")
    pixel_aspect: float = Field(description="Height of a pixel over its width.")
    findings: list[FindingSchema] = Field(description="Warnings.")
    mask_png: str | None = Field(None, description="Lung mask at the image's size, 1-bit PNG, white is lung; base64.")
    mask_rle: RunLength | None = Field(None, description="The lung mask as run lengths.")
    overlay_png: str | None = Field(None, description="Image with lung outline, evidence and legend, PNG; base64.")
    evidence: EvidenceSchema | None = Field(None, description="Evidence, if requested and available.")
    thumbnail: str | None = Field(None, description="Small JPEG, longer side 112 pixels; base64.")
    orientation_fix: OrientationSchema | None = Field(None, description="Correction made before the prediction.")


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "type": "urn:hilum:problem:refused", "title": "The input check refused the image", "status": 422,
        "detail": "lateral view: probability of a frontal chest radiograph 0.0004, expected at least 0.5",
        "request_id": "6f1c...", "file": "image.dcm",
        "findings": [{"check": "frontal", "severity": "error", "message": "lateral view: ..."}],
    }]})  # fmt: skip

    type: str = Field(description="urn:hilum:problem:KIND.")
    title: str = Field(description="Title of the kind of problem.")
    status: int = Field(description="HTTP status.")
    detail: str = Field("", description="Description of this occurrence.")
    request_id: str = Field("", description="As in the header X-Request-ID and in the service's log.")
    file: str | None = Field(None, description="Name of the file, given by the client.")
    findings: list[FindingSchema] = Field([], description="Findings of the checks.")
    thumbnail: str | None = Field(None, description="Small JPEG of a readable image, if requested; base64.")
    error: str | None = Field(None, description="Title and detail, for clients of the Open Inference Protocol (/v2).")
    orientation_fix: OrientationSchema | None = Field(
        None, description="Correction with which the image would be accepted: send it again with fix_orientation=true."
    )


class FileResult(BaseModel):
    """The result of one file."""

    file: str = Field(description="Name of the file, given by the client.")
    status: Literal["ok", "refused", "unreadable"]
    prediction: PredictionSchema | None = None
    problem: Problem | None = Field(None, description="Reason why there is no prediction.")


class PredictResponse(BaseModel):
    """The response of /v1/predict."""

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "bundle_id": "714db2278c40...", "model": "hilum default", "request_id": "6f1c...",
        "notice": "A research tool, not a medical device.",
        "results": [{
            "file": "image.png", "status": "ok",
            "prediction": {
                "predicted_label": "Normal", "probabilities": {"COVID": 0.02, "Lung_Opacity": 0.03, "Normal": 0.94,
                "Viral Pneumonia": 0.01}, "prediction_set": ["Normal"], "abstained": False, "lung_fraction": 0.27,
                "height": 1024, "width": 1024, "pixel_aspect": 1.0, "findings": [],
            },
        }],
    }]})  # fmt: skip

    bundle_id: str = Field(description="SHA-256 of the bundle.")
    model: str = Field(description="Name of the bundle.")
    request_id: str
    notice: str = "A research tool, not a medical device."
    results: list[FileResult] = Field(description="One for each file, in the order of the request.")


class BundleSchema(BaseModel):
    """Description of the loaded bundle."""

    bundle_id: str
    name: str
    class_names: list[str]
    network: str
    input_size: int = Field(description="Side of the network's square input, pixels.")
    gate: str = Field(description="Input check: learned, classic or none.")
    temperature: float
    class_temperatures: tuple[float, ...] | None = Field(None, description="One for each predicted class, if fitted.")
    prediction_set_level: str
    abstention_threshold: float | None
    class_thresholds: tuple[float | None, ...] | None = Field(
        None, description="One for each predicted class, if fitted; null: every prediction of the class abstains."
    )
    has_prediction_sets: bool = Field(
        description="Whether prediction sets hold their level; if not, they are the label."
    )
    max_upload_bytes: int = Field(description="Maximum size of a request.")
    notice: str = "A research tool, not a medical device."
    sources: list[str] = Field(description="Sources of the training images; empty: unknown.")
    hilum_version: str
    outputs: dict[str, str] = Field(description="Outputs of the ONNX graph.")


class AuditFindingSchema(BaseModel):
    """A finding of an audit of a dataset."""

    word: str = Field(description="Shortcut, leak, problem, note and so on.")
    check: str
    severity: Literal["info", "warning", "error"]
    message: str
    count: int = Field(description="Number of images concerned.")


class AuditSchema(BaseModel):
    """Summary of the audit that the service was started with."""

    name: str
    images: int
    groups: int
    sources: int
    conclusion: str = Field(description="The conclusion in words; empty in reports of earlier versions.")
    findings: list[AuditFindingSchema] = Field(description="Worst first.")
    not_run: dict[str, str] = Field(description="Parts that were not run, and why.")


class HealthSchema(BaseModel):
    """Health of the service."""

    status: Literal["ok"]
