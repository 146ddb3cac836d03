"""The region of a class: as much of the lung as was asked for, of the strongest evidence, and how much that holds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hilum.service.page.regions import region_scale


def region(evidence: NDArray[np.float32], lung: NDArray[np.bool_], percent: int) -> NDArray[np.bool_]:
    """The region that the browser draws from the scale."""
    return np.asarray(lung & (evidence >= region_scale(evidence, lung).thresholds[percent]))


@pytest.fixture
def lung() -> NDArray[np.bool_]:
    mask = np.zeros((20, 20), np.bool_)
    mask[:, 10:] = True  # 200 places
    return mask


@pytest.fixture
def ramp() -> NDArray[np.float32]:
    """1 to 400, the lung's places among them: every second run of ten."""
    return np.arange(1, 401, dtype=np.float32).reshape(20, 20)


def test_the_region_covers_what_was_asked_for(ramp: NDArray[np.float32], lung: NDArray[np.bool_]) -> None:
    scale = region_scale(ramp, lung)
    for percent in (0, 1, 20, 50, 100):
        found = region(ramp, lung, percent)
        assert found.sum() == 2 * percent
        assert scale.lung[percent] == pytest.approx(percent / 100)
        assert scale.evidence[percent] == pytest.approx(ramp[found].sum() / ramp.sum())


def test_it_is_the_strongest_part_of_the_lung_and_nothing_outside(
    ramp: NDArray[np.float32], lung: NDArray[np.bool_]
) -> None:
    found = region(ramp, lung, 10)
    assert not found[~lung].any()
    assert ramp[found].min() > ramp[lung & ~found].max()


def test_only_evidence_in_favor_makes_a_region(ramp: NDArray[np.float32], lung: NDArray[np.bool_]) -> None:
    evidence = ramp - 350  # 25 places of the lung are above 0: 391 to 400, 371 to 380 and 5 of the run 351 to 360
    scale = region_scale(evidence, lung)
    positive = int((evidence[lung] > 0).sum())
    assert region(evidence, lung, 100).sum() == positive < 200
    assert scale.lung[100] == pytest.approx(positive / 200)
    assert scale.evidence[100] == pytest.approx(evidence[lung & (evidence > 0)].sum() / evidence[evidence > 0].sum())


def test_equal_places_come_together(lung: NDArray[np.bool_]) -> None:
    flat = np.ones((20, 20), np.float32)
    scale = region_scale(flat, lung)
    assert scale.lung[1] == 1
    assert scale.evidence[1] == pytest.approx(0.5)  # the other half lies beside the lung
    assert region(flat, lung, 1).sum() == 200


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_without_evidence_or_lung_there_is_no_region(value: float, lung: NDArray[np.bool_]) -> None:
    for evidence, mask in ((np.full((20, 20), value, np.float32), lung), (np.ones((20, 20), np.float32), ~lung & lung)):
        scale = region_scale(evidence, mask)
        assert not scale.lung.any()
        assert not scale.evidence.any()
        assert not region(evidence, mask, 100).any()


def test_shares_never_fall_as_the_region_grows(lung: NDArray[np.bool_]) -> None:
    evidence = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    scale = region_scale(evidence, lung)
    assert (np.diff(scale.lung) >= 0).all()
    assert (np.diff(scale.evidence) >= -1e-12).all()
    assert (np.diff(scale.thresholds[1:]) <= 0).all()
