"""The difference image shows a planted shortcut where it was planted."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from hilum.audit.differences import (
    SIDE,
    Difference,
    MeanImages,
    common_scale,
    difference_of,
    difference_png,
    mean_png,
    view,
)
from hilum.audit.probes import REST
from hilum.phantoms.confound import CONFOUNDED_CLASSES, Confound, confounded_phantoms

FRAME = round(SIDE / 20)


def _difference(kind: Confound) -> Difference:
    """Class 1 less class 0 of phantoms in which the confound tells nearly every image."""
    drawn = confounded_phantoms(60, kind, 0.95, seed=3, size=128)
    means = MeanImages()
    for image, label in zip(drawn.images, drawn.labels.tolist(), strict=True):
        means.add(CONFOUNDED_CLASSES[label], view(image))
    return difference_of(means, CONFOUNDED_CLASSES[1], CONFOUNDED_CLASSES[0])


def _pixels(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"), np.int64)


def test_a_planted_border_is_seen_at_the_border() -> None:
    found = _difference("border")
    levels = np.abs(found.gray_levels)
    frame = np.ones((SIDE, SIDE), bool)
    frame[FRAME:-FRAME, FRAME:-FRAME] = False
    assert levels[frame].mean() > 2 * levels[~frame].mean()
    assert found.gray_levels[:FRAME].mean() > 30  # brighter in class 1, beside the dark background at the top
    assert abs(found.gray_levels[FRAME + 2 : 2 * FRAME + 2].mean()) < 10
    assert found.place.endswith(("edge", "corner"))


def test_a_shortcut_that_is_no_gray_level_shows_no_border() -> None:
    levels = np.abs(_difference("noise").gray_levels)
    assert levels[:FRAME].mean() < levels.mean()


def test_a_planted_marker_is_found_in_its_corner() -> None:
    found = _difference("marker")
    assert found.place == "top left corner"
    assert found.gray_levels[found.peak] > 50
    scale = common_scale([found])
    assert np.abs(found.gray_levels).max() <= scale <= np.abs(found.gray_levels).max() + 4
    red, _, blue = _pixels(difference_png(found.gray_levels, scale))[found.peak]
    assert red > blue
    red, _, blue = _pixels(difference_png(-found.gray_levels, scale))[found.peak]
    assert blue > red


def test_counts_means_and_the_rest() -> None:
    means = MeanImages()
    for label, gray in (("a", 10), ("a", 30), ("b", 100), ("c", 40)):
        means.add(label, np.full((SIDE, SIDE), gray, np.uint8))
    pair = difference_of(means, "a", "b")
    assert pair.counts == (2, 1)
    assert (pair.gray_levels == -80).all()
    rest = difference_of(means, "a", REST)
    assert rest.counts == (2, 2)
    assert (rest.gray_levels == -50).all()
    assert (_pixels(mean_png(rest.means[1])) == 70).all()


@pytest.mark.parametrize(("value", "color"), [(0, (247, 247, 247)), (40, (166, 77, 0)), (-99, (0, 68, 136))])
def test_the_ends_and_the_middle_of_the_colors(value: float, color: tuple[int, int, int]) -> None:
    assert (_pixels(difference_png(np.full((4, 4), value), 40.0)) == color).all()


def test_the_scale_is_common_and_never_tiny() -> None:
    flat = Difference("a", "b", (1, 1), np.zeros((2, SIDE, SIDE)))
    far = Difference("a", "b", (1, 1), np.stack([np.full((SIDE, SIDE), 30.5), np.zeros((SIDE, SIDE))]))
    assert common_scale([flat]) == 8
    assert common_scale([flat, far]) == 32


@pytest.mark.parametrize(("row", "column", "place"), [
    (1, 1, "top left corner"), (126, 64, "bottom edge"), (64, 126, "right edge"), (64, 64, "middle"),
])  # fmt: skip
def test_places_in_words(row: int, column: int, place: str) -> None:
    means = np.zeros((2, SIDE, SIDE))
    means[0, row - 1 : row + 2, column - 1 : column + 2] = 50
    assert Difference("a", "b", (1, 1), means).place == place


@pytest.mark.parametrize("shape", [(1, 1), (40, 90), (500, 300)])
def test_views_are_squares(shape: tuple[int, int]) -> None:
    assert view(np.full(shape, 7, np.uint8)).shape == (SIDE, SIDE)
    assert (view(np.full(shape, 7, np.uint8)) == 7).all()
