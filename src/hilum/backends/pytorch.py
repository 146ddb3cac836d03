"""Run a bundle's weights with PyTorch; the only module of the lean packages that imports it, and only when opened."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hilum.backends.base import BackendOutput, Floats, out_of_memory
from hilum.bundle.bundle import WEIGHTS, Bundle
from hilum.errors import DeviceError, MissingExtraError, extra_hint

if TYPE_CHECKING:
    from torch import nn


def is_available(device: str = "cpu") -> bool:
    """Whether PyTorch is installed and has ``device``."""
    if find_spec("torch") is None or find_spec("safetensors") is None:
        return False
    if device == "cpu":
        return True
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # AssertionError: a PyTorch built without CUDA
        return False
    return True


def open(bundle: Bundle, device: str = "cpu") -> PyTorchBackend:
    """Build the network of ``bundle`` and load its weights.

    Raises:
        MissingExtraError: PyTorch is not installed.
        CheckpointError: the weights are not those of the network that the manifest names.
        DeviceError: PyTorch cannot use the device.
    """
    try:
        from safetensors.torch import load

        from hilum.models.build import build_model
        from hilum.models.weights import fit_state
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"--backend pytorch needs {error.name}, which is not installed.",
            hint=extra_hint("train") + ", or use --backend onnxruntime.",
        ) from error
    manifest = bundle.manifest
    model = build_model(manifest.model, manifest.preprocess, len(manifest.class_names))
    fit_state(model, load(bundle.read(WEIGHTS)), f"{bundle.path}/{WEIGHTS}")
    return PyTorchBackend(model, device)


@dataclass
class PyTorchBackend:
    """A PyTorch network; needs the ``train`` extra.

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
                f"PyTorch cannot use the device {self.device}: {str(error).splitlines()[0]}",
                hint="Check the driver with nvidia-smi, or use --device cpu.",
            ) from error

    def run(self, images: Floats) -> BackendOutput:
        """See Backend."""
        import torch

        try:
            with torch.inference_mode():
                output = self.model(torch.from_numpy(images).to(self.device))
                segmentation = torch.sigmoid(output.mask_logits).cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise out_of_memory(self.device, images) from error
        evidence, features = (
            None if value is None else value.cpu().numpy() for value in (output.evidence, output.features)
        )
        return BackendOutput(segmentation, output.class_logits.cpu().numpy(), evidence, features)
