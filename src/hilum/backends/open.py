"""Open a backend by name."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

from hilum.backends import onnxruntime, pytorch
from hilum.backends.base import Backend
from hilum.bundle.bundle import Bundle
from hilum.errors import ConfigError

BackendName = Literal["auto", "onnxruntime", "pytorch"]


class _BackendModule(Protocol):
    """What a backend's module offers."""

    def is_available(self, device: str) -> bool: ...

    def open(self, bundle: Bundle, device: str) -> Backend: ...


_MODULES: dict[str, _BackendModule] = {"onnxruntime": onnxruntime, "pytorch": pytorch}
"""In the order in which auto tries them."""


def open_backend(bundle: Bundle, name: BackendName = "auto", device: str = "cpu") -> Backend:
    """Open the network of ``bundle`` in one of the backends.

    Args:
        bundle: with the graph and the weights.
        name: ``auto`` takes the first of the others that is installed and has the device.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigError: the backend, or a device's name, is unknown.
        DeviceError: the backend cannot use the device.
        MissingExtraError: the backend is not installed.
        BundleError: the graph cannot be loaded.
        CheckpointError: the weights do not fit the network.
    """
    if name not in get_args(BackendName):
        raise ConfigError(f"Unknown backend {name!r}.", hint=f"Choose one of {', '.join(get_args(BackendName))}.")
    device = str(device)  # a torch.device names itself so
    if name == "auto":
        able = (candidate for candidate, module in _MODULES.items() if module.is_available(device))
        return _MODULES[next(able, "onnxruntime")].open(bundle, device)
    return _MODULES[name].open(bundle, device)
