"""The state of a run on the disk, from which it continues after being killed at any instant.

Weights alone are safetensors: hilum.models.weights.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError  # the name of an error; nothing is unpickled here
from typing import Any

import torch

from hilum.errors import CheckpointError
from hilum.storage import atomic_path

_STATE_FORMAT = 1
_READ_ERRORS = (
    OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError, AssertionError,
    ArithmeticError, MemoryError, struct.error, UnpicklingError,
)  # fmt: skip
"""What torch's reader of untrusted files raises on damaged ones."""


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state atomically: tensors, numbers, strings, lists and dicts only."""
    with atomic_path(path) as temporary:
        torch.save({"format": _STATE_FORMAT, **state}, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read a run's state; nothing in the file can execute.

    Raises:
        CheckpointError: The file is damaged or of another version.
    """
    state = read_torch_file(path)
    if state.get("format") != _STATE_FORMAT:
        raise CheckpointError(
            f"The state in {path} has format {state.get('format')!r}, expected {_STATE_FORMAT}.",
            hint="Train anew, or use the version of hilum that wrote it.",
        )
    return state


def read_torch_file(path: Path, safe_globals: Sequence[Any] = ()) -> dict[str, Any]:
    """Read a dict that torch.save wrote, with ``weights_only=True``: nothing in the file can execute.

    Args:
        path: The file.
        safe_globals: What the file may name beside torch's own classes, see torch.serialization.safe_globals.

    Raises:
        CheckpointError: There is no such file, it is not a checkpoint, it is damaged, or it needs code to be read.
    """
    try:
        with torch.serialization.safe_globals(list(safe_globals)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what it then refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"No such file: {path}.") from error
    except _READ_ERRORS as error:
        reason, hint = _explain(error)
        raise CheckpointError(f"Cannot read {path} as a PyTorch checkpoint: {reason}.", hint=hint) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"Expected a dict in {path}, got {type(content).__name__}.")
    return content


def _explain(error: Exception) -> tuple[str, str]:
    """What is wrong, and the hint. torch's own words advise to execute the file."""
    if named := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it asks for the code {named[1]}", "Such a file is refused; save its state_dict alone."
    if isinstance(error, OSError) and error.strerror:
        return error.strerror, "Check the path and its permissions."
    return "it is something else or damaged", "Copy the file again, and check that torch.save wrote it."
