"""hilum: multi-task chest radiograph models. A research tool, not a medical device.

    model = hilum.load()
    result = model.predict("radiograph.png")

The names below are imported on first use: ``import hilum`` loads neither NumPy nor torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hilum._version import __version__

if TYPE_CHECKING:
    from hilum.bundle.bundle import Bundle as Bundle
    from hilum.bundle.bundle import load_bundle as load_bundle
    from hilum.config import Config as Config
    from hilum.config import PreprocessSpec as PreprocessSpec
    from hilum.config import load_config as load_config
    from hilum.data.find import find_images as find_images
    from hilum.data.index import Index as Index
    from hilum.data.index import build_index as build_index
    from hilum.errors import HilumError as HilumError
    from hilum.imaging.read import read_radiograph as read_radiograph
    from hilum.inference.predictor import Predictor as Predictor
    from hilum.inference.result import Result as Result
    from hilum.model import Model as Model
    from hilum.model import load as load
    from hilum.model import to_dataframe as to_dataframe
    from hilum.phantoms.chest import draw_phantom as draw_phantom
    from hilum.types import Finding as Finding
    from hilum.types import Radiograph as Radiograph
    from hilum.types import Record as Record
    from hilum.verbs import Run as Run
    from hilum.verbs import audit_dataset as audit_dataset
    from hilum.verbs import evaluate as evaluate
    from hilum.verbs import train as train

# ONNX Runtime sends telemetry to Microsoft unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Bundle": "hilum.bundle.bundle",
    "Config": "hilum.config",
    "Finding": "hilum.types",
    "HilumError": "hilum.errors",
    "Index": "hilum.data.index",
    "Model": "hilum.model",
    "Predictor": "hilum.inference.predictor",
    "PreprocessSpec": "hilum.config",
    "Radiograph": "hilum.types",
    "Record": "hilum.types",
    "Result": "hilum.inference.result",
    "Run": "hilum.verbs",
    "audit_dataset": "hilum.verbs",
    "build_index": "hilum.data.index",
    "draw_phantom": "hilum.phantoms.chest",
    "evaluate": "hilum.verbs",
    "find_images": "hilum.data.find",
    "load": "hilum.model",
    "load_bundle": "hilum.bundle.bundle",
    "load_config": "hilum.config",
    "read_radiograph": "hilum.imaging.read",
    "to_dataframe": "hilum.model",
    "train": "hilum.verbs",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hilum' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
