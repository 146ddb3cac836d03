"""Run a bundle's ONNX graph with OpenVINO on the CPU. OpenVINO is imported only when the backend is opened."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hilum.backends.base import (
    BackendOutput,
    FloatPrecision,
    Floats,
    Precision,
    check_graph,
    check_outputs,
    graph_of,
    not_installed,
    out_of_memory,
    unsupported,
)
from hilum.bundle.bundle import Bundle
from hilum.cpus import available_cpus, has_bfloat16
from hilum.errors import BundleError, ConfigError, DeviceError
from hilum.storage import cache_folder

_KEPT_SECONDS = 30 * 24 * 3600
"""How long a compiled network is kept."""
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")


def is_available(device: str = "cpu", precision: Precision = "fp32") -> bool:
    """Return whether OpenVINO is installed, the device is ``cpu``, and the processor has instructions for bf16."""
    installed = device == "cpu" and precision in _PRECISIONS and find_spec("openvino") is not None
    if not installed or precision != "bf16":
        return installed
    return has_bfloat16() is not False and "BF16" in _capabilities()  # the first is known without an import


def open(bundle: Bundle, device: str = "cpu", precision: Precision = "fp32") -> OpenVinoBackend:
    """Compile the ONNX graph of ``bundle``, or load it from the cache folder if it was compiled there before.

    See OpenVinoBackend for the errors raised.
    """
    agreement = bundle.manifest.agreement.get("int8") if precision == "int8" else None
    in_bf16 = agreement is not None and agreement.float_layers == "bf16" and is_available("cpu", "bf16")
    backend = OpenVinoBackend(
        graph_of(bundle, precision),
        device,
        precision,
        float_layers="bf16" if in_bf16 else "fp32",
        cache_dir=_cache_dir(),
    )
    check_outputs(backend, bundle)
    return backend


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry and return it.

    Importing OpenVINO writes an identifier into the user's home and sends an event to Google Analytics, unless the
    package ``openvino_telemetry`` is missing; so it is made to look missing, unless it has been imported before.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its import raises ImportError
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise not_installed("openvino", "openvino", error) from error
    module: ModuleType = openvino
    return module


@dataclass
class OpenVinoBackend:
    """A network compiled by OpenVINO for the CPU. Threads may share it.

    Args:
        model: Content of an ONNX file with embedded weights.
        device: ``cpu``.
        precision: ``fp32``; ``bf16``, which computes the float32 graph in bfloat16 where a layer allows it; or ``int8``
            for a quantized graph.
        threads: Threads of a forward pass; 0 uses all available processors (hilum.cpus).
        streams: Forward passes at a time. The threads are shared among them.
        float_layers: Precision of the layers that a quantized graph leaves in floating point, ``fp32`` or ``bf16``.
        cache_dir: Folder in which OpenVINO keeps compiled networks, by graph, processor and options; None keeps none.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        ConfigError: The name of the device or the precision is unknown.
        DeviceError: The device is not a CPU, or the processor has no instructions for bf16.
        BundleError: The graph cannot be loaded, or was not exported by hilum.
    """

    model: bytes = field(repr=False)
    device: str = "cpu"
    precision: Precision = "fp32"
    threads: int = 0
    streams: int = 1
    float_layers: FloatPrecision = "fp32"
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        openvino = self._import()
        from openvino import properties as ov

        core = _core()
        try:
            graph = core.read_model(self.model)
            inputs = [value.get_any_name() for value in graph.inputs]
            self.output_names = [value.get_any_name() for value in graph.outputs]
        except (RuntimeError, UnicodeDecodeError) as error:
            raise _unusable("load", error) from error
        check_graph(inputs, self.output_names)
        in_bf16 = "bf16" in (self.precision, self.float_layers)
        number = openvino.Type.bf16 if in_bf16 else openvino.Type.f32
        # By default OpenVINO computes a float32 graph in bfloat16 where the processor has it, and binds its threads to
        # processors, which other threads and programs use as well.
        options = {
            ov.hint.inference_precision: number,
            ov.hint.enable_cpu_pinning: False,
            ov.inference_num_threads: self.threads or available_cpus(),
            ov.num_streams: self.streams,
        }
        if self.cache_dir is not None:
            options[ov.cache_dir] = str(self.cache_dir)
        try:
            self._compiled = core.compile_model(graph, "CPU", options)
        except RuntimeError as error:
            raise _unusable("load", error) from error
        self._own = threading.local()

    def _import(self) -> ModuleType:
        """Check the device and the precision, and return OpenVINO."""
        if self.device.partition(":")[0] in ("cuda", "tensorrt"):
            raise DeviceError(
                f"OpenVINO cannot use device {self.device}.",
                hint="Use --backend onnxruntime or pytorch, or --device cpu.",
            )
        if self.device != "cpu":
            raise ConfigError(f"Unknown device {self.device!r}.", hint="Use --device cpu, cuda or cuda:N.")
        if self.precision not in _PRECISIONS:
            raise unsupported("OpenVINO", self.precision, _PRECISIONS)
        openvino = import_openvino()
        if not (is_available("cpu", self.precision) and is_available("cpu", self.float_layers)):
            raise DeviceError("This processor has no instructions for bf16.", hint="Use --precision fp32.")
        return openvino

    def on_one_thread(self) -> OpenVinoBackend:
        """Return the network with one thread per forward pass and one forward pass per processor at a time."""
        return self if self.streams == self.threads else self._on_one_thread

    @cached_property
    def _on_one_thread(self) -> OpenVinoBackend:
        cpus = available_cpus()
        return replace(self, threads=cpus, streams=cpus)

    def run(self, images: Floats) -> BackendOutput:
        """Run the network on images (N, C, S, S) float32 in [0, 1] and return a BackendOutput.

        Raises:
            DeviceError: The device is out of memory.
            BundleError: The graph cannot be run on these images.
        """
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        try:
            self._own.request.infer({0: np.ascontiguousarray(images)}, share_inputs=True)
        except RuntimeError as error:
            if "alloc" in str(error):  # it has neither a type nor a code of its own
                raise out_of_memory(self.device, images) from error
            raise _unusable("run", error) from error
        tensors = zip(self.output_names, self._own.request.output_tensors, strict=True)
        values: dict[str, Any] = {name: np.array(tensor.data, np.float32) for name, tensor in tensors}
        return BackendOutput(
            values["segmentation"], values["classification"], values.get("evidence"), values.get("features")
        )


def _cache_dir() -> Path | None:
    """Return the folder of compiled networks after removing old ones, or None if it cannot be created.

    OpenVINO compiles a network again if its file is missing or damaged.
    """
    folder = cache_folder() / "openvino"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = [path for path in folder.glob("*.blob") if time.time() - path.stat().st_mtime > _KEPT_SECONDS]
    except OSError:
        return None
    for path in old:
        with contextlib.suppress(OSError):
            path.unlink()
    return folder


def _unusable(what: str, error: Exception) -> BundleError:
    reason = " ".join(str(error).split())[-200:].rstrip(".")  # the messages end with what is wrong
    return BundleError(f"Cannot {what} the ONNX graph: {reason}.", hint="Export the bundle again.")


@cache
def _core() -> Any:
    return import_openvino().Core()


@cache
def _capabilities() -> frozenset[str]:
    """What OpenVINO has instructions for on this processor, such as BF16 and INT8."""
    return frozenset(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
