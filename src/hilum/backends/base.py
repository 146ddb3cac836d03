"""Interface of inference backends."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hilum.bundle.bundle import ONNX_INT8_MODEL, ONNX_MODEL, Bundle
from hilum.errors import BundleError, ConfigError, DeviceError, MissingExtraError, extra_hint

Floats: TypeAlias = NDArray[np.float32]
EngineName: TypeAlias = Literal["onnxruntime", "openvino", "pytorch"]
FloatPrecision: TypeAlias = Literal["fp32", "bf16"]
Precision: TypeAlias = Literal[FloatPrecision, "int8"]

ENGINE_TITLES: dict[EngineName, str] = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "pytorch": "PyTorch",
}
CHUNK = 4
"""Images per forward pass where each processor runs its own; more per forward pass of one thread gain nothing."""


class BackendOutput(NamedTuple):
    """Output of a network for one batch, the same for all backends."""

    segmentation: Floats  # (N, 1, S, S) lung probability in [0, 1]
    classification: Floats  # (N, K) logits, before temperature and softmax
    evidence: Floats | None  # (N, K, h, w)
    features: Floats | None = None  # (N, F), see ModelOutput


class Backend(Protocol):
    """A loaded network in an inference engine."""

    def run(self, images: Floats) -> BackendOutput:
        """Run the network on images (N, C, S, S) float32 in [0, 1] and return a BackendOutput.

        Raises:
            DeviceError: The device is out of memory.
        """


@runtime_checkable
class ThreadedBackend(Protocol):
    """A backend that can also run in several threads at once, on one processor in each."""

    def on_one_thread(self) -> Backend | None:
        """Return the network with one thread per forward pass, or None if its device is no CPU."""


def name_of(backend: Backend) -> str:
    """Return the name of a backend for ``open_backend``, which is that of its module."""
    return type(backend).__module__.rpartition(".")[2]


def precision_of(backend: Backend) -> Precision:
    """Return the precision that a backend computes in; ``fp32`` where it names none."""
    precision: Precision = getattr(backend, "precision", "fp32")
    return precision


def graph_of(bundle: Bundle, precision: Precision) -> bytes:
    """Return the ONNX file of a bundle that a precision runs: the int8 graph, or the float32 graph of the others.

    Raises:
        BundleError: The bundle has no int8 graph.
    """
    if precision == "int8" and ONNX_INT8_MODEL not in bundle:
        raise BundleError(
            f"The bundle '{bundle.path}' has no int8 network.", hint="Use --precision fp32, or a bundle that has one."
        )
    return bundle.read(ONNX_INT8_MODEL if precision == "int8" else ONNX_MODEL)


def check_graph(inputs: list[str], outputs: list[str]) -> None:
    """Check the names of the inputs and outputs of an ONNX graph.

    Raises:
        BundleError: The graph was not exported by hilum.
    """
    if inputs != ["input"] or not {"segmentation", "classification"} <= {*outputs}:
        raise BundleError(
            "Expected an ONNX graph with input `input` and outputs `segmentation` and `classification`, got "
            f"{', '.join(inputs)} and {', '.join(outputs)}.",
            hint="Export the bundle again.",
        )


def unsupported(engine: str, precision: Precision, precisions: tuple[Precision, ...]) -> ConfigError:
    """Return the error of an engine that has no such precision."""
    return ConfigError(
        f"{engine} cannot run {precision}.", hint=f"Use --precision {' or '.join(precisions)}, or another --backend."
    )


def not_installed(engine: EngineName, extra: str, error: ModuleNotFoundError) -> MissingExtraError:
    """Return the error of an engine whose library, of the named extra, is not installed."""
    return MissingExtraError(
        f"--backend {engine} needs {error.name}, which is not installed.",
        hint=extra_hint(extra) + ", or use --backend onnxruntime.",
    )


def check_outputs(backend: Backend, bundle: Bundle) -> None:
    """Run a network on one black image, and compare the shapes of its outputs with the bundle's manifest.

    Raises:
        BundleError: A shape differs, such as with 5 class names for a network of 4 classes; or the network cannot run.
        DeviceError: The device is out of memory.
    """
    spec, classes = bundle.manifest.preprocess, len(bundle.manifest.class_names)
    output = backend.run(np.zeros((1, spec.channels, spec.size, spec.size), np.float32))
    wanted: dict[str, tuple[int | None, ...]] = {  # None: any
        "segmentation": (1, 1, spec.size, spec.size),
        "classification": (1, classes),
        "evidence": (1, classes, None, None),
        "features": (1, None),
    }
    for name, shape in wanted.items():
        found = getattr(output, name)
        if found is not None and not _is_shape(found.shape, shape):
            raise BundleError(
                f"The network of the bundle '{bundle.path}' returns {name} of shape {found.shape}; its manifest has "
                f"{classes} class names and {spec.size} pixels.",
                hint="Export the bundle again.",
            )


def _is_shape(found: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(found) == len(wanted) and all(size in (None, own) for own, size in zip(found, wanted, strict=True))


def out_of_memory(device: str, images: Floats) -> DeviceError:
    """Return the error of a device that is out of memory for a batch (N, C, S, S)."""
    number, _, size, _ = images.shape
    return DeviceError(
        f"Device {device} is out of memory with {number} images of {size}x{size} pixels per batch.",
        hint="Use a smaller --batch-size.",
    )
