"""Shared by both decoders (Pillow's formats, DICOM): the guard around third-party code, and RGB to gray."""

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
    MemoryError,  # both: a size no machine can hold; the pixel cap stops the usual ones before
    RuntimeError,  # codecs (pylibjpeg), NotImplementedError (an unknown VR), RecursionError (nested sequences)
    AssertionError,  # both: their own sanity checks
    NameError,  # pydicom: UnboundLocalError after an early end inside the data set
    BufferError,  # both: a buffer that is not as long as announced
    Image.DecompressionBombError,  # Pillow: above its own bound of pixels
)
"""Whatever a malicious or damaged file makes Pillow or pydicom raise. Process-level exceptions are not in it."""

_MESSAGE_CHARACTERS = 160  # of a foreign error: some quote the file's own bytes, which may name a patient

_is_decoding: ContextVar[bool] = ContextVar("_is_decoding", default=False)


class _FromHere(type):
    def __subclasscheck__(cls, category: type) -> bool:
        return _is_decoding.get()


class _WarningWhileDecoding(Warning, metaclass=_FromHere):
    """Every warning's category is a subclass of it in a thread that is decoding, and none is elsewhere.

    ``warnings.catch_warnings`` swaps the filters of the whole process, which two threads undo in the wrong
    order; a filter on this category stays in place and touches no other thread.
    """


@contextmanager
def decoding(origin: str, *also: type[Exception]) -> Iterator[None]:
    """Run third-party decoding code: its warnings are dropped, its exceptions become ReadError. Thread-safe.

    Args:
        origin: The file's name, for the message.
        also: A decoder's own exception types beyond DECODE_ERRORS.

    Raises:
        ReadError: For each of DECODE_ERRORS and ``also``; a ReadError passes unchanged.
    """
    if not warnings.filters or warnings.filters[0][2] is not _WarningWhileDecoding:
        warnings.filterwarnings("ignore", category=_WarningWhileDecoding)
    token = _is_decoding.set(True)
    try:
        yield
    except (*DECODE_ERRORS, *also) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_MESSAGE_CHARACTERS]
        raise ReadError(
            f"Expected a whole, undamaged image in {origin}, got one that cannot be decoded ({reason}).",
            hint="Copy or export the file again.",
        ) from error
    finally:
        _is_decoding.reset(token)


def check_pixel_count(width: int, height: int, origin: str, max_pixels: int, samples: int = 1) -> None:
    """Refuse a size, read from a header, that must not be decoded.

    Raises:
        ReadError: Width x height x samples is above ``max_pixels``, or a side is below 1.
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


def rgb_to_gray(rgb: NDArray[np.uint8] | NDArray[np.uint16], bits_stored: int) -> tuple[Gray, float]:
    """(H, W, 3) to ITU-R BT.601 luma (H, W) of the same type, and the color difference.

    The color difference is the mean over the pixels of (|R-G| + |R-B| + |G-B|) / 3, in 8-bit gray levels. Where
    R = G = B the luma is that value exactly, elsewhere within 2 of 65,535 (1 of 255) of the formula.
    """
    red, green, blue = cv2.split(rgb)
    differences = [float(cv2.absdiff(a, b).mean()) for a, b in ((red, green), (red, blue), (green, blue))]
    to_8_bits = 255 / (2**bits_stored - 1)
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), sum(differences) / 3 * to_8_bits  # type: ignore[return-value]
