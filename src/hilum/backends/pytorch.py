"""Run a bundle's weights with PyTorch, which is imported only when the backend is opened."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hilum.backends.base import (
    BackendOutput,
    Floats,
    Precision,
    check_outputs,
    not_installed,
    out_of_memory,
    unsupported,
)
from hilum.bundle.bundle import WEIGHTS, Bundle
from hilum.errors import DeviceError

if TYPE_CHECKING:
    from torch import nn


def is_available(device: str = "cpu", precision: Precision = "fp32") -> bool:
    """Return whether PyTorch is installed and can use ``device``; it runs fp32 only."""
    if precision != "fp32" or find_spec("torch") is None or find_spec("safetensors") is None:
        return False
    if device == "cpu":
        return True
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # AssertionError: a PyTorch built without CUDA
        return False
    return True


def open(bundle: Bundle, device: str = "cpu", precision: Precision = "fp32") -> PyTorchBackend:
    """Build the network of a bundle in PyTorch and load its weights.

    Raises:
        ConfigError: The precision is not fp32.
        MissingExtraError: PyTorch is not installed.
        CheckpointError: The weights are damaged, or do not fit the network of the manifest.
        DeviceError: PyTorch cannot use the device.
    """
    if precision != "fp32":
        raise unsupported("PyTorch", precision, ("fp32",))
    try:
        from hilum.models.build import build_model
        from hilum.models.weights import fit_state, parse_weights
    except ModuleNotFoundError as error:
        raise not_installed("pytorch", "train", error) from error
    manifest = bundle.manifest
    model = build_model(manifest.model, manifest.preprocess, len(manifest.class_names))
    origin = f"{bundle.path}/{WEIGHTS}"
    fit_state(model, parse_weights(bundle.read(WEIGHTS), origin), origin)
    backend = PyTorchBackend(model, device)
    check_outputs(backend, bundle)
    return backend


@dataclass
class PyTorchBackend:
    """A PyTorch network in evaluation mode; needs the ``train`` extra.

    Args:
        model: Network that returns a ModelOutput; it is switched to evaluation mode.
        device: PyTorch device name.

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
                f"PyTorch cannot use device {self.device}: {str(error).splitlines()[0]}",
                hint="Check the driver with nvidia-smi, or use --device cpu.",
            ) from error

    def run(self, images: Floats) -> BackendOutput:
        """Run the network on images (N, C, S, S) float32 in [0, 1] and return a BackendOutput."""
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
