"""Read a file, or its content, as a Radiograph or a mask. DICOM is decoded in ``dicom.py``, other formats by Pillow.

Formats are recognized by content, not by the name alone. No global state of Pillow is changed, so reading is
thread-safe.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

# Importing the plugins registers them; otherwise, Image.open imports all formats of Pillow.
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
from hilum.imaging.codestream import MAX_SCANNED, NO_CODE, cut_off, read_scans, with_guards
from hilum.imaging.decoding import DECODE_ERRORS, check_pixel_count, decoding, rgb_to_gray, strips
from hilum.imaging.preprocess import MASK_THRESHOLD, to_uint8
from hilum.imaging.stored import StoredImage
from hilum.types import Gray, Radiograph

if TYPE_CHECKING:
    from pydicom import Dataset

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".dcm", ".dicom"}
)
"""Lower-case suffixes of images in folders; files with other suffixes are recognized by ``sniff``."""

SNIFFED_BYTES = 132
"""Number of bytes that ``sniff`` needs; the DICOM prefix follows a preamble of 128 bytes."""

MAX_PIXELS = 50_000_000
"""Maximum number of pixels of an image. The largest detectors have about 20 million."""

MAX_BYTES = 1 << 30
"""Maximum size of a file, bytes."""

_PLUGINS: tuple[type[Image.Image], ...] = (
    BmpImagePlugin.BmpImageFile,
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
)
_FORMATS = tuple(str(plugin.format) for plugin in _PLUGINS)
_JPEG = b"\xff\xd8\xff"
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", _JPEG, b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})  # bytes; "BM" alone also occurs at the start of text files
_COLOR_MODES = frozenset({"P", "PA", "LA", "La", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr"})
_SIGNED = 2  # TIFF 6.0, section 19
_TURNS: dict[int, Callable[[Gray], Gray]] = {  # EXIF 2.32, tag 274
    2: np.fliplr,
    3: lambda gray: np.rot90(gray, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda gray: np.rot90(gray, -1),
    7: lambda gray: np.rot90(gray, 2).T,
    8: np.rot90,
}


def read_radiograph(
    source: str | os.PathLike[str] | bytes, *, origin: str | None = None, max_pixels: int = MAX_PIXELS
) -> Radiograph:
    """Decode a radiograph from a PNG, JPEG, WebP, BMP, TIFF or DICOM file and return it as a Radiograph.

    Color is converted to gray by ITU-R BT.601 luma, transparency is composited over black, and the EXIF orientation is
    applied. 16-bit files stay 16-bit: the scale is determined by the format, never by the values.

    Args:
        source: Path or content of the file.
        origin: Name in messages and in the result; the path by default.
        max_pixels: Maximum number of pixels; larger images are rejected by their header before decoding.

    Raises:
        ReadError: The file cannot be read, is not of a supported format, has several frames, is too large or damaged.
    """
    if not isinstance(source, bytes):
        source = Path(source)
    name = origin if origin is not None else _name_of(source)
    content = source if isinstance(source, bytes) else file_content(source, name)
    if not content:
        raise ReadError(f"{name} is an empty file.", hint="Copy or export the file again.")
    if _is_dicom(content, name, source):
        from hilum.imaging.dicom import decode_dicom  # pydicom takes 0.5 s to import

        return decode_dicom(content, name, max_pixels)
    with decoding(name):
        image = _open(content, name, max_pixels)
    return decode_pil(image, name, max_pixels=max_pixels)


def read_stored(content: bytes, *, origin: str = "image in memory", max_pixels: int = MAX_PIXELS) -> StoredImage:
    """Decode the content of a file to the gray values that it stores, before the window of a DICOM file.

    Args:
        content: Content of the file.
        origin: Name in messages.
        max_pixels: Maximum number of pixels.

    Raises:
        ReadError: As for ``read_radiograph``.
    """
    if content and _is_dicom(content, origin, content):
        from hilum.imaging.dicom_stored import decode_stored

        return decode_stored(content, origin, max_pixels)
    return StoredImage.plain(read_radiograph(content, origin=origin, max_pixels=max_pixels))


def read_dicom_header(source: Path | bytes, *, origin: str | None = None) -> Dataset | None:
    """Return the elements of a DICOM file before its pixel data, or None for other files.

    Args:
        source: Path or content of the file.
        origin: Name in messages; the path by default.

    Raises:
        ReadError: The file cannot be read, or is damaged.
    """
    name = origin if origin is not None else _name_of(source)
    content = source if isinstance(source, bytes) else file_content(source, name)
    if not _is_dicom(content, name, source):
        return None
    from hilum.imaging.dicom import read_header

    return read_header(content, name, MAX_PIXELS)


def sniff(head: bytes) -> Literal["dicom", "image"] | None:
    """Return the type of a file by its first SNIFFED_BYTES: ``dicom``, or ``image`` for PNG, JPEG, WebP, BMP, TIFF.

    None is returned for other types, and for DICOM without the preamble of PS3.10, which only its suffix identifies.
    """
    if head[128:132] == b"DICM":
        return "dicom"
    is_webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    is_bmp = head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS
    return "image" if head.startswith(_SIGNATURES) or is_webp or is_bmp else None


def is_dicom(content: bytes, name: str) -> bool:
    """Return whether ``read_radiograph`` treats a file with this content and name as DICOM."""
    return _is_dicom(content, name, content)


def read_mask(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Decode a label mask and return (H, W) bool, True where ``mask_levels`` is above 127.

    An 8-bit mask with values 0 and 1 is therefore all False; use ``mask_levels`` to detect this.

    Args:
        source: Path or content of the file.
        max_pixels: Maximum number of pixels.

    Raises:
        ReadError: As for ``read_radiograph``.
    """
    return mask_levels(source, max_pixels=max_pixels) > MASK_THRESHOLD


def mask_levels(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the gray levels of a mask file, (H, W) uint8 in [0, 255].

    The scale is determined by the mode, never by the values: 1 in a 1-bit file is 255, in an 8-bit file it is 1.

    Args:
        source: Path or content of the file.
        max_pixels: Maximum number of pixels.

    Raises:
        ReadError: As for ``read_radiograph``.
    """
    return to_uint8(read_radiograph(source, max_pixels=max_pixels))


def file_content(path: Path, name: str) -> bytes:
    """Return the content of a file.

    Args:
        path: The file.
        name: Name in messages.

    Raises:
        ReadError: There is no such file, it cannot be read, or it is larger than MAX_BYTES.
    """
    hint = "Check the path and its permissions."
    try:
        # Reading a pipe or a device could block or never end.
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else "is not a file" if path.exists() else "does not exist"
            raise ReadError(f"{name} {problem}.", hint="Check the path.")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ReadError(
                f"Expected a file of at most {MAX_BYTES:,} bytes at {name}, got {size:,}.",
                hint="Check that it is a radiograph.",
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: an invalid path
        reason = getattr(error, "strerror", None) or error
        raise ReadError(f"Cannot read {name}: {reason}.", hint=hint) from error


def _name_of(source: Path | bytes) -> str:
    return "image in memory" if isinstance(source, bytes) else str(source)


def _is_dicom(content: bytes, name: str, source: Path | bytes) -> bool:
    """Recognize DICOM by the preamble of PS3.10, else by its suffix if the content is of no other known type."""
    if kind := sniff(content[:SNIFFED_BYTES]):
        return kind == "dicom"
    suffixes = {Path(name).suffix.lower()} | ({source.suffix.lower()} if isinstance(source, Path) else set())
    return not suffixes.isdisjoint({".dcm", ".dicom"})


def decode_pil(image: Image.Image, origin: str, *, max_pixels: int = MAX_PIXELS) -> Radiograph:
    """Decode a PIL image as ``read_radiograph`` does.

    Args:
        image: The opened image.
        origin: Name in messages and in the result.
        max_pixels: Maximum number of pixels.

    Raises:
        ReadError: As for ``read_radiograph``.
    """
    with decoding(origin):
        _check_opened(image, origin, max_pixels)
        mode, bits, inverted = image.mode, _bits_stored(image, origin), _is_inverted(image)
        image.load()
        pixels, difference = _to_gray(image, origin)
        pixels = _upright(pixels, image)
        if inverted:
            pixels = (2**bits - 1) - np.minimum(pixels, 2**bits - 1)
        return Radiograph(
            pixels, bits_stored=bits, photometric_interpretation=mode, origin=origin, color_difference=difference
        )


def _open(content: bytes, origin: str, max_pixels: int) -> Image.Image:
    """Open an image by its header."""
    scans = read_scans(content, origin) if content.startswith(_JPEG) else None
    # libjpeg fills the rows of an image that was cut; without the end, Pillow says that data are missing.
    if scans and scans.is_single and scans.end is not None:
        content = content[: scans.end] + NO_CODE
    try:
        image = _image_of(content)
    except UnidentifiedImageError as error:
        raise ReadError(
            f"{origin} is not a PNG, JPEG, WebP, BMP, TIFF or DICOM image, or its header is damaged.",
            hint="Check the type of the file.",
        ) from error
    except Image.DecompressionBombError as error:
        raise ReadError(
            f"Expected at most {max_pixels:,} pixels in {origin}, got more than Pillow opens.",
            hint="Shrink the image, or check that it is a radiograph.",
        ) from error
    if scans and not scans.is_single and isinstance(image, JpegImagePlugin.JpegImageFile):
        # libjpeg keeps the coefficients of all scans
        check_pixel_count(image.width, image.height, origin, max_pixels, image.layers)
        if (scanned := image.width * image.height * scans.number) > MAX_SCANNED:
            raise ReadError(
                f"Expected at most {MAX_SCANNED:,} pixels in all scans of {origin}, got {scanned:,}.",
                hint="Export it as a baseline JPEG.",
            )
        if scans.end is None or not _is_same(image, _image_of(with_guards(content, scans))):
            raise cut_off(origin)
    return image


def _image_of(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=_FORMATS)


def _is_same(image: Image.Image, other: Image.Image) -> bool:
    """Return whether two images of one size have the same pixels."""
    boxes = ((0, rows.start, image.width, rows.stop) for rows in strips(*image.size))
    return all(image.crop(box).tobytes() == other.crop(box).tobytes() for box in boxes)


def _check_opened(image: Image.Image, origin: str, max_pixels: int) -> None:
    check_pixel_count(image.width, image.height, origin, max_pixels)
    # MPO is a JPEG of a camera with further images after the first, which other readers ignore.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        # Counting the frames of a TIFF parses each of them, which is slow for many frames.
        frames = "several" if isinstance(image, TiffImagePlugin.TiffImageFile) else getattr(image, "n_frames", 2)
        raise ReadError(f"Expected one image in {origin}, got {frames} frames.", hint="Export a single frame.")


def _bits_stored(image: Image.Image, origin: str) -> int:
    """Return 8, 12 (12-bit TIFF) or 16; other depths and signed 8-bit TIFF, which Pillow misreads, raise ReadError."""
    if image.mode == "L" and _tiff_tag(image, TiffImagePlugin.SAMPLEFORMAT) == _SIGNED:
        raise ReadError(
            f"Expected unsigned 8-bit pixels in {origin}, got signed ones.", hint="Export it as an 8-bit or 16-bit PNG."
        )
    if image.mode in ("1", "L") or image.mode in _COLOR_MODES:
        return 8
    if image.mode == "I" or image.mode.startswith("I;16"):
        return 12 if _tiff_tag(image, TiffImagePlugin.BITSPERSAMPLE) == 12 else 16
    kind = "floating-point pixels" if image.mode == "F" else f"pixels of mode {image.mode}"
    raise ReadError(
        f"Expected integer gray or RGB pixels of 8 to 16 bits in {origin}, got {kind}.",
        hint="Export it as an 8-bit or 16-bit PNG.",
    )


def _is_inverted(image: Image.Image) -> bool:
    """Return whether an image is a 16-bit TIFF with white at zero; Pillow itself inverts 1-bit and 8-bit ones."""
    return image.mode.startswith("I;16") and _tiff_tag(image, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


def _tiff_tag(image: Image.Image, tag: int) -> object:
    value = image.tag_v2.get(tag) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    return value[0] if isinstance(value, tuple) else value


def _upright(gray: Gray, image: Image.Image) -> Gray:
    """Apply the EXIF orientation of an image to its gray levels; metadata that cannot be parsed are ignored."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except DECODE_ERRORS:
        return gray
    return gray if turn is None else np.ascontiguousarray(turn(gray))  # type: ignore[return-value]  # same dtype


def _to_gray(image: Image.Image, origin: str) -> tuple[Gray, float]:
    """Return (H, W) uint8 or uint16 and the color difference, strip by strip: Pillow copies what it converts."""
    width, height = image.size
    is_wide = image.mode.startswith("I")
    gray: Gray = np.empty((height, width), np.uint16 if is_wide else np.uint8)
    difference = 0.0
    for rows in strips(width, height):
        is_whole = rows.stop - rows.start == height
        strip = image if is_whole else image.crop((0, rows.start, width, rows.stop))
        gray[rows], of_strip = _wide_values(strip, origin) if is_wide else _gray_values(strip)
        difference += of_strip * (rows.stop - rows.start) / height
    return gray, difference


def _wide_values(strip: Image.Image, origin: str) -> tuple[Gray, float]:
    values = np.asarray(strip)
    if values.dtype.itemsize > 2 and (values.min() < 0 or values.max() > 65535):
        raise ReadError(
            f"Expected pixels in [0, 65535] in {origin}, got [{values.min()}, {values.max()}].",
            hint="Export it as a 16-bit PNG.",
        )
    return values.astype(np.uint16), 0.0


def _gray_values(strip: Image.Image) -> tuple[Gray, float]:
    if strip.has_transparency_data:
        rgba = strip.convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    if strip.mode in ("1", "L"):
        return np.asarray(strip if strip.mode == "L" else strip.convert("L")), 0.0
    return rgb_to_gray(np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB")), 8)
