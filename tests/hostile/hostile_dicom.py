"""DICOM files that someone could send."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from functools import cache
from typing import Any

import numpy as np
from dicom_images import content_of, dicom_image
from dicom_writing import TEST_FILES, lut_item
from hostile_case import Case
from hostile_images import Content, encoded, file, part, phantom
from image_writing import jpeg_of_scans
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
_SEQUENCE = struct.pack("<HH2sHI", 0x0040, 0x0555, b"SQ", 0, 0xFFFFFFFF)


def image(**elements: Any) -> Dataset:
    """The synthetic radiograph of hostile_images; ``elements`` are set on it."""
    dataset = dicom_image(np.asarray(phantom()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that no library would write
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
    return dataset


def dicom(**elements: Any) -> Content:
    return lambda: content_of(image(**elements))


def in_syntax(syntax: UID) -> Content:
    @cache
    def make() -> bytes:
        dataset, stream = image(), io.BytesIO()
        if syntax == JPEGBaseline8Bit:
            return framed(encoded("JPEG"), JPEGBaseline8Bit)()
        if syntax.is_encapsulated:
            dataset.compress(syntax)
        else:
            dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(stream, enforce_file_format=True)
        return stream.getvalue()

    return make


def framed(frame: Content, syntax: UID = JPEGBaseline8Bit, **elements: Any) -> Content:
    """The image with other compressed data."""

    def make() -> bytes:
        dataset = image(**elements)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([frame()])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        return content_of(dataset)

    return make


def ended(name: str, share: float) -> Content:
    """A test file of pydicom whose compressed data were cut, with an end marker behind."""

    def make() -> bytes:
        dataset = dcmread(TEST_FILES / name)
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        dataset.PixelData = encapsulate([frame[: int(share * len(frame))] + b"\xff\xd9"])
        return content_of(dataset)

    return make


def before_pixels(data: Content) -> Content:
    """The image with bytes between its header and its pixels."""

    def make() -> bytes:
        content = dicom()()
        start = content.rindex(struct.pack("<HH", 0x7FE0, 0x0010))
        return content[:start] + data() + content[start:]

    return make


def deflated(data: Content) -> Content:
    """The file meta information of the image, with another dataset."""

    def make() -> bytes:
        dataset, stream = image(), io.BytesIO()
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(stream, enforce_file_format=True)
        content = stream.getvalue()
        start = 144 + struct.unpack_from("<I", content, 140)[0]  # PS3.10 7.1: the length is that of what follows it
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        return content[:start] + packer.compress(data()) + packer.flush()

    return make


def with_lut(entries: int, bits: int) -> Content:
    def make() -> bytes:
        dataset = image()
        dataset.VOILUTSequence = [lut_item(np.zeros(entries, np.uint16), 0, bits)]
        return content_of(dataset)

    return make


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """An element in explicit VR, little endian, with a length of four bytes if the VR has one."""
    head = struct.pack("<HH2s", group, number, vr)
    wide = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    return head + (struct.pack("<HI", 0, len(value)) if wide else struct.pack("<H", len(value))) + value


def dual() -> bytes:
    """A DICOM file whose preamble is the start of a TIFF file."""
    return b"II*\0" + struct.pack("<I", 200) + dicom()()[8:]


def stored(group: int, number: int, value: bytes) -> Content:
    """The image with other bytes for the value of an element whose length has two bytes."""

    def make() -> bytes:
        content = dicom()()
        start = content.index(struct.pack("<HH", group, number), 132)
        (length,) = struct.unpack_from("<H", content, start + 6)
        return content[: start + 6] + struct.pack("<H", len(value)) + value + content[start + 8 + length :]

    return make


_SYNTAXES = {
    "raw, implicit": in_syntax(ImplicitVRLittleEndian),
    "raw, explicit": dicom(),
    "raw, big endian": in_syntax(ExplicitVRBigEndian),
    "deflated": in_syntax(DeflatedExplicitVRLittleEndian),
    "RLE": in_syntax(RLELossless),
    "JPEG": in_syntax(JPEGBaseline8Bit),
    "JPEG 2000": in_syntax(JPEG2000Lossless),
}
_STORED = {
    "JPEG, 12 bits": "JPGExtended.dcm", "JPEG, lossless": "SC_rgb_jpeg_gdcm.dcm",
    "JPEG-LS": "JPEGLSNearLossless_16.dcm",
}  # fmt: skip


def _case(name: str, content: Content, answer: str = "unreadable") -> Case:
    return Case(name, file("a.dcm", content), answer)


DICOM = [
    *(_case(f"{name}: whole", content, "ok") for name, content in _SYNTAXES.items()),
    *(_case(f"{name}: {share:.0%} of it", part(content, share))
      for name, content in _SYNTAXES.items() for share in (0.98, 0.5)),
    *(_case(f"{name}: {share:.0%} of it, with an end", ended(stored, share))
      for name, stored in _STORED.items() for share in (0.9, 0.5)),
    *(_case(f"JPEG: {share:.0%} of it, with an end", framed(part(encoded("JPEG"), share, b"\xff\xd9")))
      for share in (0.98, 0.5)),
    _case("JPEG: 3,000 scans", framed(lambda: jpeg_of_scans(256, 3_000))),
    _case("JPEG: of another size", framed(lambda: jpeg_of_scans(4_000, 1))),
    _case("JPEG: text", framed(lambda: b"hello" * 100)),
    _case("JPEG 2000: a JPEG", framed(encoded("JPEG"), JPEG2000Lossless)),
    _case("JPEG: a JPEG 2000", framed(lambda: b"\xff\x4f\xff\x51" + bytes(500))),
    _case("RLE: zeros", framed(lambda: bytes(1_000), RLELossless)),
    _case("syntax: unknown", lambda: framed(encoded("JPEG"))().replace(b"10008.1.2.4.50", b"10008.1.2.4.49")),
    _case("syntax: video", framed(encoded("JPEG"), UID("1.2.840.10008.1.2.4.102"))),
    _case("bomb: 65,535 x 65,535", dicom(Rows=65_535, Columns=65_535)),
    _case("bomb: inflates to 400 MB", deflated(lambda: element(0x0041, 0x0010, b"UN", bytes(400_000_000)))),
    _case("bomb: inflates to a million elements", deflated(lambda: element(0x0041, 0x0010, b"LO", b"") * 1_000_000)),
    _case("bomb: a million elements", before_pixels(lambda: element(0x0041, 0x0010, b"LO", b"") * 1_000_000)),
    _case("bomb: a million items", before_pixels(
        lambda: _SEQUENCE + _ITEM * 1_000_000 + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))),
    _case("bomb: sequences nested 100,000 deep", before_pixels(
        lambda: (_SEQUENCE + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * 100_000)),
    _case("bomb: a sequence of a lookup table with a million items", before_pixels(
        lambda: element(0x0028, 0x3010, b"SQ", _ITEM * 1_000_000)), "ok"),
    _case("bomb: private element of 20 MB", before_pixels(
        lambda: element(0x0041, 0x0010, b"UN", bytes(20_000_000))), "ok"),
    _case("thin: 1 x 60,000", dicom(Rows=60_000, Columns=1, PixelData=bytes(60_000))),
    _case("no rows", dicom(Rows=0)),
    _case("pixels: too few", dicom(PixelData=bytes(100))),
    _case("pixels: none", dicom(PixelData=b"")),
    _case("pixels: twice as many", lambda: content_of(image(PixelData=2 * np.asarray(phantom()).tobytes()))),
    _case("frames: two", dicom(NumberOfFrames=2)),
    _case("frames: a billion", dicom(NumberOfFrames=1_000_000_000)),
    _case("bits: high bit of another depth", dicom(HighBit=3)),
    _case("bits: none stored", dicom(BitsStored=0)),
    _case("bits: more stored than allocated", dicom(BitsStored=12, HighBit=11)),
    _case("bits: 32 allocated", dicom(BitsAllocated=32)),
    _case("bits: 7 allocated", dicom(BitsAllocated=7, BitsStored=7, HighBit=6)),
    _case("samples: two", dicom(SamplesPerPixel=2)),
    _case("samples: RGB of one", dicom(PhotometricInterpretation="RGB")),
    _case("colors: a palette without one", dicom(PhotometricInterpretation="PALETTE COLOR")),
    _case("colors: unknown", dicom(PhotometricInterpretation="MAUVE")),
    _case("slope: 0", dicom(RescaleSlope=0)),
    _case("window: a width of 0", dicom(WindowWidth=0), "ok"),
    _case("window: an unknown function", dicom(VOILUTFunction="MAGIC")),
    _case("lookup table: of no bits", with_lut(256, 0)),
    _case("lookup table: of 99 bits", with_lut(256, 99)),
    _case("lookup table: one entry", with_lut(1, 8), "refused"),
    _case("a segmentation", dicom(Modality="SEG")),
    _case("a computed tomogram", lambda: (TEST_FILES / "CT_small.dcm").read_bytes(), "refused"),
    _case("names: not of their character set", dicom(SpecificCharacterSet="ISO_IR 9999"), "ok"),
    _case("preamble: the start of a TIFF", dual, "ok"),
    _case("preamble: alone", lambda: bytes(128) + b"DICM"),
    Case("called PNG", file("a.png", dicom()), "ok"),
    Case("without a suffix", file("a", dicom()), "ok"),
]  # fmt: skip

HEADERS = [
    _case("header: rows of one byte", stored(0x0028, 0x0010, b"@"), "ok"),
    _case("header: a slope of 300 digits", stored(0x0028, 0x1053, b"1" * 300), "ok"),
    _case("header: a date of letters", stored(0x0008, 0x0020, b"TOMORROW"), "ok"),
    _case("header: a birth date of zeros", stored(0x0010, 0x0030, bytes(8)), "ok"),
    _case("header: a name that is not of its character set", stored(0x0010, 0x0010, b"\xff\xfe\x80"), "ok"),
    _case("header: no UID of the instance", stored(0x0008, 0x0018, b""), "ReadError"),
    _case("header: half of it", part(dicom(), 0.01), "ReadError"),
]
"""Images whose headers DICOM objects refer to: malformed values are left out."""
