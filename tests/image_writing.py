"""Files written for the reading tests."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"


def gray(height: int = 20, width: int = 30) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)


def color(height: int = 20, width: int = 30) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG of that size by its header, with next to no data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def tiff(data: bytes, width: int, height: int, bits: int, photometric: int, sample_format: int = 1) -> bytes:
    """An uncompressed little-endian gray TIFF."""
    values = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height}
    values |= {279: len(data), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    directory = struct.pack("<H", len(values)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def jpeg_of_scans(side: int, scans: int, components: int = 1) -> bytes:
    """A black progressive JPEG: one scan of the means, then refinements of all other coefficients, 180 bytes each."""

    def segment(marker: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

    def scan(header: list[int], bits: str) -> bytes:
        bits += "1" * (-len(bits) % 8)
        data = int(bits, 2).to_bytes(len(bits) // 8, "big")
        return segment(0xDA, bytes(header)) + data.replace(b"\xff", b"\xff\0")

    blocks = (-(-side // 8)) ** 2
    planes = b"".join(bytes([number, 0x11, 0]) for number in range(1, components + 1))
    parts = [b"\xff\xd8", segment(0xDB, b"\0" + bytes([1] * 64))]
    parts.append(segment(0xC2, struct.pack(">BHHB", 8, side, side, components) + planes))
    one_code = bytes([1] + [0] * 15)  # a Huffman table with one code of one bit
    parts += [segment(0xC4, b"\0" + one_code + b"\0"), segment(0xC4, b"\x10" + one_code + b"\xe0")]
    selectors = [byte for number in range(1, components + 1) for byte in (number, 0)]
    parts.append(scan([components, *selectors, 0, 0, 0], "0" * (blocks * components)))
    ends = ("0" + "1" * 14) * -(-blocks // 32767)  # the longest run of blocks without coefficients: 32,767
    parts += [scan([1, 1 + number % components, 0, 1, 63, 0x10], ends) for number in range(scans - 1)]
    return b"".join([*parts, b"\xff\xd9"])
