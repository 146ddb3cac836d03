"""Read and write weights of networks as safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save
from torch import nn

from hilum.errors import CheckpointError
from hilum.storage import write_bytes

_METADATA_KEY = "hilum"


def save_weights(path: Path, state: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a state_dict and optional metadata as safetensors, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # safetensors writes several metadata keys in random order; a single key makes the file reproducible
    header = {_METADATA_KEY: json.dumps(metadata, sort_keys=True)} if metadata else None
    write_bytes(path, save(tensors, header))


def load_weights(model: nn.Module, path: Path) -> dict[str, str]:
    """Load safetensors into ``model`` by tensor names and return the metadata of the file.

    Raises:
        CheckpointError: The file does not exist, is damaged, or belongs to another network.
    """
    state, metadata = read_weights(path)
    fit_state(model, state, str(path))
    return metadata


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, on the CPU, and its metadata.

    Raises:
        CheckpointError: The file does not exist or is damaged.
    """
    try:
        state = load_file(path)
        with safe_open(path, framework="pt") as stream:
            header: dict[str, str] = stream.metadata() or {}
        metadata = json.loads(header.get(_METADATA_KEY, "{}"))
        return state, metadata if isinstance(metadata, dict) else {}
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"Cannot read weights from '{path}': {error}.", hint="Check the path.") from error


def parse_weights(content: bytes, origin: str) -> dict[str, torch.Tensor]:
    """Return the tensors of the content of a safetensors file, on the CPU.

    Args:
        content: The content.
        origin: Name of the weights in messages.

    Raises:
        CheckpointError: The content is damaged.
    """
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:  # also an unknown dtype
        raise CheckpointError(f"Cannot read weights from {origin}: {error}.", hint="Copy the file again.") from error


def fit_state(model: nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    """Load ``state`` into ``model``.

    Args:
        model: The network.
        state: Tensors by name.
        origin: Name of the weights in messages.

    Raises:
        CheckpointError: Tensors are missing, unknown or of another shape; the first three are named.
    """
    own = model.state_dict()
    wrong = [f"{name} missing" for name in own if name not in state]
    wrong += [f"{name} not in the network" for name in state if name not in own]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if wrong:
        raise CheckpointError(
            f"The weights in {origin} do not fit {type(model).__name__}: {len(wrong)} differences in {len(own)} "
            f"tensors, such as {'; '.join(wrong[:3])}.",
            hint="Check network, encoder and number of classes in the settings.",
        )
    model.load_state_dict(state)
