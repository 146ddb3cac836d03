"""Compressed DICOM images that were cut are refused, in one fragment or several."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from dicom_writing import TEST_FILES, content_of, dataset_of
from image_writing import jpeg_of_scans
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEGBaseline8Bit

from hilum.errors import ReadError
from hilum.imaging.codestream import read_scans
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
        cut = frame[: int(share * len(frame))]
        for ended in (cut, cut + b"\xff\xd9"):
            with pytest.raises(ReadError):
                read_radiograph(content_of(with_frame(dataset, ended, fragments)))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("quality", [30, 90])
@pytest.mark.parametrize("restarts", [0, 1])
def test_cut_jpeg_with_an_end_is_refused(mode: str, quality: int, restarts: int) -> None:
    for side in (8, 333):
        stream = io.BytesIO()
        image = Image.fromarray(draw_phantom(1, "Normal", size=333).image).convert(mode).resize((side, side))
        image.save(stream, "JPEG", quality=quality, restart_marker_rows=restarts)
        whole = stream.getvalue()
        gray = np.asarray(Image.open(io.BytesIO(whole)).convert("RGB"))[..., 0]
        if mode == "L":
            np.testing.assert_array_equal(read_radiograph(whole).pixels, gray)
        assert read_radiograph(whole + b"after the end").shape == (side, side)
    for missing in (40, 200, 2_000):
        with pytest.raises(ReadError, match="truncated"):
            read_radiograph(whole[: -2 - missing] + b"\xff\xd9")


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_progressive_jpeg_cut_anywhere_is_refused(mode: str) -> None:
    """Between scans, where every scan that is left is whole, and inside of them."""
    stream = io.BytesIO()
    image = Image.fromarray(draw_phantom(1, "Normal", size=128).image).convert(mode)
    image.save(stream, "JPEG", progressive=True, quality=90)
    whole = stream.getvalue()
    pixels = np.asarray(Image.open(io.BytesIO(whole)))
    assert read_radiograph(whole + b"after the end").shape == (128, 128)
    scans = read_scans(whole, "a")
    assert scans.end == scans.ends[-1] == len(whole) - 2
    lost = hidden = 0
    for at in (*scans.ends[:-1], *range(scans.ends[0] - 50, len(whole) - 2, 61)):
        cut = whole[:at] + b"\xff\xd9"
        hidden += read_scans(cut, "a").end is not None
        with contextlib.suppress(OSError):  # Pillow itself finds a cut inside of a header
            if np.array_equal(np.asarray(Image.open(io.BytesIO(cut))), pixels):
                continue
        lost += 1
        with pytest.raises(ReadError):
            read_radiograph(cut)
    assert lost > 30
    assert mode == "CMYK" or hidden > 5


def test_end_marker_inside_a_segment_is_not_the_end_of_the_image() -> None:
    comment = b"\xff\xfe\0\x06\xff\xd9\xff\xd9"
    frame = get_frame(baseline().PixelData, 0, number_of_frames=1)
    with_comment = frame[:2] + comment + frame[2:]
    assert read_scans(with_comment, "a").end == len(with_comment.rstrip(b"\0")) - 2
    assert read_scans(with_comment + b"\0\0", "a").end == read_scans(with_comment, "a").end
    assert read_scans(with_comment[: len(with_comment) // 2], "a").end is None
    assert read_scans(frame[:2] + b"\xff\xd9", "a").end is None


@pytest.mark.parametrize("kind", ["JPEG", "DICOM"])
def test_scans_are_counted_before_decoding(kind: str) -> None:
    for scans in (10, 64, 65, 3_000):
        frame = jpeg_of_scans(256, scans)
        content = frame
        if kind == "DICOM":
            dataset = dataset_of(np.zeros((256, 256), np.uint8), 8)
            dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
            content = content_of(with_frame(dataset, frame))
        if scans <= 64:
            assert read_radiograph(content).shape == (256, 256)
        else:
            with pytest.raises(ReadError, match="at most 64 scans"):
                read_radiograph(content)


def test_several_scans_of_color_count_their_samples() -> None:
    frame = jpeg_of_scans(256, 6, components=3)
    assert read_radiograph(frame, max_pixels=3 * 256 * 256).shape == (256, 256)
    with pytest.raises(ReadError, match="256 x 256 x 3"):
        read_radiograph(frame, max_pixels=3 * 256 * 256 - 1)
