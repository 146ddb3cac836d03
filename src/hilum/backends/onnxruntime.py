"""Run a bundle's ONNX graph with ONNX Runtime, the default backend."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import onnxruntime

from hilum.backends.base import (
    BackendOutput,
    Floats,
    Precision,
    check_graph,
    check_outputs,
    graph_of,
    out_of_memory,
    unsupported,
)
from hilum.bundle.bundle import Bundle
from hilum.cpus import available_cpus
from hilum.errors import ConfigError, DeviceError
from hilum.onnx_session import OnnxSession, OutOfMemoryError

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Execution provider of each device type."""

_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")

_DEVICE = re.compile(rf"(?P<kind>{'|'.join(_PROVIDERS)})(?::(?P<number>\d+))?")


def is_available(device: str = "cpu", precision: Precision = "fp32") -> bool:
    """Return whether this build of ONNX Runtime has a provider for ``device``; the device itself is not tested."""
    named = _DEVICE.fullmatch(device) if precision in _PRECISIONS else None
    return named is not None and _PROVIDERS[named["kind"]] in onnxruntime.get_available_providers()


def open(bundle: Bundle, device: str = "cpu", precision: Precision = "fp32") -> OnnxRuntimeBackend:
    """Load the ONNX graph of ``bundle``; see OnnxRuntimeBackend for the errors raised.

    Raises:
        ConfigError: The precision is bf16, for which ONNX Runtime has no kernels on a CPU.
    """
    if precision not in _PRECISIONS:
        raise unsupported("ONNX Runtime", precision, _PRECISIONS)
    backend = OnnxRuntimeBackend(graph_of(bundle, precision), device, precision=precision)
    if not device.startswith("tensorrt"):  # it would build an engine for a single image, which takes minutes
        check_outputs(backend, bundle)
    return backend


@dataclass
class OnnxRuntimeBackend:
    """An ONNX Runtime session. Operators that ``device`` does not support run on the CPU.

    Args:
        model: Content of an ONNX file with embedded weights.
        device: ``cpu``, ``cuda`` or ``tensorrt``; the latter two optionally with ``:N`` for GPU N.
        threads: Threads of the CPU provider; 0 uses all available processors (hilum.cpus).
        precision: ``fp32``, or ``int8`` for a quantized graph; the graph decides how it is computed.

    Raises:
        ConfigError: The name of the device is unknown.
        DeviceError: This build of ONNX Runtime has no provider for the device, or the device is not available.
        BundleError: The graph cannot be loaded, or was not exported by hilum.
    """

    model: bytes = field(repr=False)
    device: str = "cpu"
    threads: int = 0
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        wanted = _providers(self.device)
        self._session = OnnxSession(
            self.model, "the ONNX graph", threads=self.threads or available_cpus(), providers=wanted
        )
        if wanted[0][0] not in self._session.providers:  # ONNX Runtime falls back to the CPU
            raise DeviceError(
                f"Device {self.device} is not available in ONNX Runtime.",
                hint="Check the driver with nvidia-smi, or use --device cpu.",
            )
        self.output_names = self._session.outputs
        check_graph([*self._session.inputs], self.output_names)

    def on_one_thread(self) -> OnnxRuntimeBackend | None:
        """Return the session with one thread per forward pass, opened when first asked for; None for a GPU."""
        if self.device != "cpu" or self.threads == 1:
            return self if self.device == "cpu" else None
        return self._on_one_thread

    @cached_property
    def _on_one_thread(self) -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(self.model, self.device, threads=1, precision=self.precision)

    def run(self, images: Floats) -> BackendOutput:
        """Run the network on images (N, C, S, S) float32 in [0, 1] and return a BackendOutput.

        Raises:
            DeviceError: The device is out of memory.
            BundleError: The graph cannot be run, or takes too long.
        """
        try:
            outputs = self._session.run({"input": images})
        except OutOfMemoryError as error:
            raise out_of_memory(self.device, images) from error
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
