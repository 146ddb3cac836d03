"""Every setting of the service, with its bounds, and those that the page shares with it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from hilum.bundle.default import DEFAULT
from hilum.bundle.gate import USUAL_GATE, GateName


class ModelSettings(BaseModel):
    """What answers, and where it listens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str | Path = Field(DEFAULT, description="A folder, a .hilum file, or default.")
    gate: GateName = Field(USUAL_GATE, description="What refuses files.")
    fix_orientation: bool = Field(False, description="Put turned and inverted images right.")
    host: str = Field("127.0.0.1", description="Address to bind; 0.0.0.0 is reachable from other machines.")
    port: int = Field(8000, ge=0, le=65535)
    max_upload: int = Field(256, ge=1, description="MiB of one request, or of one file in the web app.")
    max_pixels: int = Field(64_000_000, ge=1, description="Pixels of one file, by its header, before decoding.")

    @property
    def max_upload_bytes(self) -> int:
        """``max_upload`` in bytes."""
        return self.max_upload << 20


class ServeSettings(ModelSettings):
    """How the service runs. Times are in seconds."""

    token: SecretStr | None = Field(None, description="Bearer token that /v1 and /metrics ask for; None: no token.")
    max_files: int = Field(32, ge=1, description="Files in one request.")
    queue: int = Field(128, ge=1, description="Images that may be under way or waiting.")
    batch_size: int = Field(8, ge=1, description="Images in one forward pass at most.")
    batch_wait: float = Field(0.0, ge=0, le=1, description="How long a batch waits for more images to come.")
    readers: int = Field(2, ge=1, description="Threads that decode files and encode images.")
    timeout: float = Field(30.0, gt=0, description="A request that takes longer, or pauses for longer, is given up.")
    retry_after: int = Field(1, ge=1, description="What Retry-After says to those who are turned away.")
    shutdown: int = Field(30, ge=0, description="How long accepted requests have to finish when the service stops.")
