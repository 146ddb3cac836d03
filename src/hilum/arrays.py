"""Read NumPy files whose content may be damaged or hostile: without pickle, bounded, and with one type of error."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 256 << 20
"""Maximum size of the arrays of an archive."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those of numpy.savez and numpy.savez_compressed
_ERRORS: tuple[type[Exception], ...] = (
    OSError, EOFError, KeyError, TypeError, AttributeError, ArithmeticError, SyntaxError, MemoryError,
    RuntimeError,  # zipfile: encryption (and NotImplementedError); NumPy: RecursionError
    zipfile.BadZipFile, zlib.error,
    tokenize.TokenError,  # NumPy: a header that is not Python
)  # fmt: skip


def read_array(content: bytes) -> NDArray[Any]:
    """Return the array in the content of a ``.npy`` file.

    Raises:
        ValueError: The content is damaged or something else, or declares more bytes than it has.
    """
    try:
        _check_size(content)
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except _ERRORS as error:
        raise ValueError(f"damaged array ({type(error).__name__})") from error


def read_archive(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays in the content of an ``.npz`` file by name.

    Raises:
        ValueError: The content is damaged or something else, or inflates to more than MAX_BYTES.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise ValueError(f"the arrays have more than {MAX_BYTES:,} bytes")
            if any(entry.compress_type not in _METHODS for entry in entries):
                raise ValueError("the archive is neither stored nor deflated")
            return {entry.filename.removesuffix(".npy"): read_array(archive.read(entry)) for entry in entries}
    except _ERRORS as error:
        raise ValueError(f"damaged archive ({type(error).__name__})") from error


def _check_size(content: bytes) -> None:
    """Check that the content has the bytes that its header declares: NumPy would allocate them first."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, kind = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, kind = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"version {version} of the format")
    if min(shape, default=0) < 0 or kind.itemsize * math.prod(shape) > len(content):
        raise ValueError(f"an array of shape {shape}, in {len(content):,} bytes")
