"""Headers, scans and ends of JPEG, JPEG-LS and JPEG 2000 images; the codecs themselves decode them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from hilum.errors import ReadError

MAX_SCANS = 64
"""Maximum number of scans of a JPEG. Encoders write at most about 15; each costs up to 0.5 ms per million pixels."""

MAX_SCANNED = 500_000_000
"""Maximum number of pixels of a JPEG times its scans; twice that is decoded, to find out whether it was cut."""

NO_CODE = b"\xff\0" * 8
"""Ones in the entropy-coded data of a JPEG image, each byte of them followed by a stuffed zero."""
_OTHER_BITS = b"\x5a\x33\x0f\x71" * 16
_NOT_A_FRAME = (0xC4, 0xC8, 0xCC)
_SEQUENTIAL = (0xC0, 0xC1)  # start of a frame that is Huffman-coded
_PROGRESSIVE = (0xC2, 0xCA)
_DCT_FRAMES = (*_SEQUENTIAL, 0xC9, *_PROGRESSIVE)
_COEFFICIENTS = 64  # of a block
_ABSENT = 16  # above the highest bit of a coefficient
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# Inside a scan, a byte after FF is below 0x80 (JPEG: 00, ISO 10918-1 B.1.1.5; JPEG-LS: a zero bit, ISO 14495-1 A.1) or
# a restart marker.
_MARKER = re.compile(rb"\xff([\x80-\xcf\xd8-\xfe])")


def codestream_size(frame: bytes) -> tuple[int, int]:
    """Return (rows, columns) of a JPEG 2000 (ISO 15444-1 A.5.1), JPEG (ISO 10918-1 B.2.2) or JPEG-LS image."""
    start = frame.find(b"\xff\x4f\xff\x51")
    if start >= 0:
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        return bottom - top, right - left
    position = 2
    while True:
        marker = struct.unpack_from(">H", frame, position)[0]
        if marker == 0xFFFF:  # a fill byte
            position += 1
        elif marker == 0xFFF7 or (0xFFC0 <= marker <= 0xFFCF and marker & 0xFF not in _NOT_A_FRAME):
            rows, columns = struct.unpack_from(">HH", frame, position + 5)
            return rows, columns
        else:
            position += 2 + int(struct.unpack_from(">H", frame, position + 2)[0])


class Scans(NamedTuple):
    """Scans of a JPEG or JPEG-LS image."""

    number: int
    end: int | None
    """Position of the end-of-image marker after the last scan; None if there is no scan, or no marker after it, or the
    scans lack a part of the image: libjpeg decodes such an image without an error."""
    is_single: bool
    """Whether the image is a sequential, Huffman-coded JPEG in one scan."""
    ends: tuple[int, ...]
    """Position of the marker after each scan."""


def read_scans(frame: bytes, origin: str) -> Scans:
    """Return the scans of a JPEG or JPEG-LS image; bytes after its end are ignored.

    A progressive image of 535 KB can have thousands, each of which passes over all its pixels.

    Args:
        frame: The compressed image.
        origin: Name of the file in messages.

    Raises:
        ReadError: There are more than MAX_SCANS.
    """
    end, is_sequential, coverage = None, False, _Coverage()
    count, ends = 0, []
    is_in_scan = False
    for marker, position in _segments(frame):
        if is_in_scan:
            ends.append(position)
        is_in_scan = marker == _START_OF_SCAN
        count += is_in_scan
        is_sequential = is_sequential or marker in _SEQUENTIAL
        coverage.add(marker, frame[position + 4 : position + 2 + _length(frame, position)])
        end = position if marker == _END_OF_IMAGE and count else None
    if count > MAX_SCANS:
        raise ReadError(
            f"Expected at most {MAX_SCANS} scans in {origin}, got {count:,}.", hint="Export it as a baseline JPEG."
        )
    return Scans(count, end if coverage.is_whole() else None, count == 1 and is_sequential, tuple(ends))


def cut_off(origin: str) -> ReadError:
    """Return the error of an image whose compressed data were cut."""
    return ReadError(
        f"The compressed data of {origin} end before the image does.",
        hint="The file is cut off. Copy or export it again.",
    )


class _Coverage:
    """Bits of the coefficients of each component of a JPEG image that its scans have (ISO 10918-1 B.2.3, G.1.1.1)."""

    def __init__(self) -> None:
        self._lowest: dict[int, list[int]] = {}  # by component: the lowest bit of each coefficient so far
        self._is_progressive = self._is_known = False

    def add(self, marker: int, header: bytes) -> None:
        """Add a segment.

        Args:
            marker: Its code.
            header: Its parameters, without the length.
        """
        if marker in _DCT_FRAMES and len(header) >= 6:
            self._is_known, self._is_progressive = True, marker in _PROGRESSIVE
            self._lowest = {component: [_ABSENT] * _COEFFICIENTS for component in header[6::3]}
        elif marker == _START_OF_SCAN and self._is_known and header and len(header) >= 4 + 2 * header[0]:
            first, last, bits = header[1 + 2 * header[0] :][:3]
            if not self._is_progressive:
                first, last, bits = 0, _COEFFICIENTS - 1, 0
            for component in header[1 : 1 + 2 * header[0] : 2]:
                lowest = self._lowest.get(component, [])
                lowest[first : last + 1] = [bits & 15] * len(lowest[first : last + 1])

    def is_whole(self) -> bool:
        """Return whether the scans have every bit; True for images that are not coded by the DCT."""
        return not any(any(lowest) for lowest in self._lowest.values())


def with_guard(frame: bytes, end: int, *, is_jpeg_ls: bool = False) -> bytes:
    """Insert bits before the end of an image that a decoder only meets when the data before them were cut.

    JPEG: ones, which are no Huffman code (ISO 10918-1, annex C), so that decoders stop with an error. JPEG-LS has no
    such bits; those of ``with_guard`` decode to other pixels than the zeros that a decoder takes in their place.

    Args:
        frame: The compressed image.
        end: Position of its end-of-image marker.
        is_jpeg_ls: Whether the image is coded by JPEG-LS.
    """
    return frame[:end] + (_OTHER_BITS if is_jpeg_ls else NO_CODE) + frame[end:]


def with_guards(frame: bytes, scans: Scans) -> bytes:
    """Insert bits after each scan of a JPEG image that libjpeg skips, unless it lacks data of the scan.

    If a scan was cut, they decode to other pixels than the zeros that libjpeg takes in place of the missing data.

    Args:
        frame: The compressed image.
        scans: Its scans.
    """
    starts = (0, *scans.ends)
    parts = (frame[start:end] for start, end in zip(starts, (*scans.ends, len(frame)), strict=True))
    return _OTHER_BITS.join(parts)


def _length(frame: bytes, position: int) -> int:
    return int.from_bytes(frame[position + 2 : position + 4], "big")


def _segments(frame: bytes) -> Iterator[tuple[int, int]]:
    """Yield the code and position of each marker up to the end of the image, or of the data."""
    position = 2
    while found := _MARKER.search(frame, position):
        marker = found[1][0]
        yield marker, found.start()
        if marker == _END_OF_IMAGE or found.end() + 2 > len(frame):
            return
        position = found.end() + max(2, _length(frame, found.start()))
