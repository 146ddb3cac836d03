"""Weights of networks as safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from hilum.errors import CheckpointError
from hilum.storage import write_bytes

_METADATA_KEY = "hilum"


def save_weights(path: Path, state: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a state_dict as safetensors, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    # safetensors writes several keys in a random order; under one key, equal weights are equal bytes
    header = {_METADATA_KEY: json.dumps(metadata, sort_keys=True)} if metadata else None
    write_bytes(path, save(tensors, header))


def load_weights(model: nn.Module, path: Path) -> dict[str, str]:
    """Load safetensors into ``model``, all tensors by name; the file's metadata.

    Raises:
        CheckpointError: The file is absent, damaged, or of another network.
    """
    state, metadata = read_weights(path)
    fit_state(model, state, str(path))
    return metadata


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and its metadata.

    Raises:
        CheckpointError: The file is absent or damaged.
    """
    try:
        state = load_file(path)
        with safe_open(path, framework="pt") as stream:
            header: dict[str, str] = stream.metadata() or {}
        metadata = json.loads(header.get(_METADATA_KEY, "{}"))
        return state, metadata if isinstance(metadata, dict) else {}
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"Expected weights as safetensors in {path}, got: {error}.") from error


def fit_state(model: nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    """Load ``state`` into ``model``; CheckpointError names the first tensors that do not fit."""
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
            f"Expected the {len(own)} tensors of {type(model).__name__} in {origin}, "
            f"{len(wrong)} do not fit: {'; '.join(wrong[:3])}.",
            hint="Check the model, the encoder and the number of classes in the configuration.",
        )
    model.load_state_dict(state)
