"""Run a bundle's ONNX graph with ONNX Runtime, the default backend."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
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
"""Execution provider of each device type."""

_DEVICE = re.compile(rf"(?P<kind>{'|'.join(_PROVIDERS)})(?::(?P<number>\d+))?")


def is_available(device: str = "cpu") -> bool:
    """Return whether this build of ONNX Runtime has a provider for ``device``; the device itself is not tested."""
    named = _DEVICE.fullmatch(device)
    return named is not None and _PROVIDERS[named["kind"]] in onnxruntime.get_available_providers()


def open(bundle: Bundle, device: str = "cpu") -> OnnxRuntimeBackend:
    """Load the ONNX graph of ``bundle``; see OnnxRuntimeBackend for the errors raised."""
    return OnnxRuntimeBackend(bundle.read(ONNX_MODEL), device)


@dataclass
class OnnxRuntimeBackend:
    """An ONNX Runtime session. Operators that ``device`` does not support run on the CPU.

    Args:
        model: Content of an ONNX file with embedded weights.
        device: ``cpu``, ``cuda`` or ``tensorrt``; the latter two optionally with ``:N`` for GPU N.
        threads: Threads of the CPU provider; 0 uses all available processors (hilum.cpus).

    Raises:
        ConfigError: The name of the device is unknown.
        DeviceError: This build of ONNX Runtime has no provider for the device, or the device is not available.
        BundleError: The graph cannot be loaded, or was not exported by hilum.
    """

    model: bytes
    device: str = "cpu"
    threads: int = 0

    def __post_init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or available_cpus()
        # A thread that spins while it waits takes the processor from those that decode images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        wanted = _providers(self.device)
        try:
            self._session = onnxruntime.InferenceSession(self.model, options, providers=wanted)
        except _onnx_errors() as error:
            raise BundleError(f"Cannot load the ONNX graph: {error}.", hint="Export the bundle again.") from error
        if wanted[0][0] not in self._session.get_providers():  # ONNX Runtime falls back to the CPU
            raise DeviceError(
                f"Device {self.device} is not available in ONNX Runtime.",
                hint="Check the driver with nvidia-smi, or use --device cpu.",
            )
        inputs = [value.name for value in self._session.get_inputs()]
        self.output_names = [output.name for output in self._session.get_outputs()]
        if inputs != ["input"] or not {"segmentation", "classification"} <= {*self.output_names}:
            raise BundleError(
                "Expected an ONNX graph with input `input` and outputs `segmentation` and `classification`, got "
                f"{', '.join(inputs)} and {', '.join(self.output_names)}.",
                hint="Export the bundle again.",
            )

    def on_one_thread(self) -> OnnxRuntimeBackend | None:
        """Return the session with one thread per forward pass, opened when first asked for; None for a GPU."""
        if self.device != "cpu" or self.threads == 1:
            return self if self.device == "cpu" else None
        return self._on_one_thread

    @cached_property
    def _on_one_thread(self) -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(self.model, self.device, threads=1)

    def run(self, images: Floats) -> BackendOutput:
        """Run the network on images (N, C, S, S) float32 in [0, 1] and return a BackendOutput.

        Raises:
            DeviceError: The device is out of memory.
        """
        try:
            outputs = self._session.run(None, {"input": images})
        except _onnx_errors() as error:
            if "memory" in str(error).lower():  # it has neither a type nor a code of its own
                raise out_of_memory(self.device, images) from error
            raise
        values: dict[str, Any] = dict(zip(self.output_names, outputs, strict=True))
        return BackendOutput(
            values["segmentation"], values["classification"], values.get("evidence"), values.get("features")
        )


def _providers(device: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the execution providers for ``device`` with their options, in order of preference."""
    named = _DEVICE.fullmatch(device)
    if named is None or (named["kind"] == "cpu" and named["number"]):
        raise ConfigError(f"Unknown device {device!r}.", hint="Use --device cpu, cuda or cuda:N.")
    available = onnxruntime.get_available_providers()
    if _PROVIDERS[named["kind"]] not in available:
        raise DeviceError(
            f"This build of ONNX Runtime cannot use device {device}; it has {', '.join(available)}.",
            hint="Install onnxruntime-gpu instead of onnxruntime, or use --backend pytorch or --device cpu.",
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
