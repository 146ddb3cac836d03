"""Files that must be refused: truncated, damaged, disguised, too large, not there."""

from __future__ import annotations

import io
import os
import random
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from dicom_writing import content_of, dataset_of
from image_writing import color, encode, gray, png_header
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from hilum.errors import ReadError
from hilum.imaging.decoding import decoding
from hilum.imaging.read import read_radiograph


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_file_is_refused_and_named(tmp_path: Path, kind: str, share: float) -> None:
    content = encode(Image.fromarray(color(64, 64)), kind)
    path = tmp_path / "half.img"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ReadError, match=r"half\.img"):
        read_radiograph(path)


@pytest.mark.parametrize("name", ["note.jpg", "note.dcm", "note.png"])
def test_text_with_an_image_suffix_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("The lungs are clear. " * 40)
    with pytest.raises(ReadError, match=name):
        read_radiograph(path)


def test_unlisted_format_is_refused() -> None:
    with pytest.raises(ReadError, match="PNG, JPEG, WebP, BMP, TIFF or DICOM"):
        read_radiograph(encode(Image.fromarray(gray()), "GIF"))


def test_signed_8_bit_tiff_is_refused() -> None:
    image = Image.fromarray(gray())
    for sample_format, is_read in ((1, True), (2, False)):
        stream = io.BytesIO()
        image.save(stream, "TIFF", tiffinfo={TiffImagePlugin.SAMPLEFORMAT: sample_format})
        if is_read:
            np.testing.assert_array_equal(read_radiograph(stream.getvalue()).pixels, np.asarray(image))
        else:
            with pytest.raises(ReadError, match="unsigned 8-bit"):
                read_radiograph(stream.getvalue())


def test_empty_missing_folder_and_impossible_path_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(ReadError, match=r"empty\.png.* empty"):
        read_radiograph(empty)
    with pytest.raises(ReadError, match=r"gone\.png.* exist"):
        read_radiograph(tmp_path / "gone.png")
    with pytest.raises(ReadError, match="folder"):
        read_radiograph(tmp_path)
    with pytest.raises(ReadError):
        read_radiograph(Path("a\0b.png"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ReadError, match="not a file"):
        read_radiograph(tmp_path / "pipe.png")


def test_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "locked.png"
    path.write_bytes(encode(Image.fromarray(gray())))

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ReadError, match=r"locked\.png.*Permission denied"):
        read_radiograph(path)


def test_huge_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as stream:
        stream.truncate(5 << 30)  # sparse
    with pytest.raises(ReadError, match="got 5,368,709,120"):
        read_radiograph(path)


@pytest.mark.parametrize("side", [11_000, 14_000, 60_000])
def test_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(ReadError, match="Expected at most 50,000,000 pixels"):
        read_radiograph(png_header(side, side))


@pytest.mark.parametrize(("width", "height"), [(1, 48_000_000), (48_000_000, 1), (16_001, 1_000), (1, 4_097)])
def test_thin_image_is_refused_by_its_header(width: int, height: int) -> None:
    dataset = dataset_of(np.zeros((2, 2), np.uint8), 8, Rows=height % 65536, Columns=width % 65536)
    for content in (png_header(width, height), content_of(dataset)):
        with pytest.raises(ReadError, match="at most 16:1"):
            read_radiograph(content)


@pytest.mark.parametrize("shape", [(400, 6_400), (4_096, 1)])
def test_longest_sides_are_read(shape: tuple[int, int]) -> None:
    assert read_radiograph(encode(Image.fromarray(np.zeros(shape, np.uint8)))).shape == shape


def test_cap_on_pixels_is_inclusive() -> None:
    content = encode(Image.fromarray(gray()))
    assert read_radiograph(content, max_pixels=600).shape == (20, 30)
    with pytest.raises(ReadError, match=r"Expected at most 599 pixels in .*, got 30 x 20 = 600"):
        read_radiograph(content, max_pixels=599)


def test_warning_of_pillow_does_not_leak() -> None:
    with pytest.raises(ReadError, match="Expected at most"):  # 100 million pixels: Pillow warns, an error here
        read_radiograph(png_header(10_000, 10_000))


def test_warnings_are_dropped_only_in_the_thread_that_decodes() -> None:
    seen: list[str] = []
    inside, checked = threading.Event(), threading.Event()

    def decode() -> None:
        with decoding("a"):
            warnings.warn("from the decoder", UserWarning, stacklevel=1)
            inside.set()
            checked.wait(10)

    thread = threading.Thread(target=decode)
    thread.start()
    assert inside.wait(10)
    try:
        warnings.warn("from elsewhere", UserWarning, stacklevel=1)
    except UserWarning as warning:  # warnings are errors in these tests
        seen.append(str(warning))
    checked.set()
    thread.join()
    assert seen == ["from elsewhere"]


def test_threads_read_alike() -> None:
    content = encode(Image.fromarray(gray(64, 64)))
    results: list[NDArray[np.uint8] | NDArray[np.uint16]] = []
    threads = [threading.Thread(target=lambda: results.append(read_radiograph(content).pixels)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(np.array_equal(pixels, gray(64, 64)) for pixels in results)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_damaged_bytes_give_an_image_or_a_read_error(kind: str) -> None:
    chance = random.Random(kind)
    content = encode(Image.fromarray(color()), kind)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 3, 20))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            radiograph = read_radiograph(bytes(damaged))
        except ReadError:
            refused += 1
        else:
            assert radiograph.pixels.ndim == 2
    assert refused > 0
