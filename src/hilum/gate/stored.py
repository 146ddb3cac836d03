"""A trained gate on the disk: what ``hilum train-gate`` writes and ``hilum export --gate-from`` puts into a bundle.

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
    """What a trained gate says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    thresholds: LearnedThresholds
    training: dict[str, Any] = Field(default_factory=dict, description="Settings, and how many images of each kind.")
    calibration: dict[str, Any] = Field(default_factory=dict, description="What the thresholds were set on.")
    hilum_version: str = __version__
    sha256: str = Field(description="Of gate.onnx.")


def write_gate(folder: Path, model: bytes, thresholds: LearnedThresholds, **facts: dict[str, Any]) -> StoredGate:
    """Write a gate; the manifest last, so that one that is there is whole.

    Raises:
        OutputError: The folder cannot be written.
    """
    stored = StoredGate(thresholds=thresholds, sha256=sha256_bytes(model), **facts)
    write_bytes(folder / GATE_MODEL, model)
    write_json(folder / _MANIFEST, stored.model_dump(mode="json"))
    return stored


def load_gate(folder: Path) -> tuple[bytes, StoredGate]:
    """The graph's bytes and the manifest.

    Raises:
        BundleError: The folder holds no gate, or a changed one.
    """
    try:
        stored = StoredGate.model_validate(
            with_current_keys(json.loads((folder / _MANIFEST).read_text(encoding="utf-8")))
        )
        model = (folder / GATE_MODEL).read_bytes()
    except (OSError, ValueError, ValidationError) as error:
        raise BundleError(
            f"Expected a gate in {folder}, got: {error}.", hint="Name a folder that hilum train-gate wrote."
        ) from error
    if sha256_bytes(model) != stored.sha256:
        raise BundleError(f"Expected {GATE_MODEL} in {folder} to be the one that its manifest names; it has changed.")
    return model, stored
