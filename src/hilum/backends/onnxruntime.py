"""Two engines for one network: ONNX Runtime, which the lean install has, and PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnxruntime

from hilum.backends.base import BackendOutput, Floats
from hilum.errors import BundleError, ConfigError, DeviceError

if TYPE_CHECKING:
    pass


PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""The names that ``--providers`` takes, and ONNX Runtime's."""


@dataclass
class OnnxBackend:
    """ONNX Runtime on the first of ``providers`` that supports each operator.

    Args:
        model: the bytes of an ONNX graph with embedded weights.
        providers: names of PROVIDERS, in order of preference.
        threads: of the CPU provider; 0 uses all cores.

    Raises:
        ConfigError: a provider's name is not known.
        DeviceError: a provider is not in this build of ONNX Runtime, or finds no device.
        BundleError: the graph cannot be loaded, or is not one that hilum exported.
    """

    model: bytes
    providers: Sequence[str] = ("cpu",)
    threads: int = 0

    def __post_init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        wanted = _runtime_names(self.providers)
        try:
            self._session = onnxruntime.InferenceSession(self.model, options, providers=wanted)
        except _onnx_errors() as error:
            raise BundleError(f"Expected an ONNX graph, ONNX Runtime says: {error}.") from error
        if wanted[0] not in self._session.get_providers():  # ONNX Runtime goes on without it, on the CPU
            raise DeviceError(
                f"Expected ONNX Runtime to use {wanted[0]}, it finds no device for it.",
                hint="Check the driver with nvidia-smi, or use --providers cpu.",
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
        values: dict[str, Any] = dict(zip(self.output_names, self._session.run(None, {"input": images}), strict=True))
        return BackendOutput(
            values["segmentation"], values["classification"], values.get("evidence"), values.get("features")
        )


def _runtime_names(providers: Sequence[str]) -> list[str]:
    unknown = [name for name in providers if name not in PROVIDERS]
    if unknown or not providers:
        raise ConfigError(f"Expected providers among {', '.join(PROVIDERS)}, got {', '.join(unknown) or 'none'}.")
    available = onnxruntime.get_available_providers()
    absent = [name for name in providers if PROVIDERS[name] not in available]
    if absent:
        raise DeviceError(
            f"Expected ONNX Runtime with {', '.join(absent)}, this build has {', '.join(available)}.",
            hint="Install onnxruntime-gpu in place of onnxruntime, or use --providers cpu.",
        )
    return [PROVIDERS[name] for name in providers]


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
