"""Encode arrays as PNG (ISO/IEC 15948): masks with 1 bit per pixel, gray with 8 or 16, RGB with 3 x 8.

Rows are stored as differences from the row above and deflated by ISA-L, at a fifth of the time of the library that
OpenCV brings and to smaller files; without ISA-L, by zlib. Masks are always deflated by zlib, since a repeated
prediction is to write the same bytes: masks of equal pixels were once deflated to other bytes by ISA-L (as in
https://github.com/intel/isa-l/issues/140), and of one bit per pixel zlib makes the smaller file in a few milliseconds.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from hilum.errors import OutputError
from hilum.storage import write_bytes

# There is no wheel for every platform.
isal_zlib = importlib.import_module("isal.isal_zlib") if find_spec("isal") is not None else None

Pixels = NDArray[np.bool_] | NDArray[np.uint8] | NDArray[np.uint16]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP = 2  # filter type: the difference from the byte above
_GRAY, _RGB = 0, 2
_NO_TEXT: Mapping[str, str] = MappingProxyType({})


def save_png(image: Pixels, path: Path) -> None:
    """Write an image as PNG, atomically; see ``png_bytes``.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    write_bytes(path, png_bytes(image))


def png_bytes(image: Pixels, text: Mapping[str, str] = _NO_TEXT) -> bytes:
    """Return an image as the content of a PNG file.

    Args:
        image: (H, W) bool, white where True, with 1 bit per pixel; (H, W) uint8 or uint16 gray; (H, W, 3) uint8 RGB.
        text: Keyword to ASCII text, stored in the file before the pixels.

    Raises:
        OutputError: The image has another type or shape, or no pixels.
    """
    kinds: dict[tuple[int, object], tuple[int, int]] = {
        (2, np.dtype(np.bool_)): (1, _GRAY), (2, np.dtype(np.uint8)): (8, _GRAY), (2, np.dtype(np.uint16)): (16, _GRAY),
        (3, np.dtype(np.uint8)): (8, _RGB),
    }  # fmt: skip
    kind = kinds.get((image.ndim, image.dtype))
    if kind is None or not image.size or (image.ndim == 3 and image.shape[2] != 3):
        raise OutputError(f"Cannot encode an image of shape {image.shape} and type {image.dtype} as PNG.")
    depth, color = kind
    if depth == 1:
        rows = np.packbits(image, axis=1)
    else:
        rows = np.ascontiguousarray(image, image.dtype.newbyteorder(">")).view(np.uint8).reshape(image.shape[0], -1)
    size = image.shape[1].to_bytes(4, "big") + image.shape[0].to_bytes(4, "big")
    header = size + bytes([depth, color, 0, 0, 0])
    texts = [_chunk(b"tEXt", name.encode("ascii") + b"\0" + value.encode("ascii")) for name, value in text.items()]
    pixels = _chunk(b"IDAT", _deflate(_filtered(rows), same=depth == 1))
    return b"".join([_SIGNATURE, _chunk(b"IHDR", header), *texts, pixels, _chunk(b"IEND", b"")])


def _filtered(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return rows (H, n) as differences from the row above, (H, n + 1) with the filter type first."""
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered


def _deflate(content: NDArray[np.uint8], *, same: bool) -> bytes:
    if isal_zlib is not None and not same:
        return bytes(isal_zlib.compress(content.data, 1))
    # Runs only: longer matches cost twice the time and save a tenth of the bytes.
    compressor = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return compressor.compress(content.data) + compressor.flush()


def _chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(content, zlib.crc32(name)).to_bytes(4, "big")
