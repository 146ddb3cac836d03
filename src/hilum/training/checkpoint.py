"""Weights as safetensors, and the state of a run so that it can go on after being killed at any instant."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError  # the name of an error; nothing is unpickled here
from typing import Any, ClassVar

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
            hint="Train anew, or use the version of hilum that wrote it.",
        )
    return state


def read_torch_file(path: Path) -> dict[str, Any]:
    """A dict that torch.save wrote, read with ``weights_only=True``: nothing in the file can execute.

    NumPy's numbers in it, which the original project left, become Python's, whichever version of NumPy wrote them.

    Raises:
        CheckpointError: there is no such file, it is no checkpoint, it is damaged, or it needs code to be read.
    """
    allowed: list[Any] = [(_NumberType, "numpy.dtype")]
    allowed += [(_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what it then refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"Expected a checkpoint at {path}, got: no such file.") from error
    except _READ_ERRORS as error:
        reason, hint = _explain(error)
        raise CheckpointError(
            f"Expected a PyTorch checkpoint of tensors and numbers in {path}, got {reason}.", hint=hint
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"Expected a dict in {path}, got {type(content).__name__}.")
    return content


class _NumberType:
    """What ``numpy.dtype`` becomes in a file: the kind and the byte order of one number."""

    _FORMATS: ClassVar[dict[str, str]] = {
        "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
        "f2": "e", "f4": "f", "f8": "d",
    }  # fmt: skip

    def __init__(self, code: str, *_: object) -> None:
        self.format = self._FORMATS[code]
        self.order = "<"

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _number(kind: _NumberType, content: bytes) -> float:
    """What ``numpy.core.multiarray.scalar`` becomes: a Python number."""
    value: float = struct.unpack(kind.order + kind.format, content)[0]
    return value


def _explain(error: Exception) -> tuple[str, str]:
    """What came, and the hint. torch's own words advise to execute the file."""
    if named := re.search(r"GLOBAL (\S+)", str(error)):
        return f"one that asks for the code {named[1]}", "Such a file is refused; save its state_dict alone."
    if isinstance(error, OSError) and error.strerror:
        return f"the error: {error.strerror}", "Check the path and its permissions."
    return "something else or a damaged file", "Copy the file again, and check that torch.save wrote it."
