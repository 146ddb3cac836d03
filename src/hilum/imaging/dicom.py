"""DICOM to a Radiograph: DICOM PS3.3 C.7.6.3 (pixels), C.11.1 (modality), C.11.2 (values of interest).

Who decodes: native, deflated and RLE pixels pydicom itself; JPEG (8, 12 bits, lossless) and JPEG-LS
pylibjpeg-libjpeg; JPEG 2000 and HTJ2K pylibjpeg-openjpeg. The plugin is named, so that another one that happens to
be installed cannot change a result. Not pylibjpeg-rle: on damaged data it panics with a BaseException.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from hilum.errors import ReadError
from hilum.imaging.decoding import check_pixel_count, decoding, rgb_to_gray
from hilum.types import Gray, Radiograph

_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_RGB = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_JPEG_NOT_A_FRAME = (0xC4, 0xC8, 0xCC)
_HEADER_BYTES = 1 << 26  # what a deflated data set may hold beside its pixels


def decode_dicom(content: bytes, origin: str, max_pixels: int) -> Radiograph:
    """Decode the one frame of a DICOM file's bytes.

    Gray: stored value, then modality LUT or rescale, then the first VOI LUT, else the first window, else the full
    range that the bits stored declare; MONOCHROME1 inverted; padding black. The result is uint16 in [0, 65535]
    (``bits_stored=16``), whatever the file's depth: 8-bit levels map to multiples of 257 and come back exactly.
    A window whose width is impossible counts as absent. Color: RGB and what converts to it, to ITU-R BT.601 luma
    at the file's own ``bits_stored``.

    Missing elements are assumed as one sample, all allocated bits stored, unsigned, MONOCHROME2 (RGB with three
    samples), and without file meta information the encoding that the first element shows, usually implicit VR.

    Raises:
        ReadError: No pixel data, several frames, an unknown compression or color model, more than 16 bits, more
            than ``max_pixels`` samples by the header, or a damaged file.
    """
    with decoding(origin, BytesLengthException, InvalidDicomError):
        dataset = _parse(content, origin, max_pixels)
        photometric = _complete(dataset, origin, max_pixels)
        stored = _stored_pixels(dataset, origin)
        pixels: Gray
        if photometric in _MONOCHROME:
            pixels, bits, difference = _gray(stored, dataset, photometric, origin), 16, 0.0
        else:
            rgb, bits = _rgb(stored, dataset, photometric)
            pixels, difference = rgb_to_gray(rgb, bits)
        view = str(dataset.get("ViewPosition") or "").strip()
        return Radiograph(pixels, bits, photometric, view or None, origin, difference)


def read_header(content: bytes, origin: str, max_pixels: int) -> FileDataset:
    """Return the elements of a DICOM file's bytes before its pixels; converting their values may raise DECODE_ERRORS.

    Raises:
        ReadError: It is damaged, or inflates to more than ``max_pixels`` need.
    """
    with decoding(origin, BytesLengthException, InvalidDicomError):
        return _read(content, origin, max_pixels, header_only=True)


def _read(content: bytes, origin: str, max_pixels: int, *, header_only: bool = False) -> FileDataset:
    if DeflatedExplicitVRLittleEndian.encode() in content:
        _check_inflated_size(content, origin, 2 * max_pixels + _HEADER_BYTES)
    return dcmread(io.BytesIO(content), force=True, stop_before_pixels=header_only)


def _parse(content: bytes, origin: str, max_pixels: int) -> FileDataset:
    dataset = _read(content, origin, max_pixels)
    if dataset.get("Modality") == "SEG":  # of one segment it would be an image of one bit
        raise ReadError(
            f"Expected a radiograph in {origin}, got a segmentation.", hint="Give the image that it was made of."
        )
    if not dataset.get("PixelData"):
        raise ReadError(
            f"Expected pixel data in {origin}, got a DICOM object without any"
            f" ({dataset.get('Modality') or 'no modality'}).",
            hint="Give the image, not the report, plan or directory.",
        )
    if getattr(dataset, "file_meta", None) is None:
        dataset.file_meta = FileMetaDataset()
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _check_inflated_size(content: bytes, origin: str, limit: int) -> None:
    """pydicom inflates a deflated data set whole, whatever its size, before anything can be asked of it."""
    stream = io.BytesIO(content)
    stream.seek(132 if content[128:132] == b"DICM" else 0)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    if len(inflater.decompress(stream.read(), limit + 1)) > limit:
        raise ReadError(
            f"Expected at most {limit:,} bytes in {origin} after inflating it, got more.",
            hint="Shrink the image, or check that it is a radiograph.",
        )


def _complete(dataset: Dataset, origin: str, max_pixels: int) -> str:
    """Refuse what must not be decoded, write the defaults of missing elements, return the photometric model."""
    frames = _whole(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise ReadError(f"Expected one image in {origin}, got {frames} frames.", hint="Export the one that is meant.")
    samples = _whole(dataset, "SamplesPerPixel", 1)
    check_pixel_count(_whole(dataset, "Columns", 0), _whole(dataset, "Rows", 0), origin, max_pixels, samples)
    allocated = _whole(dataset, "BitsAllocated", 16)
    bits = _whole(dataset, "BitsStored", allocated)
    if not 1 <= bits <= min(16, allocated):
        raise ReadError(
            f"Expected 1 to 16 bits stored in {origin}, got {bits} of {allocated} allocated.",
            hint="Export it as an ordinary radiograph (CR, DX).",
        )
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    photometric = photometric or ("MONOCHROME2" if samples == 1 else "RGB")
    known = (*_MONOCHROME, "PALETTE COLOR") if samples == 1 else _RGB
    if photometric not in known or samples not in (1, 3):
        raise ReadError(
            f"Expected {' or '.join(known)} in {origin}, got {photometric} with {samples} samples per pixel.",
            hint="Export it as MONOCHROME2.",
        )
    dataset.NumberOfFrames, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, samples, photometric
    dataset.BitsAllocated, dataset.BitsStored = allocated, bits
    dataset.PixelRepresentation = _whole(dataset, "PixelRepresentation", 0)
    if samples > 1:
        dataset.PlanarConfiguration = _whole(dataset, "PlanarConfiguration", 0)
        dataset.PixelRepresentation = 0  # color is unsigned, PS3.3 C.7.6.3.1.2
    return photometric


def _stored_pixels(dataset: Dataset, origin: str) -> NDArray[Any]:
    """The stored values, (H, W) or (H, W, 3), signed or unsigned as declared; YBR is RGB already."""
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        get_decoder(syntax)
    except NotImplementedError as error:
        raise ReadError(
            f"Expected uncompressed, deflated, RLE, JPEG, JPEG-LS or JPEG 2000 pixels in {origin}, got {syntax.name}.",
            hint="Export it uncompressed.",
        ) from error
    plugin = "" if not syntax.is_encapsulated else "pydicom" if syntax == RLELossless else "pylibjpeg"
    size = dataset.Rows, dataset.Columns
    if plugin == "pylibjpeg":
        # The codec believes its own header, so the cap on rows and columns must bind that one too.
        inner = _codestream_size(get_frame(dataset.PixelData, 0, number_of_frames=1))
        if inner != size:
            raise ReadError(
                f"Expected compressed data of {size[0]} rows and {size[1]} columns in {origin}, as its header says,"
                f" got {inner[0]} and {inner[1]}.",
                hint="Export the file again.",
            )
    stored = pixel_array(dataset, decoding_plugin=plugin)
    expected = size if dataset.SamplesPerPixel == 1 else (*size, dataset.SamplesPerPixel)
    if stored.shape != expected:  # pydicom makes surplus data into further frames
        raise ReadError(
            f"Expected pixel data of shape {expected} in {origin}, as its header says, got {stored.shape}.",
            hint="Export the file again.",
        )
    return stored


def _codestream_size(frame: bytes) -> tuple[int, int]:
    """(rows, columns) of a JPEG 2000 (ISO 15444-1 A.5.1), JPEG (ISO 10918-1 B.2.2) or JPEG-LS codestream."""
    start = frame.find(b"\xff\x4f\xff\x51")
    if start >= 0:
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        return bottom - top, right - left
    position = 2
    while True:
        marker = struct.unpack_from(">H", frame, position)[0]
        if marker == 0xFFFF:  # a fill byte
            position += 1
        elif marker == 0xFFF7 or (0xFFC0 <= marker <= 0xFFCF and marker & 0xFF not in _JPEG_NOT_A_FRAME):
            rows, columns = struct.unpack_from(">HH", frame, position + 5)
            return rows, columns
        else:
            position += 2 + int(struct.unpack_from(">H", frame, position + 2)[0])


def _gray(stored: NDArray[Any], dataset: Dataset, photometric: str, origin: str) -> NDArray[np.uint16]:
    """Each step depends on the stored value alone, so they run once per possible value, then the image looks up."""
    bits = dataset.BitsStored
    lowest = -(2 ** (bits - 1)) if dataset.PixelRepresentation == 1 else 0
    levels = np.arange(lowest, lowest + 2**bits, dtype=np.float64)
    values, low, high = _modality(levels, dataset, origin)
    shown = np.clip(_value_of_interest(values, low, high, dataset, origin), 0, 1)
    if photometric == "MONOCHROME1":
        shown = 1 - shown
    shown[_is_padding(levels, dataset)] = 0
    table = np.rint(shown * 65535).astype(np.uint16)
    return np.take(table, stored.astype(np.intp) - lowest, mode="clip")


def _modality(levels: NDArray[np.float64], dataset: Dataset, origin: str) -> tuple[NDArray[np.float64], float, float]:
    """The levels after the modality LUT or rescale (PS3.3 C.11.1), and the range that they can take."""
    if dataset.get("ModalityLUTSequence"):
        values, top = _look_up(levels, dataset.ModalityLUTSequence[0], dataset)
        return values, 0.0, top
    slope, intercept = _decimal(dataset, "RescaleSlope"), _decimal(dataset, "RescaleIntercept")
    if slope == 0:
        raise ReadError(f"Expected a rescale slope other than 0 in {origin}, got 0.", hint="Export the file again.")
    values = levels * (1.0 if slope is None else slope) + (intercept or 0.0)
    return values, float(values.min()), float(values.max())


def _value_of_interest(
    values: NDArray[np.float64], low: float, high: float, dataset: Dataset, origin: str
) -> NDArray[np.float64]:
    """The values after the VOI LUT or window (PS3.3 C.11.2), else over their range: black 0 to white 1."""
    luts = dataset.get("VOILUTSequence")
    if luts and luts[0].get("LUTDescriptor") and luts[0].get("LUTData"):
        shown, top = _look_up(np.rint(values), luts[0], dataset)
        return shown / top
    center, width = _decimal(dataset, "WindowCenter"), _decimal(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ReadError(
            f"Expected LINEAR, LINEAR_EXACT or SIGMOID as VOI LUT function in {origin}, got {function}.",
            hint="Export the file again.",
        )
    if center is None or width is None or width < (1 if function == "LINEAR" else 1e-9):
        return (values - low) / (high - low)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return (values - center) / width + 0.5


def _look_up(levels: NDArray[np.float64], item: Dataset, dataset: Dataset) -> tuple[NDArray[np.float64], float]:
    """The levels through a LUT (PS3.3 C.11.1.1.1, C.11.2.1.1), and the LUT's white.

    Not pydicom's ``apply_voi``: it keeps the index in the type of the entries, where an 8-bit LUT of 4,096 wraps.
    """
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries & 0xFFFF or 0x10000  # 0 means 65,536; a signed VR shows large counts as negative
    data = item.LUTData
    if isinstance(data, bytes):
        wide = "<u2" if dataset.original_encoding[1] else ">u2"
        table = np.frombuffer(data, np.uint8 if len(data) < 2 * entries else wide)
    else:
        table = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    if not 1 <= bits <= 16:
        raise ValueError(f"a LUT of {bits} bits")
    index = np.clip(levels - first, 0, min(entries, table.size) - 1).astype(np.intp)
    return table[index].astype(np.float64), float(2**bits - 1)


def _is_padding(levels: NDArray[np.float64], dataset: Dataset) -> NDArray[np.bool_]:
    """PS3.3 C.7.5.1.1.2: the padding value, or the range from it to its limit."""
    value = _decimal(dataset, "PixelPaddingValue")
    if value is None:
        return np.zeros(levels.shape, np.bool_)
    limit = _decimal(dataset, "PixelPaddingRangeLimit")
    other = value if limit is None else limit
    return (levels >= min(value, other)) & (levels <= max(value, other))


def _rgb(stored: NDArray[Any], dataset: Dataset, photometric: str) -> tuple[NDArray[Any], int]:
    """(H, W, 3) uint8 or uint16 and its bits stored."""
    bits = dataset.BitsStored
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)[..., :3]
        bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
    # A codec or a palette may hold more than the declared bits.
    return np.ascontiguousarray(np.minimum(stored, 2**bits - 1), np.uint8 if bits <= 8 else np.uint16), bits


def _whole(dataset: Dataset, keyword: str, default: int) -> int:
    value = dataset.get(keyword)
    return default if value is None or value == "" else int(value)


def _decimal(dataset: Dataset, keyword: str) -> float | None:
    """The element's first value; None where it is missing, empty or no finite number."""
    value = dataset.get(keyword)
    if value is None or value == "" or isinstance(value, bytes):
        return None
    number = float(value if isinstance(value, (int, float, str)) else value[0])
    return number if math.isfinite(number) else None
