"""Two engines for one network: ONNX Runtime, which the lean install has, and PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hilum.bundle.bundle import ONNX_MODEL, WEIGHTS, Bundle
from hilum.errors import BundleError, ConfigError, DeviceError, MissingExtraError

if TYPE_CHECKING:
    from torch import nn

Floats: TypeAlias = NDArray[np.float32]
BackendName = Literal["onnx", "torch"]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""The names that ``--providers`` takes, and ONNX Runtime's."""


class BackendOutput(NamedTuple):
    """One batch's answer; what the ONNX graph gives, whichever engine gave it."""

    segmentation: Floats  # (N, 1, S, S) lung probability in [0, 1]
    classification: Floats  # (N, K) logits, before temperature and softmax
    evidence: Floats | None  # (N, K, h, w)
    features: Floats | None = None  # (N, F), see ModelOutput


class Backend(Protocol):
    """An engine that holds one network."""

    def run(self, images: Floats) -> BackendOutput:
        """(N, C, S, S) float32 in [0, 1] to a BackendOutput."""


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
                cure="Check the driver with nvidia-smi, or use --providers cpu.",
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


@dataclass
class TorchBackend:
    """PyTorch; needs the ``train`` extra.

    Args:
        model: returns a ModelOutput; put into evaluation mode.
        device: PyTorch's name of it.

    Raises:
        DeviceError: PyTorch cannot use the device.
    """

    model: nn.Module
    device: str = "cpu"

    def __post_init__(self) -> None:
        try:
            self.model.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:  # AssertionError: a PyTorch built without CUDA
            raise DeviceError(
                f"Expected the device {self.device}, PyTorch says: {str(error).splitlines()[0]}",
                cure="Use --device cpu, or check the driver with nvidia-smi.",
            ) from error

    @classmethod
    def from_bundle(cls, bundle: Bundle, device: str = "cpu") -> TorchBackend:
        """The network of a bundle's safetensors.

        Raises:
            MissingExtraError: PyTorch is not installed.
            CheckpointError: the weights are not those of the network that the manifest names.
        """
        try:
            from safetensors.torch import load

            from hilum.models.build import build_model
            from hilum.training.checkpoint import fit_state
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"Expected PyTorch for --backend torch, {error.name} is not installed.",
                cure='Install it with pip install "hilum[train]", or use --backend onnx.',
            ) from error
        manifest = bundle.manifest
        model = build_model(manifest.model, manifest.preprocess, len(manifest.class_names))
        fit_state(model, load(bundle.read(WEIGHTS)), f"{bundle.path}/{WEIGHTS}")
        return cls(model, device)

    def run(self, images: Floats) -> BackendOutput:
        """See Backend."""
        import torch

        with torch.inference_mode():
            output = self.model(torch.from_numpy(images).to(self.device))
            segmentation = torch.sigmoid(output.mask_logits).cpu().numpy()
        evidence, features = (
            None if value is None else value.cpu().numpy() for value in (output.evidence, output.features)
        )
        return BackendOutput(segmentation, output.class_logits.cpu().numpy(), evidence, features)


def open_backend(
    bundle: Bundle, name: BackendName = "onnx", *, providers: Sequence[str] = ("cpu",), device: str = "cpu"
) -> Backend:
    """The engine ``name`` with the network of ``bundle``; ``providers`` are for onnx, ``device`` is for torch."""
    if name == "torch":
        return TorchBackend.from_bundle(bundle, device)
    return OnnxBackend(bundle.read(ONNX_MODEL), providers)


def _runtime_names(providers: Sequence[str]) -> list[str]:
    unknown = [name for name in providers if name not in PROVIDERS]
    if unknown or not providers:
        raise ConfigError(f"Expected providers among {', '.join(PROVIDERS)}, got {', '.join(unknown) or 'none'}.")
    available = onnxruntime.get_available_providers()
    absent = [name for name in providers if PROVIDERS[name] not in available]
    if absent:
        raise DeviceError(
            f"Expected ONNX Runtime with {', '.join(absent)}, this build has {', '.join(available)}.",
            cure="Install onnxruntime-gpu in place of onnxruntime, or use --providers cpu.",
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
