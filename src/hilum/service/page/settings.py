"""Every setting of the page, with its bounds; they reach the page's script as one JSON argument."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import Field

from hilum.bundle.bundle import load_bundle
from hilum.bundle.default import resolve_bundle
from hilum.bundle.gate import GateName, open_gate
from hilum.inference.predictor import Predictor
from hilum.service.settings import ModelSettings


class PageSettings(ModelSettings):
    """How the web app runs."""

    port: int = Field(8501, ge=0, le=65535)
    audit: Path | None = Field(None, description="audit.json, whose findings are shown.")
    max_session: int = Field(4000, ge=1, description="MiB of all files that one session holds.")


def open_predictor(settings: PageSettings) -> Predictor:
    """The predictor that all sessions of the process share, opened once.

    Raises:
        BundleError: the bundle cannot be read.
    """
    return _opened(settings.bundle, settings.gate, settings.fix_orientation)


@lru_cache(maxsize=1)
def _opened(name: str | Path, gate: GateName, fix_orientation: bool) -> Predictor:
    bundle = load_bundle(resolve_bundle(name))
    return Predictor(bundle, gate=open_gate(bundle, gate), fix_orientation=fix_orientation)
