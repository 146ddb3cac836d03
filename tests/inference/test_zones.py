"""Where in the lungs the evidence is, on masks whose lungs are known and on phantoms whose opacities are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from hilum.backends.base import BackendOutput
from hilum.bundle.bundle import Bundle, Manifest
from hilum.config import ModelConfig, PreprocessSpec
from hilum.gate import NoGate, OrientationFix, Verdict
from hilum.inference.predictor import Predictor, Ready
from hilum.inference.result import Prediction
from hilum.inference.zones import (
    OUTSIDE,
    SIDES,
    ZONES,
    Lungs,
    Mask,
    brief,
    evidence_zones,
    in_words,
    split_lungs,
    summary,
    zone_numbers,
)
from hilum.phantoms.chest import draw_phantom
from hilum.types import Radiograph

H, W = 60, 100
RIGHT, LEFT = (slice(6, 54), slice(10, 40)), (slice(12, 54), slice(58, 90))  # the patient's; rows, columns


def zone_masks(mask: Mask) -> dict[str, Mask]:
    numbers = zone_numbers(mask)
    return {name: numbers == number for number, name in enumerate(ZONES, 1)}


def mask_of(*boxes: tuple[slice, slice]) -> Mask:
    mask = np.zeros((H, W), np.bool_)
    for box in boxes:
        mask[box] = True
    return mask


def check(lungs: Lungs, right: Mask, left: Mask) -> None:
    np.testing.assert_array_equal(lungs.right, right)
    np.testing.assert_array_equal(lungs.left, left)


# Right and left


def test_the_patients_left_is_at_the_right_of_the_image() -> None:
    mask = mask_of(RIGHT, LEFT)
    check(split_lungs(mask), mask_of(RIGHT), mask_of(LEFT))
    check(split_lungs(mask, patient_left="left"), mask_of(LEFT), mask_of(RIGHT))


def test_lungs_that_touch_are_split_where_they_are_narrowest() -> None:
    bridge = slice(20, 24), slice(40, 58)
    mask = mask_of(RIGHT, LEFT, bridge)
    mask[20, 46] = False  # the narrowest column of the bridge
    lungs = split_lungs(mask)
    check(lungs, mask & (np.arange(W) < 46), mask & (np.arange(W) >= 46))


@pytest.mark.parametrize(("box", "side"), [(RIGHT, "right"), (LEFT, "left")])
def test_a_single_lung_is_on_its_side_of_the_image(box: tuple[slice, slice], side: str) -> None:
    lungs = split_lungs(mask_of(box))
    assert getattr(lungs, side).sum() == mask_of(box).sum()
    assert lungs.right.sum() + lungs.left.sum() == mask_of(box).sum()


def test_a_single_lung_in_two_parts_is_one_lung() -> None:
    upper, lower = (slice(6, 26), slice(12, 36)), (slice(30, 54), slice(10, 44))
    check(split_lungs(mask_of(upper, lower)), mask_of(upper, lower), mask_of())


def test_lungs_beside_the_middle_of_the_image_are_two_lungs() -> None:
    right, left = (slice(6, 54), slice(2, 22)), (slice(6, 54), slice(28, 48))  # both in the image's left half
    check(split_lungs(mask_of(right, left)), mask_of(right), mask_of(left))


def test_a_lung_in_parts_beside_another_lung() -> None:
    upper, lower = (slice(6, 26), slice(12, 36)), (slice(30, 54), slice(10, 40))
    check(split_lungs(mask_of(upper, lower, LEFT)), mask_of(upper, lower), mask_of(LEFT))


def test_specks_belong_to_a_side_and_to_no_zone() -> None:
    speck = slice(0, 3), slice(95, 98)
    mask = mask_of(RIGHT, LEFT, speck)
    check(split_lungs(mask), mask_of(RIGHT), mask_of(LEFT, speck))
    zones = zone_masks(mask)
    assert not any((zone & mask_of(speck)).any() for zone in zones.values())
    assert np.flatnonzero(zones["left_upper"].any(axis=1))[0] == LEFT[0].start  # the speck does not stretch the lung


def test_an_empty_mask_has_no_lungs() -> None:
    check(split_lungs(mask_of()), mask_of(), mask_of())
    assert not any(zone.any() for zone in zone_masks(mask_of()).values())
    assert evidence_zones(mask_of(), np.ones((6, 10), np.float32)) == {**dict.fromkeys(ZONES, 0.0), OUTSIDE: 1.0}


@pytest.mark.parametrize("seed", range(8))
def test_the_lungs_of_phantoms(seed: int) -> None:
    mask = draw_phantom(seed, "Normal", size=128).lung_mask
    lungs = split_lungs(mask)
    np.testing.assert_array_equal(lungs.right | lungs.left, mask)
    assert not (lungs.right & lungs.left).any()
    assert all(0.3 < lung.sum() / mask.sum() < 0.7 for lung in lungs)
    columns = [np.flatnonzero(lung.any(axis=0)).mean() for lung in lungs]
    assert columns[0] < 64 < columns[1]
    mirrored = split_lungs(np.ascontiguousarray(mask[:, ::-1]), patient_left="left")
    for lung, other in zip(lungs, mirrored, strict=True):
        np.testing.assert_array_equal(lung, other[:, ::-1])


# Thirds


def test_zones_are_the_thirds_of_each_lungs_own_height() -> None:
    mask = mask_of(RIGHT, LEFT)
    zones = zone_masks(mask)
    np.testing.assert_array_equal(sum(zone.astype(int) for zone in zones.values()), mask)
    rows = {name: np.flatnonzero(zone.any(axis=1)) for name, zone in zones.items()}
    assert {name: (int(own[0]), int(own[-1]) + 1) for name, own in rows.items()} == {
        "right_upper": (6, 22), "right_middle": (22, 38), "right_lower": (38, 54),
        "left_upper": (12, 26), "left_middle": (26, 40), "left_lower": (40, 54),
    }  # fmt: skip


# Shares of the evidence


def evidence_at(**cells: float) -> NDArray[np.float32]:
    """(6, 10) cells of 10 x 10 pixels; ``r2c3=1.5`` is a contribution in row 2 and column 3."""
    evidence = np.zeros((6, 10), np.float32)
    for place, value in cells.items():
        evidence[int(place[1]), int(place[3])] = value
    return evidence


def test_a_cell_counts_for_the_zones_in_it_by_their_area() -> None:
    mask = mask_of(RIGHT, LEFT)
    # rows 20 to 30 of the right lung: 2 rows of its upper third, 8 of its middle one
    assert evidence_zones(mask, evidence_at(r2c2=2.0)) == pytest.approx(
        {**dict.fromkeys(ZONES, 0.0), "right_upper": 0.2, "right_middle": 0.8, OUTSIDE: 0.0}
    )
    both = evidence_zones(mask, evidence_at(r2c2=2.0, r5c8=6.0))
    assert both is not None
    assert both["left_lower"] == pytest.approx(0.75)


def test_a_cell_at_the_edge_of_a_lung_is_lung_and_one_without_lung_is_outside() -> None:
    shares = evidence_zones(mask_of(RIGHT, LEFT), evidence_at(r2c5=1.0, r0c0=1.0, r2c4=2.0))  # column 5: from 58 on
    assert shares is not None
    assert shares[OUTSIDE] == pytest.approx(0.75)  # columns 40 to 50 hold no lung, nor does the corner
    assert shares["left_upper"] + shares["left_middle"] == pytest.approx(0.25)


def test_evidence_against_does_not_count_and_little_evidence_has_no_zones() -> None:
    mask = mask_of(RIGHT, LEFT)
    only = evidence_zones(mask, evidence_at(r1c2=1.0))
    assert evidence_zones(mask, evidence_at(r1c2=1.0, r4c7=-5.0)) == only
    assert evidence_zones(mask, evidence_at(r1c2=0.09, r4c7=-5.0)) is None


@pytest.mark.parametrize("label", ["COVID", "Lung_Opacity", "Viral Pneumonia"])
@pytest.mark.parametrize("seed", range(4))
def test_evidence_at_the_opacities_of_a_phantom_is_in_their_zones(seed: int, label: str) -> None:
    phantom = draw_phantom(seed, label, size=128)
    opacity = phantom.region_mask & phantom.lung_mask
    cells = opacity.reshape(16, 8, 16, 8).mean((1, 3)).astype(np.float32)
    shares = evidence_zones(phantom.lung_mask, cells)
    assert shares is not None
    for name, zone in zone_masks(phantom.lung_mask).items():
        assert shares[name] == pytest.approx((opacity & zone).sum() / opacity.sum(), abs=0.02)
    assert shares[OUTSIDE] == pytest.approx(0, abs=1e-9)
    assert sum(shares.values()) == pytest.approx(1)


# Words


def test_words_name_the_largest_zones_the_others_and_what_is_outside() -> None:
    shares = dict(zip((*ZONES, OUTSIDE), (0.02, 0.25, 0.0, 0.03, 0.0, 0.62, 0.08), strict=True))
    words = "62% left lower zone, 25% right middle zone, 5% other zones, 8% outside the lungs"
    assert in_words(shares) == words
    assert summary("COVID", shares) == f"Evidence for COVID: {words}"
    assert brief(shares) == "62% left lower, 25% right middle"
    assert summary("COVID", None).startswith("No evidence for COVID")
    alone = {**dict.fromkeys(ZONES, 0.0), OUTSIDE: 1.0}
    assert (in_words(alone), brief(alone)) == ("100% outside the lungs", "100% outside lungs")


# In a prediction


class Marked:
    """Lungs as in mask_of(RIGHT, LEFT), and evidence for the second class in one cell."""

    def run(self, images: NDArray[np.float32]) -> BackendOutput:
        lung = np.zeros((len(images), 1, 64, 64), np.float32)
        lung[:, 0, 8:56, 8:26] = lung[:, 0, 8:56, 38:56] = 1
        evidence = np.zeros((len(images), 2, 8, 8), np.float32)
        evidence[:, 1, 6, 6] = 3  # at the lower right of the image
        return BackendOutput(lung, np.tile(np.array([[0, 3]], np.float32), (len(images), 1)), evidence)


@pytest.fixture
def predictor() -> Predictor:
    manifest = Manifest(
        name="marked", class_names=("A", "B"), preprocess=PreprocessSpec(size=64), model=ModelConfig(),
        outputs={"segmentation": "", "classification": "", "evidence": ""},
    )  # fmt: skip
    return Predictor(Bundle(manifest, {}, None), backend=Marked(), gate=NoGate())  # type: ignore[arg-type]


@pytest.mark.parametrize(("shape", "side"), [((64, 64), "left"), ((200, 160), "left")])
def test_a_prediction_says_where_the_evidence_is(predictor: Predictor, shape: tuple[int, int], side: str) -> None:
    result = predictor.predict(Radiograph(np.zeros(shape, np.uint8)))
    assert isinstance(result, Prediction)
    assert result.evidence_zones is not None
    assert result.evidence_zones[f"{side}_lower"] == 1
    assert result.to_dict()["evidence_zones"] == dict(result.evidence_zones)
    assert result.to_dict()["evidence_summary"] == result.evidence_summary == "Evidence for B: 100% left lower zone"
    declared = predictor.predict(Radiograph(np.zeros(shape, np.uint8), patient_left="left"))
    assert declared.evidence_zones == {**dict.fromkeys((*ZONES, OUTSIDE), 0.0), "right_lower": 1.0}
    assert replace(result, evidence=None).evidence_summary is None
    assert SIDES == ("right", "left")


def test_zones_are_those_of_the_corrected_image(predictor: Predictor) -> None:
    image = Radiograph(np.zeros((64, 64), np.uint8), patient_left="left")
    for turn in (1, 2):
        fix = OrientationFix(turn)
        ready = predictor.prepare(image)
        assert isinstance(ready, Ready)
        (result,) = predictor.answer([ready._replace(orientation_fix=fix, verdict=Verdict("accepted"))])
        assert result.evidence_zones is not None
        assert result.evidence_zones["left_lower"] == 1
