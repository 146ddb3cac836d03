"""Write and read the training state of a run, for resuming. Weights alone are in hilum.models.weights."""

from __future__ import annotations

import io
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
"""Exceptions that torch.load raises on damaged files."""


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state of tensors, numbers, strings, lists and dicts, atomically.

    Raises:
        OutputError: The file cannot be written. torch.save itself would raise RuntimeError.
    """
    content = io.BytesIO()
    torch.save({"format": _STATE_FORMAT, **state}, content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_state(path: Path) -> dict[str, Any]:
    """Read a training state, without executing code from the file.

    Raises:
        CheckpointError: The file is damaged or of another version.
    """
    state = read_torch_file(path)
    if state.get("format") != _STATE_FORMAT:
        raise CheckpointError(
            f"Expected format {_STATE_FORMAT} of the state '{path}', got {state.get('format')!r}.",
            hint="Start a new run, or use the version of hilum that wrote it.",
        )
    return state


def read_torch_file(path: Path, safe_globals: Sequence[Any] = ()) -> dict[str, Any]:
    """Read a dict written by torch.save with ``weights_only=True``, without executing code from the file.

    Args:
        path: The file.
        safe_globals: Further types that the file may use, see torch.serialization.safe_globals.

    Raises:
        CheckpointError: The file does not exist, is not a checkpoint, is damaged, or requires code to be read.
    """
    try:
        with torch.serialization.safe_globals(list(safe_globals)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about files that it then rejects
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"No such file: '{path}'.", hint="Check the path.") from error
    except _READ_ERRORS as error:
        reason, hint = _explain(error)
        raise CheckpointError(f"Cannot read '{path}' as a PyTorch checkpoint: {reason}.", hint=hint) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"Expected a dict in '{path}', got {type(content).__name__}.", hint="Save the state_dict with torch.save."
        )
    return content


def _explain(error: Exception) -> tuple[str, str]:
    """Return reason and hint; torch's own message recommends executing the file."""
    if named := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it would execute {named[1]}", "Save only the state_dict."
    if isinstance(error, OSError) and error.strerror:
        return error.strerror, "Check the path and its permissions."
    return "it has another format or is damaged", "Copy the file again, and check that torch.save wrote it."
