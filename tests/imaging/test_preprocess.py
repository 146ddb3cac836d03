"""The one preprocessing: where the image lies, how it is scaled, and the way back."""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import numpy as np
import pytest

from hilum.config import PreprocessSpec
from hilum.imaging.preprocess import (
    content_of,
    fit_image,
    fit_mask,
    placement,
    preprocess,
    restore_probability,
    to_input,
    to_uint8,
)
from hilum.types import Radiograph

PAD = PreprocessSpec(size=64)
STRETCH = PreprocessSpec(size=64, fit="stretch")
SIDES = (1, 2, 3, 31, 63, 64, 65, 127, 500)
SHAPES = [*itertools.product(SIDES, SIDES), (1, 5000), (5000, 1)]


def gray(shape: tuple[int, int], seed: int = 0) -> Radiograph:
    return Radiograph(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 64), (0, 0, 64, 64)),
        ((32, 64), (16, 0, 32, 64)),
        ((64, 32), (0, 16, 64, 32)),
        ((128, 64), (0, 16, 64, 32)),
        ((1, 500), (31, 0, 1, 64)),
        ((1, 1), (0, 0, 64, 64)),
    ],
)
def test_padding_keeps_the_aspect_and_centers(shape: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert placement(shape, PAD) == expected
    assert placement(shape, STRETCH) == (0, 0, 64, 64)


@pytest.mark.parametrize("spec", [PAD, STRETCH], ids=["pad", "stretch"])
def test_every_size_fits_and_a_constant_stays_constant(spec: PreprocessSpec) -> None:
    for shape in SHAPES:
        top, left, height, width = placement(shape, spec)
        assert 0 <= top <= top + height <= 64, shape
        assert 0 <= left <= left + width <= 64, shape
        assert max(height, width) == 64, shape
        fitted = fit_image(Radiograph(np.full(shape, 200, np.uint8)), spec)
        assert fitted.shape == (64, 64)
        assert fitted.dtype == np.uint8
        inside = fitted[top : top + height, left : left + width]
        assert (inside == 200).all(), shape
        assert int(fitted.sum()) == 200 * height * width, shape  # black outside
        mask = fit_mask(np.ones(shape, np.bool_), spec)
        assert mask.dtype == np.bool_
        np.testing.assert_array_equal(mask, fitted > 0)


def test_padding_keeps_the_aspect_to_a_pixel() -> None:
    for shape in SHAPES:
        _, _, height, width = placement(shape, PAD)
        exact = np.array(shape) * 64 / max(shape)
        assert np.abs(np.maximum(exact, 1) - (height, width)).max() <= 0.5, shape


def test_the_own_size_changes_nothing() -> None:
    image = gray((64, 64))
    np.testing.assert_array_equal(fit_image(image, PAD), image.pixels)
    np.testing.assert_array_equal(fit_image(image, STRETCH), image.pixels)
    mask = image.pixels > 127
    np.testing.assert_array_equal(fit_mask(mask, PAD), mask)


def test_shrinking_averages_areas() -> None:
    image = gray((128, 128), seed=1)
    means = image.pixels.reshape(64, 2, 64, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(fit_image(image, PAD), means, atol=0.5)


def test_a_mask_is_nearest_and_never_blended() -> None:
    random = np.random.default_rng(2)
    for shape in ((2, 2), (4, 4), (32, 32)):
        mask = random.random(shape) < 0.5
        np.testing.assert_array_equal(fit_mask(mask, PAD), mask.repeat(64 // shape[0], 0).repeat(64 // shape[1], 1))
    board = np.indices((256, 256)).sum(0) % 2 == 0  # an average would be gray everywhere, hence all or nothing
    chosen = fit_mask(board, PAD)
    np.testing.assert_array_equal(chosen, board[2::4, 2::4])


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_pixels_are_scaled_by_the_declared_bits(bits: int) -> None:
    top = 2**bits - 1
    pixels = np.linspace(0, top, 64 * 64).reshape(64, 64).astype(np.uint16)
    expected = np.rint(pixels * (255 / top))
    scaled = to_uint8(Radiograph(pixels, bits_stored=bits))
    assert scaled.dtype == np.uint8
    np.testing.assert_allclose(scaled, expected, atol=1)
    assert (scaled.min(), scaled.max()) == (0, 255)
    np.testing.assert_array_equal(fit_image(Radiograph(pixels, bits_stored=bits), PAD), scaled)


def test_the_scale_is_declared_never_guessed() -> None:
    dark = np.full((64, 64), 255, np.uint16)  # its values would fit 8 bits
    assert to_uint8(Radiograph(dark, bits_stored=16)).max() == 1
    assert to_uint8(Radiograph(dark, bits_stored=8)).min() == 255
    assert to_uint8(Radiograph(np.full((4, 4), 15, np.uint8), bits_stored=4)).min() == 255


def test_resampling_runs_at_the_files_own_depth() -> None:
    """Dark 16-bit detail that 8 bits cannot hold survives in the average, rounded once."""
    pixels = np.zeros((128, 128), np.uint16)
    pixels[:, ::2] = 257  # one 8-bit level in every other column: 0.5 on average, rounded to even
    pixels[:, 1::2] = 257 * 2
    np.testing.assert_array_equal(fit_image(Radiograph(pixels, bits_stored=16), PAD), np.full((64, 64), 2))


def test_input_channels() -> None:
    fitted = gray((64, 64)).pixels.astype(np.uint8)
    one = to_input(fitted, PAD)
    three = to_input(fitted, PreprocessSpec(size=64, channels=3))
    assert (one.shape, one.dtype) == ((1, 64, 64), np.float32)
    assert (three.shape, three.dtype) == ((3, 64, 64), np.float32)
    np.testing.assert_array_equal(one[0], fitted.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(three, one.repeat(3, axis=0))
    batch = to_input(np.stack([fitted, 255 - fitted]), PreprocessSpec(size=64, channels=3))
    assert batch.shape == (2, 3, 64, 64)
    np.testing.assert_array_equal(batch[0], three)
    assert to_input(np.array([[0, 255]], np.uint8), PAD).tolist() == [[[0.0, 1.0]]]
    np.testing.assert_array_equal(preprocess(Radiograph(fitted), PAD), one)


@pytest.mark.parametrize("spec", [PAD, STRETCH], ids=["pad", "stretch"])
def test_restore_undoes_the_placement(spec: PreprocessSpec) -> None:
    for shape in SHAPES:
        fitted = fit_image(Radiograph(np.full(shape, 255, np.uint8)), spec).astype(np.float32) / 255
        restored = restore_probability(fitted, shape, spec)
        assert restored.shape == shape
        assert restored.dtype == np.float32
        np.testing.assert_allclose(restored, 1, atol=1e-6)  # nothing of the border comes in


@pytest.mark.parametrize("spec", [PAD, STRETCH], ids=["pad", "stretch"])
@pytest.mark.parametrize("shape", [(97, 131), (200, 64), (33, 65), (64, 64), (300, 299)])
def test_a_shape_comes_back_where_it_was(shape: tuple[int, int], spec: PreprocessSpec) -> None:
    rows, columns = np.indices(shape) / np.array(shape)[:, None, None]
    disc = (rows - 0.4) ** 2 + (columns - 0.55) ** 2 < 0.09
    fitted = fit_mask(disc, spec).astype(np.float32)
    back = restore_probability(fitted, shape, spec) > 0.5
    overlap = (back & disc).sum() / (back | disc).sum()
    assert overlap > 0.93
    centers = [np.argwhere(mask).mean(axis=0) for mask in (back, disc)]
    assert np.abs(centers[0] - centers[1]).max() < 0.5 * max(1, max(shape) / 64)


@pytest.mark.parametrize("shape", [(100, 60), (60, 100), (64, 64), (31, 200)])
def test_the_content_of_a_fitted_image_is_its_placement(shape: tuple[int, int]) -> None:
    spec = PreprocessSpec(size=64)
    rows, columns = content_of(fit_image(Radiograph(np.full(shape, 9, np.uint8)), spec))
    place = placement(shape, spec)
    assert (rows, columns) == (slice(place.top, place.top + place.height), slice(place.left, place.left + place.width))


def test_a_black_square_is_all_content() -> None:
    assert content_of(np.zeros((8, 6), np.uint8)) == (slice(0, 8), slice(0, 6))


@pytest.mark.parametrize(("aspect", "keep"), [(2.0, np.s_[::2]), (0.5, np.s_[:, ::2])])
def test_pixels_that_are_not_square_become_square(aspect: float, keep: Any) -> None:
    square = np.zeros((200, 160), np.uint8)
    cv2.circle(square, (80, 100), 50, 255, -1)
    squeezed = Radiograph(np.ascontiguousarray(square[keep]), pixel_aspect=aspect)
    assert squeezed.square_shape == square.shape
    expected = fit_image(Radiograph(square), PAD)
    assert placement(squeezed.square_shape, PAD) == placement(square.shape, PAD)
    assert np.abs(fit_image(squeezed, PAD).astype(int) - expected).mean() < 4
    assert np.abs(fit_image(Radiograph(squeezed.pixels), PAD).astype(int) - expected).mean() > 20  # told nothing
    disc = fit_mask(squeezed.pixels > 0, PAD, pixel_aspect=aspect)
    assert np.mean(disc != fit_mask(square > 0, PAD)) < 0.02
    back = restore_probability(disc.astype(np.float32), squeezed.square_shape, PAD, size=squeezed.shape) > 0.5
    assert back.shape == squeezed.shape
    assert np.mean(back != (squeezed.pixels > 0)) < 0.03
