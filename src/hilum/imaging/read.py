"""Read one file, or its bytes, as a Radiograph or a mask. Pillow decodes the ordinary formats, ``dicom.py`` DICOM.

The format is recognized by content, never by the name alone. No global state of Pillow is changed, so that
threads can read in parallel.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

# Naming the plugins registers them; Image.open would otherwise import all of Pillow's formats to find them.
from PIL import (
    BmpImagePlugin,
    ExifTags,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from hilum.errors import ReadError
from hilum.imaging.decoding import DECODE_ERRORS, check_pixel_count, decoding, rgb_to_gray
from hilum.imaging.preprocess import MASK_THRESHOLD, to_uint8
from hilum.types import Gray, Radiograph

if TYPE_CHECKING:
    from pydicom import Dataset

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".dcm", ".dicom"}
)
"""The suffixes, in lower case, by which a folder's images are found; with others, ``sniff`` decides."""

SNIFFED_BYTES = 132
"""How many bytes of a file ``sniff`` needs: DICOM names itself after a preamble of 128."""

MAX_PIXELS = 120_000_000
"""Most pixels that are decoded; the largest detectors give some 20 million. Pillow's own bound is 178,956,970."""

MAX_BYTES = 1 << 30
"""Largest file that is read into memory."""

_PLUGINS: tuple[type[Image.Image], ...] = (
    BmpImagePlugin.BmpImageFile,
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
)
_FORMATS = tuple(str(plugin.format) for plugin in _PLUGINS)
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})  # bytes; "BM" alone begins many a text
_COLOR_MODES = frozenset({"P", "PA", "LA", "La", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr"})
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_radiograph(
    source: str | os.PathLike[str] | bytes, *, origin: str | None = None, max_pixels: int = MAX_PIXELS
) -> Radiograph:
    """Decode one radiograph.

    Color becomes gray by ITU-R BT.601 luma, transparency is laid over black, an EXIF orientation is applied.
    16-bit files stay 16-bit: the scale comes from the format, never from the values.

    Args:
        source: the file, or its content.
        origin: what to call it in messages and in the result; the path by default.
        max_pixels: refuse above it, by the header, before decoding.

    Raises:
        ReadError: it is no readable image of one of the formats, has several frames, is too large or damaged.
    """
    if not isinstance(source, bytes):
        source = Path(source)
    name = origin if origin is not None else _name_of(source)
    content = source if isinstance(source, bytes) else _file_content(source, name)
    if not content:
        raise ReadError(f"Expected an image in {name}, got an empty file.", hint="Copy or export the file again.")
    if _is_dicom(content, name, source):
        from hilum.imaging.dicom import decode_dicom  # pydicom takes 0.5 s to import

        return decode_dicom(content, name, max_pixels)
    with decoding(name):
        image = _open(content, name, max_pixels)
    return decode_pil(image, name, max_pixels=max_pixels)


def read_dicom_header(source: Path | bytes, *, origin: str | None = None) -> Dataset | None:
    """Return the elements before the pixels of a DICOM file (hilum.imaging.dicom.read_header), None for other files.

    Raises:
        ReadError: it cannot be read, or is damaged.
    """
    name = origin if origin is not None else _name_of(source)
    content = source if isinstance(source, bytes) else _file_content(source, name)
    if not _is_dicom(content, name, source):
        return None
    from hilum.imaging.dicom import read_header

    return read_header(content, name, MAX_PIXELS)


def sniff(head: bytes) -> Literal["dicom", "image"] | None:
    """Return the kind of a file by its first SNIFFED_BYTES: DICOM, or a PNG, JPEG, WebP, BMP or TIFF image.

    None is neither, or DICOM without the preamble of PS3.10, which only a suffix tells.
    """
    if head[128:132] == b"DICM":
        return "dicom"
    is_webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    is_bmp = head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS
    return "image" if head.startswith(_SIGNATURES) or is_webp or is_bmp else None


def is_dicom(content: bytes, name: str) -> bool:
    """Return whether ``read_radiograph`` takes bytes of that file name for DICOM."""
    return _is_dicom(content, name, content)


def read_mask(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Decode one label mask: (H, W) bool, True where ``mask_levels`` is above 127.

    A mask of zeros and ones in 8 bits is all False: see ``mask_levels`` for telling it.

    Raises:
        ReadError: as ``read_radiograph``.
    """
    return mask_levels(source, max_pixels=max_pixels) > MASK_THRESHOLD


def mask_levels(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return a mask file's gray levels, (H, W) uint8 in [0, 255], for checking that it is binary.

    The mode decides the scale, never the values: the 1 of a 1-bit file is 255, that of an 8-bit file is 1.

    Raises:
        ReadError: as ``read_radiograph``.
    """
    return to_uint8(read_radiograph(source, max_pixels=max_pixels))


def _name_of(source: Path | bytes) -> str:
    return "image in memory" if isinstance(source, bytes) else str(source)


def _file_content(path: Path, name: str) -> bytes:
    hint = "Check the path and its permissions."
    try:
        # A pipe or a device would block or never end.
        if not path.is_file():
            got = "a folder" if path.is_dir() else "something else" if path.exists() else "nothing there"
            raise ReadError(f"Expected an image file at {name}, got {got}.", hint="Check the path.")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ReadError(
                f"Expected a file of at most {MAX_BYTES:,} bytes at {name}, got {size:,}.",
                hint="Check that it is a radiograph.",
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        reason = getattr(error, "strerror", None) or error
        raise ReadError(f"Expected a readable image file at {name}, got: {reason}.", hint=hint) from error


def _is_dicom(content: bytes, name: str, source: Path | bytes) -> bool:
    """By the preamble of DICOM PS3.10; a file without one by its suffix, unless it is plainly something else."""
    if kind := sniff(content[:SNIFFED_BYTES]):
        return kind == "dicom"
    suffixes = {Path(name).suffix.lower()} | ({source.suffix.lower()} if isinstance(source, Path) else set())
    return not suffixes.isdisjoint({".dcm", ".dicom"})


def decode_pil(image: Image.Image, origin: str, *, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Decode an opened PIL image by the rules of ``read_radiograph``.

    Raises:
        ReadError: see read_radiograph.
    """
    with decoding(origin):
        _check_opened(image, origin, max_pixels)
        mode, bits, inverted = image.mode, _bits_stored(image, origin), _is_inverted(image)
        image.load()
        pixels, difference = _to_gray(_upright(image), origin)
        if inverted:
            pixels = (2**bits - 1) - np.minimum(pixels, 2**bits - 1)
        return Radiograph(
            pixels, bits_stored=bits, photometric_interpretation=mode, origin=origin, color_difference=difference
        )


def _open(content: bytes, origin: str, max_pixels: int) -> Image.Image:
    """Parse the header and refuse what must not be decoded."""
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise ReadError(
            f"Expected a PNG, JPEG, WebP, BMP, TIFF or DICOM image in {origin}, got something else or a damaged"
            " header.",
            hint="Check that the file is what its name says.",
        ) from error
    except Image.DecompressionBombError as error:
        raise ReadError(
            f"Expected at most {max_pixels:,} pixels in {origin}, got more than Pillow opens.",
            hint="Shrink the image, or check that it is a radiograph.",
        ) from error
    return image


def _check_opened(image: Image.Image, origin: str, max_pixels: int) -> None:
    check_pixel_count(image.width, image.height, origin, max_pixels)
    # An MPO is a camera's JPEG with further images behind the first; every other reader shows the first.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        # A TIFF's frames are counted by parsing each, which a file of a million of them makes slow.
        frames = "several" if isinstance(image, TiffImagePlugin.TiffImageFile) else getattr(image, "n_frames", 2)
        raise ReadError(f"Expected one image in {origin}, got {frames} frames.", hint="Export the one that is meant.")


def _bits_stored(image: Image.Image, origin: str) -> int:
    """8 or 16, 12 for a 12-bit TIFF; other depths are refused, since nothing declares their black and white."""
    if image.mode in ("1", "L") or image.mode in _COLOR_MODES:
        return 8
    if image.mode == "I" or image.mode.startswith("I;16"):
        return 12 if _tiff_tag(image, TiffImagePlugin.BITSPERSAMPLE) == 12 else 16
    kind = "floating-point pixels" if image.mode == "F" else f"pixels of mode {image.mode}"
    raise ReadError(
        f"Expected whole-number gray or RGB pixels of 8 to 16 bits in {origin}, got {kind}.",
        hint="Export it as an 8-bit or 16-bit PNG.",
    )


def _is_inverted(image: Image.Image) -> bool:
    """A 16-bit TIFF whose zero is white; Pillow inverts those of 1 and 8 bits itself."""
    return image.mode.startswith("I;16") and _tiff_tag(image, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


def _tiff_tag(image: Image.Image, tag: int) -> object:
    value = image.tag_v2.get(tag) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    return value[0] if isinstance(value, tuple) else value


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; metadata that cannot be parsed says nothing."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except DECODE_ERRORS:
        return image
    return image if turn is None else image.transpose(turn)


def _to_gray(image: Image.Image, origin: str) -> tuple[Gray, float]:
    if image.mode.startswith("I"):
        values = np.array(image)
        if values.dtype.itemsize > 2 and (values.min() < 0 or values.max() > 65535):
            raise ReadError(
                f"Expected pixels in [0, 65535] in {origin}, got [{values.min()}, {values.max()}].",
                hint="Export it as a 16-bit PNG.",
            )
        return values.astype(np.uint16), 0.0
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    if image.mode in ("1", "L"):
        return np.array(image.convert("L")), 0.0
    return rgb_to_gray(np.asarray(image.convert("RGB")), 8)
