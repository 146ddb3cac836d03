"""DICOM: the arithmetic against hand-computed values and pydicom's own, the codecs against uncompressed files."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from hilum.data.dicom import decode_dicom
from hilum.data.read import MAX_PIXELS, read_radiograph
from hilum.errors import ReadError
from hilum.preprocess import to_uint8

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
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return item


# Depth and sign


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_without_a_window_the_declared_range_is_black_to_white(bits: int, signed: bool) -> None:
    stored = ramp(bits, signed)
    low = -(2 ** (bits - 1)) if signed else 0
    np.testing.assert_array_equal(read(dataset_of(stored, bits)), scaled(stored, low, low + 2**bits - 1))


def test_scale_is_declared_never_guessed_from_the_values() -> None:
    stored = np.full((4, 4), 1000, np.uint16)
    stored[0, 0] = 1001
    assert set(np.unique(read(dataset_of(stored, 12)))) == {16004, 16020}  # 65535 * 1000 / 4095 and 1001


def test_8_bits_come_back_exactly() -> None:
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    radiograph = read_radiograph(content_of(dataset_of(stored, 8)))
    np.testing.assert_array_equal(radiograph.pixels, stored.astype(int) * 257)
    np.testing.assert_array_equal(to_uint8(radiograph), stored)


@pytest.mark.parametrize("signed", [False, True])
def test_what_lies_in_the_unused_high_bits_is_ignored(signed: bool) -> None:
    stored = ramp(12, signed)
    dirty = ((stored.astype(np.int32) & 0x0FFF) | 0x5000).astype(stored.dtype)  # an old overlay plane
    np.testing.assert_array_equal(read(dataset_of(dirty, 12)), read(dataset_of(stored, 12)))


def test_more_than_16_bits_are_refused() -> None:
    with pytest.raises(ReadError, match=r"Expected 1 to 16 bits stored in .*, got 32 of 32 allocated"):
        read(dataset_of(np.zeros((4, 4), np.uint32), 32))


# Polarity


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_monochrome1_of_inverted_values_reads_the_same(bits: int) -> None:
    stored = ramp(bits)
    inverted = (2**bits - 1 - stored.astype(int)).astype(stored.dtype)
    as_film = dataset_of(inverted, bits, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read(as_film), read(dataset_of(stored, bits)))
    assert read_radiograph(content_of(as_film)).photometric_interpretation == "MONOCHROME1"


def test_monochrome1_is_inverted_after_its_window() -> None:
    plain = dataset_of(ramp(12), 12, WindowCenter=1000, WindowWidth=800, VOILUTFunction="LINEAR_EXACT")
    film = dataset_of(
        ramp(12),
        12,
        WindowCenter=1000,
        WindowWidth=800,
        VOILUTFunction="LINEAR_EXACT",
        PhotometricInterpretation="MONOCHROME1",
    )
    np.testing.assert_allclose(read(film).astype(int) + read(plain), 65535, atol=1)


# Modality and window, PS3.3 C.11.1 and C.11.2


def test_rescale_moves_the_window() -> None:
    stored = np.array([[0, 100, 150, 200, 4095]], np.uint16)
    window = {"WindowCenter": 250, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT"}
    rescaled = read(dataset_of(stored, 12, RescaleSlope=2, RescaleIntercept=-50, **window))
    # 2 x 150 - 50 = 250 is the centre; 2 x 100 - 50 = 150 lies below 200, 2 x 200 - 50 = 350 above 300.
    assert rescaled.tolist() == [[0, 0, 32768, 65535, 65535]]


def test_linear_window_by_hand() -> None:
    # C.11.2.1.2.1, its own example: centre 2048, width 4096, 0 to 255: y = ((x - 2047.5) / 4095 + 0.5) * 255
    stored = np.array([[0, 1, 2048, 4094, 4095]], np.uint16)
    shown = read(dataset_of(stored, 12, WindowCenter=2048, WindowWidth=4096))
    assert shown.tolist() == [[0, 16, 32776, 65519, 65535]]


def test_width_1_is_a_step() -> None:
    # C.11.2.1.2.1, its own example: centre 0, width 1: black where x <= -0.5, else white
    stored = np.array([[-2, -1, 0, 1]], np.int16)
    assert read(dataset_of(stored, 12, WindowCenter=0, WindowWidth=1)).tolist() == [[0, 0, 65535, 65535]]


def test_sigmoid_window_by_hand() -> None:
    stored = np.array([[0, 1000, 1200]], np.uint16)
    shown = read(dataset_of(stored, 12, WindowCenter=1000, WindowWidth=400, VOILUTFunction="SIGMOID"))
    expected = [65535 / (1 + np.exp(-4 * (x - 1000) / 400)) for x in (0, 1000, 1200)]
    np.testing.assert_allclose(shown[0], expected, atol=0.51)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("signed", [False, True])
def test_agrees_with_pydicom(function: str, signed: bool) -> None:
    dataset = dataset_of(
        ramp(12, signed),
        12,
        RescaleSlope=1.5,
        RescaleIntercept=-100,
        WindowCenter=700,
        WindowWidth=900,
        VOILUTFunction=function,
    )
    low = -2048 if signed else 0
    shown = apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    expected = scaled(shown, low * 1.5 - 100, (low + 4095) * 1.5 - 100)
    np.testing.assert_array_equal(read(dataset), expected)


def test_negative_slope_darkens_high_values() -> None:
    shown = read(dataset_of(np.array([[0, 4095]], np.uint16), 12, RescaleSlope=-1, RescaleIntercept=4095))
    assert shown.tolist() == [[65535, 0]]
    window = {"WindowCenter": 2000, "WindowWidth": 100}
    shown = read(dataset_of(np.array([[0, 4095]], np.uint16), 12, RescaleSlope=-1, RescaleIntercept=4095, **window))
    assert shown.tolist() == [[65535, 0]]


def test_first_of_several_windows_is_used() -> None:
    several = dataset_of(ramp(12), 12, WindowCenter=[1000, 2000], WindowWidth=[500, 10])
    one = dataset_of(ramp(12), 12, WindowCenter=1000, WindowWidth=500)
    np.testing.assert_array_equal(read(several), read(one))


@pytest.mark.parametrize("window", [(100, 0), (100, -5), ("", ""), (100, "")])
def test_impossible_window_counts_as_absent(window: tuple[Any, Any]) -> None:
    dataset = dataset_of(ramp(12), 12, WindowCenter=window[0], WindowWidth=window[1])
    np.testing.assert_array_equal(read(dataset), read(dataset_of(ramp(12), 12)))


def test_unknown_window_function_is_refused() -> None:
    dataset = dataset_of(ramp(12), 12, WindowCenter=1, WindowWidth=5, VOILUTFunction="CUBIC")
    with pytest.raises(ReadError, match="got CUBIC"):
        read(dataset)


def test_slope_0_is_refused() -> None:
    with pytest.raises(ReadError, match="rescale slope other than 0"):
        read(dataset_of(ramp(12), 12, RescaleSlope=0, RescaleIntercept=0))


def test_voi_lut_comes_before_the_window_and_indexes_beyond_its_entries_type() -> None:
    entries = np.linspace(255, 0, 4096).round()  # 8-bit entries for 12-bit values
    dataset = dataset_of(ramp(12), 12, WindowCenter=10, WindowWidth=10, VOILUTSequence=[lut_item(entries, 0, 8)])
    np.testing.assert_array_equal(read(dataset), entries[ramp(12)] * 257)


def test_voi_lut_clamps_outside_its_entries() -> None:
    stored = np.array([[0, 99, 100, 101, 102, 4000]], np.uint16)
    lut = [lut_item(np.array([0, 32768, 65535]), 100, 16)]
    assert read(dataset_of(stored, 12, VOILUTSequence=lut)).tolist() == [[0, 0, 0, 32768, 65535, 65535]]


def test_voi_lut_of_65536_entries_is_written_as_0() -> None:
    entries = np.arange(65536)[::-1]
    dataset = dataset_of(ramp(16), 16, VOILUTSequence=[lut_item(entries, 0, 16)])
    np.testing.assert_array_equal(read(dataset), 65535 - ramp(16))


def test_voi_lut_applies_after_the_rescale() -> None:
    lut = [lut_item(np.array([0, 1, 2, 3]), 10, 2)]
    dataset = dataset_of(
        np.array([[0, 5, 6, 9]], np.uint16), 12, RescaleSlope=1, RescaleIntercept=5, VOILUTSequence=lut
    )
    assert read(dataset).tolist() == [[0, 0, 21845, 65535]]


def test_modality_lut_then_window() -> None:
    lut = [lut_item(np.array([0, 100, 200, 1023]), 0, 10)]
    stored = np.array([[0, 1, 2, 3]], np.uint16)
    no_window = dataset_of(stored, 12, ModalityLUTSequence=lut)
    assert read(no_window).tolist() == [[0, 6406, 12812, 65535]]  # over 0 to 1023, the LUT's own range
    window = {"WindowCenter": 150, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT"}
    assert read(dataset_of(stored, 12, ModalityLUTSequence=lut, **window)).tolist() == [[0, 0, 65535, 65535]]


# Padding


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_padding_is_black_whatever_the_polarity(photometric: str, syntax: UID) -> None:
    stored = np.array([[-2000, -1999, 0, 2000]], np.int16)
    dataset = dataset_of(stored, 12, PhotometricInterpretation=photometric)
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    dataset.file_meta.TransferSyntaxUID = syntax
    padded, plain = read(dataset), read(dataset_of(stored, 12, PhotometricInterpretation=photometric))
    assert padded[0, 0] == 0
    np.testing.assert_array_equal(padded[0, 1:], plain[0, 1:])


def test_padding_range_is_black() -> None:
    stored = np.array([[4000, 4050, 4095, 10]], np.uint16)
    dataset = dataset_of(stored, 12)
    dataset.add_new("PixelPaddingValue", "US", 4095)
    dataset.add_new("PixelPaddingRangeLimit", "US", 4050)
    assert (read(dataset) == 0).tolist() == [[False, True, True, False]]


# Transfer syntaxes


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, True), (16, False)])
def test_native_syntaxes_read_alike(syntax: UID, bits: int, signed: bool) -> None:
    dataset = dataset_of(ramp(bits, signed), bits)
    expected = read(dataset)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = ramp(bits, signed).byteswap().tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(read(dataset), expected)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (10, False), (12, False), (16, False), (16, True)])
def test_lossless_compression_reads_as_the_uncompressed_file(syntax: UID, bits: int, signed: bool) -> None:
    dataset = dataset_of(ramp(bits, signed), bits)
    expected = read(dataset)
    dataset.compress(syntax, encoding_plugin="pydicom" if syntax == RLELossless else "pylibjpeg")
    np.testing.assert_array_equal(read(dataset), expected)


@pytest.mark.parametrize("name", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"])
def test_one_image_in_every_bundled_grey_syntax(name: str) -> None:
    expected = read_radiograph(TEST_FILES / "MR_small.dcm").pixels
    np.testing.assert_array_equal(read_radiograph(TEST_FILES / f"MR_small_{name}.dcm").pixels, expected)


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_gdcm", "SC_rgb_gdcm_KY", "SC_rgb_dcmtk_+eb+cr"])
def test_one_image_in_every_bundled_colour_syntax(name: str) -> None:
    # JPEG lossless, JPEG 2000 and JPEG with RGB inside; the last is lossy
    expected = read_radiograph(TEST_FILES / "SC_rgb_rle.dcm")
    radiograph = read_radiograph(TEST_FILES / f"{name}.dcm")
    np.testing.assert_allclose(radiograph.pixels.astype(int), expected.pixels, atol=2 if "dcmtk" in name else 0)
    assert radiograph.colour_difference == pytest.approx(expected.colour_difference, abs=0.1)


def test_12_bit_jpeg_and_near_lossless_jpeg_ls() -> None:
    assert read_radiograph(TEST_FILES / "JPGExtended.dcm").shape == (1024, 256)
    assert read_radiograph(TEST_FILES / "JPEGLSNearLossless_16.dcm").shape == (50, 10)


def test_unsupported_syntax_is_refused() -> None:
    dataset = dataset_of(ramp(8), 8)
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.100")  # MPEG-2
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xc0\0\x0b\x08\0\x10\0\x10\x01\x01\x11\0"])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(ReadError, match="got MPEG2"):
        read(dataset)


# Colour


def test_rgb_of_8_and_16_bits() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    eight = read_radiograph(content_of(dataset_of(rgb, 8)))
    sixteen = read_radiograph(content_of(dataset_of(rgb.astype(np.uint16) * 257, 16)))
    assert (eight.pixels.dtype, eight.bits_stored) == (np.uint8, 8)
    assert (sixteen.pixels.dtype, sixteen.bits_stored) == (np.uint16, 16)
    np.testing.assert_allclose(eight.pixels, luma, atol=0.51)
    np.testing.assert_allclose(sixteen.pixels, luma * 257, atol=2)  # OpenCV's weights have 14 bits
    assert eight.colour_difference == pytest.approx(sixteen.colour_difference)
    assert eight.colour_difference > 50


def test_planar_colour_reads_the_same() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    planes = dataset_of(rgb, 8, PlanarConfiguration=1)
    planes.PixelData = rgb.transpose(2, 0, 1).tobytes()
    np.testing.assert_array_equal(
        read_radiograph(content_of(planes)).pixels, read_radiograph(content_of(dataset_of(rgb, 8))).pixels
    )


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_ybr_becomes_grey_by_its_luma(photometric: str) -> None:
    luma = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    neutral = np.full((8, 8), 128, np.uint8)
    dataset = dataset_of(np.dstack([luma, neutral, neutral]), 8, PhotometricInterpretation=photometric)
    if photometric == "YBR_FULL_422":  # two luma samples, then the pair they share
        pairs = np.stack([luma[:, ::2], luma[:, 1::2], neutral[:, ::2], neutral[:, ::2]], axis=-1)
        dataset.PixelData = pairs.tobytes()
    radiograph = read_radiograph(content_of(dataset))
    np.testing.assert_array_equal(radiograph.pixels, luma)
    assert radiograph.colour_difference == 0
    assert radiograph.photometric_interpretation == photometric


def test_palette_colour_is_looked_up() -> None:
    dataset = dataset_of(np.array([[0, 1, 2, 3]], np.uint8), 8, PhotometricInterpretation="PALETTE COLOR")
    for channel in ("Red", "Green", "Blue"):
        dataset.add_new(f"{channel}PaletteColorLookupTableDescriptor", "US", [4, 0, 8])
        dataset.add_new(f"{channel}PaletteColorLookupTableData", "OW", bytes([9, 50, 100, 250]))
    radiograph = read_radiograph(content_of(dataset))
    assert radiograph.pixels.tolist() == [[9, 50, 100, 250]]
    assert radiograph.bits_stored == 8


def test_colour_above_its_declared_bits_is_white() -> None:
    dataset = dataset_of(np.array([[0, 1]], np.uint8), 8, PhotometricInterpretation="PALETTE COLOR")
    for channel in ("Red", "Green", "Blue"):
        dataset.add_new(f"{channel}PaletteColorLookupTableDescriptor", "US", [2, 0, 8])
        dataset.add_new(f"{channel}PaletteColorLookupTableData", "OW", struct.pack("<2H", 9, 40000))
    assert read_radiograph(content_of(dataset)).pixels.tolist() == [[9, 255]]


@pytest.mark.parametrize("photometric", ["CMYK", "YBR_PARTIAL_420", "MONOCHROME2"])
def test_other_colour_models_are_refused(photometric: str) -> None:
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
    with pytest.raises(ReadError, match=r"Expected pixel data in .*, got a DICOM object without any \(SR\)"):
        read_radiograph(TEST_FILES / "reportsi.dcm")


def test_several_frames_are_refused() -> None:
    with pytest.raises(ReadError, match=r"Expected one image in .*, got 15 frames"):
        read_radiograph(TEST_FILES / "rtdose.dcm")


def test_more_data_than_the_header_says_is_refused() -> None:
    dataset = dataset_of(np.zeros((3, 3), np.uint8), 8)
    dataset.PixelData = bytes(27)  # an RGB image whose header lost its samples per pixel
    with pytest.raises(ReadError, match=r"Expected pixel data of shape \(3, 3\) in .* got \(3, 3, 3\)"):
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
    with pytest.raises(ReadError, match=r"4 rows and 4 columns in .* got 60000 and 60000"):
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
