"""Datasets written for the DICOM tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
)

from hilum.imaging.read import read_radiograph

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def dataset_of(stored: NDArray[Any], bits: int, **elements: Any) -> Dataset:
    """A computed radiograph of (H, W) or (H, W, 3) stored values; ``elements`` add to it or, if None, remove."""
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(np.issubdtype(stored.dtype, np.signedinteger))
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def content_of(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def read(dataset: Dataset) -> NDArray[np.uint16]:
    radiograph = read_radiograph(content_of(dataset))
    assert radiograph.pixels.dtype == np.uint16
    assert radiograph.bits_stored == 16
    return radiograph.pixels  # type: ignore[return-value]


def ramp(bits: int, signed: bool = False) -> NDArray[Any]:
    """(64, 64) stored values over the whole range of ``bits``."""
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.linspace(low, low + 2**bits - 1, 4096).round()
    kind = ("int" if signed else "uint") + ("8" if bits <= 8 else "16")
    return values.astype(kind).reshape(64, 64)


def scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint16]:
    return np.rint((values.astype(np.float64) - low) / (high - low) * 65535).astype(np.uint16)


def lut_item(entries: NDArray[Any], first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return item
