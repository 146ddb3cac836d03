"""Read the elements of DICOM files whose number and size may be hostile. ``dicom.py`` interprets them."""

from __future__ import annotations

import io
import zlib
from functools import partial

from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from hilum.errors import ReadError
from hilum.imaging.decoding import DECODE_ERRORS, decoding

PYDICOM_ERRORS: tuple[type[Exception], ...] = (BytesLengthException, InvalidDicomError)
"""Exceptions of pydicom on damaged files that are of no type in DECODE_ERRORS."""
DICOM_ERRORS = (*DECODE_ERRORS, *PYDICOM_ERRORS)
"""Exceptions that reading the elements of a damaged file may raise."""

_HEADER_BYTES = 1 << 26  # allowance for the header of a deflated dataset
_PACKED_BYTES = 1 << 15  # inflated at a time, to at most 34 MB
_MOST_READS = 100_000  # of pydicom in a file; a header of 500 elements takes 1,500
_LONG_VALUE = 1 << 20  # bytes of an element; the longest that is used, a lookup table, has 131,072
_PIXELS = (Tag("PixelData"), Tag("FloatPixelData"), Tag("DoubleFloatPixelData"))


class _BoundedStream(io.BytesIO):
    """Content of a file from which pydicom may read so many elements, which cost it microseconds for 8 bytes each."""

    def __init__(self, content: bytes, origin: str) -> None:
        super().__init__(content)
        self._origin, self._left = origin, _MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ReadError(
                f"{self._origin} has more DICOM elements than are read.", hint="Check that it is a radiograph."
            )
        return super().read(size)


def read_file(content: bytes, origin: str, max_pixels: int, *, header_only: bool = False) -> FileDataset:
    """Return the dataset of a file, without elements whose value is above 1 MiB, except the pixels.

    Args:
        content: Content of the file.
        origin: Name of the file in messages.
        max_pixels: Maximum number of pixels, which limits the size of a deflated dataset.
        header_only: Stop before the pixels.

    Raises:
        ReadError: There are too many elements, or the dataset inflates to too many bytes.
    """
    if DeflatedExplicitVRLittleEndian.encode() in content:
        _check_inflated(content, origin, 2 * max_pixels + _HEADER_BYTES)
    dataset = dcmread(_BoundedStream(content, origin), force=True, stop_before_pixels=header_only)
    for tag in [*dataset.keys()]:
        item = dataset.get_item(tag)  # without parsing its value, which takes seconds per 10 MB of numbers or items
        if isinstance(item, RawDataElement) and item.length > _LONG_VALUE and tag not in _PIXELS:
            del dataset[tag]
    return dataset


def is_encapsulated(content: bytes, origin: str) -> bool:
    """Return whether the pixels of a DICOM file are compressed, or the dataset is deflated.

    Raises:
        ReadError: The file meta information is damaged.
    """
    with decoding(origin, *PYDICOM_ERRORS):
        syntax = _read_meta(_BoundedStream(content, origin), content).get("TransferSyntaxUID")
        return bool(syntax) and (syntax.is_deflated or syntax.is_encapsulated)


def _check_inflated(content: bytes, origin: str, limit: int) -> None:
    """Check size and elements of a deflated dataset, which pydicom inflates before any element can be read."""
    stream = _BoundedStream(content, origin)
    if _read_meta(stream, content).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater, parts, left = zlib.decompressobj(-zlib.MAX_WBITS), [], limit
    for packed in iter(partial(stream.read, _PACKED_BYTES), b""):
        parts.append(inflater.decompress(packed))
        left -= len(parts[-1])
        if left < 0:
            raise ReadError(
                f"Expected at most {limit:,} bytes in {origin} after inflating it, got more.",
                hint="Shrink the image, or check that it is a radiograph.",
            )
    read_dataset(_BoundedStream(b"".join(parts), origin), False, True)


def _read_meta(stream: io.BytesIO, content: bytes) -> Dataset:
    """Return the file meta information of a file, and move the stream behind it."""
    stream.seek(132 if content[128:132] == b"DICM" else 0)
    return read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
