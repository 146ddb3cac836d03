"""Reading ordinary formats: every mode keeps its declared scale, every bad file becomes a ReadError."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_writing import color, encode, gray, tiff
from PIL import Image, ImageOps

from hilum.errors import ReadError
from hilum.imaging.decoding import rgb_to_gray
from hilum.imaging.read import IMAGE_SUFFIXES, mask_levels, read_mask, read_radiograph

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_8_bit_gray_is_read_exactly(kind: str, options: dict[str, object]) -> None:
    radiograph = read_radiograph(encode(Image.fromarray(gray()), kind, **options))
    assert radiograph.pixels.dtype == np.uint8
    assert radiograph.bits_stored == 8
    assert radiograph.color_difference == 0.0
    assert radiograph.view_position is None
    np.testing.assert_array_equal(radiograph.pixels, gray())
    assert radiograph.pixels.flags.writeable


@pytest.mark.parametrize("name", ["a.PNG", "b.jpg", "c.dcm", "d"])
def test_content_decides_the_format_not_the_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encode(Image.fromarray(gray())))
    radiograph = read_radiograph(path)
    np.testing.assert_array_equal(radiograph.pixels, gray())
    assert radiograph.origin == str(path)
    assert read_radiograph(path, origin="upload 7").origin == "upload 7"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_16_bits_are_never_rescaled_by_their_values(kind: str, top: int) -> None:
    values = np.linspace(0, top, 600).astype(np.uint16).reshape(20, 30)
    radiograph = read_radiograph(encode(Image.fromarray(values), kind))
    assert radiograph.pixels.dtype == np.uint16
    assert radiograph.bits_stored == 16
    np.testing.assert_array_equal(radiograph.pixels, values)


def test_big_endian_16_bit_tiff() -> None:
    values = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    image = Image.frombytes("I;16B", (30, 20), values.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_radiograph(encode(image, "TIFF")).pixels, values)


def test_white_is_zero_tiff_is_inverted_at_8_and_16_bits() -> None:
    narrow = gray()
    wide = narrow.astype("<u2") * 200
    eight = read_radiograph(tiff(narrow.tobytes(), 30, 20, 8, photometric=0))
    sixteen = read_radiograph(tiff(wide.tobytes(), 30, 20, 16, photometric=0))
    np.testing.assert_array_equal(eight.pixels, 255 - narrow)
    np.testing.assert_array_equal(sixteen.pixels, 65535 - wide)


def test_12_bit_tiff_declares_12_bits() -> None:
    values = np.array([[0, 4095], [0x123, 0xABC]], np.uint16)
    packed = bytes.fromhex("000fff123abc")
    radiograph = read_radiograph(tiff(packed, 2, 2, 12, photometric=1))
    assert radiograph.bits_stored == 12
    np.testing.assert_array_equal(radiograph.pixels, values)


def test_32_bit_tiff_in_the_16_bit_range_is_kept_and_beyond_it_refused() -> None:
    values = np.array([[0, 1000], [40000, 65535]], np.int32)
    radiograph = read_radiograph(encode(Image.fromarray(values), "TIFF"))
    assert radiograph.bits_stored == 16
    np.testing.assert_array_equal(radiograph.pixels, values)
    with pytest.raises(ReadError, match=r"Expected pixels in \[0, 65535\].*got \[0, 131070\]"):
        read_radiograph(encode(Image.fromarray(values * 2), "TIFF"))


def test_float_tiff_is_refused() -> None:
    with pytest.raises(ReadError, match=r"got floating-point pixels.*Export it as an 8-bit or 16-bit PNG"):
        read_radiograph(encode(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


def test_lab_tiff_is_refused() -> None:
    with pytest.raises(ReadError, match="got pixels of mode LAB"):
        read_radiograph(encode(Image.new("LAB", (4, 4)), "TIFF"))


def test_1_bit_is_0_and_255() -> None:
    radiograph = read_radiograph(encode(Image.fromarray(gray() > 127)))
    np.testing.assert_array_equal(radiograph.pixels, np.where(gray() > 127, 255, 0))
    assert radiograph.photometric_interpretation == "1"


def test_rgb_becomes_luma_and_says_how_colorful_it_was() -> None:
    rgb = color()
    radiograph = read_radiograph(encode(Image.fromarray(rgb)))
    red, green, blue = (rgb[..., i].astype(float) for i in range(3))
    np.testing.assert_allclose(radiograph.pixels, 0.299 * red + 0.587 * green + 0.114 * blue, atol=0.51)
    expected = np.mean(abs(red - green) + abs(red - blue) + abs(green - blue)) / 3
    assert radiograph.color_difference == pytest.approx(expected)
    assert radiograph.photometric_interpretation == "RGB"


def test_gray_saved_as_rgb_is_the_gray_exactly() -> None:
    radiograph = read_radiograph(encode(Image.fromarray(gray()).convert("RGB")))
    np.testing.assert_array_equal(radiograph.pixels, gray())
    assert radiograph.color_difference == 0.0


def test_16_bit_rgb_keeps_gray_exactly_and_its_difference_is_in_8_bit_levels() -> None:
    level = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    same, none = rgb_to_gray(np.dstack([level] * 3), 16)
    np.testing.assert_array_equal(same, level)
    assert none == 0.0
    _, difference = rgb_to_gray(np.dstack([level, level * 0, level * 0]), 16)
    assert difference == pytest.approx(2 / 3 * 127.5)


def test_palette_is_looked_up() -> None:
    image = Image.fromarray(gray() % 3)
    image.putpalette([10, 10, 10, 200, 200, 200, 90, 90, 90])
    radiograph = read_radiograph(encode(image))
    np.testing.assert_array_equal(radiograph.pixels, np.array([10, 200, 90])[gray() % 3])
    assert radiograph.photometric_interpretation == "P"


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_lies_over_black(mode: str) -> None:
    alpha = np.zeros((20, 30), np.uint8)
    alpha[:, 10:] = 255
    image = Image.fromarray(gray()).convert(mode)
    image.putalpha(Image.fromarray(alpha))
    radiograph = read_radiograph(encode(image))
    np.testing.assert_array_equal(radiograph.pixels, np.where(alpha, gray(), 0))
    assert radiograph.color_difference == 0.0


@pytest.mark.parametrize("as_bytes", [True, False])
def test_palette_with_transparency_lies_over_black_without_a_warning(as_bytes: bool) -> None:
    image = Image.fromarray(gray() % 2)
    image.putpalette([50, 50, 50, 200, 200, 200])
    content = encode(image, transparency=b"\xff\x00" if as_bytes else 1)
    np.testing.assert_array_equal(read_radiograph(content).pixels, np.where(gray() % 2, 0, 50))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_jpeg_of_every_color_model(mode: str) -> None:
    ramp = np.tile(np.linspace(20, 230, 64).astype(np.uint8), (64, 1))
    radiograph = read_radiograph(encode(Image.fromarray(ramp).convert("RGB").convert(mode), "JPEG", quality=95))
    assert np.abs(radiograph.pixels.astype(int) - ramp).max() <= 4
    assert radiograph.color_difference < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind: str) -> None:
    upright = np.zeros((32, 64), np.uint8)
    upright[:16, :32] = 255
    for orientation, undo in {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encode(Image.fromarray(upright).transpose(undo), kind, exif=exif)
        np.testing.assert_allclose(read_radiograph(content).pixels.astype(int), upright, atol=30)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_are_those_of_pillow(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(gray()), exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(read_radiograph(content).pixels, np.asarray(expected))


def test_orientation_turns_16_bits_too() -> None:
    values = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read_radiograph(encode(Image.fromarray(values), exif=exif)).pixels
    np.testing.assert_array_equal(turned, np.rot90(values, -1))


def test_broken_exif_does_not_lose_the_image() -> None:
    content = encode(Image.fromarray(gray()), "JPEG", exif=b"Exif\0\0this is no TIFF header")
    assert read_radiograph(content).shape == (20, 30)


def test_1_by_1_is_read() -> None:
    assert read_radiograph(encode(Image.new("L", (1, 1), 7))).pixels.tolist() == [[7]]


def test_several_frames_are_refused() -> None:
    frames = [Image.fromarray(gray()), Image.fromarray(gray()[::-1].copy())]
    for kind, count in {"PNG": "2", "WEBP": "2", "TIFF": "several"}.items():
        content = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        with pytest.raises(ReadError, match=f"Expected one image in image, got {count} frames"):
            read_radiograph(content, origin="image")


def test_a_cameras_mpo_is_its_first_image() -> None:
    first, second = Image.fromarray(gray(32, 32) // 8 + 200), Image.fromarray(gray(32, 32) // 8)
    content = encode(first, "MPO", save_all=True, append_images=[second])
    assert read_radiograph(content).pixels.mean() > 190


def test_masks_are_above_127() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    content = encode(Image.fromarray(levels))
    np.testing.assert_array_equal(mask_levels(content), levels)
    mask = read_mask(content)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, levels > 127)


def test_a_masks_scale_is_its_mode_never_its_values() -> None:
    lung = gray() > 127
    for image in (Image.fromarray(lung), Image.fromarray(lung.astype(np.uint16) * 65535)):
        np.testing.assert_array_equal(read_mask(encode(image)), lung)
    zeros_and_ones = encode(Image.fromarray(lung.astype(np.uint8)))
    assert not read_mask(zeros_and_ones).any()
    assert set(np.unique(mask_levels(zeros_and_ones))) == {0, 1}


def test_mask_saved_as_jpeg_shows_its_levels() -> None:
    lung = np.kron(gray(4, 4) > 127, np.ones((13, 13))).astype(np.uint8) * 255
    assert len(np.unique(mask_levels(encode(Image.fromarray(lung), "JPEG", quality=60)))) > 2


def test_bad_mask_is_refused() -> None:
    with pytest.raises(ReadError):
        read_mask(b"no mask")


def test_reading_a_png_imports_no_pydicom_and_no_torch() -> None:
    code = "import sys, hilum.imaging.read; sys.exit(any(name in sys.modules for name in ('pydicom', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.data
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no ../shared/samples")
@pytest.mark.parametrize(("folder", "count"), [("native", 48), ("not_chest_xray", 299)])
def test_every_sample_is_read(folder: str, count: int) -> None:
    paths = [path for path in (SAMPLES / folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
    assert len(paths) == count
    for path in paths:
        radiograph = read_radiograph(path)
        assert min(radiograph.shape) > 1
        assert radiograph.pixels.max() > radiograph.pixels.min()
