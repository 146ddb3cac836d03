"""Every setting of the page, with its bounds; they reach the page's script as one JSON argument."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from hilum.export.bundle import load_bundle
from hilum.export.default_bundle import DEFAULT, resolve_bundle
from hilum.inference.gates import GateName, open_gate
from hilum.inference.predictor import Predictor


class PageSettings(BaseModel):
    """How the page runs. Sizes are in megabytes (2^20 bytes)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str = Field(DEFAULT, description="A folder, a .hilum file, or default.")
    gate: GateName = Field("learned", description="What refuses files.")
    fix_orientation: bool = Field(False, description="Put turned and inverted films right.")
    host: str = Field("127.0.0.1", description="Address to bind; 0.0.0.0 is reachable from other machines.")
    port: int = Field(8501, ge=0, le=65535)
    audit: Path | None = Field(None, description="audit.json, whose findings are shown.")
    max_upload: int = Field(256, ge=1, description="Of one file.")
    max_session: int = Field(4000, ge=1, description="Of all files that one session holds.")
    max_pixels: int = Field(64_000_000, ge=1, description="Pixels of one file, by its header, before decoding.")


def open_predictor(settings: PageSettings) -> Predictor:
    """The predictor that all sessions of the process share, opened once.

    Raises:
        BundleError: the bundle cannot be read.
    """
    return _opened(settings.bundle, settings.gate, settings.fix_orientation)


@lru_cache(maxsize=1)
def _opened(name: str, gate: GateName, fix_orientation: bool) -> Predictor:
    bundle = load_bundle(resolve_bundle(name))
    return Predictor(bundle, gate=open_gate(bundle, gate), fix_orientation=fix_orientation)
