"""Weights as safetensors, and the state of a run so that it can go on after being killed at any instant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from hilum.errors import CheckpointError
from hilum.storage import atomic_path, write_bytes

_STATE_FORMAT = 1


def save_weights(path: Path, state: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a state_dict as safetensors, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_bytes(path, save(tensors, metadata))


def load_weights(model: nn.Module, path: Path) -> dict[str, str]:
    """Load safetensors into ``model``, all tensors by name; the file's metadata.

    Raises:
        CheckpointError: the file is absent, damaged, or of another network.
    """
    try:
        state = load_file(path)
        with safe_open(path, framework="pt") as stream:
            metadata: dict[str, str] = stream.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"Expected weights as safetensors in {path}, got: {error}.") from error
    fit_state(model, state, str(path))
    return metadata


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
            cure="Check the model, the encoder and the number of classes in the configuration.",
        )
    model.load_state_dict(state)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state, atomically: tensors, numbers, strings, lists and dicts only."""
    with atomic_path(path) as temporary:
        torch.save({"format": _STATE_FORMAT, **state}, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read a run's state; nothing in the file can execute.

    Raises:
        CheckpointError: the file is damaged or of another version.
    """
    state = read_torch_file(path)
    if state.get("format") != _STATE_FORMAT:
        raise CheckpointError(
            f"Expected a run's state of format {_STATE_FORMAT} in {path}, got {state.get('format')!r}.",
            cure="Train anew, or use the version of hilum that wrote it.",
        )
    return state


def read_torch_file(path: Path) -> dict[str, Any]:
    """torch.load with ``weights_only=True`` and NumPy scalars allowed for, as the original project left them."""
    import numpy as np
    from numpy.dtypes import Float32DType, Float64DType, Int64DType

    # np.core moved to np._core in NumPy 2; a file names the one it was written with.
    scalar = np.float64(0).__reduce__()[0]
    allowed = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, Float32DType, Float64DType, Int64DType]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"Expected a checkpoint at {path}, got: no such file.") from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, _unpickling_error()) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"Expected a PyTorch checkpoint of tensors and numbers in {path}, got: {first_line}.",
            cure="A file that needs code to be read is refused; save its state_dict alone.",
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"Expected a dict in {path}, got {type(content).__name__}.")
    return content


def _unpickling_error() -> type[Exception]:
    from pickle import UnpicklingError  # only the exception's name; nothing is unpickled here

    return UnpicklingError
