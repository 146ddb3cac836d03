"""What a treatment erases has no say in what comes out, and what it keeps comes out to the bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from hilum.audit import erasure
from hilum.audit.erasure import Image, Mask
from hilum.config import PreprocessSpec
from hilum.imaging.preprocess import fit_image, fit_mask
from hilum.phantoms.chest import draw_phantom
from hilum.types import Radiograph

SIDE = 64
Treatment = Callable[[Image, Mask], Image]
ALL: list[Treatment] = [
    erasure.erase_fill, erasure.erase_blur, erasure.erase_mean, erasure.erase_inpaint, erasure.lungs_only,
    erasure.border_only,
]  # fmt: skip
WITHOUT_LUNGS = [erasure.erase_fill, erasure.erase_mean, erasure.erase_inpaint, erasure.border_only]


def _image(seed: int = 0, label: str = "Normal", shape: tuple[int, int] = (64, 48)) -> tuple[Image, Mask]:
    """A phantom of the given shape, padded into the square, read-only."""
    phantom = draw_phantom(seed, label, size=64)
    crop = slice((64 - shape[0]) // 2, (64 + shape[0]) // 2), slice((64 - shape[1]) // 2, (64 + shape[1]) // 2)
    spec = PreprocessSpec(size=SIDE)
    image = fit_image(Radiograph(np.maximum(phantom.image[crop], 1)), spec)
    lung = fit_mask(phantom.lung_mask[crop], spec)
    image.setflags(write=False)
    lung.setflags(write=False)
    return image, lung


def _noise(seed: int = 9) -> Image:
    return np.random.default_rng(seed).integers(1, 256, (SIDE, SIDE)).astype(np.uint8)


def test_dilation_is_a_disc_of_the_given_share() -> None:
    _, lung = _image()
    distance = ndimage.distance_transform_edt(~lung)
    grown = erasure.dilate(lung, 0.1)  # 6 pixels
    assert grown[distance <= 5.4].all()
    assert not grown[distance > 6.6].any()
    assert np.array_equal(erasure.dilate(lung, 0.0), ndimage.binary_dilation(lung))


@pytest.mark.parametrize("treat", WITHOUT_LUNGS)
def test_without_lungs_nothing_inside_the_dilated_lungs_matters(treat: Treatment) -> None:
    image, lung = _image()
    inside = ndimage.distance_transform_edt(~lung) <= 2  # of a dilation of 3 pixels
    other = np.where(inside & (image > 0), _noise(), image)
    assert np.array_equal(treat(image, lung), treat(other, lung))
    assert not np.array_equal(treat(image, lung), treat(np.where(image > 0, _noise(), image), lung))


def test_blurred_lungs_lose_texture_and_keep_density() -> None:
    image, lung = _image()
    texture = np.where(lung, np.where(np.indices(lung.shape).sum(0) % 2, 60, 100), image).astype(np.uint8)
    flat = np.where(lung, 80, image).astype(np.uint8)
    dense = np.where(lung, 180, image).astype(np.uint8)
    blurred = [erasure.erase_blur(gray, lung).astype(float) for gray in (texture, flat, dense)]
    assert np.abs(blurred[0] - blurred[1])[lung].max() <= 2
    assert (blurred[2] - blurred[1])[lung].mean() > 40
    far = ndimage.distance_transform_edt(~lung) > 10  # dilation 3 and three deviations of the edge
    assert np.array_equal(erasure.erase_blur(image, lung)[far], image[far])


def test_fill_and_mean_are_constants_of_their_own() -> None:
    image, lung = _image()
    content = (image > 0).astype(bool)
    area = erasure.dilate(lung) & content
    ring = erasure.dilate(erasure.dilate(lung)) & ~erasure.dilate(lung) & content
    for treat, gray in ((erasure.erase_fill, 128), (erasure.erase_mean, round(float(image[ring].mean())))):
        expected = image.copy()
        expected[area] = gray
        assert np.array_equal(treat(image, lung), expected)


def test_in_painted_lungs_continue_what_is_around_them() -> None:
    _, lung = _image()
    slope = np.tile(np.arange(SIDE, dtype=np.uint8) * 2 + 60, (SIDE, 1))
    image, area = np.where(lung, 255, slope).astype(np.uint8), erasure.dilate(lung)
    painted, flat = (treat(image, lung).astype(int) for treat in (erasure.erase_inpaint, erasure.erase_mean))
    error, error_flat = (np.abs(treated - slope)[area].mean() for treated in (painted, flat))
    assert error < error_flat / 3
    assert np.array_equal(painted[~area], slope[~area])


def test_lungs_alone_show_nothing_else_not_even_the_padding() -> None:
    image, lung = _image()
    alone = erasure.lungs_only(image, lung)
    assert np.array_equal(alone[lung], image[lung])
    assert set(alone[~lung].tolist()) == {128}
    assert np.array_equal(alone, erasure.lungs_only(np.where(lung, image, _noise()), lung))


def test_border_alone_is_a_tenth_of_the_image_on_each_side() -> None:
    image, lung = _image()  # columns 8 to 55 of the square: a border of 5 columns and 6 rows
    border = erasure.border_only(image, lung)
    kept = np.ones_like(lung)
    kept[6:58, 13:51] = False
    kept &= ~erasure.dilate(lung)
    assert np.array_equal(border[kept], image[kept])
    assert (border[~kept & (image > 0)] == 128).all()


@pytest.mark.parametrize("treat", [treat for treat in ALL if treat is not erasure.lungs_only])
def test_padding_stays_black(treat: Treatment) -> None:
    image, lung = _image(shape=(64, 32))  # cuts into the lungs, so that the dilated mask would reach the padding
    assert lung[:, 16].any()
    assert not treat(image, lung)[:, :16].any()


def test_swapped_background_shows_own_lungs_and_the_other_image() -> None:
    (image, lung), (other, other_lung) = _image(0), _image(1, "COVID")
    swapped = erasure.swap_background(image, lung, other, other_lung)
    deep = ndimage.distance_transform_edt(lung) > 3
    assert deep.any()
    assert np.array_equal(swapped[deep], image[deep])
    outside = ndimage.distance_transform_edt(~lung) > 4
    assert np.array_equal(swapped[outside], erasure.erase_mean(other, other_lung)[outside])
    near = ndimage.distance_transform_edt(~lung) <= 4
    assert np.array_equal(swapped, erasure.swap_background(np.where(near, image, _noise()), lung, other, other_lung)), (
        "the own background is seen"
    )
    inside = ndimage.distance_transform_edt(~other_lung) <= 2
    changed = np.where(inside & (other > 0), _noise(), other)
    assert np.array_equal(swapped, erasure.swap_background(image, lung, changed, other_lung)), "other lungs are seen"


@pytest.mark.parametrize("treat", ALL)
def test_an_image_without_a_mask_comes_back_unchanged(treat: Treatment) -> None:
    image, lung = _image()
    empty = np.zeros_like(lung)
    assert np.array_equal(treat(image, empty), image)
    assert np.array_equal(erasure.swap_background(image, empty, _noise(), lung), image)
    assert np.array_equal(erasure.swap_background(image, lung, _noise(), empty), image)


@pytest.mark.parametrize("treat", ALL)
def test_a_mask_that_covers_all_leaves_an_image_of_the_same_size(treat: Treatment) -> None:
    treated = treat(_noise(), np.ones((SIDE, SIDE), bool))
    assert treated.shape == (SIDE, SIDE)
    assert treated.dtype == np.uint8


def test_specks_are_not_lungs() -> None:
    lungs = np.zeros((3, 20, 20), bool)
    lungs[1, 0, :19] = True  # 19 of 400 pixels
    lungs[2, 0] = True  # 5%
    assert erasure.has_lungs(lungs).tolist() == [False, False, True]
