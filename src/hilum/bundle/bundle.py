"""Read and write bundles: a trained model as a folder, or as one ``.hilum`` zip of the same files.

    bundle.json          the manifest, with the SHA-256 of every other file and of itself
    model.onnx           the network with its weights
    model-int8.onnx      the network quantized to int8 (QuantizeLinear and DequantizeLinear nodes); optional
    model.safetensors    the weights for PyTorch
    gate.onnx            the network of the learned gate, if the bundle has its own
    features.npz         statistics of the features of the training images, if computed
    self_test.npz        a synthetic radiograph with the expected outputs (hilum.bundle.self_test); optional
    training_hashes.npy  (N, 32) uint8, a perceptual hash of each training and validation image; optional
    MODEL_CARD.md        the model card
    model.sig            a signature over all of these (hilum.bundle.signing); optional, and not in the manifest

A bundle contains no executable code. Preprocessing, class names and thresholds are taken from its manifest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hilum.bundle.container import (
    DAMAGED,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    read_files,
    read_signature,
    write_files,
)
from hilum.bundle.signing import sign_files, verify_signature
from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import BundleError
from hilum.gate.thresholds import GateThresholds
from hilum.storage import sha256_bytes, with_current_keys, write_bytes

if TYPE_CHECKING:
    from hilum.bundle.prediction_sets import Temperature, Threshold

ONNX_MODEL = "model.onnx"
ONNX_INT8_MODEL = "model-int8.onnx"
WEIGHTS = "model.safetensors"
MODEL_CARD = "MODEL_CARD.md"
FEATURES = "features.npz"
SELF_TEST = "self_test.npz"
TRAINING_HASHES = "training_hashes.npy"

_FORMAT = 1


class TrainingHashes(BaseModel):
    """Description of the file of training hashes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["dct-256"] = Field(description="Hash algorithm (hilum.data.image_hash).")
    images: int = Field(ge=0, description="Number of hashes.")
    complete: bool = Field(description="Whether the hashes cover all training runs that produced the weights.")
    note: str = Field("", description="Origin of the hashes, if they were not computed at export.")


class Agreement(BaseModel):
    """Measured agreement of a reduced precision with float32 on the images of a split.

    A change is reduced precision minus float32; None where the images have no lung masks, or the network no evidence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int = Field(ge=1, description="Number of images.")
    labels_agree: float = Field(ge=0, le=1, description="Fraction of images with the same predicted class.")
    macro_f1_change: float = Field(description="Change of the macro F1.")
    dice_change: float | None = Field(description="Change of the mean Dice coefficient of the lung masks.")
    evidence_sum_error: float | None = Field(
        description="Maximum difference between a logit and the sum of its evidence and bias."
    )
    evidence_same_cell: float | None = Field(
        description="Fraction of images whose largest evidence for the predicted class of float32 is in the same cell."
    )
    accepted: bool = Field(description="Whether all figures are within the bounds of hilum.export.agreement.")
    backend: str = Field(description="Inference engine and its version.")
    float_layers: Literal["fp32", "bf16"] = Field(
        "fp32", description="Precision of the layers that are not quantized; bf16 is used where the processor has it."
    )
    split: str = Field(description="Name of the split.")


class Manifest(BaseModel):
    """Manifest of a bundle: classes, network, preprocessing, calibration, thresholds, metrics and provenance."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: int = _FORMAT
    bundle_id: str = Field("", description="SHA-256 of this manifest, including the digests of all files.")
    name: str = Field(description="Display name.")
    class_names: tuple[str, ...] = Field(description="K class names in the order of the classification output.")
    preprocess: PreprocessSpec
    model: ModelConfig
    temperature: float = Field(1.0, gt=0, description="Logits are divided by this before softmax.")
    mask_threshold: float = Field(0.5, gt=0, lt=1, description="Pixels with a probability above this are lung.")
    conformal_quantiles: dict[str, tuple[float, ...]] = Field(
        default_factory=dict, description="Coverage to K quantiles, one per class: hilum.bundle.prediction_sets."
    )
    prediction_set_level: str = Field("0.90", description="Coverage of the prediction sets of results.")
    abstention_threshold: float | None = Field(
        None, ge=0, le=1, description="Predictions with a probability below this abstain; None: never."
    )
    class_temperatures: tuple[float, ...] | None = Field(
        None, description="K temperatures, one for each predicted class, used in place of ``temperature``."
    )
    class_thresholds: tuple[float | None, ...] | None = Field(
        None,
        description="K abstention thresholds, one for each predicted class, used in place of ``abstention_threshold``; "
        "None: every prediction of the class abstains.",
    )
    calibration: dict[str, Any] = Field(
        default_factory=dict, description="Data on which temperature, quantiles and threshold were fitted."
    )
    gate: GateThresholds = Field(default_factory=GateThresholds, description="Thresholds of the input checks.")
    outputs: dict[str, str] = Field(default_factory=dict, description="Outputs of the ONNX graph and their meaning.")
    opset: int = 17
    weights_dtype: Literal["float32", "float16 storage"] = Field(
        "float32",
        description="float16 storage: weights are rounded to float16 in both files and computed in float32.",
    )
    metrics: dict[str, Any] = Field(default_factory=dict, description="Metrics with confidence interval, n and split.")
    parity: dict[str, Any] = Field(
        default_factory=dict,
        description="Maximum differences between PyTorch and ONNX Runtime; rounding: before and after rounding.",
    )
    agreement: dict[Literal["bf16", "int8"], Agreement] = Field(
        default_factory=dict, description="Reduced precisions and their measured agreement with float32."
    )
    sources: tuple[str, ...] = Field((), description="Sources of the training images; empty: unknown.")
    started_from: str | None = Field(None, description="bundle_id of the bundle that was fine-tuned, if any.")
    training: tuple[dict[str, Any], ...] = Field(
        (), description="Settings of every training run that produced the weights, in order."
    )
    training_hashes: TrainingHashes | None = Field(
        None, description="Hashes of training and validation images; None: not in the bundle."
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
        if self.class_temperatures is not None and (
            len(self.class_temperatures) != len(self.class_names) or not all(t > 0 for t in self.class_temperatures)
        ):
            raise ValueError(f"Expected {len(self.class_names)} positive temperatures, got {self.class_temperatures}.")
        if self.class_thresholds is not None and (
            len(self.class_thresholds) != len(self.class_names)
            or not all(t is None or 0 <= t <= 1 for t in self.class_thresholds)
        ):
            raise ValueError(
                f"Expected {len(self.class_names)} thresholds in [0, 1] or null, got {self.class_thresholds}."
            )
        return self

    @property
    def applied_temperature(self) -> Temperature:
        """The temperature that predictions use: that of all images, or one for each predicted class."""
        return self.temperature if self.class_temperatures is None else self.class_temperatures

    @property
    def applied_threshold(self) -> Threshold:
        """The abstention threshold that predictions use: that of all images, or one for each predicted class."""
        return self.abstention_threshold if self.class_thresholds is None else self.class_thresholds

    @property
    def evidence_shape(self) -> tuple[int, int, int] | None:
        """Shape (K, h, w) of the evidence of an image; None if the network has no evidence."""
        if "evidence" not in self.outputs:
            return None
        cells = self.preprocess.size // self.model.evidence_stride
        return len(self.class_names), cells, cells

    def threshold_of(self, predicted: int) -> float | None:
        """Return the abstention threshold of the k-th class as predicted class; None: it always or never abstains."""
        return self.abstention_threshold if self.class_thresholds is None else self.class_thresholds[predicted]

    @property
    def prediction_set_quantiles(self) -> tuple[float, ...] | None:
        """Quantiles at ``prediction_set_level``; None if there are none."""
        return self.conformal_quantiles.get(self.prediction_set_level)

    def sealed(self, files: Mapping[str, bytes]) -> Manifest:
        """Return a copy with the digests of ``files`` and the resulting bundle_id."""
        digests = {name: sha256_bytes(content) for name, content in files.items()}
        blank = self.model_copy(update={"files": digests, "bundle_id": ""})
        return blank.model_copy(update={"bundle_id": sha256_bytes(blank.content())})

    def content(self) -> bytes:
        """Return the content of ``bundle.json``, UTF-8."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False) + "\n").encode()


class Bundle:
    """A loaded bundle, whose files were checked against their SHA-256. Created by load_bundle.

    Args:
        manifest: The manifest.
        files: Contents of the files by name.
        path: Path of the bundle.
        signature: Content of ``model.sig``; None if there is none.
    """

    def __init__(
        self, manifest: Manifest, files: Mapping[str, bytes], path: Path, signature: bytes | None = None
    ) -> None:
        self.manifest = manifest
        self.path = path
        self.signature = signature
        self._files = files

    def __contains__(self, name: object) -> bool:
        """Return whether the bundle has a file of that name."""
        return name in self._files

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            BundleError: The bundle has no such file.
        """
        if name not in self._files:
            raise BundleError(f"The bundle '{self.path}' has no file {name}, only {', '.join(sorted(self._files))}.")
        return self._files[name]


def load_bundle(path: str | os.PathLike[str], *, verify_key: Path | None = None) -> Bundle:
    """Load a bundle from a folder or ``.hilum`` file and check the digest of every file.

    Files that the manifest does not name are not read, other than the signature.

    Args:
        path: The bundle.
        verify_key: PEM file of the public key that must have signed the bundle; None: signatures are not verified.

    Raises:
        BundleError: There is no bundle, it has another format, a file has changed, or the key has not signed it.
        ConfigError: The key cannot be used.
        MissingExtraError: There is a key, and the ``signing`` extra is not installed.
    """
    path = Path(path)
    manifest, text, files = _read(path)
    signature = read_signature(path)
    if verify_key is not None:
        verify_signature(signature, {**files, MANIFEST: text}, verify_key, path)
    return Bundle(manifest, files, path, signature)


def sign_bundle(path: Path, key: Path, password: bytes | None = None) -> Bundle:
    """Sign a bundle and return it; an earlier signature is replaced.

    Args:
        path: The bundle, a folder or a ``.hilum`` file.
        key: PEM file of a private key on P-256, P-384 or P-521.
        password: Password of the key; None if it has none.

    Raises:
        BundleError: There is no bundle, or it is damaged.
        ConfigError: The key cannot be used.
        MissingExtraError: The ``signing`` extra is not installed.
        OutputError: The signature cannot be written.
    """
    manifest, text, files = _read(path)
    signed = {**files, MANIFEST: text}
    signature = sign_files(signed, manifest.name, key, password)
    if path.is_file():
        write_files(path, {**signed, SIGNATURE: signature})
    else:
        write_bytes(path / SIGNATURE, signature)
    return Bundle(manifest, files, path, signature)


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write a bundle and return its sealed manifest.

    An existing bundle is replaced when the new one is complete; other files and folders are never overwritten.

    Args:
        path: Output path: a zip if it ends in ``.hilum``, else a folder.
        manifest: The manifest, not yet sealed.
        files: Contents of the other files by name.

    Raises:
        OutputError: ``path`` exists and is not a bundle, or cannot be written.
    """
    sealed = manifest.sealed(files)
    write_files(path, {**files, MANIFEST: sealed.content()})
    return sealed


def _read(path: Path) -> tuple[Manifest, bytes, dict[str, bytes]]:
    """Return the manifest, its bytes, and the files that it names, after checking the digest of each."""
    text = read_files(path, [MANIFEST], MAX_MANIFEST_BYTES)[MANIFEST]
    manifest = _parse(text, path)
    # Of the bytes, not the values, so that any change is detected.
    if sha256_bytes(text.replace(manifest.bundle_id.encode(), b"", 1)) != manifest.bundle_id:
        raise BundleError(f"{MANIFEST} in '{path}' was changed: its SHA-256 differs.", hint=DAMAGED)
    files = read_files(path, manifest.files)
    for name, digest in manifest.files.items():
        if sha256_bytes(files[name]) != digest:
            raise BundleError(f"{name} in '{path}' was changed: its SHA-256 differs.", hint=DAMAGED)
    return manifest, text, files


def _parse(content: bytes, path: Path) -> Manifest:
    try:
        raw = json.loads(content)
        json.dumps(raw, allow_nan=False)  # no NaN or infinity anywhere, such as in a temperature
        if not isinstance(raw, dict) or raw.get("format") != _FORMAT:
            found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
            raise BundleError(
                f"Expected bundle format {_FORMAT} in '{path}', got {found!r}.",
                hint="Use the version of hilum that wrote the bundle.",
            )
        return Manifest.model_validate(with_current_keys(raw))
    except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
        reason = str(error).splitlines()[0]
        raise BundleError(f"'{path / MANIFEST}' is not a valid manifest: {reason}.", hint=DAMAGED) from error
