"""What may be logged of an error: its kind and place. Its text may quote a file, and so name a patient."""

from __future__ import annotations

import traceback
from pathlib import Path


def kind_and_place(error: BaseException) -> tuple[str, str]:
    """The class of an error, and file and line of every call that led to it, the outermost first."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error).__name__, " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
