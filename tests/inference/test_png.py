from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hilum.errors import OutputError
from hilum.imaging.read import mask_levels, read_mask
from hilum.inference import png
from hilum.inference.png import Pixels, png_bytes, save_png

IMAGES: dict[str, Pixels] = {
    "rgb": np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8),
    "gray": np.random.default_rng(1).integers(0, 256, (9, 7), dtype=np.uint8),
    "deep": np.random.default_rng(2).integers(0, 65536, (9, 7), dtype=np.uint16),
    "not contiguous": np.arange(4000, dtype=np.uint16).reshape(50, 80)[::2, ::3],
    "one pixel": np.full((1, 1), 7, np.uint8),
    "flat": np.full((300, 400, 3), 9, np.uint8),
}


def decoded(content: bytes) -> NDArray[np.uint8]:
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return np.asarray(found[:, :, ::-1] if found.ndim == 3 else found)


@pytest.fixture(params=["as installed", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "zlib":
        monkeypatch.setattr(png, "isal_zlib", None)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", IMAGES)
def test_two_other_libraries_read_the_same_pixels(name: str) -> None:
    content = png_bytes(IMAGES[name])
    assert np.array_equal(decoded(content), IMAGES[name])
    with Image.open(io.BytesIO(content)) as image:
        image.verify()  # every checksum
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(np.asarray(image), IMAGES[name])


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("width", [1, 7, 8, 9, 299])
def test_a_mask_takes_one_bit_per_pixel_and_every_reader_takes_it(width: int, tmp_path: Path) -> None:
    mask = np.random.default_rng(width).random((33, width)) < 0.5
    save_png(mask, tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask)
    assert np.array_equal(mask_levels(tmp_path / "mask.png"), mask * np.uint8(255))
    assert np.array_equal(decoded((tmp_path / "mask.png").read_bytes()), mask * np.uint8(255))
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "1"
        assert np.array_equal(np.asarray(image), mask)


def test_text_comes_before_the_pixels() -> None:
    content = png_bytes(np.zeros((4, 4), np.uint8), {"key": "some text"})
    with Image.open(io.BytesIO(content)) as image:
        assert image.info["key"] == "some text"


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.float32), np.zeros((0, 4), np.uint8)]
)
def test_what_is_no_image_is_an_output_error(image: Pixels) -> None:
    with pytest.raises(OutputError):
        png_bytes(image)


def test_saving_is_atomic_and_makes_its_folder(tmp_path: Path) -> None:
    save_png(IMAGES["rgb"], tmp_path / "deep" / "rgb.png")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["rgb.png"]


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_png(np.zeros((4, 4), np.uint8), tmp_path / "file" / "a.png")
