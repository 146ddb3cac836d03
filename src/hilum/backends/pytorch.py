"""PyTorch as a backend; the only module of the lean packages that imports torch, and only when opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hilum.backends.base import BackendOutput, Floats
from hilum.bundle.bundle import WEIGHTS, Bundle
from hilum.errors import DeviceError, MissingExtraError, extra_hint

if TYPE_CHECKING:
    from torch import nn


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
                hint="Use --device cpu, or check the driver with nvidia-smi.",
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
            from hilum.models.weights import fit_state
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"Expected PyTorch for --backend torch, {error.name} is not installed.",
                hint=extra_hint("train") + ", or use --backend onnx.",
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
