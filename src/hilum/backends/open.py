"""Open a backend by name and precision."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

from hilum.backends import onnxruntime, openvino, pytorch
from hilum.backends.base import Backend, EngineName, Precision
from hilum.backends.choice import fastest, is_accepted, stored_speeds
from hilum.bundle.bundle import ONNX_INT8_MODEL, Bundle
from hilum.errors import ConfigError

BackendName: TypeAlias = Literal["auto", "onnxruntime", "openvino", "pytorch"]
PrecisionName: TypeAlias = Literal["auto", "fp32", "bf16", "int8"]


class Engine(NamedTuple):
    """An engine and the precision it computes in."""

    backend: EngineName
    precision: Precision


class _BackendModule(Protocol):
    """Interface of a backend module."""

    def is_available(self, device: str, precision: Precision) -> bool: ...

    def open(self, bundle: Bundle, device: str, precision: Precision) -> Backend: ...


_MODULES: dict[EngineName, _BackendModule] = {"onnxruntime": onnxruntime, "openvino": openvino, "pytorch": pytorch}
"""Backends by name, in the order in which ``auto`` tries them."""


def open_backend(
    bundle: Bundle, name: BackendName = "auto", device: str = "cpu", precision: PrecisionName = "auto"
) -> Backend:
    """Load the network of a bundle in a backend.

    Args:
        bundle: The bundle with graph and weights.
        name: ``onnxruntime``, ``openvino``, ``pytorch``, or ``auto``; see ``find_engine``.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``fp32``, ``bf16``, ``int8``, or ``auto``; see ``find_engine``.

    Raises:
        ConfigError: The backend, the precision or the device is unknown, or the backend has no such precision.
        DeviceError: The backend cannot use the device, or the processor has no instructions for the precision.
        MissingExtraError: The backend is not installed.
        BundleError: The graph cannot be loaded, or there is none of this precision.
        CheckpointError: The weights do not fit the network.
    """
    device = str(device)  # for torch.device
    engine = find_engine(bundle, name, device, precision)
    return open_engine(bundle, engine, device)


def open_engine(bundle: Bundle, engine: Engine, device: str = "cpu") -> Backend:
    """Load the network of a bundle in an engine; see ``open_backend`` for the errors raised."""
    return _MODULES[engine.backend].open(bundle, device, engine.precision)


def find_engine(
    bundle: Bundle, name: BackendName = "auto", device: str = "cpu", precision: PrecisionName = "auto"
) -> Engine:
    """Return the engine that ``open_backend`` opens.

    Where name or precision is ``auto``, this is the fastest of those that were measured for the bundle on this machine
    and may be used (hilum.backends.choice.is_accepted). Where none was measured, or the device is not a CPU, it is the
    first backend that is installed and has the device, in float32.

    Raises:
        ConfigError: The backend or the precision is unknown.
    """
    for value, names, what in ((name, BackendName, "backend"), (precision, PrecisionName, "precision")):
        if value not in get_args(names):
            raise ConfigError(f"Unknown {what} {value!r}.", hint=f"Choose one of {', '.join(get_args(names))}.")
    if device == "cpu" and "auto" in (name, precision):
        speeds = [
            speed
            for speed in stored_speeds(bundle)
            if name in ("auto", speed.backend)
            and (precision == speed.precision or (precision == "auto" and is_accepted(bundle.manifest, *speed[:2])))
            and _MODULES[speed.backend].is_available(device, speed.precision)
        ]
        if (best := fastest(speeds)) is not None:
            return Engine(best.backend, best.precision)
    wanted: Precision = "fp32" if precision == "auto" else precision
    if name != "auto":
        return Engine(name, wanted)
    ordered = sorted(_MODULES, key=lambda own: not is_accepted(bundle.manifest, own, wanted))
    able = (own for own in ordered if _MODULES[own].is_available(device, wanted))
    return Engine(next(able, "openvino" if wanted == "bf16" else "onnxruntime"), wanted)


def installed_engines(bundle: Bundle) -> list[Engine]:
    """Return the engines and precisions that can run a bundle on this machine's CPU, ONNX Runtime in float32 first."""
    return [
        Engine(name, precision)
        for name, module in _MODULES.items()
        for precision in get_args(Precision)
        if (precision != "int8" or ONNX_INT8_MODEL in bundle) and module.is_available("cpu", precision)
    ]
