"""Settings of the REST service, which also serves the web app."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from hilum.backends.base import CHUNK
from hilum.backends.measure import SECONDS
from hilum.backends.open import BackendName, PrecisionName
from hilum.bundle.default import DEFAULT
from hilum.bundle.gate import USUAL_GATE, GateName
from hilum.cpus import available_cpus
from hilum.imaging.read import MAX_PIXELS


class ServeSettings(BaseModel):
    """Settings of the service. Times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str | Path = Field(DEFAULT, description="A bundle (folder or .hilum file), a run's folder, or default.")
    verify_key: Path | None = Field(None, description="PEM file of the public key that must have signed the bundle.")
    backend: BackendName = Field("auto", description="Inference engine.")
    precision: PrecisionName = Field("auto", description="Precision of the network.")
    measure: float = Field(SECONDS, ge=0, description="Time to measure engines where none is chosen yet; 0: do not.")
    gate: GateName = Field(USUAL_GATE, description="Input check.")
    fix_orientation: bool = Field(False, description="Undo rotations by 90° steps and inverted gray scale.")
    audit: Path | None = Field(None, description="An audit's folder or its audit.json, served with the model card.")
    host: str = Field("127.0.0.1", description="Address to bind; 0.0.0.0 is reachable from other machines.")
    port: int = Field(8000, ge=0, le=65535)
    cors: tuple[str, ...] = Field((), description="Origins whose pages may call the service; empty: none but its own.")
    max_upload: int = Field(256, ge=1, description="Maximum size of a request, MiB.")
    max_pixels: int = Field(MAX_PIXELS, ge=1, description="Maximum number of pixels of a file, by its header.")
    token: SecretStr | None = Field(None, description="Bearer token for /v1 and /metrics; None: no authentication.")
    max_files: int = Field(32, ge=1, description="Maximum number of files per request.")
    queue: int = Field(128, ge=1, description="Maximum number of images in progress or waiting.")
    batch_size: int = Field(CHUNK, ge=1, le=CHUNK, description="Maximum number of images per forward pass.")
    workers: int = Field(
        default_factory=available_cpus, ge=1, description="Threads, each of which takes images from file to answer."
    )
    max_connections: int = Field(256, ge=1, description="Maximum number of open connections.")
    header_timeout: float = Field(10.0, gt=0, description="Time for the head of a request, from its first byte.")
    min_rate: int = Field(10_000, ge=1, description="Bytes of a body that extend its time limit by a second.")
    timeout: float = Field(30.0, gt=0, description="Time limit of a request, of its body, and of pauses in either.")
    retry_after: int = Field(1, ge=1, description="Value of Retry-After when a request cannot be served now.")
    shutdown: int = Field(30, ge=0, description="Time for accepted requests to finish when the service stops.")

    @property
    def max_upload_bytes(self) -> int:
        """``max_upload`` in bytes."""
        return self.max_upload << 20
