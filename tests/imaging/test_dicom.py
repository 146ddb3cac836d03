"""DICOM gray: the arithmetic against hand-computed values and pydicom's own, the codecs against uncompressed files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dicom_writing import TEST_FILES, content_of, dataset_of, lut_item, ramp, read, scaled
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from hilum.errors import ReadError
from hilum.imaging.preprocess import to_uint8
from hilum.imaging.read import read_radiograph

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
    as_image = dataset_of(inverted, bits, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read(as_image), read(dataset_of(stored, bits)))
    assert read_radiograph(content_of(as_image)).photometric_interpretation == "MONOCHROME1"


def test_monochrome1_is_inverted_after_its_window() -> None:
    plain = dataset_of(ramp(12), 12, WindowCenter=1000, WindowWidth=800, VOILUTFunction="LINEAR_EXACT")
    image = dataset_of(
        ramp(12),
        12,
        WindowCenter=1000,
        WindowWidth=800,
        VOILUTFunction="LINEAR_EXACT",
        PhotometricInterpretation="MONOCHROME1",
    )
    np.testing.assert_allclose(read(image).astype(int) + read(plain), 65535, atol=1)


# Modality and window, PS3.3 C.11.1 and C.11.2


def test_rescale_moves_the_window() -> None:
    stored = np.array([[0, 100, 150, 200, 4095]], np.uint16)
    window = {"WindowCenter": 250, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT"}
    rescaled = read(dataset_of(stored, 12, RescaleSlope=2, RescaleIntercept=-50, **window))
    # 2 x 150 - 50 = 250 is the center; 2 x 100 - 50 = 150 lies below 200, 2 x 200 - 50 = 350 above 300.
    assert rescaled.tolist() == [[0, 0, 32768, 65535, 65535]]


def test_linear_window_by_hand() -> None:
    # C.11.2.1.2.1, its own example: center 2048, width 4096, 0 to 255: y = ((x - 2047.5) / 4095 + 0.5) * 255
    stored = np.array([[0, 1, 2048, 4094, 4095]], np.uint16)
    shown = read(dataset_of(stored, 12, WindowCenter=2048, WindowWidth=4096))
    assert shown.tolist() == [[0, 16, 32776, 65519, 65535]]


def test_width_1_is_a_step() -> None:
    # C.11.2.1.2.1, its own example: center 0, width 1: black where x <= -0.5, else white
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
    with pytest.raises(ReadError, match="rescale slope"):
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
def test_one_image_in_every_bundled_gray_syntax(name: str) -> None:
    expected = read_radiograph(TEST_FILES / "MR_small.dcm").pixels
    np.testing.assert_array_equal(read_radiograph(TEST_FILES / f"MR_small_{name}.dcm").pixels, expected)


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_gdcm", "SC_rgb_gdcm_KY", "SC_rgb_dcmtk_+eb+cr"])
def test_one_image_in_every_bundled_color_syntax(name: str) -> None:
    # JPEG lossless, JPEG 2000 and JPEG with RGB inside; the last is lossy
    expected = read_radiograph(TEST_FILES / "SC_rgb_rle.dcm")
    radiograph = read_radiograph(TEST_FILES / f"{name}.dcm")
    np.testing.assert_allclose(radiograph.pixels.astype(int), expected.pixels, atol=2 if "dcmtk" in name else 0)
    assert radiograph.color_difference == pytest.approx(expected.color_difference, abs=0.1)


def test_12_bit_jpeg_and_near_lossless_jpeg_ls() -> None:
    assert read_radiograph(TEST_FILES / "JPGExtended.dcm").shape == (1024, 256)
    assert read_radiograph(TEST_FILES / "JPEGLSNearLossless_16.dcm").shape == (50, 10)


def test_unsupported_syntax_is_refused() -> None:
    dataset = dataset_of(ramp(8), 8)
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.100")  # MPEG-2
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xc0\0\x0b\x08\0\x10\0\x10\x01\x01\x11\0"])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(ReadError, match="MPEG2"):
        read(dataset)


def test_a_high_bit_that_contradicts_the_bits_stored_is_refused() -> None:
    assert read(dataset_of(ramp(12), 12, HighBit=11)).max() == 65535
    for high in (15, 12, 7):
        with pytest.raises(ReadError, match=f"12 bits with high bit {high}, expected high bit 11"):
            read(dataset_of(ramp(12), 12, HighBit=high))
    with pytest.raises(ReadError, match="16 bits with high bit 11"):
        read(dataset_of(ramp(12), 12, HighBit=11, BitsStored=None))


# What the header declares


@pytest.mark.parametrize(
    ("elements", "aspect"),
    [
        ({}, 1.0),
        ({"PixelAspectRatio": ["2", "1"]}, 2.0),
        ({"PixelAspectRatio": ["0", "1"]}, 1.0),
        ({"PixelSpacing": [0.2, 0.1]}, 2.0),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, 0.5),
        ({"NominalScannedPixelSpacing": [0.3, 0.2]}, 1.5),
        ({"PixelSpacing": [0.1431, 0.1429]}, 1.0),
        ({"PixelSpacing": [0.1, 0.1], "PixelAspectRatio": ["2", "1"]}, 1.0),
        ({"PixelSpacing": [0.0, 0.1], "ImagerPixelSpacing": [0.2, 0.1]}, 2.0),
        ({"PixelSpacing": [100.0, 0.1]}, 10.0),
    ],
)
def test_the_shape_of_a_pixel(elements: dict[str, Any], aspect: float) -> None:
    radiograph = read_radiograph(content_of(dataset_of(ramp(12), 12, **elements)))
    assert radiograph.pixel_aspect == pytest.approx(aspect)
    assert radiograph.shape == (64, 64)


def test_modality_body_part_annotation_and_orientation_are_kept() -> None:
    facts = {"Modality": "CT", "BodyPartExamined": "HAND ", "BurnedInAnnotation": "YES", "PatientOrientation": "R\\F"}
    radiograph = read_radiograph(content_of(dataset_of(ramp(12), 12, **facts)))
    assert (radiograph.modality, radiograph.body_part, radiograph.burned_in_annotation) == ("CT", "HAND", "YES")
    assert radiograph.patient_left == "left"
    usual = read_radiograph(content_of(dataset_of(ramp(12), 12, Modality=None, PatientOrientation=["L", "F"])))
    assert (usual.modality, usual.body_part, usual.burned_in_annotation) == (None, None, None)
    assert usual.patient_left == "right"
