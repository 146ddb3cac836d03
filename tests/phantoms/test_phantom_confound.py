"""Planted confounds: tied to the class as strongly as asked, and nothing but what they say."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hilum.errors import ConfigError, OutputError
from hilum.phantoms.chest import METADATA_COLUMNS, draw_phantom
from hilum.phantoms.confound import (
    CONFOUNDED_CLASSES,
    CONFOUNDS,
    Confound,
    confounded_phantoms,
    draw_presence,
    plan_patients,
    plant,
    write_confounded,
)

SIZE = 64


def _plant(kind: Confound, present: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    phantom = draw_phantom(seed, "Normal", size=SIZE)
    image, (lungs,) = plant(phantom.image, [phantom.lung_mask], kind, present, np.random.default_rng(seed))
    return image, lungs, phantom.image


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_presence_tells_the_class_as_strongly_as_asked(strength: float) -> None:
    labels = np.arange(40_000) % 2
    present = draw_presence(labels, strength, np.random.default_rng(0))
    assert roc_auc_score(labels, present) == pytest.approx(0.5 + strength / 2, abs=0.01)
    assert present.mean() == pytest.approx(0.5, abs=0.01)


def test_patients_have_one_class_and_one_to_three_images() -> None:
    labels, patients = plan_patients(500, np.random.default_rng(1))
    images = np.bincount(patients)
    assert set(images[:-1]) == {1, 2, 3}
    assert all(np.unique(labels[patients == patient]).size == 1 for patient in np.unique(patients))
    assert 0.4 < labels.mean() < 0.6


@pytest.mark.parametrize("kind", sorted(set(CONFOUNDS) - {"scale"}))
def test_an_image_without_the_confound_is_untouched(kind: Confound) -> None:
    image, _, before = _plant(kind, present=False)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("kind", ["marker", "border"])
@pytest.mark.parametrize("seed", range(5))
def test_marker_and_border_leave_the_lungs_alone(kind: Confound, seed: int) -> None:
    image, lungs, before = _plant(kind, present=True, seed=seed)
    np.testing.assert_array_equal(image[lungs], before[lungs])
    changed = image != before
    width = 8 if kind == "marker" else 3
    assert changed.any()
    assert not changed[width:-width, width:-width].any()


def test_noise_has_its_own_variance_and_resolution_has_less_detail() -> None:
    gray = np.full((SIZE, SIZE), 128, np.uint8)
    nothing = np.zeros((SIZE, SIZE), bool)
    noisy, _ = plant(gray, [nothing], "noise", True, np.random.default_rng(0))
    assert 6.5 < noisy.astype(float).std() < 9.5
    image, _, before = _plant("resolution", present=True)
    sharp, blurred = (np.abs(cv2.Laplacian(radiograph, cv2.CV_32F)).mean() for radiograph in (before, image))
    assert blurred < 0.4 * sharp


def test_the_scale_moves_chest_and_mask_together() -> None:
    phantom = draw_phantom(3, "COVID", size=SIZE)
    masks = [phantom.lung_mask, phantom.region_mask]
    small, (lungs, region) = plant(phantom.image, masks, "scale", True, np.random.default_rng(0))
    assert 0.78**2 * 0.95 < lungs.sum() / phantom.lung_mask.sum() < 0.85**2 * 1.05
    assert region.any()
    assert small[lungs].mean() == pytest.approx(phantom.image[phantom.lung_mask].mean(), abs=4)
    _, (near,) = plant(phantom.image, masks[:1], "scale", False, np.random.default_rng(0))
    assert near.sum() > 1.15 * lungs.sum()


@pytest.mark.parametrize("kind", CONFOUNDS)
def test_the_same_arguments_give_the_same_images(kind: Confound) -> None:
    one, two = (confounded_phantoms(6, kind, 1.0, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.present, one.labels == 1)
    assert one.images.shape == one.lungs.shape == one.regions.shape == (6, SIZE, SIZE)
    other = confounded_phantoms(6, kind, 1.0, seed=5)
    assert not set(one.groups) & set(other.groups)


def test_the_folder_holds_what_was_drawn(tmp_path: Path) -> None:
    table = write_confounded(tmp_path / "out", 8, "marker", 0.6, seed=2, size=SIZE)
    images = confounded_phantoms(8, "marker", 0.6, seed=2, size=SIZE)
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [*METADATA_COLUMNS, "confound"]
    for row, cells in enumerate(rows):
        image, mask = (cv2.imread(str(table.parent / cells[key]), cv2.IMREAD_UNCHANGED) for key in ("image", "mask"))
        np.testing.assert_array_equal(image, images.images[row])
        np.testing.assert_array_equal(mask, images.lungs[row] * 255)
        assert cells["label"] == CONFOUNDED_CLASSES[images.labels[row]]
        assert cells["group"] == images.groups[row]
        assert bool(cells["confound"]) == images.present[row]
    with pytest.raises(OutputError):
        write_confounded(table.parent, 8, "marker", 0.6)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="strength"):
        confounded_phantoms(4, "marker", 1.5, 0)
    with pytest.raises(ConfigError):
        confounded_phantoms(1, "marker", 0.5, 0)
    with pytest.raises(ConfigError):
        confounded_phantoms(4, "sex", 0.5, 0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        plant(np.zeros((64, 64), np.uint8), [np.zeros((64, 64), bool)], "sex", True, np.random.default_rng(0))  # type: ignore[arg-type]
