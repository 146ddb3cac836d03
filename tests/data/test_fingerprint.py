"""What a fingerprint must not see: size, plain borders, gray scale. And what it must."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hilum.data.fingerprint import (
    MINIATURE,
    SIGNATURE,
    ZOOM,
    equalized,
    fingerprint,
    local_contrast,
    signature,
    stack,
    trimmed,
)
from hilum.errors import DataError
from hilum.phantoms.chest import draw_phantom

IMAGE = draw_phantom(3, "Normal", size=64).image


def _difference(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - two.astype(int)).mean())


@pytest.mark.parametrize("shape", [(1, 1), (5, 900), (64, 64), (300, 257), (2, 2)])
def test_any_size_gives_one_shape(shape: tuple[int, int]) -> None:
    found = fingerprint(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
    assert found.miniature.shape == (MINIATURE, MINIATURE)
    assert found.signatures.shape == (2, SIGNATURE, SIGNATURE)
    assert found.miniature.dtype == found.signatures.dtype == np.uint8


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint16), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="uint8"):
        fingerprint(image)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_plain_border_is_trimmed_to_the_pixel(level: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 50)).astype(np.uint8)
    framed = cv2.copyMakeBorder(image, 3, 1, 2, 6, cv2.BORDER_CONSTANT, value=level)
    assert np.array_equal(trimmed(framed), image)
    assert np.array_equal(fingerprint(framed).miniature, fingerprint(image).miniature)


def test_trimming_leaves_a_fifth_of_each_side() -> None:
    image = np.zeros((100, 50), np.uint8)
    image[99, 49] = 255
    assert trimmed(image).shape == (20 + 40, 10 + 20)
    assert trimmed(np.full((100, 50), 7, np.uint8)).shape == (100, 50)


def test_gamma_and_size_hardly_matter_and_another_image_does() -> None:
    own = fingerprint(IMAGE)
    darker = np.rint(255 * (IMAGE / 255) ** 1.8).astype(np.uint8)
    larger = cv2.resize(IMAGE, (83, 83), interpolation=cv2.INTER_LINEAR)
    other = fingerprint(draw_phantom(4, "Normal", size=64).image)
    for changed in (darker, larger):
        assert _difference(fingerprint(changed).signatures, own.signatures) < 4
    assert _difference(other.signatures, own.signatures) > 12


def test_equalizing_ranks_and_is_bounded_in_plain_areas() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    assert _difference(equalized(ramp), ramp) <= 1
    # Half of the image at one level: its step is cut to 3 shares of 256, the rest is shared out evenly.
    half = np.concatenate([np.full((1, 256), 100, np.uint8), ramp], axis=1)
    levels = equalized(half)[0]
    spare = (1 - (3 / 256 + 255 / 512)) / 256
    step = 255 * ((3 / 256 + spare) / 2 + (1 / 512 + spare) / 2)
    assert levels[256 + 101] - levels[256 + 100] == pytest.approx(step, abs=1)
    assert np.all(np.diff(levels[256:].astype(int)) >= 0)


def test_local_contrast_is_that_of_scipy() -> None:
    image = IMAGE.astype(np.float64)
    # OpenCV's kernel ends at 4 sigma for float images, as SciPy's does; REFLECT is the same border in both.
    difference = image - gaussian_filter(image, 3, mode="reflect", truncate=4)
    expected = difference / (np.sqrt(gaussian_filter(difference**2, 3, mode="reflect", truncate=4)) + 12)
    assert np.abs(local_contrast(IMAGE, 3) - expected).max() < 2e-2


def test_the_second_signature_is_that_of_the_cropped_image() -> None:
    own = fingerprint(cv2.resize(IMAGE, (220, 220)))
    side = round(MINIATURE / ZOOM)
    start = (MINIATURE - side) // 2
    middle = own.miniature[start : start + side, start : start + side]
    cropped = signature(cv2.resize(middle, (MINIATURE, MINIATURE), interpolation=cv2.INTER_LINEAR).astype(np.uint8))
    assert _difference(cropped, own.signatures[1]) < 0.5 * _difference(own.signatures[0], own.signatures[1])


def test_stack_keeps_the_order() -> None:
    prints = [fingerprint(draw_phantom(seed, "Normal", size=32).image) for seed in range(3)]
    stacked = stack(prints)
    assert len(stacked) == 3
    assert np.array_equal(stacked.miniatures[2], prints[2].miniature)
    assert np.array_equal(stacked.signatures[1], prints[1].signatures)
    assert len(stack([])) == 0
