"""What the service answers with, with units."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hilum.types import Severity


class FindingSchema(BaseModel):
    """One thing that a check has to say."""

    check: str = Field(description="The name of the check.")
    severity: Severity = Field(description="error refuses the file, warning lets it pass.")
    message: str = Field(description="What was measured, against which bound.")


class RunLength(BaseModel):
    """A mask as run lengths, as COCO tools read it (uncompressed)."""

    size: tuple[int, int] = Field(description="Height and width, pixels.")
    counts: list[int] = Field(description="Runs of 0 and 1 in turn, the first of 0, column by column, pixels.")


class EvidenceSchema(BaseModel):
    """What each cell of the network's map adds to each class's logit."""

    class_names: list[str] = Field(description="K names, in the order of `values`.")
    values: list[list[list[float]]] = Field(
        description="(K, h, w) logits, over the square that the network saw; sums to the logit less its bias."
    )
    png: str = Field(
        description="That of the predicted class at the file's size, 16-bit PNG, base64: (gray - 32768) x step logits."
    )
    step: float = Field(description="Of the PNG: logits per gray level.")


class PredictionSchema(BaseModel):
    """The answer for one image."""

    predicted_label: str = Field(description="The class of the highest probability.")
    probabilities: dict[str, float] = Field(description="Class to calibrated probability, in [0, 1], summing to 1.")
    prediction_set: list[str] = Field(description="The classes that are not ruled out, the most probable first.")
    abstained: bool = Field(description="Whether the probability is below the bound for an answer: a person decides.")
    lung_fraction: float = Field(description="Share of the image's pixels that is lung, in [0, 1].")
    height: int = Field(description="Of the file, pixels.")
    width: int = Field(description="Of the file, pixels.")
    findings: list[FindingSchema] = Field(description="Warnings.")
    mask_png: str | None = Field(None, description="Lung mask at the file's size, 8-bit PNG, 255 is lung; base64.")
    mask_rle: RunLength | None = Field(None, description="The same mask as run lengths.")
    overlay_png: str | None = Field(None, description="Image, lung outline and evidence with its scale, PNG; base64.")
    evidence: EvidenceSchema | None = Field(None, description="Where asked for and the network gives it.")


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "type": "urn:hilum:problem:refused", "title": "The gate refuses this image", "status": 422,
        "detail": "lateral view: probability of a frontal chest radiograph 0.0004, expected at least 0.5",
        "request_id": "6f1c...", "file": "image.dcm",
        "findings": [{"check": "frontal", "severity": "error", "message": "lateral view: ..."}],
    }]})  # fmt: skip

    type: str = Field(description="urn:hilum:problem:KIND.")
    title: str = Field(description="The kind in words, always the same for a kind.")
    status: int = Field(description="The HTTP status that it is or would be.")
    detail: str = Field("", description="What happened here.")
    request_id: str = Field("", description="As in the header X-Request-ID and in the service's log.")
    file: str | None = Field(None, description="The name that the client gave the file.")
    findings: list[FindingSchema] = Field([], description="All that speaks against the file.")


class FileResult(BaseModel):
    """What became of one file."""

    file: str = Field(description="The name that the client gave it.")
    status: Literal["ok", "refused", "unreadable"]
    prediction: PredictionSchema | None = None
    problem: Problem | None = Field(None, description="Why it got none.")


class PredictResponse(BaseModel):
    """The answer to /v1/predict."""

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "bundle_id": "714db2278c40...", "model": "hilum default", "request_id": "6f1c...",
        "notice": "A research tool, not a medical device.",
        "results": [{
            "file": "image.png", "status": "ok",
            "prediction": {
                "predicted_label": "Normal", "probabilities": {"COVID": 0.02, "Lung_Opacity": 0.03, "Normal": 0.94,
                "Viral Pneumonia": 0.01}, "prediction_set": ["Normal"], "abstained": False, "lung_fraction": 0.27,
                "height": 1024, "width": 1024, "findings": [],
            },
        }],
    }]})  # fmt: skip

    bundle_id: str = Field(description="SHA-256 of the bundle that answered.")
    model: str = Field(description="Its name.")
    request_id: str
    notice: str = "A research tool, not a medical device."
    results: list[FileResult] = Field(description="One for each file, in the order of the request.")


class BundleSchema(BaseModel):
    """What the service answers with."""

    bundle_id: str
    name: str
    class_names: list[str]
    network: str
    input_size: int = Field(description="Side of the square that the network sees, pixels.")
    gate: str = Field(description="What refuses files: learned, classic or none.")
    temperature: float
    prediction_set_level: str
    abstention_threshold: float | None
    sources: list[str] = Field(description="Of the training images; empty: not known.")
    hilum_version: str
    outputs: dict[str, str] = Field(description="Of the ONNX graph.")


class HealthSchema(BaseModel):
    """Whether the service lives, or is ready."""

    status: Literal["ok"]
