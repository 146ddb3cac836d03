from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hilum.config import PreprocessSpec
from hilum.errors import DataError
from hilum.inference.contour import BANDS, LEVELS, evidence_scale, fill_contours, on_gray
from hilum.inference.legend import BACKGROUND, CHOSEN, OUTLINE
from hilum.inference.render import class_evidence, display_shape, draw_overlay, overlay
from hilum.inference.result import Prediction
from hilum.types import Finding, Radiograph

CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
SPEC = PreprocessSpec(size=64)


def prediction(
    shape: tuple[int, int],
    names: Sequence[str] = CLASSES,
    probabilities: Sequence[float] | None = None,
    *,
    mask: NDArray[np.bool_] | None = None,
    evidence: NDArray[np.float32] | None = None,
    findings: tuple[Finding, ...] = (),
) -> Prediction:
    if probabilities is None:
        probabilities = [1 / len(names)] * len(names)
    best = names[int(np.argmax(probabilities))]
    lung = np.zeros(shape, np.bool_) if mask is None else mask
    return Prediction(
        origin="image.png",
        radiograph=Radiograph(np.zeros(shape, np.uint8)),
        class_names=tuple(names),
        probabilities=dict(zip(names, probabilities, strict=True)),
        label=best,
        prediction_set=tuple(names),
        mask=lung,
        evidence=evidence,
        lung_fraction=float(lung.mean()),
        abstained=False,
        bundle_id="0123456789abcdef",
        findings=findings,
    )


def noise(height: int, width: int) -> Radiograph:
    return Radiograph(np.random.default_rng(0).integers(30, 220, (height, width), dtype=np.uint8))


def one_cell(value: float, against: float = 0.0) -> NDArray[np.float32]:
    """Evidence (4, 2, 2) of which one cell speaks for each class and one against it."""
    cells = np.zeros((4, 2, 2), np.float32)
    cells[:, 0, 0], cells[:, 1, 1] = value, against
    return cells


def is_color(image: NDArray[np.uint8], color: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.all(image == np.asarray(color, np.uint8), axis=-1)


def legend_of(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The part of the image that is not the image (drawn height x width at the top left)."""
    if image.shape[0] == height or image.shape[1] > width + 300:
        return image[:, width:]
    return image[height:]


LONG = ["Opacity_of_the_left_lower_zone_with_effusion_and_" * 4 + str(i) for i in range(15)]
NAMES = {
    "three": ["A", "B", "C"],
    "four": list(CLASSES),
    "fifteen long": LONG,
    "no place to break": ["W" * 5000, "i" * 5000, "l"],
    "controls": ["a\nb\tc", "\ud800", "", " "],
    "other scripts": ["肺炎", "Größe", "плеврит", "é" * 300],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize("shape", [(16, 16), (64, 2000), (2000, 64), (1, 1), (128, 100)], ids=str)
def test_the_legend_never_runs_off_the_image_nor_over_the_image(shape: tuple[int, int], names: list[str]) -> None:
    radiograph = noise(*shape)
    warning = Finding("view", "warning", "view position: LL, expected PA or AP " * 9)
    cells = np.ones((len(names), 2, 2), np.float32)
    answer = prediction(shape, names, findings=(warning,), evidence=cells)
    image = overlay(radiograph, answer, evidence=np.ones(shape, np.float32))
    short = prediction(shape, ["A", "B"], evidence=cells)
    bare = overlay(radiograph, short, evidence=np.ones(shape, np.float32))
    height, width = display_shape(shape)
    assert np.array_equal(image[:height, :width], bare[:height, :width])
    legend = legend_of(image, height, width)
    ink = ~is_color(legend, BACKGROUND)
    assert ink.sum() > 2000
    for edge in (ink[:8], ink[-8:], ink[:, :8], ink[:, -8:]):
        assert not edge.any()


def test_the_image_keeps_its_size_and_its_grays() -> None:
    radiograph = noise(600, 530)
    image = overlay(radiograph, prediction((600, 530)))
    assert image.dtype == np.uint8
    assert image.shape[0] == 600
    assert image.shape[1] > 530
    assert np.array_equal(image[:600, :530], np.repeat(radiograph.pixels[:, :, None], 3, axis=2))


SIZES = [
    ((64, 80), 1024, (512, 640)),
    ((2560, 2048), 1024, (1024, 819)),
    ((2560, 2048), 2048, (2048, 1638)),
    ((2000, 1600), 1024, (1000, 800)),
    ((64, 2000), 1024, (32, 1000)),
]


@pytest.mark.parametrize(("shape", "longest", "shown"), SIZES)
def test_small_images_are_enlarged_and_large_ones_reduced(
    shape: tuple[int, int], longest: int, shown: tuple[int, int]
) -> None:
    image = overlay(Radiograph(np.full(shape, 255, np.uint8)), prediction(shape), longest_side=longest)
    white = is_color(image, (255, 255, 255))
    assert white[: shown[0], : shown[1]].all()
    assert not white[:, shown[1] :].any()


@pytest.mark.parametrize("side", [1100, 1450, 1500, 2000, 2100, 4100])
def test_reduced_images_are_averaged(side: int) -> None:
    image = noise(side, side)
    whole = display_shape((side, side))
    height, width = whole
    shown = overlay(image, prediction((side, side)))[:height, :width, 0].astype(np.float64)
    expected = cv2.resize(image.pixels.astype(np.float32), whole, interpolation=cv2.INTER_AREA)
    spread = expected.std() / image.pixels.std()  # what averaging leaves of noise
    assert shown.mean() == pytest.approx(expected.mean(), abs=0.5)
    assert shown.std() / image.pixels.std() == pytest.approx(spread, abs=0.2)
    smooth = cv2.GaussianBlur(image.pixels, (0, 0), 8.0)
    shown = overlay(Radiograph(np.asarray(smooth, np.uint8)), prediction((side, side)))[:height, :width, 0]
    expected = cv2.resize(smooth.astype(np.float32), whole, interpolation=cv2.INTER_AREA)
    assert np.abs(shown - expected).max() < 1.5


def test_evidence_at_the_size_it_is_drawn_at_gives_the_same_drawing() -> None:
    cells = np.zeros((4, 4, 4), np.float32)
    cells[:, 1, 2] = 2.0
    large = prediction((1500, 1500), evidence=cells)
    whole = overlay(noise(1500, 1500), large, evidence=class_evidence(large, (1500, 1500), SPEC))
    drawn = draw_overlay(replace(large, radiograph=noise(1500, 1500), preprocess=SPEC))
    assert drawn.shape == whole.shape
    assert (drawn != whole).any(axis=2).mean() < 0.01


def test_deep_images_are_shown_on_their_declared_scale() -> None:
    deep = Radiograph(np.full((512, 512), 2048, np.uint16), bits_stored=12)
    assert overlay(deep, prediction((512, 512)))[0, 0].tolist() == [128, 128, 128]


def test_the_outline_follows_the_mask_and_leaves_its_inside_free() -> None:
    mask = np.zeros((64, 64), np.bool_)
    mask[16:48, 16:48] = True
    gray = Radiograph(np.full((64, 64), 120, np.uint8))
    image = overlay(gray, prediction(mask.shape, mask=mask))[:512, :512]
    drawn = is_color(image, OUTLINE)
    rows, cols = np.nonzero(drawn)
    for low, high in ((rows.min(), rows.max()), (cols.min(), cols.max())):
        assert low == pytest.approx(128, abs=3)
        assert high == pytest.approx(383, abs=3)
    assert (image[150:360, 150:360] == 120).all()
    assert (image[:112] == 120).all()
    assert is_color(image, (0, 0, 0)).sum() > 4 * 200  # the halo, along all four sides


def test_a_mask_of_one_pixel_and_a_full_mask_are_drawn() -> None:
    for mask in (np.eye(1, 64 * 64, 99).reshape(64, 64) > 0, np.ones((64, 64), np.bool_)):
        image = overlay(noise(64, 64), prediction((64, 64), mask=mask))
        assert is_color(image[:, :512], OUTLINE).any()


def test_evidence_is_filled_by_bands_of_its_peak_and_nothing_below_the_first() -> None:
    shares = (-5.0, *(level + nudge for level in LEVELS for nudge in (-0.05, 0.05)), 1.0)
    evidence = np.repeat(np.array(shares, np.float32), 64)[None].repeat(512, axis=0) * 3
    gray = Radiograph(np.full((512, 512), 100, np.uint8))
    answer = prediction((512, 512), evidence=one_cell(3.0))
    row = overlay(gray, answer, evidence=evidence)[256, :512].reshape(8, 64, 3)
    bands = (0, 0, 1, 1, 2, 2, 3, 3)
    assert [tuple(place) for place in row[:, 32].tolist()] == [on_gray(band, 100) for band in bands]
    assert on_gray(0, 100) == (100, 100, 100)
    for place, color in zip((2, 4, 6), BANDS, strict=True):  # a line where a band begins
        line = np.abs(row.reshape(-1, 3)[place * 64 - 4 : place * 64 + 4].astype(int) - color).sum(axis=1)
        assert line.min() < 30


def test_bands_grow_lighter_and_keep_their_order_without_color() -> None:
    for gray in (0, 90, 180, 255):
        lightness = [np.dot(on_gray(band, gray), (0.2126, 0.7152, 0.0722)) for band in (1, 2, 3)]
        assert lightness[0] + 5 < lightness[1] < lightness[2] - 5
    assert min(abs(sum(on_gray(band, 40)) - sum(on_gray(band, 200))) for band in (1, 2, 3)) > 0.6 * 3 * 160


def test_no_line_is_drawn_along_the_edge_of_the_image() -> None:
    gray = Radiograph(np.full((512, 512), 100, np.uint8))
    image = overlay(gray, prediction((512, 512), evidence=one_cell(1.0)), evidence=np.ones((512, 512), np.float32))
    assert is_color(image[:512, :512], on_gray(3, 100)).all()


@pytest.mark.parametrize("place", [None, (0, 0), (0, 15), (31, 31), (10, 10)])
def test_a_level_that_is_not_reached_or_only_by_a_point_is_no_error(place: tuple[int, int] | None) -> None:
    gray, evidence = np.full((64, 64), 100, np.uint8), np.zeros((32, 32), np.float32)
    if place is not None:
        evidence[place] = 1
    image = fill_contours(gray, evidence, 1.0, 2)
    assert image.shape == (64, 64, 3)
    changed = np.argwhere((image != 100).any(axis=2))
    assert len(changed) > 0 if place == (10, 10) else place is not None or len(changed) == 0
    assert all(np.abs(at - 2 * np.array(place)).max() < 8 for at in changed)


@pytest.mark.parametrize("size", [224, 2500])
def test_contours_of_small_and_large_images_lie_where_the_evidence_is(size: int) -> None:
    evidence = np.zeros((size, size), np.float32)
    evidence[: size // 2] = 1
    gray = Radiograph(np.full((size, size), 100, np.uint8))
    image = overlay(gray, prediction((size, size), evidence=one_cell(1.0)), evidence=evidence)
    shown = min(max(512, size), 1024)
    colored = (image[:shown, :shown].max(axis=2) != image[:shown, :shown].min(axis=2)).mean(axis=1)
    assert (colored[: shown // 2 - 4] == 1).all()
    assert (colored[shown // 2 + 8 :] == 0).all()


def test_the_scale_ends_at_the_peak_and_tells_both_sums() -> None:
    answer = prediction((64, 64), evidence=one_cell(0.75, -0.25))
    scale = evidence_scale(answer, np.full((64, 64), 0.5, np.float32))
    assert scale is not None
    assert (scale.peak, scale.cells, scale.in_favor, scale.against) == (0.5, (2, 2), 0.75, -0.25)


def test_the_legend_shows_the_scale_of_the_image() -> None:
    def legend(peak: float, against: float = 0.0) -> NDArray[np.uint8]:
        answer = prediction((512, 512), evidence=one_cell(1.0, against))
        return overlay(noise(512, 512), answer, evidence=np.full((512, 512), peak, np.float32))[:, 512:]

    assert is_color(legend(1.0), BANDS[-1]).sum() > 10
    assert not np.array_equal(legend(1.0), legend(0.9))
    assert np.array_equal(legend(1.0), legend(1.0))
    assert not np.array_equal(legend(1.0), legend(1.0, against=-0.3))


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.09])
def test_evidence_that_hardly_moves_the_logit_leaves_the_image_as_it_is(value: float) -> None:
    radiograph = noise(512, 512)
    answer = prediction((512, 512), evidence=one_cell(value))
    image = overlay(radiograph, answer, evidence=np.full((512, 512), value, np.float32))
    bare = overlay(radiograph, answer)
    assert np.array_equal(image[:512, :512], bare[:512, :512])
    assert image.shape != bare.shape or not np.array_equal(image, bare)  # the legend says so


def test_bars_are_as_long_as_the_probabilities() -> None:
    def filled(share: float) -> int:
        answer = prediction((512, 512), ["A", "B"], [share, 1 - share])
        return int(is_color(overlay(noise(512, 512), answer)[:, 512:], CHOSEN).sum(axis=1).max())

    assert filled(1.0) > 300
    assert filled(0.6) / filled(1.0) == pytest.approx(0.6, abs=0.01)


def test_a_near_certainty_is_not_shown_as_one() -> None:
    def legend(share: float) -> NDArray[np.uint8]:
        return overlay(noise(512, 512), prediction((512, 512), ["A", "B"], [share, 1 - share]))[:60, 512:]

    assert not np.array_equal(legend(0.99999), legend(1.0))


def test_names_that_differ_in_another_script_look_different() -> None:
    images = [overlay(noise(512, 512), prediction((512, 512), [name, "b"])) for name in ("肺炎", "正常")]
    assert not np.array_equal(*images)


@pytest.mark.parametrize("what", ["mask", "evidence"])
def test_maps_of_another_size_are_refused(what: str) -> None:
    answer = prediction((32, 32) if what == "mask" else (64, 64))
    evidence = np.ones((64, 32), np.float32) if what == "evidence" else None
    with pytest.raises(DataError, match=f"{what} of the image's shape"):
        overlay(noise(64, 64), answer, evidence=evidence)


def test_class_evidence_is_that_of_the_label_on_the_image() -> None:
    cells = np.zeros((4, 8, 8), np.float32)
    cells[2, 1, 7] = 3.0  # the square's upper right
    answer = prediction((64, 32), probabilities=[0.1, 0.1, 0.7, 0.1], evidence=cells)
    restored = class_evidence(answer, (64, 32), SPEC)
    assert restored is not None
    assert restored.shape == (64, 32)
    assert restored.max() == 0  # the image covers columns 2 to 5 of the padded square
    stretched = class_evidence(answer, (64, 32), SPEC.model_copy(update={"fit": "stretch"}))
    assert stretched is not None
    row, column = np.unravel_index(int(stretched.argmax()), stretched.shape)
    assert (row // 8, column // 4) == (1, 7)


def test_evidence_is_shown_on_the_lung_in_its_cell_and_in_cells_without_lung() -> None:
    mask = np.zeros((64, 64), np.bool_)
    mask[10:30, 12:28] = True  # of the 8 x 8 cells of 8 pixels, rows 1 to 3 and columns 1 to 3
    cells = np.zeros((4, 8, 8), np.float32)
    cells[0, 1:4, 1:4] = 2.0
    in_lung = class_evidence(prediction((64, 64), mask=mask, evidence=cells), (64, 64), SPEC)
    assert in_lung is not None
    assert in_lung[~mask].max() == 0
    assert in_lung[16:24, 16:24].min() == 2
    cells[0, 6, 6] = 1.0
    both = class_evidence(prediction((64, 64), mask=mask, evidence=cells), (64, 64), SPEC)
    assert both is not None
    assert np.unravel_index(int(np.where(mask, 0, both).argmax()), both.shape)[0] // 8 == 6
    np.testing.assert_array_equal(both[mask], in_lung[mask])


def test_class_evidence_is_none_where_the_network_gives_none() -> None:
    assert class_evidence(prediction((64, 64)), (64, 64), SPEC) is None
