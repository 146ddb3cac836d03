"""Headers and ends of the compressed images inside DICOM files; the codecs themselves decode them."""

from __future__ import annotations

import re
import struct

_NOT_A_FRAME = (0xC4, 0xC8, 0xCC)
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


def is_jpeg_ended(frame: bytes) -> bool:
    """Return whether a JPEG or JPEG-LS image has a scan and, after its last one, the end-of-image marker.

    libjpeg decodes an image that was cut without an error, and fills the missing rows.

    Args:
        frame: The compressed image; bytes after its end are ignored.
    """
    position, scanned = 2, False
    while found := _MARKER.search(frame, position):
        marker = found[1][0]
        if marker == _END_OF_IMAGE:
            return scanned
        if found.end() + 2 > len(frame):
            return False
        scanned = scanned or marker == _START_OF_SCAN
        position = found.end() + max(2, int.from_bytes(frame[found.end() : found.end() + 2], "big"))
    return False
