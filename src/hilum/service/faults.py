"""Describe errors for the log by type and location; their text may quote a file, and so contain patient data."""

from __future__ import annotations

import traceback
from pathlib import Path


def kind_and_place(error: BaseException) -> tuple[str, str]:
    """Return the class of an error, and file and line of its traceback, outermost call first."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error).__name__, " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
