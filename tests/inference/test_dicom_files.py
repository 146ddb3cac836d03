"""DICOM files: color, headers with gaps, and what is refused."""

from __future__ import annotations

import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_writing import TEST_FILES, content_of, dataset_of, ramp, read
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from hilum.errors import ReadError
from hilum.imaging.dicom import decode_dicom
from hilum.imaging.read import MAX_PIXELS, read_radiograph

# Color


def test_rgb_of_8_and_16_bits() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    eight = read_radiograph(content_of(dataset_of(rgb, 8)))
    sixteen = read_radiograph(content_of(dataset_of(rgb.astype(np.uint16) * 257, 16)))
    assert (eight.pixels.dtype, eight.bits_stored) == (np.uint8, 8)
    assert (sixteen.pixels.dtype, sixteen.bits_stored) == (np.uint16, 16)
    np.testing.assert_allclose(eight.pixels, luma, atol=0.51)
    np.testing.assert_allclose(sixteen.pixels, luma * 257, atol=2)  # OpenCV's weights have 14 bits
    assert eight.color_difference == pytest.approx(sixteen.color_difference)
    assert eight.color_difference > 50


def test_planar_color_reads_the_same() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    planes = dataset_of(rgb, 8, PlanarConfiguration=1)
    planes.PixelData = rgb.transpose(2, 0, 1).tobytes()
    np.testing.assert_array_equal(
        read_radiograph(content_of(planes)).pixels, read_radiograph(content_of(dataset_of(rgb, 8))).pixels
    )


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_ybr_becomes_gray_by_its_luma(photometric: str) -> None:
    luma = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    neutral = np.full((8, 8), 128, np.uint8)
    dataset = dataset_of(np.dstack([luma, neutral, neutral]), 8, PhotometricInterpretation=photometric)
    if photometric == "YBR_FULL_422":  # two luma samples, then the pair they share
        pairs = np.stack([luma[:, ::2], luma[:, 1::2], neutral[:, ::2], neutral[:, ::2]], axis=-1)
        dataset.PixelData = pairs.tobytes()
    radiograph = read_radiograph(content_of(dataset))
    np.testing.assert_array_equal(radiograph.pixels, luma)
    assert radiograph.color_difference == 0
    assert radiograph.photometric_interpretation == photometric


def test_palette_color_is_looked_up() -> None:
    dataset = dataset_of(np.array([[0, 1, 2, 3]], np.uint8), 8, PhotometricInterpretation="PALETTE COLOR")
    for channel in ("Red", "Green", "Blue"):
        dataset.add_new(f"{channel}PaletteColorLookupTableDescriptor", "US", [4, 0, 8])
        dataset.add_new(f"{channel}PaletteColorLookupTableData", "OW", bytes([9, 50, 100, 250]))
    radiograph = read_radiograph(content_of(dataset))
    assert radiograph.pixels.tolist() == [[9, 50, 100, 250]]
    assert radiograph.bits_stored == 8


def test_color_above_its_declared_bits_is_white() -> None:
    dataset = dataset_of(np.array([[0, 1]], np.uint8), 8, PhotometricInterpretation="PALETTE COLOR")
    for channel in ("Red", "Green", "Blue"):
        dataset.add_new(f"{channel}PaletteColorLookupTableDescriptor", "US", [2, 0, 8])
        dataset.add_new(f"{channel}PaletteColorLookupTableData", "OW", struct.pack("<2H", 9, 40000))
    assert read_radiograph(content_of(dataset)).pixels.tolist() == [[9, 255]]


@pytest.mark.parametrize("photometric", ["CMYK", "YBR_PARTIAL_420", "MONOCHROME2"])
def test_other_color_models_are_refused(photometric: str) -> None:
    dataset = dataset_of(np.zeros((4, 4, 3), np.uint8), 8, PhotometricInterpretation=photometric)
    with pytest.raises(ReadError, match=f"got {photometric} with 3 samples"):
        read(dataset)


# What is missing or too much


def test_missing_elements_are_assumed() -> None:
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16) * 200
    names = ("PhotometricInterpretation", "SamplesPerPixel", "PixelRepresentation", "BitsStored", "HighBit", "Modality")
    bare = dataset_of(stored, 16, **dict.fromkeys(names))
    radiograph = read_radiograph(content_of(bare))
    np.testing.assert_array_equal(radiograph.pixels, read(dataset_of(stored, 16)))
    assert radiograph.photometric_interpretation == "MONOCHROME2"
    assert radiograph.view_position is None


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_file_without_meta_information_is_known_by_its_suffix(tmp_path: Path, syntax: UID) -> None:
    dataset = dataset_of(ramp(12), 12, ViewPosition="PA")
    expected = read(dataset)
    del dataset.file_meta
    path = tmp_path / "bare.DCM"
    implicit = syntax == ImplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    assert path.read_bytes()[128:132] != b"DICM"
    radiograph = read_radiograph(path)
    np.testing.assert_array_equal(radiograph.pixels, expected)
    assert radiograph.view_position == "PA"
    np.testing.assert_array_equal(read_radiograph(path.read_bytes(), origin="up.dcm").pixels, expected)


def test_no_pixel_data_says_what_it_is_instead() -> None:
    with pytest.raises(ReadError, match=r"without pixel data \(SR\)"):
        read_radiograph(TEST_FILES / "reportsi.dcm")


def test_several_frames_are_refused() -> None:
    with pytest.raises(ReadError, match=r"Expected one image in .*, got 15 frames"):
        read_radiograph(TEST_FILES / "rtdose.dcm")


def test_more_data_than_the_header_says_is_refused() -> None:
    dataset = dataset_of(np.zeros((3, 3), np.uint8), 8)
    dataset.PixelData = bytes(27)  # an RGB image whose header lost its samples per pixel
    with pytest.raises(ReadError, match=r"\(3, 3\).* got \(3, 3, 3\)"):
        read(dataset)


def test_pixel_cap_counts_samples_and_comes_before_decoding() -> None:
    content = content_of(dataset_of(np.zeros((10, 10, 3), np.uint8), 8))
    assert decode_dicom(content, "x", 300).shape == (10, 10)
    with pytest.raises(ReadError, match="Expected at most 299 pixels in x, got 10 x 10 x 3 = 300"):
        decode_dicom(content, "x", 299)
    empty = dataset_of(np.zeros((4, 4), np.uint8), 8, Rows=60000, Columns=60000)
    with pytest.raises(ReadError, match=f"Expected at most {MAX_PIXELS:,} pixels"):
        read(empty)


@pytest.mark.parametrize(
    ("syntax", "stream"),
    [
        (
            JPEG2000Lossless,
            b"\xff\x4f\xff\x51\0\x29\0\0" + struct.pack(">4I", 60000, 60000, 0, 0) + bytes(30),
        ),
        (
            JPEGBaseline8Bit,
            b"\xff\xd8\xff\xe0\0\4\0\0\xff\xff\xc0\0\x0b\x08" + struct.pack(">HH", 60000, 60000) + bytes(9),
        ),
    ],
)
def test_bomb_inside_the_compressed_data_is_refused(syntax: UID, stream: bytes) -> None:
    dataset = dataset_of(np.zeros((4, 4), np.uint8), 8)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(ReadError, match=r"4 x 4 .*60000 x 60000"):
        read(dataset)


def test_deflate_bomb_is_refused_before_it_is_inflated_whole() -> None:
    dataset = dataset_of(np.zeros((4, 4), np.uint8), 8)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    content = content_of(dataset)
    start = 144 + struct.unpack_from("<I", content, 140)[0]
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join([deflater.compress(bytes(1 << 24)) for _ in range(5)]) + deflater.flush()  # 80 MiB
    with pytest.raises(ReadError, match="after inflating it, got more"):
        decode_dicom(content[:start] + bomb, "x", 1000)


# Bundled and damaged files


def bundled() -> list[Path]:
    return sorted(path for path in TEST_FILES.rglob("*") if path.is_file())


def test_every_bundled_file_is_read_or_refused() -> None:
    read_well, messages = 0, []
    for path in bundled():
        try:
            radiograph = read_radiograph(path)
        except ReadError as error:
            messages.append((path.name, str(error)))
        else:
            read_well += 1
            assert radiograph.pixels.ndim == 2
            assert radiograph.pixels.max() <= 2**radiograph.bits_stored - 1
    assert len(bundled()) > 100
    assert read_well >= 70
    assert all(name in message and "\n" not in message for name, message in messages)


def test_computed_radiographs_of_the_bundled_directory() -> None:
    radiograph = read_radiograph(TEST_FILES / "dicomdirtests" / "77654033" / "CR2" / "6247")
    assert radiograph.photometric_interpretation == "MONOCHROME1"
    assert radiograph.view_position == "AP"


@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "SC_rgb_jpeg_gdcm.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPEG2000.dcm"]
)
def test_damaged_bytes_give_an_image_or_a_read_error(name: str) -> None:
    chance = np.random.default_rng(len(name))
    content = (TEST_FILES / name).read_bytes()
    refused = 0
    for _ in range(60):
        damaged = np.frombuffer(content, np.uint8).copy()
        places = chance.integers(0, min(len(damaged), 2500), chance.choice([1, 3, 20]))
        damaged[places] = chance.integers(0, 256, len(places))
        try:
            read_radiograph(damaged.tobytes(), origin="x.dcm")
        except ReadError:
            refused += 1
    assert refused > 0


def test_rle_data_longer_than_the_image_gives_an_image_or_a_read_error() -> None:
    # pylibjpeg-rle raises a BaseException here, which no handler of errors would see.
    dataset = dataset_of(np.zeros((8, 8), np.uint16), 12)
    dataset.compress(RLELossless, encoding_plugin="pydicom")
    long_run = bytes([129, 7]) * 3  # 384 bytes for a segment of 64
    header = struct.pack("<16I", 2, 64, 64 + len(long_run), *[0] * 13)
    dataset.PixelData = encapsulate([header + long_run + long_run])
    assert read(dataset).shape == (8, 8)


def test_pydicoms_own_exception_type_becomes_a_read_error_that_does_not_quote_the_file() -> None:
    content = bytearray((TEST_FILES / "MR_small.dcm").read_bytes())
    struct.pack_into("<H", content, 138, 0x7F)  # the first element's length
    with pytest.raises(ReadError) as caught:
        read_radiograph(bytes(content))
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_truncated_file_is_refused(share: float) -> None:
    content = (TEST_FILES / "MR_small.dcm").read_bytes()
    with pytest.raises(ReadError):
        read_radiograph(content[: int(len(content) * share)], origin="x.dcm")


def test_threads_decode_alike_without_a_warning() -> None:
    content = (TEST_FILES / "MR_small_padded.dcm").read_bytes()  # pydicom warns about its trailing bytes
    results: list[NDArray[Any]] = []
    threads = [threading.Thread(target=lambda: results.append(read_radiograph(content).pixels)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(np.array_equal(pixels, results[0]) for pixels in results)
