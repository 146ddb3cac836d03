"""Run a bundle's ONNX graph with ONNX Runtime, the backend of the lean install."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import onnxruntime

from hilum.backends.base import BackendOutput, Floats, out_of_memory
from hilum.bundle.bundle import ONNX_MODEL, Bundle
from hilum.cpus import available_cpus
from hilum.errors import BundleError, ConfigError, DeviceError

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""ONNX Runtime's name for each kind of device."""

_DEVICE = re.compile(rf"(?P<kind>{'|'.join(_PROVIDERS)})(?::(?P<number>\d+))?")


def is_available(device: str = "cpu") -> bool:
    """Whether this build of ONNX Runtime has a provider for ``device``; the device itself is not opened."""
    named = _DEVICE.fullmatch(device)
    return named is not None and _PROVIDERS[named["kind"]] in onnxruntime.get_available_providers()


def open(bundle: Bundle, device: str = "cpu") -> OnnxRuntimeBackend:
    """Open the ONNX graph of ``bundle``; see OnnxRuntimeBackend."""
    return OnnxRuntimeBackend(bundle.read(ONNX_MODEL), device)


@dataclass
class OnnxRuntimeBackend:
    """An ONNX Runtime session; operators that ``device`` does not support run on the CPU.

    Args:
        model: the bytes of an ONNX graph with embedded weights.
        device: ``cpu``, ``cuda`` or ``tensorrt``, the latter two with ``:N`` for the N-th GPU.
        threads: of the CPU provider; 0 uses the processors that affinity mask and cgroup quota allow.

    Raises:
        ConfigError: the name of the device is unknown.
        DeviceError: this build of ONNX Runtime has no provider for the device, or finds no device.
        BundleError: the graph cannot be loaded, or is not one that hilum exported.
    """

    model: bytes
    device: str = "cpu"
    threads: int = 0

    def __post_init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or available_cpus()
        options.log_severity_level = 3
        wanted = _providers(self.device)
        try:
            self._session = onnxruntime.InferenceSession(self.model, options, providers=wanted)
        except _onnx_errors() as error:
            raise BundleError(f"Expected an ONNX graph, ONNX Runtime says: {error}.") from error
        if wanted[0][0] not in self._session.get_providers():  # ONNX Runtime goes on without it, on the CPU
            raise DeviceError(
                f"ONNX Runtime finds no device for {self.device}.",
                hint="Check the driver with nvidia-smi, or use --device cpu.",
            )
        inputs = [value.name for value in self._session.get_inputs()]
        self.output_names = [output.name for output in self._session.get_outputs()]
        if inputs != ["input"] or not {"segmentation", "classification"} <= {*self.output_names}:
            raise BundleError(
                f"Expected an ONNX graph from input to segmentation and classification, got {', '.join(inputs)} to "
                f"{', '.join(self.output_names)}."
            )

    def run(self, images: Floats) -> BackendOutput:
        """See Backend."""
        try:
            outputs = self._session.run(None, {"input": images})
        except _onnx_errors() as error:
            if "memory" in str(error).lower():  # neither a type nor a code of its own
                raise out_of_memory(self.device, images) from error
            raise
        values: dict[str, Any] = dict(zip(self.output_names, outputs, strict=True))
        return BackendOutput(
            values["segmentation"], values["classification"], values.get("evidence"), values.get("features")
        )


def _providers(device: str) -> list[tuple[str, dict[str, Any]]]:
    """ONNX Runtime's providers for ``device``, in order of preference, each with its options."""
    named = _DEVICE.fullmatch(device)
    if named is None or (named["kind"] == "cpu" and named["number"]):
        raise ConfigError(f"ONNX Runtime has no device {device!r}.", hint="Use --device cpu, cuda or cuda:N.")
    available = onnxruntime.get_available_providers()
    if _PROVIDERS[named["kind"]] not in available:
        raise DeviceError(
            f"This build of ONNX Runtime cannot use {device}: it has {', '.join(available)}.",
            hint="Install onnxruntime-gpu in place of onnxruntime, or use --backend pytorch or --device cpu.",
        )
    cpu: tuple[str, dict[str, Any]] = (_PROVIDERS["cpu"], {})
    return (
        [cpu]
        if named["kind"] == "cpu"
        else [(_PROVIDERS[named["kind"]], {"device_id": int(named["number"] or 0)}), cpu]
    )


def _onnx_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail",
        "InvalidGraph",
        "InvalidProtobuf",
        "InvalidArgument",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    return tuple(getattr(state, name) for name in names)
