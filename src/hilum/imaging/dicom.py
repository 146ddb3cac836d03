"""Decode DICOM to a Radiograph by DICOM PS3.3 C.7.6.3 (pixels), C.11.1 (modality LUT) and C.11.2 (VOI LUT).

pydicom decodes native, deflated and RLE pixels; pylibjpeg-libjpeg decodes JPEG (8, 12 bits, lossless) and JPEG-LS;
pylibjpeg-openjpeg decodes JPEG 2000 and HTJ2K. Plugins are selected by name, so that other installed plugins do not
change results. pylibjpeg-rle is not used: it raises a BaseException on damaged data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from hilum.errors import ReadError
from hilum.imaging.codestream import codestream_size, cut_off, read_scans, with_guard
from hilum.imaging.decoding import check_pixel_count, decoding, rgb_to_gray
from hilum.imaging.dicom_file import PYDICOM_ERRORS, read_file
from hilum.types import Gray, Radiograph

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_RGB = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_SQUARE = 0.005
_EXTREME = 10.0
"""Bound of the pixel aspect ratio, so that a damaged header does not make an image of one row."""


def decode_dicom(content: bytes, origin: str, max_pixels: int) -> Radiograph:
    """Decode the content of a single-frame DICOM file to a Radiograph.

    Gray images: the stored values pass through the modality LUT or rescale, then through the first VOI LUT, else the
    first window, else they are scaled from the full range of the bits stored. MONOCHROME1 is inverted; padding is
    black. The result is uint16 in [0, 65535] (``bits_stored=16``) for every bit depth; 8-bit levels map to multiples
    of 257 and are recovered exactly. A window with an invalid width is ignored. Color images: converted to RGB and to
    ITU-R BT.601 luma at the file's ``bits_stored``.

    Pixels that are not square stay on the file's grid; ``pixel_aspect`` says so, and preprocessing makes them square.
    Missing elements default to one sample, all allocated bits stored, unsigned, and MONOCHROME2 (RGB for three
    samples). Without file meta information, the encoding is inferred from the first element, usually implicit VR.

    Args:
        content: Content of the file.
        origin: Name of the file in messages and in the result.
        max_pixels: Maximum number of samples by the header.

    Raises:
        ReadError: There are no pixel data, or several frames; the compression, color model or bit depth is not
            supported; High Bit contradicts Bits Stored; the image is too large; or the file is damaged.
    """
    with decoding(origin, *PYDICOM_ERRORS):
        dataset = parse(content, origin, max_pixels)
        photometric = complete(dataset, origin, max_pixels)
        stored = stored_pixels(dataset, origin)
        pixels: Gray
        if photometric in MONOCHROME:
            pixels, bits, difference = _gray(stored, dataset, photometric, origin), 16, 0.0
        else:
            rgb, bits = to_rgb(stored, dataset, photometric)
            pixels, difference = rgb_to_gray(rgb, bits)
        return Radiograph(
            pixels, bits, photometric, text_of(dataset, "ViewPosition"), origin, difference,
            pixel_aspect=pixel_aspect(dataset),
            patient_left="left" if (text_of(dataset, "PatientOrientation") or "").startswith("R") else "right",
            modality=text_of(dataset, "Modality"),
            body_part=text_of(dataset, "BodyPartExamined"),
            burned_in_annotation=text_of(dataset, "BurnedInAnnotation"),
        )  # fmt: skip


def read_header(content: bytes, origin: str, max_pixels: int) -> FileDataset:
    """Return the elements of a DICOM file before its pixel data; reading their values may raise DICOM_ERRORS.

    Raises:
        ReadError: The file is damaged, or inflates to more bytes than ``max_pixels`` allow.
    """
    with decoding(origin, *PYDICOM_ERRORS):
        return read_file(content, origin, max_pixels, header_only=True)


def parse(content: bytes, origin: str, max_pixels: int) -> FileDataset:
    """Return the dataset of a file that has pixel data, its transfer syntax set; raise ReadError for others."""
    dataset = read_file(content, origin, max_pixels)
    if dataset.get("Modality") == "SEG":  # with one segment, it would decode as a 1-bit image
        raise ReadError(f"{origin} is a segmentation, not a radiograph.", hint="Use the image that it refers to.")
    if not dataset.get("PixelData"):
        raise ReadError(
            f"{origin} is a DICOM object without pixel data ({dataset.get('Modality') or 'no modality'}).",
            hint="Use an image, not a report, plan or directory.",
        )
    if getattr(dataset, "file_meta", None) is None:
        dataset.file_meta = FileMetaDataset()
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def complete(dataset: Dataset, origin: str, max_pixels: int) -> str:
    """Check that the image can be decoded, set missing elements, and return the photometric interpretation."""
    frames = _whole(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise ReadError(f"Expected one image in {origin}, got {frames} frames.", hint="Export a single frame.")
    samples = _whole(dataset, "SamplesPerPixel", 1)
    check_pixel_count(_whole(dataset, "Columns", 0), _whole(dataset, "Rows", 0), origin, max_pixels, samples)
    allocated = _whole(dataset, "BitsAllocated", 16)
    bits = _whole(dataset, "BitsStored", allocated)
    if not 1 <= bits <= min(16, allocated):
        raise ReadError(
            f"Expected 1 to 16 bits stored in {origin}, got {bits} of {allocated} allocated.",
            hint="Export it as an ordinary radiograph (CR, DX).",
        )
    high = _whole(dataset, "HighBit", bits - 1)
    if high != bits - 1:  # PS3.5 8.1.1; the decoders ignore it, and would shift the gray levels
        raise ReadError(
            f"{origin} stores {bits} bits with high bit {high}, expected high bit {bits - 1}.",
            hint="Export it again, as an ordinary radiograph (CR, DX).",
        )
    photometric = (text_of(dataset, "PhotometricInterpretation") or "").upper()
    photometric = photometric or ("MONOCHROME2" if samples == 1 else "RGB")
    known = (*MONOCHROME, "PALETTE COLOR") if samples == 1 else _RGB
    if photometric not in known or samples not in (1, 3):
        raise ReadError(
            f"Expected photometric interpretation {' or '.join(known)} in {origin}, got {photometric} with {samples} "
            "samples per pixel.",
            hint="Export it as MONOCHROME2.",
        )
    dataset.NumberOfFrames, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, samples, photometric
    dataset.BitsAllocated, dataset.BitsStored = allocated, bits
    dataset.PixelRepresentation = _whole(dataset, "PixelRepresentation", 0)
    if samples > 1:
        dataset.PlanarConfiguration = _whole(dataset, "PlanarConfiguration", 0)
        dataset.PixelRepresentation = 0  # color is unsigned, PS3.3 C.7.6.3.1.2
    return photometric


def stored_pixels(dataset: Dataset, origin: str) -> NDArray[Any]:
    """Return the stored values, (H, W) or (H, W, 3), signed or unsigned as declared; YBR is converted to RGB."""
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        get_decoder(syntax)
    except NotImplementedError as error:
        raise ReadError(
            f"{origin} has an unsupported transfer syntax: {syntax.name}.",
            hint="Export it uncompressed, or as RLE, JPEG, JPEG-LS or JPEG 2000.",
        ) from error
    plugin = "" if not syntax.is_encapsulated else "pydicom" if syntax == RLELossless else "pylibjpeg"
    size = dataset.Rows, dataset.Columns
    if plugin == "pylibjpeg":
        # The codec uses the header of the codestream, so the size limit must hold for that one too.
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        inner = codestream_size(frame)
        if inner != size:
            raise ReadError(
                f"The header of {origin} declares {size[0]} x {size[1]} pixels (rows x columns), the compressed data "
                f"{inner[0]} x {inner[1]}.",
                hint="Export the file again.",
            )
    if syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes):
        stored = _guarded_pixels(dataset, frame, origin)
    else:
        stored = pixel_array(dataset, decoding_plugin=plugin)
    expected = size if dataset.SamplesPerPixel == 1 else (*size, dataset.SamplesPerPixel)
    if stored.shape != expected:  # pydicom returns surplus data as further frames
        raise ReadError(
            f"The header of {origin} declares pixel data of shape {expected}, got {stored.shape}.",
            hint="Export the file again.",
        )
    return stored


def _guarded_pixels(dataset: Dataset, frame: bytes, origin: str) -> NDArray[Any]:
    """Return the stored values of a JPEG or JPEG-LS image that was not cut.

    Raises:
        ReadError: There are too many scans, or the compressed data end before the image, even if an end-of-image marker
            follows.
    """
    if (end := read_scans(frame, origin).end) is None:
        raise cut_off(origin)
    is_jpeg_ls = dataset.file_meta.TransferSyntaxUID in JPEGLSTransferSyntaxes
    unguarded = pixel_array(dataset, decoding_plugin="pylibjpeg") if is_jpeg_ls else None
    dataset.PixelData = encapsulate([with_guard(frame, end, is_jpeg_ls=is_jpeg_ls)])
    stored = pixel_array(dataset, decoding_plugin="pylibjpeg")
    if unguarded is not None and not np.array_equal(unguarded, stored):
        raise cut_off(origin)
    return stored


def _gray(stored: NDArray[Any], dataset: Dataset, photometric: str, origin: str) -> NDArray[np.uint16]:
    """Convert stored values to display values by a lookup table over all possible stored values."""
    lowest, table = display_table(dataset, photometric, origin)
    return np.take(table, stored.astype(np.intp) - lowest, mode="clip")


def display_table(dataset: Dataset, photometric: str, origin: str) -> tuple[int, NDArray[np.uint16]]:
    """Return the lowest possible stored value, and the display value of it and of all that follow."""
    bits = dataset.BitsStored
    lowest = -(2 ** (bits - 1)) if dataset.PixelRepresentation == 1 else 0
    levels = np.arange(lowest, lowest + 2**bits, dtype=np.float64)
    values, low, high = _modality(levels, dataset, origin)
    shown = np.clip(_value_of_interest(values, low, high, dataset, origin), 0, 1)
    if photometric == "MONOCHROME1":
        shown = 1 - shown
    shown[_is_padding(levels, dataset)] = 0
    return lowest, np.rint(shown * 65535).astype(np.uint16)


def _modality(levels: NDArray[np.float64], dataset: Dataset, origin: str) -> tuple[NDArray[np.float64], float, float]:
    """Return the levels after the modality LUT or rescale (PS3.3 C.11.1), and their possible range."""
    if dataset.get("ModalityLUTSequence"):
        values, top = _look_up(levels, dataset.ModalityLUTSequence[0], dataset)
        return values, 0.0, top
    slope, intercept = rescale(dataset)
    if slope == 0:
        raise ReadError(f"The rescale slope in {origin} is 0.", hint="Export the file again.")
    values = levels * slope + intercept
    return values, float(values.min()), float(values.max())


def rescale(dataset: Dataset) -> tuple[float, float]:
    """Return rescale slope and intercept; (1, 0) where they are missing."""
    slope, intercept = _decimal(dataset, "RescaleSlope"), _decimal(dataset, "RescaleIntercept")
    return 1.0 if slope is None else slope, intercept or 0.0


def _value_of_interest(
    values: NDArray[np.float64], low: float, high: float, dataset: Dataset, origin: str
) -> NDArray[np.float64]:
    """Return the values after the VOI LUT or window (PS3.3 C.11.2), else scaled by their range; 0 black, 1 white."""
    luts = dataset.get("VOILUTSequence")
    if luts and luts[0].get("LUTDescriptor") and luts[0].get("LUTData"):
        shown, top = _look_up(np.rint(values), luts[0], dataset)
        return shown / top
    if (found := window(dataset, origin)) is None:
        return (values - low) / (high - low)
    center, width, function = found
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return (values - center) / width + 0.5


def window(dataset: Dataset, origin: str = "the image") -> tuple[float, float, str] | None:
    """Return center, width and VOI LUT function of the first window; None if it is missing or its width invalid.

    Raises:
        ReadError: The VOI LUT function is unknown.
    """
    center, width = _decimal(dataset, "WindowCenter"), _decimal(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ReadError(
            f"Expected the VOI LUT function LINEAR, LINEAR_EXACT or SIGMOID in {origin}, got {function}.",
            hint="Export the file again.",
        )
    if center is None or width is None or width < (1 if function == "LINEAR" else 1e-9):
        return None
    return center, width, function


class LookUp(NamedTuple):
    """Content of a modality or VOI LUT."""

    table: NDArray[np.int64]  # (entries,)
    first: int  # the input value of the first entry
    bits: int  # of the entries, 1 to 16


def read_lut(item: Dataset, *, little_endian: bool = True) -> LookUp:
    """Return the content of an item of a Modality or VOI LUT Sequence (PS3.3 C.11.1.1.1, C.11.2.1.1).

    Args:
        item: The item.
        little_endian: Byte order of the file.

    Raises:
        ValueError: The bit depth is impossible, or there are no entries.
    """
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries & 0xFFFF or 0x10000  # 0 means 65,536; a signed VR shows large counts as negative
    data = item.LUTData
    if isinstance(data, bytes):
        wide = "<u2" if little_endian else ">u2"
        table = np.frombuffer(data, np.uint8 if len(data) < 2 * entries else wide).astype(np.int64)
    else:
        table = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    if not 1 <= bits <= 16 or not table.size:
        raise ValueError(f"a LUT of {table.size} entries of {bits} bits")
    return LookUp(table[:entries], first, bits)


def _look_up(levels: NDArray[np.float64], item: Dataset, dataset: Dataset) -> tuple[NDArray[np.float64], float]:
    """Apply a LUT (PS3.3 C.11.1.1.1, C.11.2.1.1) to levels; return the result and the LUT's maximum value.

    pydicom's ``apply_voi`` is not used: it stores the index in the dtype of the entries, which overflows for an 8-bit
    LUT of 4,096 entries.
    """
    table, first, bits = read_lut(item, little_endian=bool(dataset.original_encoding[1]))
    index = np.clip(levels - first, 0, table.size - 1).astype(np.intp)
    return table[index].astype(np.float64), float(2**bits - 1)


def _is_padding(levels: NDArray[np.float64], dataset: Dataset) -> NDArray[np.bool_]:
    """Return which levels are padding: the padding value, or the range from it to its limit (PS3.3 C.7.5.1.1.2)."""
    value = _decimal(dataset, "PixelPaddingValue")
    if value is None:
        return np.zeros(levels.shape, np.bool_)
    limit = _decimal(dataset, "PixelPaddingRangeLimit")
    other = value if limit is None else limit
    return (levels >= min(value, other)) & (levels <= max(value, other))


def to_rgb(stored: NDArray[Any], dataset: Dataset, photometric: str) -> tuple[NDArray[Any], int]:
    """Return RGB (H, W, 3) uint8 or uint16 and its bits stored."""
    bits = dataset.BitsStored
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)[..., :3]
        bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
    # A codec or a palette may contain more than the declared bits.
    return np.ascontiguousarray(np.minimum(stored, 2**bits - 1), np.uint8 if bits <= 8 else np.uint16), bits


def pixel_aspect(dataset: Dataset) -> float:
    """Return height over width of a pixel, from its spacing, else Pixel Aspect Ratio (PS3.3 C.7.6.3.1.7), else 1.

    Both are (vertical, horizontal). Ratios within 0.5% of 1 are rounding; impossible values count as absent.
    """
    for keyword in (*_SPACINGS, "PixelAspectRatio"):
        value = dataset.get(keyword)
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and len(value) == 2:
            vertical, horizontal = (float(part) for part in value)
            if 0 < vertical < math.inf and 0 < horizontal < math.inf:
                aspect = vertical / horizontal
                return 1.0 if abs(aspect - 1) < _SQUARE else min(max(aspect, 1 / _EXTREME), _EXTREME)
    return 1.0


def text_of(dataset: Dataset, keyword: str) -> str | None:
    """Return the element's first value as text without surrounding spaces; None if it is missing or empty."""
    value = dataset.get(keyword)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        value = value[0] if value else None
    return str(value or "").strip() or None


def _whole(dataset: Dataset, keyword: str, default: int) -> int:
    value = dataset.get(keyword)
    return default if value is None or value == "" else int(value)


def _decimal(dataset: Dataset, keyword: str) -> float | None:
    """Return the element's first value; None if it is missing, empty or not a finite number."""
    value = dataset.get(keyword)
    if value is None or value == "" or isinstance(value, bytes):
        return None
    number = float(value if isinstance(value, (int, float, str)) else value[0])
    return number if math.isfinite(number) else None
