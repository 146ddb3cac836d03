"""Compressed DICOM images that were cut are refused, in one fragment or several."""

from __future__ import annotations

import io

import numpy as np
import pytest
from dicom_writing import TEST_FILES, content_of, dataset_of
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEGBaseline8Bit

from hilum.errors import ReadError
from hilum.imaging.codestream import is_jpeg_ended
from hilum.imaging.read import read_radiograph
from hilum.phantoms.chest import draw_phantom


def baseline(*, progressive: bool = False) -> Dataset:
    image = draw_phantom(1, "Normal", size=128).image
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", progressive=progressive)
    dataset = dataset_of(image, 8)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    return with_frame(dataset, stream.getvalue())


def with_frame(dataset: Dataset, frame: bytes, fragments: int = 1) -> Dataset:
    frame += b"\0" * (len(frame) % 2)
    dataset.PixelData = encapsulate([frame], fragments_per_frame=fragments)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def stored(name: str) -> Dataset:
    return dcmread(TEST_FILES / name)


MAKERS = {
    "baseline": baseline,
    "several scans": lambda: baseline(progressive=True),
    "extended, 12 bits": lambda: stored("JPGExtended.dcm"),
    "lossless": lambda: stored("SC_rgb_jpeg_gdcm.dcm"),
    "JPEG-LS near-lossless": lambda: stored("JPEGLSNearLossless_16.dcm"),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("fragments", [1, 3])
def test_cut_codestream_is_refused(kind: str, fragments: int) -> None:
    dataset = MAKERS[kind]()
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    whole = read_radiograph(content_of(with_frame(dataset, frame, fragments)))
    assert np.ptp(whole.pixels) > 0
    for share in (0.98, 0.9, 0.75, 0.6):
        with pytest.raises(ReadError):
            read_radiograph(content_of(with_frame(dataset, frame[: int(share * len(frame))], fragments)))


def test_end_marker_inside_a_segment_is_not_the_end_of_the_image() -> None:
    comment = b"\xff\xfe\0\x06\xff\xd9\xff\xd9"
    frame = get_frame(baseline().PixelData, 0, number_of_frames=1)
    with_comment = frame[:2] + comment + frame[2:]
    assert is_jpeg_ended(with_comment)
    assert is_jpeg_ended(with_comment + b"\0\0")
    assert not is_jpeg_ended(with_comment[: len(with_comment) // 2])
    assert not is_jpeg_ended(frame[:2] + b"\xff\xd9")
