"""Helpers of both decoders (Pillow formats and DICOM): error handling, size checks, RGB to gray."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hilum.errors import ReadError
from hilum.types import Gray

DECODE_ERRORS: tuple[type[Exception], ...] = (
    OSError,  # Pillow: UnidentifiedImageError, truncated data, a codec's error code
    SyntaxError,  # Pillow: a broken chunk or header (its own use of this type)
    ValueError,  # both: an impossible size, mode, tag value or text encoding
    TypeError,  # both: a tag of another type or count than the code expects
    LookupError,  # both: a missing tag (KeyError), too few bytes (IndexError), an unknown charset
    AttributeError,  # pydicom: a missing element; Pillow: a chunk without its counterpart
    struct.error,  # both: too few bytes for a number
    EOFError,  # both: the file ends early
    zlib.error,  # both: broken deflate data
    ArithmeticError,  # both: a resolution or count of zero, a number too large for its type
    MemoryError,  # both: a size that exceeds the memory; usually the pixel limit applies before
    RuntimeError,  # codecs (pylibjpeg), NotImplementedError (an unknown VR), RecursionError (nested sequences)
    AssertionError,  # both: their own sanity checks
    NameError,  # pydicom: UnboundLocalError after an early end inside the dataset
    BufferError,  # both: a buffer shorter than declared
    Image.DecompressionBombError,  # Pillow: above its own pixel limit
)
"""Exceptions that Pillow or pydicom raise on damaged or malicious files, without process-level exceptions."""

MAX_ASPECT = 16
"""Maximum ratio of the sides of an image with a side above LONG_SIDE. Radiographs of a whole leg are about 4:1."""
LONG_SIDE = 4096
"""Side in pixels up to which the ratio of the sides is not limited."""

_STRIP_PIXELS = 1 << 20
_MESSAGE_CHARACTERS = 160  # maximum length of a third-party message; some quote the content of the file

_is_decoding: ContextVar[bool] = ContextVar("_is_decoding", default=False)


class _FromHere(type):
    def __subclasscheck__(cls, category: type) -> bool:
        return _is_decoding.get()


class _WarningWhileDecoding(Warning, metaclass=_FromHere):
    """Category that matches every warning in a thread that is decoding, and none in other threads.

    ``warnings.catch_warnings`` is not thread-safe, since it changes the filters of the whole process. A filter on this
    category stays in place and does not affect other threads.
    """


@contextmanager
def decoding(origin: str, *also: type[Exception]) -> Iterator[None]:
    """Run third-party decoding code: suppress its warnings and convert its exceptions to ReadError. Thread-safe.

    Args:
        origin: Name of the file, for the message.
        also: Further exception types of the decoder, in addition to DECODE_ERRORS.

    Raises:
        ReadError: The code raised one of DECODE_ERRORS or ``also``; a ReadError is passed on unchanged.
    """
    if not warnings.filters or warnings.filters[0][2] is not _WarningWhileDecoding:
        warnings.filterwarnings("ignore", category=_WarningWhileDecoding)
    token = _is_decoding.set(True)
    try:
        yield
    except (*DECODE_ERRORS, *also) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_MESSAGE_CHARACTERS]
        raise ReadError(
            f"Cannot decode {origin} ({reason}).",
            hint="The file may be damaged. Copy or export it again.",
        ) from error
    finally:
        _is_decoding.reset(token)


def check_pixel_count(width: int, height: int, origin: str, max_pixels: int, samples: int = 1) -> None:
    """Check an image size from a header before decoding.

    Args:
        width: Width, pixels.
        height: Height, pixels.
        origin: Name of the image, for the message.
        max_pixels: Maximum of width x height x samples.
        samples: Samples per pixel.

    Raises:
        ReadError: Width x height x samples exceeds ``max_pixels``, a side is below 1, or one is above
            LONG_SIDE and more than MAX_ASPECT times the other: resampling an image of one row takes seconds.
    """
    if width < 1 or height < 1:
        raise ReadError(
            f"Expected at least 1 x 1 pixels in {origin}, got {width} x {height}.", hint="Export the file again."
        )
    if width * height * samples > max_pixels:
        raise ReadError(
            f"Expected at most {max_pixels:,} pixels in {origin}, got {width} x {height}"
            + (f" x {samples} = " if samples > 1 else " = ")
            + f"{width * height * samples:,}.",
            hint="Shrink the image, or check that it is a radiograph.",
        )
    if max(width, height) > max(LONG_SIDE, MAX_ASPECT * min(width, height)):
        raise ReadError(
            f"Expected sides of at most {MAX_ASPECT}:1 in {origin}, got {width} x {height} pixels.",
            hint="Check that it is a radiograph.",
        )


def strips(width: int, height: int) -> Iterator[slice]:
    """Yield the rows of an image in strips of about a million pixels, so that conversions need little memory."""
    rows = max(1, _STRIP_PIXELS // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def rgb_to_gray(rgb: NDArray[np.uint8] | NDArray[np.uint16], bits_stored: int) -> tuple[Gray, float]:
    """Convert RGB (H, W, 3) to ITU-R BT.601 luma (H, W) of the same dtype; return it and the color difference.

    The color difference is the mean over all pixels of (|R-G| + |R-B| + |G-B|) / 3, in 8-bit gray levels. Where
    R = G = B, the luma equals that value; elsewhere it is within 2 of 65,535 (1 of 255) of the formula.
    """
    gray = np.empty(rgb.shape[:2], rgb.dtype)
    total = 0.0
    for rows in strips(rgb.shape[1], rgb.shape[0]):
        gray[rows] = cv2.cvtColor(rgb[rows], cv2.COLOR_RGB2GRAY)
        red, green, blue = cv2.split(rgb[rows])
        total += sum(cv2.norm(a, b, cv2.NORM_L1) for a, b in ((red, green), (red, blue), (green, blue)))
    return gray, total / (3 * gray.size) * 255 / (2**bits_stored - 1)
