"""Open a backend by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from hilum.backends.base import Backend
from hilum.backends.onnxruntime import OnnxBackend
from hilum.backends.pytorch import TorchBackend
from hilum.bundle.bundle import ONNX_MODEL, Bundle

if TYPE_CHECKING:
    pass


BackendName = Literal["onnx", "torch"]


def open_backend(
    bundle: Bundle, name: BackendName = "onnx", *, providers: Sequence[str] = ("cpu",), device: str = "cpu"
) -> Backend:
    """The engine ``name`` with the network of ``bundle``; ``providers`` are for onnx, ``device`` is for torch."""
    if name == "torch":
        return TorchBackend.from_bundle(bundle, device)
    return OnnxBackend(bundle.read(ONNX_MODEL), providers)
