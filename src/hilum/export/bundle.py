"""The bundle: what training leaves and everything else reads. A folder, or the same files in one ``.hilum`` zip.

    bundle.json        the manifest below, sealed: its own digest and the SHA-256 of every other file
    model.onnx         the network, weights embedded
    model.safetensors  the same weights for PyTorch
    MODEL_CARD.md      for people

Nothing in it can execute. Preprocessing, class names and thresholds come from here, never from a flag.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import BundleError, OutputError
from hilum.gate.checks import Thresholds
from hilum.storage import sha256_bytes, sha256_text, write_bytes, write_json

MANIFEST = "bundle.json"
ONNX_MODEL = "model.onnx"
WEIGHTS = "model.safetensors"
MODEL_CARD = "MODEL_CARD.md"
SUFFIX = ".hilum"

_FORMAT = 1
_MAX_BYTES = 2 << 30


class Manifest(BaseModel):
    """What a bundle says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: int = _FORMAT
    bundle_id: str = Field("", description="SHA-256 of everything below, files included; the bundle's name.")
    name: str = Field(description="A name for people.")
    class_names: tuple[str, ...] = Field(description="K names, the order of the classification output.")
    preprocess: PreprocessSpec
    model: ModelConfig
    temperature: float = Field(1.0, gt=0, description="Logits are divided by this before softmax.")
    mask_threshold: float = Field(0.5, gt=0, lt=1, description="Lung where the probability is above this.")
    conformal_quantiles: dict[str, float] = Field(default_factory=dict, description="Coverage to quantile.")
    gate: Thresholds = Field(default_factory=Thresholds, description="Bounds of the gate's checks.")
    outputs: dict[str, str] = Field(default_factory=dict, description="The ONNX graph's outputs and what they are.")
    opset: int = 17
    metrics: dict[str, Any] = Field(default_factory=dict, description="Each with its interval, n and split.")
    parity: dict[str, Any] = Field(default_factory=dict, description="Largest differences PyTorch - ONNX Runtime.")
    split_digest: str | None = None
    index_digest: str | None = None
    hilum_version: str = ""
    created: str = Field("", description="UTC, ISO 8601.")
    files: dict[str, str] = Field(default_factory=dict, description="File name to SHA-256.")

    def sealed(self, files: Mapping[str, bytes]) -> Manifest:
        """With the digests of ``files`` and the bundle_id over all of it."""
        hashed = self.model_copy(update={"files": {name: sha256_bytes(content) for name, content in files.items()}})
        return hashed.model_copy(update={"bundle_id": hashed.digest()})

    def digest(self) -> str:
        """SHA-256 over every field but bundle_id."""
        return sha256_text(json.dumps(self.model_dump(mode="json", exclude={"bundle_id"}), sort_keys=True))


class Bundle:
    """An opened bundle; every file is checked against its SHA-256 when it is read."""

    def __init__(self, manifest: Manifest, files: Mapping[str, bytes], path: Path) -> None:
        self.manifest = manifest
        self.path = path
        self._files = files

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            BundleError: the bundle has no such file.
        """
        if name not in self._files:
            raise BundleError(f"Expected {name} in the bundle {self.path}, it holds {sorted(self._files)}.")
        return self._files[name]


def load_bundle(path: Path) -> Bundle:
    """Open a bundle folder or ``.hilum`` file and check all of it.

    Raises:
        BundleError: it is absent, of another format, or any byte of it has changed.
    """
    contents = _read_zip(path) if path.is_file() else _read_folder(path)
    manifest = _parse(contents.pop(MANIFEST), path)
    damaged = "Copy the bundle anew or export it again; a changed bundle is not used."
    if manifest.digest() != manifest.bundle_id:
        raise BundleError(f"Expected an unchanged {MANIFEST} in {path}, its digest differs.", cure=damaged)
    for name, digest in manifest.files.items():
        if name not in contents:
            raise BundleError(f"Expected {name} in the bundle {path}, it is missing.", cure=damaged)
        if sha256_bytes(contents[name]) != digest:
            raise BundleError(f"Expected an unchanged {name} in {path}, its SHA-256 differs.", cure=damaged)
    return Bundle(manifest, {name: contents[name] for name in manifest.files}, path)


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write a bundle to ``path``: one zip if it ends in ``.hilum``, else a folder; the sealed manifest.

    An existing bundle is replaced only once the new one is complete; any other file or folder is left alone.

    Raises:
        OutputError: ``path`` is something else than a bundle, or cannot be written.
    """
    sealed = manifest.sealed(files)
    text = json.dumps(sealed.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"
    if path.suffix == SUFFIX:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in {MANIFEST: text.encode(), **files}.items():
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        write_bytes(path, stream.getvalue())
        return sealed
    if path.exists() and not (path / MANIFEST).is_file():
        raise OutputError(
            f"Expected a new folder or an old bundle at {path}, something else is there.", cure="Choose another --out."
        )
    _replace_folder(path, sealed, files)
    return sealed


def _replace_folder(path: Path, sealed: Manifest, files: Mapping[str, bytes]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise OutputError(f"Expected a writable folder for {path}, got: {error.strerror}.") from error
    try:
        for name, content in files.items():
            write_bytes(temporary / name, content)
        write_json(temporary / MANIFEST, sealed.model_dump(mode="json"))
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except OSError as error:
        raise OutputError(f"Could not write the bundle {path}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_folder(path: Path) -> dict[str, bytes]:
    if not (path / MANIFEST).is_file():
        raise BundleError(
            f"Expected a bundle (a folder with {MANIFEST}, or a {SUFFIX} file) at {path}, found none.",
            cure="`hilum export RUN` writes one.",
        )
    try:
        return {file.name: file.read_bytes() for file in sorted(path.iterdir()) if file.is_file()}
    except OSError as error:
        raise BundleError(f"Expected a readable bundle at {path}, got: {error}.") from error


def _read_zip(path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_BYTES:
                raise BundleError(f"Expected a bundle of at most {_MAX_BYTES >> 30} GiB in {path}, it is larger.")
            contents = {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
    except (OSError, zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        # zipfile reports unknown compression as NotImplementedError and encryption as RuntimeError
        raise BundleError(f"Expected a {SUFFIX} bundle (a zip) in {path}, got: {error}.") from error
    if MANIFEST not in contents:
        raise BundleError(f"Expected {MANIFEST} in {path}, the archive has none.")
    return contents


def _parse(content: bytes, path: Path) -> Manifest:
    try:
        raw = json.loads(content)
        if not isinstance(raw, dict) or raw.get("format") != _FORMAT:
            found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
            raise BundleError(
                f"Expected a bundle of format {_FORMAT} in {path}, got {found!r}.",
                cure="Use the version of hilum that wrote it.",
            )
        return Manifest.model_validate(raw)
    except (ValueError, ValidationError) as error:
        raise BundleError(f"Expected a manifest in {path / MANIFEST}, got: {str(error).splitlines()[0]}.") from error
