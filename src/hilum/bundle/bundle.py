"""The bundle: what training leaves and everything else reads. A folder, or the same files in one ``.hilum`` zip.

    bundle.json        the manifest below, sealed: the SHA-256 of every other file, and its own
    model.onnx         the network, weights embedded
    model.safetensors  the same weights for PyTorch
    gate.onnx          the learned gate's network, where the bundle has its own
    features.npz       where the features of the training images lie, where they were measured
    training_hashes.npy  (N, 32) uint8: a perceptual hash of each training and validation image, unless left out
    MODEL_CARD.md      for people

Nothing in it can execute. Preprocessing, class names and thresholds come from here, never from a flag.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hilum.bundle.container import DAMAGED, MANIFEST, read_files, write_files
from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import BundleError
from hilum.gate.thresholds import GateThresholds
from hilum.storage import sha256_bytes, with_current_keys

ONNX_MODEL = "model.onnx"
WEIGHTS = "model.safetensors"
MODEL_CARD = "MODEL_CARD.md"
FEATURES = "features.npz"
TRAINING_HASHES = "training_hashes.npy"

_FORMAT = 1


class TrainingHashes(BaseModel):
    """What the file of hashes holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["dct-256"] = Field(description="How they are computed: hilum.data.image_hash.")
    images: int = Field(ge=0, description="How many hashes.")
    complete: bool = Field(description="Whether the images of every training that made the weights are there.")
    note: str = Field("", description="How they were made, where not at export.")


class Manifest(BaseModel):
    """What a bundle says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: int = _FORMAT
    bundle_id: str = Field("", description="SHA-256 of this manifest, files' digests included; the bundle's name.")
    name: str = Field(description="A name for people.")
    class_names: tuple[str, ...] = Field(description="K names, the order of the classification output.")
    preprocess: PreprocessSpec
    model: ModelConfig
    temperature: float = Field(1.0, gt=0, description="Logits are divided by this before softmax.")
    mask_threshold: float = Field(0.5, gt=0, lt=1, description="Lung where the probability is above this.")
    conformal_quantiles: dict[str, tuple[float, ...]] = Field(
        default_factory=dict, description="Coverage to K quantiles, one per class: hilum.bundle.prediction_sets."
    )
    prediction_set_level: str = Field("0.90", description="The coverage of the prediction sets that predictions carry.")
    abstention_threshold: float | None = Field(
        None, ge=0, le=1, description="Below this probability of the label a prediction abstains; None: never."
    )
    calibration: dict[str, Any] = Field(
        default_factory=dict, description="What temperature, quantiles and threshold were fitted on."
    )
    gate: GateThresholds = Field(default_factory=GateThresholds, description="Bounds of the gates' checks.")
    outputs: dict[str, str] = Field(default_factory=dict, description="The ONNX graph's outputs and what they are.")
    opset: int = 17
    weights_dtype: Literal["float32", "float16 storage"] = Field(
        "float32",
        description="float16 storage: weights were rounded to float16 values, in both files; computed in float32.",
    )
    metrics: dict[str, Any] = Field(default_factory=dict, description="Each with its interval, n and split.")
    parity: dict[str, Any] = Field(
        default_factory=dict,
        description="Largest differences PyTorch - ONNX Runtime; under rounding, of the weights before it and after.",
    )
    sources: tuple[str, ...] = Field((), description="Sources of the images it was trained on; empty: not known.")
    started_from: str | None = Field(None, description="bundle_id of the bundle that was fine-tuned, if one was.")
    training: tuple[dict[str, Any], ...] = Field(
        (), description="Settings of every training that made the weights, in order; the last is the bundle's own."
    )
    training_hashes: TrainingHashes | None = Field(
        None, description="Hashes of the images it was trained on and validated with; None: not in the bundle."
    )
    split_digest: str | None = None
    index_digest: str | None = None
    hilum_version: str = ""
    created: str = Field("", description="UTC, ISO 8601.")
    files: dict[str, str] = Field(default_factory=dict, description="File name to SHA-256.")

    @model_validator(mode="after")
    def _check_quantiles(self) -> Manifest:
        for level, quantiles in self.conformal_quantiles.items():
            if len(quantiles) != len(self.class_names) or not all(0 <= quantile <= 1 for quantile in quantiles):
                raise ValueError(
                    f"Expected {len(self.class_names)} quantiles in [0, 1] at coverage {level}, got {quantiles}."
                )
        return self

    @property
    def prediction_set_quantiles(self) -> tuple[float, ...] | None:
        """Those at ``prediction_set_level``; None where there are none."""
        return self.conformal_quantiles.get(self.prediction_set_level)

    def sealed(self, files: Mapping[str, bytes]) -> Manifest:
        """With the digests of ``files`` and the bundle_id over all of it."""
        digests = {name: sha256_bytes(content) for name, content in files.items()}
        blank = self.model_copy(update={"files": digests, "bundle_id": ""})
        return blank.model_copy(update={"bundle_id": sha256_bytes(blank.content())})

    def content(self) -> bytes:
        """``bundle.json``, UTF-8."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False) + "\n").encode()


class Bundle:
    """An opened bundle; every file is checked against its SHA-256 when it is read."""

    def __init__(self, manifest: Manifest, files: Mapping[str, bytes], path: Path) -> None:
        self.manifest = manifest
        self.path = path
        self._files = files

    def __contains__(self, name: object) -> bool:
        """Whether the bundle has a file of that name."""
        return name in self._files

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            BundleError: the bundle has no such file.
        """
        if name not in self._files:
            raise BundleError(f"Expected {name} in the bundle {self.path}, it holds {sorted(self._files)}.")
        return self._files[name]


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open a bundle folder or ``.hilum`` file and check all of it; files that its manifest does not name are not read.

    Raises:
        BundleError: it is absent, of another format, or any byte of it has changed.
    """
    path = Path(path)
    text = read_files(path, [MANIFEST])[MANIFEST]
    manifest = _parse(text, path)
    # Over the bytes, not the values: a changed space is a change.
    if sha256_bytes(text.replace(manifest.bundle_id.encode(), b"", 1)) != manifest.bundle_id:
        raise BundleError(f"Expected an unchanged {MANIFEST} in {path}, its digest differs.", hint=DAMAGED)
    files = read_files(path, manifest.files)
    for name, digest in manifest.files.items():
        if sha256_bytes(files[name]) != digest:
            raise BundleError(f"Expected an unchanged {name} in {path}, its SHA-256 differs.", hint=DAMAGED)
    return Bundle(manifest, files, path)


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write a bundle to ``path``: one zip if it ends in ``.hilum``, else a folder; the sealed manifest.

    An existing bundle is replaced only once the new one is complete; any other file or folder is left alone.

    Raises:
        OutputError: ``path`` is something else than a bundle, or cannot be written.
    """
    sealed = manifest.sealed(files)
    write_files(path, {**files, MANIFEST: sealed.content()})
    return sealed


def _parse(content: bytes, path: Path) -> Manifest:
    try:
        raw = json.loads(content)
        if not isinstance(raw, dict) or raw.get("format") != _FORMAT:
            found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
            raise BundleError(
                f"Expected a bundle of format {_FORMAT} in {path}, got {found!r}.",
                hint="Use the version of hilum that wrote it.",
            )
        return Manifest.model_validate(with_current_keys(raw))
    except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
        reason = str(error).splitlines()[0]
        raise BundleError(f"Expected a manifest in {path / MANIFEST}, got: {reason}.", hint=DAMAGED) from error
