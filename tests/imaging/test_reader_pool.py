"""Child processes decode as the reader does, and cost one file when they hang, crash or run out of memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from dicom_writing import TEST_FILES
from image_writing import color, encode, gray, jpeg_of_scans
from PIL import Image

from hilum.errors import ReadError
from hilum.imaging import reader_pool
from hilum.imaging.read import read_radiograph, read_stored
from hilum.imaging.reader_pool import ReaderPool, is_bounded

HANG = "import hilum.imaging.reader_pool as pool, os, time\nread = pool._READERS['radiograph']\n"
HANG += "def hostile(content, origin, max_pixels):\n"
HANG += "    if origin == 'hang': time.sleep(600)\n    if origin == 'crash': os.abort()\n"
HANG += "    if origin == 'fill': bytearray(1 << 40)\n    return read(content, origin=origin, max_pixels=max_pixels)\n"
HANG += "pool._READERS['radiograph'] = hostile\n"


@pytest.fixture(scope="module")
def pool() -> Iterator[ReaderPool]:
    found = ReaderPool(2)
    yield found
    found.close()


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReaderPool]:
    """Two processes with half a second for a file, whose codecs hang, crash or fill the memory when told to."""
    monkeypatch.setattr(reader_pool, "_CHILD", HANG + reader_pool._CHILD)
    found = ReaderPool(2, seconds=0.5)
    yield found
    found.close()


def test_files_are_read_as_without_a_pool(pool: ReaderPool) -> None:
    wide = Image.fromarray(gray(40, 50).astype(np.uint16) * 257)
    files = [encode(Image.fromarray(color()), "WEBP", lossless=True), encode(wide, "TIFF", compression="tiff_lzw")]
    files += [(TEST_FILES / name).read_bytes() for name in ("JPEG2000.dcm", "MR_small_RLE.dcm", "CT_small.dcm")]
    for content in (*files, encode(wide), jpeg_of_scans(64, 6)):
        found, expected = pool.read_radiograph(content, origin="a"), read_radiograph(content, origin="a")
        np.testing.assert_array_equal(found.pixels, expected.pixels)
        assert found.pixels.dtype == expected.pixels.dtype
        assert vars(found) | {"pixels": 0} == vars(expected) | {"pixels": 0}
        stored, wanted = pool.read_stored(content, origin="a"), read_stored(content, origin="a")
        np.testing.assert_array_equal(stored.values, wanted.values)
        np.testing.assert_array_equal(stored.table, wanted.table)
        assert (stored.presets, stored.slope, stored.lowest) == (wanted.presets, wanted.slope, wanted.lowest)


def test_errors_and_limits_are_those_of_the_reader(pool: ReaderPool) -> None:
    content = encode(Image.fromarray(gray()), "TIFF", compression="tiff_lzw")
    with pytest.raises(ReadError, match="at most 599 pixels in ascii\udce4"):
        pool.read_radiograph(content, origin="ascii\udce4", max_pixels=599)
    with pytest.raises(ReadError, match="Cannot decode") as caught:
        pool.read_radiograph(encode(Image.fromarray(gray(200, 300)), "WEBP")[:-500], origin="cut")
    assert caught.value.hint


@pytest.mark.parametrize(("name", "said"), [("hang", "more than 0.5 s"), ("crash", "decoder"), ("fill", "Memory")])
def test_codec_that_fails_costs_one_file(fragile: ReaderPool, name: str, said: str) -> None:
    content = encode(Image.fromarray(gray()), "TIFF", compression="tiff_lzw")
    fragile.read_radiograph(content, origin="first")  # the processes have started
    for _ in range(3):
        with pytest.raises(ReadError, match=said):
            fragile.read_radiograph(content, origin=name)
    assert fragile.read_radiograph(content, origin="after").shape == (20, 30)


def test_closing_ends_what_hangs(fragile: ReaderPool) -> None:
    content = encode(Image.fromarray(gray()), "TIFF", compression="tiff_lzw")
    fragile.read_radiograph(content, origin="first")
    errors: list[ReadError] = []

    def read() -> None:
        try:
            fragile.read_radiograph(content, origin="hang")
        except ReadError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.1)
    fragile.close()
    thread.join(5)
    assert len(errors) == 1
    with pytest.raises(ReadError, match="stopped"):
        fragile.read_radiograph(content, origin="late")


def test_only_files_without_a_bound_are_sent_to_a_process() -> None:
    image = Image.fromarray(gray())
    assert [is_bounded(encode(image, kind), "a") for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP")] == [
        True, True, True, True, False
    ]  # fmt: skip
    assert not is_bounded(encode(image, "TIFF", compression="tiff_lzw"), "a")
    assert is_bounded(encode(image, "TIFF")[:100], "a")  # without a directory, which Pillow refuses
    assert is_bounded(b"", "a.dcm")
    assert is_bounded(b"no image", "a.png")
    for name, expected in (("CT_small.dcm", True), ("JPEG2000.dcm", False), ("image_dfl.dcm", False)):
        assert is_bounded((TEST_FILES / name).read_bytes(), "a") is expected
