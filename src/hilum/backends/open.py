"""Open a backend by name."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

from hilum.backends import onnxruntime, pytorch
from hilum.backends.base import Backend
from hilum.bundle.bundle import Bundle
from hilum.errors import ConfigError

BackendName = Literal["auto", "onnxruntime", "pytorch"]


class _BackendModule(Protocol):
    """Interface of a backend module."""

    def is_available(self, device: str) -> bool: ...

    def open(self, bundle: Bundle, device: str) -> Backend: ...


_MODULES: dict[str, _BackendModule] = {"onnxruntime": onnxruntime, "pytorch": pytorch}
"""Backends by name, in the order in which ``auto`` tries them."""


def open_backend(bundle: Bundle, name: BackendName = "auto", device: str = "cpu") -> Backend:
    """Load the network of a bundle in a backend.

    Args:
        bundle: The bundle with graph and weights.
        name: ``onnxruntime``, ``pytorch``, or ``auto`` for the first one that is installed and has the device.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigError: The backend or the device is unknown.
        DeviceError: The backend cannot use the device.
        MissingExtraError: The backend is not installed.
        BundleError: The graph cannot be loaded.
        CheckpointError: The weights do not fit the network.
    """
    if name not in get_args(BackendName):
        raise ConfigError(f"Unknown backend {name!r}.", hint=f"Choose one of {', '.join(get_args(BackendName))}.")
    device = str(device)  # for torch.device
    if name == "auto":
        able = (candidate for candidate, module in _MODULES.items() if module.is_available(device))
        return _MODULES[next(able, "onnxruntime")].open(bundle, device)
    return _MODULES[name].open(bundle, device)
