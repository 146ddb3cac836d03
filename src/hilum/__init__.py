"""hilum: multi-task chest radiograph models. A research tool, not a medical device.

The public names below are imported on first use, so that ``import hilum`` stays light and never loads torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hilum._version import __version__

if TYPE_CHECKING:
    from hilum.config import Config as Config

# ONNX Runtime reports its use to its maker unless it is told not to before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Bundle": "hilum.bundle.bundle",
    "Config": "hilum.config",
    "Finding": "hilum.types",
    "HilumError": "hilum.errors",
    "Index": "hilum.data.index",
    "Prediction": "hilum.types",
    "Predictor": "hilum.inference.predictor",
    "PreprocessSpec": "hilum.config",
    "Radiograph": "hilum.types",
    "Record": "hilum.types",
    "Refusal": "hilum.types",
    "build_index": "hilum.data.index",
    "draw_phantom": "hilum.phantoms.chest",
    "load_bundle": "hilum.bundle.bundle",
    "load_config": "hilum.config",
    "read_radiograph": "hilum.imaging.read",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hilum' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
