"""Read and write trained gates, which ``hilum train-gate`` writes and ``hilum export --gate-from`` bundles.

gate.onnx    the network, weights embedded
gate.json    the manifest below
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hilum._version import __version__
from hilum.errors import BundleError
from hilum.gate.learned import LearnedThresholds
from hilum.storage import sha256_bytes, with_current_keys, write_bytes, write_json

GATE_MODEL = "gate.onnx"
_MANIFEST = "gate.json"


class StoredGate(BaseModel):
    """Manifest of a trained gate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    thresholds: LearnedThresholds
    training: dict[str, Any] = Field(default_factory=dict, description="Settings, and the number of images per kind.")
    calibration: dict[str, Any] = Field(default_factory=dict, description="Data on which the thresholds were set.")
    hilum_version: str = __version__
    sha256: str = Field(description="SHA-256 of gate.onnx.")


def write_gate(folder: Path, model: bytes, thresholds: LearnedThresholds, **facts: dict[str, Any]) -> StoredGate:
    """Write a gate and return its manifest, which is written last.

    Args:
        folder: Output folder.
        model: Content of the ONNX file.
        thresholds: The thresholds.
        facts: ``training`` and ``calibration`` of StoredGate.

    Raises:
        OutputError: The folder cannot be written.
    """
    stored = StoredGate(thresholds=thresholds, sha256=sha256_bytes(model), **facts)
    write_bytes(folder / GATE_MODEL, model)
    write_json(folder / _MANIFEST, stored.model_dump(mode="json"))
    return stored


def load_gate(folder: Path) -> tuple[bytes, StoredGate]:
    """Return the content of the ONNX file and the manifest of a gate.

    Raises:
        BundleError: The folder contains no gate, or its network was changed.
    """
    try:
        stored = StoredGate.model_validate(
            with_current_keys(json.loads((folder / _MANIFEST).read_text(encoding="utf-8")))
        )
        model = (folder / GATE_MODEL).read_bytes()
    except (OSError, ValueError, ValidationError) as error:
        raise BundleError(
            f"'{folder}' is not a trained gate: {error}.", hint="Name a folder written by hilum train-gate."
        ) from error
    if sha256_bytes(model) != stored.sha256:
        raise BundleError(
            f"{GATE_MODEL} in '{folder}' was changed: its SHA-256 differs.", hint="Train or copy the gate again."
        )
    return model, stored
