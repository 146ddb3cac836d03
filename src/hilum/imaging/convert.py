"""Convert images in memory to radiographs: NumPy arrays, PIL images, pydicom datasets. Files: ``read.py``."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DataError, ReadError
from hilum.imaging.decoding import check_pixel_count, decoding, rgb_to_gray
from hilum.imaging.read import MAX_PIXELS, decode_pil
from hilum.types import Radiograph

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydicom import Dataset

ImageLike: TypeAlias = "NDArray[Any] | Image | Dataset"
"""Types accepted by ``radiograph_of``."""


def is_image_like(value: object) -> bool:
    """Return whether ``radiograph_of`` accepts ``value``, without importing Pillow or pydicom."""
    return any(_is_a(value, name) for name in ("numpy.ndarray", "PIL.Image", "pydicom.Dataset"))


def radiograph_of(image: ImageLike, origin: str = "image in memory") -> Radiograph:
    """Convert an image in memory to a Radiograph.

    Args:
        image: One of:

            - an array (H, W), gray, or (H, W, 3), RGB, in MONOCHROME2 sense: uint8 in [0, 255], uint16 in [0, 65535] or
              floating point in [0, 1] (rounded to 16 bits). The dtype determines the scale, never the values; RGB is
              converted to gray by ITU-R BT.601 luma;
            - a PIL image, decoded like a file of the same mode, with its EXIF orientation applied;
            - a pydicom dataset with one frame, decoded like its file.
        origin: Name of the image in messages and in the result.

    Raises:
        DataError: The array has another shape or dtype, or floating-point values outside [0, 1].
        ReadError: The image cannot be decoded; see hilum.imaging.read.read_radiograph.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image, origin)
    if _is_a(image, "PIL.Image"):
        return decode_pil(cast("Image", image), origin)
    return _from_dataset(cast("Dataset", image), origin)


def _is_a(value: object, name: str) -> bool:
    """Whether ``value`` is an instance of the class ``package.Class``, which need not be imported."""
    return name in {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(value).__mro__}


def _from_array(array: NDArray[Any], origin: str) -> Radiograph:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or not array.size:
        raise DataError(
            f"Expected an array of shape (H, W) or (H, W, 3), got {array.shape}.",
            hint="Pass one image at a time, or a list of images; drop the alpha channel.",
        )
    check_pixel_count(array.shape[1], array.shape[0], origin, MAX_PIXELS)
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise DataError(
                f"Expected floating-point pixels in [0, 1], got [{array.min():g}, {array.max():g}].",
                hint="Divide by the largest possible value, or pass uint8 or uint16.",
            )
        array = np.rint(array * np.float64(65535)).astype(np.uint16)
    if array.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"Expected pixels as uint8, uint16 or floating point in [0, 1], got {array.dtype}.",
            hint="The dtype states the scale: convert with array.astype after scaling.",
        )
    bits = 8 * array.dtype.itemsize
    if array.ndim == 2:
        return Radiograph(np.ascontiguousarray(array), bits_stored=bits, origin=origin)
    gray, difference = rgb_to_gray(np.ascontiguousarray(array), bits)
    return Radiograph(
        gray, bits_stored=bits, photometric_interpretation="RGB", origin=origin, color_difference=difference
    )


def _from_dataset(dataset: Dataset, origin: str) -> Radiograph:
    """Encode the dataset and read it as its file: one way from DICOM to pixels."""
    from hilum.imaging.dicom import decode_dicom

    stream = io.BytesIO()
    with decoding(origin):
        meta = getattr(dataset, "file_meta", None)
        if meta is not None and "TransferSyntaxUID" in meta:
            dataset.save_as(stream, enforce_file_format=False)
        else:
            dataset.save_as(stream, implicit_vr=True, little_endian=True, enforce_file_format=False)
    if not stream.tell():
        raise ReadError(f"{origin} is an empty DICOM dataset.")
    return decode_dicom(stream.getvalue(), origin, MAX_PIXELS)
