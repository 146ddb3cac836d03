"""Targets: the readers of images and DICOM files, the DICOM objects that refer to a file, and the input check."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from collections.abc import Hashable, Iterable
from pathlib import Path

import numpy as np
from dicom_images import content_of, dicom_image
from dicom_writing import dataset_of, lut_item, ramp
from fuzz_case import Target
from fuzz_mutate import MOST_BYTES
from hostile_case import Case
from image_writing import color, encode, gray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from hilum.gate.gate import ClassicGate
from hilum.imaging.preprocess import fit_image, to_input
from hilum.imaging.read import read_dicom_header, read_radiograph, read_stored
from hilum.types import Radiograph

_SLOW_TO_MAKE = ("bomb", "thin", "link", "pipe", "folder", "5 GiB", "name:")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png() -> Target:
    images = [Image.fromarray(gray()), Image.fromarray(color()), Image.fromarray(gray().astype(np.uint16) << 8)]
    made = [encode(image) for image in [*images, *(images[0].convert(mode) for mode in ("1", "P", "LA"))]]
    made += [
        encode(images[0], save_all=True, append_images=images[:1]),
        encode(images[1].convert("RGBA"), optimize=True),
    ]
    return Target("png", made + _hostile(_SIGNATURE), lambda content: _read(_with_checksums(content)))


def jpeg() -> Target:
    images = [Image.fromarray(gray()), Image.fromarray(color()), Image.fromarray(color()).convert("CMYK")]
    made = [encode(image, "JPEG", progressive=flag) for image in images for flag in (False, True)]
    exif = Image.Exif()
    exif[0x0112] = 6
    made += [encode(images[0], "JPEG", exif=exif, restart_marker_blocks=1), encode(images[1], "MPO", save_all=True)]
    return Target("jpeg", made + _hostile(b"\xff\xd8\xff"), _read)


def webp() -> Target:
    images = [Image.fromarray(color()), Image.fromarray(color()).convert("RGBA")]
    made = [encode(image, "WEBP", lossless=flag) for image in images for flag in (False, True)]
    made.append(encode(images[0], "WEBP", save_all=True, append_images=images[:1]))
    return Target("webp", made + _hostile(b"RIFF"), _read)


def bmp() -> Target:
    images = [Image.fromarray(gray()), Image.fromarray(color())]
    made = [encode(image, "BMP") for image in (*images, images[0].convert("1"), images[1].convert("P"))]
    return Target("bmp", made + _hostile(b"BM"), _read)


def tiff() -> Target:
    images = [Image.fromarray(gray()), Image.fromarray(color()), Image.fromarray(gray().astype(np.uint16) << 8)]
    images += [images[0].convert("1"), images[1].convert("CMYK"), Image.fromarray(gray().astype(np.int32))]
    codecs = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4", "zstd", "lzma", "webp")
    made = []
    for codec in codecs:
        for image in images:
            try:
                made.append(encode(image, "TIFF", compression=codec))
            except (OSError, ValueError):  # not every codec has every mode
                continue
    made.append(encode(images[0], "TIFF", save_all=True, append_images=images[:1], big_tiff=True))
    return Target("tiff", made + _hostile(b"II", b"MM"), _read)


def dicom() -> Target:
    lut = dataset_of(ramp(12), 12, WindowCenter=1000, WindowWidth=500)
    lut.VOILUTSequence = [lut_item(np.arange(256, dtype=np.uint16), 0, 8)]
    lut.ModalityLUTSequence = [lut_item(np.arange(4096, dtype=np.uint16), 0, 16)]
    made = [content_of(own) for own in (_small(), dataset_of(ramp(16, True), 16, RescaleSlope=2.0), lut)]
    made += [content_of(dataset_of(color(), 8)), content_of(dataset_of(gray(), 8, Rows=21))]
    made += [_in_syntax(syntax) for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian)]
    return Target("dicom", made + _hostile_dicom(compressed=False), _read_dicom)


def dicom_compressed() -> Target:
    made = [_in_syntax(syntax) for syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless)]
    return Target("dicom-compressed", made + _hostile_dicom(compressed=True), _read_dicom)


def dicom_deflated() -> Target:
    """The dataset of a deflated file before it is deflated."""
    content = content_of(_small())
    start = 144 + struct.unpack_from("<I", content, 140)[0]
    syntax = _element(0x0002, 0x0010, b"UI", b"1.2.840.10008.1.2.1.99")
    meta = bytes(128) + b"DICM" + _element(0x0002, 0x0000, b"UL", struct.pack("<I", len(syntax))) + syntax

    def run(content: bytes) -> Hashable:
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        return _read_dicom(meta + packer.compress(content) + packer.flush())

    return Target("dicom-deflated", [content[start:]], run)


def dicom_objects() -> Target:
    """Headers of images, for which all objects of a result are made."""
    from dicom_results import SIZE, small_manifest, small_prediction

    from hilum.inference.dicom_out import Kind, objects_of, source_header

    manifest = small_manifest()
    prediction = small_prediction(manifest)
    kinds: tuple[Kind, ...] = ("seg", "sr", "sc", "pr")
    seeds = [content_of(dicom_image(gray(SIZE, SIZE), kind=kind)) for kind in ("DX", "CR")]

    def run(content: bytes) -> Hashable:
        header = source_header(content, "a.dcm")
        made = objects_of(header, prediction, manifest, kinds=(kinds[len(content) % len(kinds)],))
        for one in made.values():
            content_of(one)
        return tuple(made)

    return Target("dicom-objects", seeds, run)


def gate() -> Target:
    """Radiographs of any pixels and facts, for the packaged input check."""
    from hostile_bundles import packaged

    from hilum.bundle.gate import open_gate

    learned, classic = open_gate(packaged(), "learned"), ClassicGate()
    head = struct.Struct("<HHBBff")
    texts = ("", "PA", "LL", "CHEST", "FOOT", "YES", "NO", "CR", "CT", "\udc80")

    def run(content: bytes) -> Hashable:
        height, width, bits, text, aspect, difference = head.unpack(content[: head.size].ljust(head.size, b"\1"))
        height, width = 1 + height % 600, 1 + width % 600
        kind = np.uint16 if bits % 2 else np.uint8
        stored = 8 if kind is np.uint8 else 1 + bits % 16
        pixels = np.resize(np.frombuffer(content[head.size :] or b"\0\0", np.uint8), height * width).reshape(
            height, width
        )
        aspect = abs(aspect) if 0.1 <= abs(aspect) <= 10 else 1.0
        words = [texts[(text + place) % len(texts)] or None for place in range(4)]
        values = pixels.astype(kind) << (stored - 8) if stored > 8 else pixels
        radiograph = Radiograph(
            values, stored, origin="fuzz", color_difference=abs(difference) if abs(difference) < 256 else 0.0,
            pixel_aspect=aspect, view_position=words[0], modality=words[1], body_part=words[2],
            burned_in_annotation=words[3],
        )  # fmt: skip
        return learned(radiograph).reason[:20], classic(radiograph).accepted

    from hilum.phantoms.chest import draw_phantom

    drawn = draw_phantom(1, "Normal", size=96).image
    facts = [(95, 95, 0, 0, 1.0, 0.0), (95, 95, 11, 3, 2.0, 9.0), (15, 63, 15, 5, 0.5, 0.0)]
    return Target("gate", [head.pack(*fact) + drawn.tobytes() for fact in facts], run)


def _read(content: bytes, origin: str | None = None) -> Hashable:
    """Read an image, and prepare it for the network and the input check."""
    from hilum.config import PreprocessSpec

    radiograph = read_radiograph(content, origin=origin)
    spec = PreprocessSpec(size=64)
    values = to_input(fit_image(radiograph, spec), spec)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise AssertionError("the network's input is outside [0, 1]")
    return radiograph.photometric_interpretation, radiograph.bits_stored, ClassicGate()(radiograph).accepted


def _read_dicom(content: bytes) -> Hashable:
    outcome: list[Hashable] = []
    from hilum.errors import HilumError

    for reader in (read_stored, read_dicom_header):
        try:
            reader(content, origin="a.dcm")
        except HilumError:
            outcome.append(reader.__name__)
    return (*outcome, _read(content, "a.dcm"))


def _with_checksums(content: bytes) -> bytes:
    """Correct the checksums of a PNG's chunks, so that what is in them is read."""
    fixed, place = bytearray(content), len(_SIGNATURE)
    while place + 12 <= len(fixed):
        end = place + 8 + int.from_bytes(fixed[place : place + 4], "big")
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = zlib.crc32(fixed[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(fixed)


def _small() -> Dataset:
    return dicom_image(gray(64, 64))


def _in_syntax(syntax: UID) -> bytes:
    dataset, stream = _small(), io.BytesIO()
    if syntax.is_encapsulated and syntax != JPEGLSLossless:
        dataset.compress(syntax)
    elif syntax == JPEGLSLossless:
        from pydicom import dcmread
        from pydicom.data import get_testdata_file

        dataset = dcmread(str(get_testdata_file("MR_small_jpeg_ls_lossless.dcm")))
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def _hostile_dicom(*, compressed: bool) -> list[bytes]:
    from hostile_dicom import DICOM

    from hilum.errors import HilumError
    from hilum.imaging.dicom_file import is_encapsulated

    def belongs(content: bytes) -> bool:
        try:
            return is_encapsulated(content, "") == compressed
        except HilumError:
            return not compressed

    return [content for content in contents_of(DICOM) if content[128:132] == b"DICM" and belongs(content)]


def _hostile(*starts: bytes) -> list[bytes]:
    from hostile_images import IMAGES

    return [content for content in contents_of(IMAGES) if content.startswith(starts)]


def contents_of(cases: Iterable[Case]) -> list[bytes]:
    """Return the files of hostile cases that are small and quickly made."""
    contents = []
    for case in cases:
        if not case.name.startswith(_SLOW_TO_MAKE):
            with tempfile.TemporaryDirectory() as folder:
                path = case.make(Path(folder))
                if path.is_file() and path.stat().st_size <= MOST_BYTES:
                    contents.append(path.read_bytes())
    return contents
