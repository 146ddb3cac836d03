"""Valid DICOM radiographs (DX, CR) of images that the project draws: `dciodvfy` finds no error in them."""

from __future__ import annotations

import io
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from hilum.phantoms.chest import draw_phantom

ImageKind = Literal["DX", "CR"]


def dicom_image(
    image: NDArray[np.uint8] | NDArray[np.uint16], *, kind: ImageKind = "DX", bits: int = 8, name: str = "image"
) -> Dataset:
    """An image of ``image`` (H, W), bright where it is bright; all UIDs follow from ``name``."""
    dataset = Dataset()
    _patient_and_study(dataset, name)
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation if kind == "DX" else ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["instance ", name])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series ", name])
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = kind, 1, 1
    dataset.Manufacturer = "hilum tests"
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "PA"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.ContentDate = dataset.AcquisitionDate = dataset.SeriesDate = "20260131"
    dataset.ContentTime = dataset.AcquisitionTime = dataset.SeriesTime = "101600"
    (_digital if kind == "DX" else _computed)(dataset)
    _pixels(dataset, image, bits)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def phantom_image(
    seed: int, label: str = "Normal", *, size: int = 256, kind: ImageKind = "DX", **elements: Any
) -> Dataset:
    """An image of a phantom; ``elements`` are set on it or, where None, removed."""
    dataset = dicom_image(
        draw_phantom(seed, label, size=size).image, kind=kind, name=f"phantom {seed} {label} {size} {kind}"
    )
    for keyword, value in elements.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return dataset


def with_stored(dataset: Dataset, keyword: str, value: bytes) -> Dataset:
    """The data set with bytes for a value, which no library would write."""
    tag = Tag(keyword)
    dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
    return dataset


def content_of(dataset: Dataset) -> bytes:
    """The bytes of a DICOM file."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the values that with_stored sets
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def write_image(path: Path, dataset: Dataset) -> Path:
    """Write the file, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content_of(dataset))
    return path


def errors_in(path: Path) -> list[str]:
    """What `dciodvfy` (Debian's dicom3tools) calls an error in a file; the calling test is skipped without it."""
    if not shutil.which("dciodvfy"):
        pytest.skip("no dciodvfy on the path")
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, errors="replace", timeout=60)
    lines = (done.stdout + done.stderr).splitlines()
    assert any(line and " - " not in line for line in lines), f"no IOD was recognized: {lines}"
    return [line for line in lines if line.startswith("Error")]


def _patient_and_study(dataset: Dataset, name: str) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName, dataset.PatientID = "Phantom^Förster", "P-0001"
    dataset.PatientBirthDate, dataset.PatientSex = "19700102", "F"
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study ", name])
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260131", "101500", "S1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "ACC-1", "Referrer^Doctor"
    dataset.StudyDescription = "Chest"


def _computed(dataset: Dataset) -> None:
    dataset.PatientOrientation = ["L", "F"]


def _digital(dataset: Dataset) -> None:
    dataset.PatientOrientation = ["L", "F"]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageLaterality = "U"
    dataset.DetectorType, dataset.DetectorConfiguration = "DIRECT", "AREA"
    dataset.ImagerPixelSpacing = [0.4, 0.4]
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.LossyImageCompression, dataset.BurnedInAnnotation = "00", "NO"
    dataset.AcquisitionContextSequence = Sequence()
    dataset.DetectorDescription = "drawn"
    dataset.AnatomicRegionSequence = Sequence([_code("51185008", "SCT", "Chest")])
    view = _code("399348003", "SCT", "postero-anterior")
    view.ViewModifierCodeSequence = Sequence()
    dataset.ViewCodeSequence = Sequence([view])
    dataset.PositionerType = "NONE"


def _pixels(dataset: Dataset, image: NDArray[np.uint8] | NDArray[np.uint16], bits: int) -> None:
    dataset.Rows, dataset.Columns = image.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = image.dtype.itemsize * 8, bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits - 1), 2**bits
    dataset.PixelData = image.tobytes()
    dataset["PixelData"].VR = "OB" if image.dtype.itemsize == 1 else "OW"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
