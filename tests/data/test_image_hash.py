"""The hash by which a training image is known again: through size, codec and border, and not by another image."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from scipy.stats import binom

from hilum.config import PreprocessSpec
from hilum.data.image_hash import (
    FALSE_MATCHES,
    HASH_BYTES,
    find_known,
    from_bytes,
    image_hashes,
    matches_by_chance,
    nearest_bits,
    to_bytes,
)
from hilum.errors import DataError
from hilum.imaging.preprocess import fit_image
from hilum.phantoms.chest import draw_phantom
from hilum.types import Radiograph

IMAGES = [draw_phantom(seed, "Normal", size=160).image[: 160 - 7 * (seed % 4)] for seed in range(12)]


def fitted(image: np.ndarray, size: int = 128) -> np.ndarray:
    return fit_image(Radiograph(np.ascontiguousarray(image)), PreprocessSpec(size=size))


def _jpeg(image: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)


CHANGES = {
    "larger": lambda image: _jpeg(cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)),
    "smaller": lambda image: cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA),
    "bordered": lambda image: cv2.copyMakeBorder(image, 3, 0, 5, 2, cv2.BORDER_CONSTANT, value=255),
    "bordered twice": lambda image: cv2.copyMakeBorder(
        cv2.copyMakeBorder(image, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=0), 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=255
    ),
    "cropped": lambda image: image[2:-2, 2:-2],
}


@pytest.mark.parametrize("change", list(CHANGES))
@pytest.mark.parametrize("size", [128, 224])
def test_a_copy_is_found_and_another_image_is_not(change: str, size: int) -> None:
    known = image_hashes([fitted(image) for image in IMAGES[:6]])
    queries = [fitted(CHANGES[change](image), size) for image in IMAGES]
    assert find_known(queries, known).tolist() == [True] * 6 + [False] * 6


def test_hashes_of_a_stack_and_of_nothing() -> None:
    squares = np.stack([fitted(image) for image in IMAGES])
    calls: list[tuple[int, int]] = []
    hashes = image_hashes(squares, lambda done, total: calls.append((done, total)))
    assert hashes.shape == (12, HASH_BYTES)
    assert hashes.dtype == np.uint8
    assert calls[-1] == (12, 12)
    assert image_hashes([]).shape == (0, HASH_BYTES)
    assert not find_known(squares, image_hashes([])).any()
    assert find_known([], hashes).shape == (0,)


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_plain_image_has_a_hash(level: int) -> None:
    assert find_known([np.full((32, 32), level, np.uint8)], image_hashes([fitted(IMAGES[0])])).tolist() == [False]


def test_the_nearest_is_that_of_every_pair() -> None:
    random = np.random.default_rng(0)
    queries, known = (random.integers(0, 256, (n, HASH_BYTES), np.uint8) for n in (1030, 8200))
    known[8195] = queries[1027]
    known[8195, 3] ^= 0b101
    expected = [np.unpackbits(known ^ query, axis=1).sum(axis=1).min() for query in queries[[0, 500, 1027]]]
    assert nearest_bits(queries, known)[[0, 500, 1027]].tolist() == expected
    assert expected[2] == 2


def test_a_file_gives_the_hashes_each_once_in_an_order_of_its_own() -> None:
    hashes = image_hashes([fitted(image) for image in (*IMAGES, IMAGES[0])])
    again = from_bytes(to_bytes(hashes))
    assert again.shape == (12, HASH_BYTES)
    assert {row.tobytes() for row in again} == {row.tobytes() for row in hashes}
    assert to_bytes(hashes[::-1]) == to_bytes(hashes)


def _saved(array: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"text", _saved([None]), _saved(np.zeros((3, 31), np.uint8)), _saved(np.zeros((3, 32))), _saved(0)],
)
def test_another_file_is_refused(content: bytes) -> None:
    with pytest.raises(DataError):
        from_bytes(content)


@pytest.mark.parametrize("images", [1, 10, 120, 2705, 100_000])
def test_as_many_matches_as_chance_gives(images: int) -> None:
    assert matches_by_chance(images) == binom.ppf(0.99, images, FALSE_MATCHES)
