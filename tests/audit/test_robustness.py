"""The changes against closed forms and SciPy, and networks that are known to break under one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from hilum.audit import robustness as module
from hilum.audit.robustness import CHANGES, RobustnessPoint, change_image, move_mask, robustness, robustness_findings
from hilum.backends.base import BackendOutput, Floats
from hilum.config import PreprocessSpec
from hilum.errors import ConfigError, DataError
from hilum.metrics.bootstrap import Interval
from hilum.phantoms.chest import draw_phantom

SIDE = 32
SPEC = PreprocessSpec(size=SIDE)
MOVING = ("rotation", "scale", "shift")


class Reader:
    """Class b where ``reading`` of the images (N, S, S) in [0, 1] is positive; lung where they are above 0.7."""

    def __init__(self, reading: Callable[[Floats], np.ndarray], lung: np.ndarray | None = None) -> None:
        self.reading, self.lung, self.images = reading, lung, 0

    def run(self, images: Floats) -> BackendOutput:
        self.images += len(images)
        score = np.asarray(self.reading(images[:, 0]), np.float32)
        segmentation = images if self.lung is None else np.broadcast_to(self.lung, images.shape).astype(np.float32)
        return BackendOutput(segmentation, np.stack([-score, score], axis=1), None)


def _texture(images: Floats) -> np.ndarray:
    return np.abs(np.diff(images, axis=2)).mean(axis=(1, 2)) - 4 / 255


def _middle(images: Floats) -> np.ndarray:
    return images[:, 12:20, 12:20].mean(axis=(1, 2)) - 0.5


def _images(labels: np.ndarray) -> np.ndarray:
    """Flat images of class a; those of class b have a texture of 12 gray levels, and are brighter in the middle."""
    images = np.full((labels.size, SIDE, SIDE), 100, np.uint8)
    images[labels == 1] += np.where(np.indices((SIDE, SIDE))[1] % 2, 12, 0).astype(np.uint8)
    images[labels == 1, 8:24, 8:24] += 90
    return images


LABELS = np.tile([0, 1], 30)
KNOWN = {"clusters": np.arange(60), "class_names": ("a", "b"), "spec": SPEC, "resamples": 100, "mask_threshold": 0.7}


def _measure(backend: Reader, labels: np.ndarray = LABELS, **options: object) -> tuple[RobustnessPoint, ...]:
    return robustness(backend, _images(labels), labels, **{**KNOWN, **options})  # type: ignore[arg-type]


def _padded(row: int = 0) -> np.ndarray:
    image = draw_phantom(row, "Normal", size=128).image.clip(1)
    image[:8] = image[120:] = 0
    return image


def test_noise_has_the_standard_deviation_of_its_strength() -> None:
    image = np.full((64, 64), 128, np.uint8)
    for level, sd in enumerate(CHANGES["noise"].strengths[:4], start=1):
        changed = change_image(image, "noise", level).astype(float)
        assert changed.std() == pytest.approx(sd, rel=0.05)
        assert changed.mean() == pytest.approx(128, abs=1.5)
    assert np.array_equal(change_image(image, "noise", 1, 5, 7), change_image(image, "noise", 1, 5, 7))
    assert not np.array_equal(change_image(image, "noise", 1, 5, 7), change_image(image, "noise", 1, 6, 7))
    assert not np.array_equal(change_image(image, "noise", 1, 5, 7), change_image(image, "noise", 1, 5, 8))


def test_blur_is_gaussian_and_counts_pixels_of_a_side_of_256() -> None:
    image = draw_phantom(0, "COVID", size=128).image.clip(1)
    for level, sigma in enumerate(CHANGES["blur"].strengths, start=1):
        expected = ndimage.gaussian_filter(image.astype(float), sigma / 2, mode="mirror", truncate=5)
        assert np.abs(change_image(image, "blur", level) - expected).max() <= 2


@pytest.mark.parametrize("change", ["gamma", "contrast"])
def test_tone_goes_both_ways_by_its_closed_form(change: str) -> None:
    image = draw_phantom(0, "Normal", size=64).image.clip(90, 160).astype(np.uint8)
    gray, ways = image.astype(float), set()
    for row in range(8):
        changed = change_image(image, change, 2, row, 3)
        for power in (1.25, 1 / 1.25):
            toned = 255 * (gray / 255) ** power if change == "gamma" else gray.mean() + power * (gray - gray.mean())
            if np.abs(changed - toned).max() <= 0.51:
                ways.add(power)
                break
        else:
            pytest.fail("neither way")
    assert len(ways) == 2


def test_jpeg_gets_worse_with_its_level() -> None:
    image = draw_phantom(0, "Normal", size=64).image.clip(1)
    errors = [np.abs(change_image(image, "jpeg", level).astype(float) - image).mean() for level in range(1, 6)]
    assert errors == sorted(errors)
    assert 0 < errors[0] < 3 < errors[4]


def test_shift_moves_image_and_mask_by_the_given_share_in_four_directions() -> None:
    image = draw_phantom(0, "Normal", size=40).image.clip(1)
    mask = image > 120
    found = set()
    for row in range(24):
        for by in ((0, 4), (0, -4), (4, 0), (-4, 0)):  # 0.1 of 40 pixels
            if np.array_equal(change_image(image, "shift", 3, row), ndimage.shift(image, by, order=0)):
                assert np.array_equal(move_mask(mask, "shift", 3, row), ndimage.shift(mask, by, order=0))
                found.add(by)
    assert len(found) == 4


def test_rotation_and_scale_move_a_spot_about_the_center() -> None:
    y, x = np.indices((101, 101))
    image = np.round(200 * np.exp(-((x - 80) ** 2 + (y - 50) ** 2) / 50)).astype(np.uint8)  # 30 right of the center
    angles, distances = [], []
    for row in range(8):
        turned = np.subtract(ndimage.center_of_mass(change_image(image, "rotation", 3, row).astype(float)), 50)
        angles.append(round(float(np.degrees(np.arctan2(-turned[0], turned[1]))), 0))
        assert np.hypot(*turned) == pytest.approx(30, abs=0.2)
        scaled = np.subtract(ndimage.center_of_mass(change_image(image, "scale", 3, row).astype(float)), 50)
        distances.append(round(float(scaled[1]), 0))
        moved = ndimage.center_of_mass(move_mask(image > 100, "rotation", 3, row))
        assert np.subtract(moved, 50) == pytest.approx(turned, abs=0.5)
    assert set(angles) == {-12, 12}
    assert set(distances) == {36, 25}


@pytest.mark.parametrize("change", CHANGES)
def test_padding_stays_black_and_the_image_is_not_written_to(change: str) -> None:
    image = _padded()
    image.setflags(write=False)
    assert np.array_equal(change_image(image, change, 0), image)
    for level in range(1, 6):
        changed = change_image(image, change, level)
        assert (changed.shape, changed.dtype) == ((128, 128), np.uint8)
        assert not np.array_equal(changed, image)
        if change not in MOVING:
            assert not changed[:8].any()
            assert not changed[120:].any()
            assert change_image(np.zeros((64, 64), np.uint8), change, level).max() == 0


def test_a_network_that_reads_texture_breaks_under_noise_and_blur() -> None:
    points = _measure(Reader(_texture))
    assert len(points) == 41
    assert (points[0].change, points[0].level, points[0].accuracy.value) == ("intact", 0, 1.0)
    noise = [point for point in points if point.change == "noise"]
    assert [point.strength for point in noise] == [2, 5, 10, 20, 40]
    assert (noise[1].accuracy.value, noise[1].kept.value, noise[1].drop.value) == (0.5, 0.5, 0.5)  # all are called b
    assert noise[1].accuracy.n == 60
    findings = robustness_findings(points)
    assert {one.severity for one in findings} == {"warning"}
    assert any("noise, 5" in one.message for one in findings)
    assert not any("shift" in one.message for one in findings)


def test_a_constant_network_loses_nothing() -> None:
    points = _measure(Reader(lambda images: np.full(len(images), 1.0)))
    assert {point.accuracy.value for point in points} == {0.5}
    assert {point.kept.value for point in points} == {1.0}
    assert {point.drop.value for point in points} == {0.0}
    assert {point.auc.value for point in points} == {0.5}
    (finding,) = robustness_findings(points)
    assert (finding.check, finding.severity) == ("robustness", "info")


def test_only_what_is_surely_lost_to_a_mild_change_is_a_warning() -> None:
    points = _measure(Reader(lambda images: np.full(len(images), 1.0)))

    def verdict(change: str, level: int, low: float) -> str:
        drop = Interval(0.3, low, 0.5, 60)
        lossy = [
            dataclasses.replace(one, drop=drop) if (one.change, one.level) == (change, level) else one for one in points
        ]
        return robustness_findings(tuple(lossy))[0].severity

    assert verdict("jpeg", 2, 0.06) == "warning"
    assert verdict("jpeg", 2, 0.05) == "info"
    assert verdict("jpeg", 2, np.nan) == "info"
    assert verdict("jpeg", 3, 0.06) == "info"


def test_logits_are_divided_by_the_temperature() -> None:
    """Over three classes the temperature changes which of two images has more of a class."""

    class Three(Reader):
        def run(self, images: Floats) -> BackendOutput:
            first, last = images[:, 0, 12, 12], images[:, 0, 0, 0]
            logits = np.stack([10 * first, 0 * first, 10 * last * (1 - first)], axis=1)
            return BackendOutput(images, logits, None)

    radiographs = np.random.default_rng(0).integers(60, 200, (60, SIDE, SIDE)).astype(np.uint8)
    labels = np.tile([0, 1, 2], 20)
    options = {**KNOWN, "class_names": ("a", "b", "c"), "temperature": 5.0}
    (intact, *_) = robustness(Three(_middle), radiographs, labels, **options)  # type: ignore[arg-type]
    logits = Three(_middle).run((radiographs / np.float32(255))[:, None]).classification.astype(float) / 5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert intact.auc.value == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-9)


def test_figures_are_those_of_the_changed_images_scored_one_by_one() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([-1, 0, 1], [10, 20, 30]))
    images = rng.integers(60, 200, (60, SIDE, SIDE)).astype(np.uint8)
    images[labels == 1, 12:20, 12:20] //= 2
    images[labels == 1, 12:20, 12:20] += 70
    backend = Reader(_middle)
    points = robustness(backend, images, labels, **{**KNOWN, "seed": 4, "batch_size": 7})  # type: ignore[arg-type]
    assert backend.images == 50 * 41
    rows = np.flatnonzero(labels >= 0)
    intact = _middle(images[rows] / np.float32(255)) > 0
    for point in points[1:]:
        changed = np.stack([change_image(images[row], point.change, point.level, int(row), 4) for row in rows])
        score = _middle(changed / np.float32(255)).astype(np.float64)
        right = (score > 0) == (labels[rows] == 1)
        assert point.accuracy.value == pytest.approx(right.mean())
        assert point.auc.value == pytest.approx(roc_auc_score(labels[rows], score), abs=0.01)
        assert point.kept.value == pytest.approx(((score > 0) == intact).mean())
        assert point.drop.value == pytest.approx((intact == (labels[rows] == 1)).mean() - right.mean())
        assert point.drop.low <= point.drop.value <= point.drop.high


def test_lungs_are_compared_with_those_of_the_intact_image_moved_alike() -> None:
    following = {(point.change, point.level): point.mask_dice.value for point in _measure(Reader(_middle))}
    lung = np.zeros((SIDE, SIDE))
    lung[8:24, 8:24] = 1
    fixed = {(point.change, point.level): point.mask_dice.value for point in _measure(Reader(_middle, lung))}
    assert following["intact", 0] == fixed["intact", 0] == 1
    # 0.15 of 32 pixels is 4.8, nearest 5: of 16 columns 11 remain in common.
    assert fixed["shift", 4] == pytest.approx(11 / 16)
    assert following["shift", 4] > 0.95
    assert fixed["noise", 5] == 1
    assert following["noise", 5] < 0.95


def test_limit_draws_images_in_the_proportions_of_the_classes() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([-1, 0, 1, 2], [100, 600, 300, 100]))
    rows = module._chosen(labels, 50, 0)
    assert np.bincount(labels[rows]).tolist() == [30, 15, 5]
    assert np.array_equal(rows, np.unique(rows))
    assert not np.array_equal(rows, module._chosen(labels, 50, 1))
    assert np.array_equal(module._chosen(labels, 5000, 0), np.flatnonzero(labels >= 0))
    backend = Reader(_middle)
    calls: list[tuple[int, int]] = []
    points = _measure(backend, limit=20, progress=lambda done, total: calls.append((done, total)))
    assert backend.images == 20 * 41
    assert {point.accuracy.n for point in points} == {20}
    assert calls == [(done, 20 * 41) for done in range(20, 20 * 41 + 1, 20)]


def test_refusals_say_what_came() -> None:
    with pytest.raises(ConfigError):
        _measure(Reader(_middle), limit=0)
    with pytest.raises(DataError):
        _measure(Reader(_middle), np.full(60, -1))
    with pytest.raises(DataError):
        _measure(Reader(_middle), clusters=np.arange(59))
