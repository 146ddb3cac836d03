"""Maps whose measures are known: against closed forms, scikit-learn, PyTorch and loops over pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from score_making import scores_of, wilson_of
from sklearn.metrics import f1_score, jaccard_score
from torch.nn import functional

from hilum.backends.base import BackendOutput
from hilum.config import PreprocessSpec
from hilum.errors import DataError
from hilum.evaluation.localization import (
    DONORS,
    EVIDENCE,
    GRAD_CAM,
    OTHER,
    PREDICTED,
    PREDICTED_CAM,
    PRIOR,
    RANDOM,
    drawn,
    enlarged,
    localization_result,
    localize,
    measures_of,
    random_in_lung,
    target_of,
)
from hilum.evaluation.localization_table import MEASURES, LocalizationRow, LocalizationTable
from hilum.evaluation.location_prior import location_priors
from hilum.imaging.preprocess import placement
from hilum.metrics.scores import Scores
from hilum.phantoms.chest import draw_phantom
from hilum.types import Record

SPEC = PreprocessSpec(size=64)
CLASSES = ("COVID", "Normal")


class _Engine:
    """A backend that answers with given maps, (N, K, h, w), in the order in which images come."""

    def __init__(self, evidence: NDArray[np.float32] | None) -> None:
        self._evidence, self._at = evidence, 0

    def run(self, images: NDArray[np.float32]) -> BackendOutput:
        n, start = len(images), self._at
        self._at += n
        own = None if self._evidence is None else self._evidence[start : self._at]
        return BackendOutput(np.zeros((n, 1, 64, 64), np.float32), np.zeros((n, 2), np.float32), own)


def _scores(labels: Sequence[int], predicted: Sequence[int] | None = None, groups: Sequence[str] = ()) -> Scores:
    chances = np.eye(2)[list(labels if predicted is None else predicted)]
    return scores_of(labels, chances, class_names=CLASSES, groups=tuple(groups) or ("",) * len(labels))


def _mask(top: int, bottom: int, left: int, right: int, size: int = 64) -> NDArray[np.bool_]:
    mask = np.zeros((size, size), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def _target(record: Record) -> NDArray[np.bool_]:
    target = target_of(record, SPEC)
    assert target is not None
    return target


def _write(path: Path, pixels: NDArray[np.generic]) -> Path:
    scaled = np.asarray(pixels * 255 if pixels.dtype == np.bool_ else pixels, np.uint8)
    assert cv2.imwrite(str(path), scaled)
    return path


def _row(
    image: int, method: str, hit: float, *, group: str = "", kind: str = "region", rest: float = 0.5
) -> LocalizationRow:
    return LocalizationRow(f"{image}.png", group or f"{image}.png", "COVID", kind, method, hit, rest, rest, rest, rest)


def test_measures_in_closed_form() -> None:
    target, lung = _mask(0, 4, 0, 4, 8), _mask(0, 8, 0, 4, 8)
    saliency = np.zeros((8, 8), np.float32)
    saliency[0, 0], saliency[7, 0], saliency[7, 7], saliency[3, 3] = 4, 2, 1, -50
    # At half of the peak the region is two pixels, one of them in the target of 16; 4 of 7 in it, 6 of 7 in the lung.
    # Of the 16 highest pixels only three are above 0.
    expected = {"hit": 1, "dice": 2 * 1 / (2 + 16), "iou": 1 / 17, "energy": 4 / 7, "inside_lung": 6 / 7}
    expected["iou_area"] = 1 / (3 + 16 - 1)
    assert measures_of(saliency, target, lung) == pytest.approx(expected)
    assert set(expected) == set(MEASURES)


@pytest.mark.parametrize("seed", range(5))
def test_measures_against_a_loop_and_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    saliency = random.normal(size=(16, 16)).astype(np.float32)
    target, lung = random.random((16, 16)) < 0.3, random.random((16, 16)) < 0.5
    peak, total, in_target, in_lung, at = 0.0, 0.0, 0.0, 0.0, (0, 0)
    for row in range(16):
        for column in range(16):
            value = max(float(saliency[row, column]), 0.0)
            if value > peak:
                peak, at = value, (row, column)
            total += value
            in_target += value * target[row, column]
            in_lung += value * lung[row, column]
    region = saliency >= peak / 2
    highest = np.zeros(256, bool)
    highest[np.argsort(-saliency.ravel())[: target.sum()]] = True  # no two are equal
    expected = {
        "iou_area": jaccard_score(target.ravel(), highest),
        "hit": float(target[at]),
        "dice": f1_score(target.ravel(), region.ravel()),
        "iou": jaccard_score(target.ravel(), region.ravel()),
        "energy": in_target / total,
        "inside_lung": in_lung / total,
    }
    assert measures_of(saliency, target, lung) == pytest.approx(expected, rel=1e-5)


def test_of_equal_maxima_the_share_in_the_target_counts() -> None:
    saliency = np.zeros((8, 8), np.float32)
    saliency[0, :] = 1
    found = measures_of(saliency, _mask(0, 1, 0, 2, 8), _mask(0, 8, 0, 8, 8))
    assert found["hit"] == 0.25
    assert found["iou_area"] == pytest.approx(0.5 / 3.5)  # two of eight equal pixels, of which two are in the target


def test_a_map_without_a_positive_value_misses() -> None:
    target = _mask(0, 4, 0, 4, 8)
    for saliency in (np.zeros((8, 8), np.float32), np.full((8, 8), -1, np.float32)):
        found = measures_of(saliency, target, target)
        assert math.isnan(found.pop("inside_lung"))
        assert found == {"hit": 0, "energy": 0, "iou_area": 0, "dice": 0, "iou": 0}


def test_enlarging_rectifies_first_and_is_that_of_pytorch() -> None:
    saliency = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    coarse = torch.relu(torch.from_numpy(saliency))[None, None]
    expected = functional.interpolate(coarse, size=(64, 64), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(enlarged(saliency, 64), expected.numpy(), atol=1e-5)


def test_random_in_lung_is_the_chance_of_a_point_drawn_in_the_lung() -> None:
    lung, target = _mask(0, 10, 0, 10, 32), _mask(5, 25, 0, 6, 32)  # areas 100 and 120, 30 in common
    found = random_in_lung(target, lung)
    assert math.isnan(found.pop("inside_lung"))
    expected = {"hit": 0.3, "dice": 60 / 220, "iou": 30 / 190, "energy": 0.3}
    expected["iou_area"] = 30 / 190  # the target is larger than the lung
    assert found == pytest.approx(expected)
    rows, columns = np.nonzero(lung)
    point = np.random.default_rng(0).integers(len(rows), size=20_000)
    assert target[rows[point], columns[point]].mean() == pytest.approx(0.3, abs=0.015)
    assert all(math.isnan(value) for value in random_in_lung(target, np.zeros_like(lung)).values())


def test_boxes_are_drawn_as_their_union_with_x_along_the_width() -> None:
    boxes = ((0.5, 0.0, 0.25, 0.5), (0.6, 0.1, 0.3, 0.2))
    mask = drawn(boxes, (20, 40))
    for row in range(20):
        for column in range(40):
            x, y = (column + 0.5) / 40, (row + 0.5) / 20
            assert mask[row, column] == any(a <= x < a + w and b <= y < b + h for a, b, w, h in boxes)
    assert np.argwhere(drawn(((0.999, 0.999, 0.001, 0.001),), (20, 40))).tolist() == [[19, 39]]
    assert drawn(((0.0, 0.0, 1.0, 1.0),), (20, 40)).all()


def test_targets_lie_where_the_image_lies_in_the_square(tmp_path: Path) -> None:
    image = _write(tmp_path / "image.png", np.full((100, 200), 90, np.uint8))
    top, left, height, width = placement((100, 200), SPEC)
    assert (top, left, height, width) == (16, 0, 32, 64)
    from_boxes = _target(Record(image, boxes=((0.5, 0.0, 0.5, 0.5),)))
    assert np.array_equal(from_boxes, _mask(16, 32, 32, 64))
    region = np.zeros((100, 200), np.bool_)
    region[50:, :100] = True
    record = Record(image, region_path=_write(tmp_path / "region.png", region), boxes=((0.5, 0.0, 0.5, 0.5),))
    from_region = _target(record)
    assert np.array_equal(from_region, _mask(32, 48, 0, 32))  # a region goes before boxes
    assert target_of(Record(image), SPEC) is None


@pytest.fixture
def marked(tmp_path: Path) -> tuple[list[Record], NDArray[np.uint8], NDArray[np.bool_]]:
    """Three phantoms with opacities, one without; their fitted images and lungs."""
    records, images, lungs = [], [], []
    for seed, label in enumerate(("COVID", "COVID", "COVID", "Normal")):
        phantom = draw_phantom(seed, label, size=64)
        image = _write(tmp_path / f"{seed}.png", phantom.image)
        region = _write(tmp_path / f"region-{seed}.png", phantom.region_mask)
        records.append(Record(image, label=label, region_path=region))
        images.append(phantom.image)
        lungs.append(phantom.lung_mask)
    return records, np.stack(images), np.stack(lungs)


def test_a_map_that_is_the_region_finds_all_and_its_opposite_nothing(
    marked: tuple[list[Record], NDArray[np.uint8], NDArray[np.bool_]],
) -> None:
    records, images, lungs = marked
    regions = np.stack([_target(record) for record in records[:3]]).astype(np.float32)
    evidence = np.stack([regions, 1 - regions], axis=1)  # the second class points everywhere else
    scores = _scores([0, 0, 0, 1], predicted=[0, 0, 1, 1], groups=["p", "p", "", ""])
    table = localize(records, images, lungs, scores, SPEC, backend=_Engine(evidence))
    assert table is not None
    own = [row for row in table.rows if row.method == EVIDENCE]
    assert [row.file for row in own] == ["0.png", "1.png", "2.png"]  # the Normal one has an empty region
    assert [row.group for row in own] == ["p", "p", "2.png"]
    assert [(row.hit, row.dice, row.iou, row.energy) for row in own] == [(1, 1, 1, 1)] * 3
    for row, region, lung in zip(own, regions > 0, lungs, strict=False):
        assert row.inside_lung == pytest.approx((region & lung).sum() / region.sum())
    for row, region, lung in zip((r for r in table.rows if r.method == RANDOM), regions > 0, lungs, strict=False):
        assert row.hit == pytest.approx((region & lung).sum() / lung.sum())
    assert [row.hit for row in table.rows if row.method == PREDICTED] == [1, 1, 0]
    assert localization_result(table, resamples=20).headline == PREDICTED


def test_another_image_s_map_is_of_the_same_class_and_of_another_group(
    marked: tuple[list[Record], NDArray[np.uint8], NDArray[np.bool_]],
) -> None:
    records, images, lungs = marked
    regions = np.stack([_target(record) for record in records[:3]]).astype(np.float32)
    scores = _scores([0, 0, 0, 1], groups=["p", "p", "", ""])
    table = localize(records, images, lungs, scores, SPEC, backend=_Engine(np.stack([regions, regions], axis=1)))
    assert table is not None
    own = [row for row in table.rows if row.method == OTHER]
    against = [measures_of(regions[2], region > 0, lung) for region, lung in zip(regions[:2], lungs[:2], strict=True)]
    both = [measures_of(regions[k], regions[2] > 0, lungs[2]) for k in (0, 1)]
    against.append({name: np.mean([one[name] for one in both]) for name in MEASURES})
    for row, expected in zip(own, against, strict=True):
        assert {name: getattr(row, name) for name in MEASURES} == pytest.approx(expected)
    single = localize(records[:1], images[:1], lungs[:1], _scores([0]), SPEC, backend=_Engine(regions[:1, None]))
    assert single is not None
    assert [math.isnan(row.hit) for row in single.rows if row.method in (OTHER, PRIOR)] == [True, True]
    assert DONORS >= 2


def _two_lungs(top: int, left: int, size: int = 64) -> NDArray[np.bool_]:
    return _mask(top, top + 32, left, left + 12, size) | _mask(top, top + 32, left + 20, left + 32, size)


def test_the_location_prior_is_the_mean_of_the_other_images_in_the_frame_of_each_lung() -> None:
    """Targets in the lower half of the right lung, of images whose lungs lie elsewhere."""
    places = [(0, 0), (20, 8), (32, 32), (8, 16)]
    lungs = np.stack([_two_lungs(*place) for place in places])
    targets = np.stack([_mask(top + 16, top + 32, left + 20, left + 32) for top, left in places])
    targets[3] = _mask(8, 40, 16, 28)  # all of the left lung
    maps = location_priors(targets, lungs, ["", "", "", ""])
    assert maps[0] is not None
    expected = np.zeros((64, 64))
    expected[16:32, 20:32] = 2 / 3
    expected[0:32, 0:12] = 1 / 3
    assert np.abs(maps[0] - expected)[~_mask(14, 18, 20, 32)].max() < 1e-6  # but for the edge, by interpolation
    assert measures_of(maps[0], targets[0], lungs[0])["hit"] == 1
    assert maps[3] is not None
    assert measures_of(maps[3], targets[3], lungs[3])["hit"] == 0


def test_the_location_prior_never_sees_its_image_nor_its_group() -> None:
    random = np.random.default_rng(0)
    lungs = np.stack([_two_lungs(*random.integers(0, 32, 2)) for _ in range(6)])
    targets = random.random((6, 64, 64)) < 0.2
    groups = ["a", "a", "b", "", "", "c"]
    changed = targets.copy()
    changed[:2] = ~changed[:2]
    one, other = (location_priors(own, lungs, groups) for own in (targets, changed))
    for row, (before, after) in enumerate(zip(one, other, strict=True)):
        assert before is not None
        assert np.array_equal(before, after) == (row < 2)  # group a, whose targets were changed
        assert not before[~lungs[row]].any()


def test_a_location_prior_needs_lungs_and_another_group() -> None:
    lungs, targets = np.stack([_two_lungs(0, 0)] * 3), np.stack([_mask(0, 8, 0, 8)] * 3)
    assert location_priors(targets, lungs, ["a", "a", "a"]) == [None] * 3
    lungs[1] = False
    first, none, last = location_priors(targets, lungs, ["", "", ""])
    assert none is None
    assert first is not None
    assert np.array_equal(first > 0.5, targets[0])
    assert last is not None
    left = location_priors(targets[:2], np.stack([_two_lungs(0, 0), _mask(0, 32, 0, 12)]), ["", ""])
    assert all(own is not None for own in left)


@pytest.mark.parametrize("reads", [False, True])
def test_evidence_that_knows_where_findings_usually_lie_beats_chance_and_not_the_prior(reads: bool) -> None:
    """A map of the usual place, and one that follows the image, on targets that scatter around this place."""
    random = np.random.default_rng(1)
    lungs = np.stack([_two_lungs(*random.integers(8, 24, 2)) for _ in range(80)])
    rows: list[LocalizationRow] = []
    targets = np.zeros_like(lungs)
    for target, lung in zip(targets, lungs, strict=True):
        top, left = np.argwhere(lung).min(axis=0) + random.integers((6, 17), (23, 26))
        target[top : top + 10, left : left + 8] = True
    priors = location_priors(targets, lungs, [""] * 80)
    for image, (target, lung, prior) in enumerate(zip(targets, lungs, priors, strict=True)):
        assert prior is not None
        usual = np.zeros((64, 64), np.float32)
        top, left = np.argwhere(lung).min(axis=0)
        usual[top + 18, left + 25] = 1
        own = target.astype(np.float32) if reads else usual
        for method, saliency in ((EVIDENCE, own), (PRIOR, prior), (RANDOM, lung.astype(np.float32))):
            measures = measures_of(saliency, target, lung)
            rows.append(LocalizationRow(f"{image}.png", f"{image}", "COVID", "region", method, **measures))
    result = localization_result(LocalizationTable(tuple(rows)), resamples=300)
    less = {each.against: each.difference for each in result.differences if each.measure == "hit"}
    assert less[RANDOM].low > 0.1
    assert (less[PRIOR].low > 0) == reads


def test_only_labeled_images_with_a_target_are_measured(
    marked: tuple[list[Record], NDArray[np.uint8], NDArray[np.bool_]],
) -> None:
    records, images, lungs = marked
    assert localize(records, images, lungs, _scores([-1, -1, -1, 1]), SPEC, backend=_Engine(None)) is None
    bare = [replace(record, region_path=None) for record in records]
    assert localize(bare, images, lungs, _scores([0, 0, 0, 1]), SPEC, backend=_Engine(None)) is None
    bare[1] = replace(bare[1], boxes=((0.25, 0.25, 0.5, 0.5),))
    table = localize(bare, images, lungs, _scores([0, 0, 0, 1]), SPEC, backend=_Engine(None))
    assert table is not None  # without evidence and network, random alone is left
    assert [(row.file, row.kind, row.method) for row in table.rows] == [
        ("1.png", "boxes", PRIOR),
        ("1.png", "boxes", RANDOM),
    ]
    assert localization_result(table, resamples=20).headline is None
    assert table.rows[1].hit == pytest.approx(lungs[1, 16:48, 16:48].sum() / lungs[1].sum())


def test_evidence_and_grad_cam_of_a_linear_head_differ_by_nothing(
    marked: tuple[list[Record], NDArray[np.uint8], NDArray[np.bool_]],
) -> None:
    from hilum.backends.pytorch import PyTorchBackend
    from hilum.config import ModelConfig
    from hilum.models.build import build_model

    records, images, lungs = marked
    torch.manual_seed(1)
    config = ModelConfig(name="encoder-unet", encoder="tf_efficientnet_lite0", pretrained=False)
    network = build_model(config, SPEC, 2).train()
    with torch.no_grad():
        network(torch.rand(4, 1, 64, 64))  # fills the running statistics
    backend = PyTorchBackend(network)
    table = localize(records, images, lungs, _scores([0, 0, 0, 1]), SPEC, backend=backend, network=network)
    assert table is not None
    result = localization_result(table, resamples=50)
    assert list(result.methods) == [PREDICTED, EVIDENCE, PREDICTED_CAM, GRAD_CAM, PRIOR, OTHER, RANDOM]
    equal = [each.difference for each in result.differences if each.against in (GRAD_CAM, PREDICTED_CAM)]
    assert len(equal) >= 2 * (len(MEASURES) - 1)
    assert not [each for each in result.differences if {each.method, each.against} == {PREDICTED, EVIDENCE}]
    assert {each.value for each in equal} == {0.0}
    assert {each.no_interval for each in equal} == {"few_groups"}


def test_means_differences_and_kinds() -> None:
    random = np.random.default_rng(0)
    own, other = random.random((2, 40))
    rows = []
    for image in range(40):
        kind = "region" if image < 25 else "boxes"
        rows += [_row(image, EVIDENCE, own[image], kind=kind), _row(image, RANDOM, other[image], kind=kind)]
    result = localization_result(LocalizationTable(tuple(rows)), resamples=4000)
    assert (result.images, result.kinds) == (40, {"boxes": 15, "region": 25})
    for method, values in ((EVIDENCE, own), (RANDOM, other)):
        assert result.methods[method]["hit"].value == pytest.approx(values.mean())
        assert result.by_kind["region"][method]["hit"].value == pytest.approx(values[:25].mean())
        assert result.by_kind["boxes"][method]["hit"].value == pytest.approx(values[25:].mean())
        assert result.by_kind["boxes"][method]["hit"].n == 15
    (difference,) = [each.difference for each in result.differences if each.measure == "hit"]
    paired = own - other
    reach = 1.96 * paired.std() / math.sqrt(40)  # far from a bound, the percentiles are those of the normal
    assert difference.value == pytest.approx(paired.mean(), abs=1e-5)
    assert difference.low == pytest.approx(paired.mean() - reach, abs=0.02)
    assert difference.high == pytest.approx(paired.mean() + reach, abs=0.02)


def test_the_pointing_game_has_wilsons_interval() -> None:
    rows = [_row(image, PREDICTED, float(image >= 2)) for image in range(20)]  # 18 of 20
    hit = localization_result(LocalizationTable(tuple(rows)), resamples=8000).methods[PREDICTED]["hit"]
    assert (hit.low, hit.high) == pytest.approx(wilson_of(18, 20), abs=0.006)


def test_a_group_counts_once_however_many_images_it_has() -> None:
    hits = np.random.default_rng(0).random(12)
    once = LocalizationTable(tuple(_row(image, EVIDENCE, hits[image], group=f"p{image}") for image in range(12)))
    often = [_row(image, EVIDENCE, hits[image % 12], group=f"p{image % 12}") for image in range(60)]
    a, b = (localization_result(table).methods[EVIDENCE]["hit"] for table in (once, LocalizationTable(tuple(often))))
    assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high))
    assert (a.n, b.n) == (12, 60)


def test_differences_are_over_the_images_on_which_both_are_defined() -> None:
    rows = []
    pairs = [(0.9, 0.5), (math.nan, 0.1), (0.7, 0.5), (0.8, 0.5), (0.7, 0.4), (0.6, 0.3)]
    for image, (own, other) in enumerate(pairs):
        rows += [replace(_row(image, method, 1.0), inside_lung=v) for method, v in ((EVIDENCE, own), (GRAD_CAM, other))]
        rows.append(replace(_row(image, RANDOM, 0.2), inside_lung=math.nan))
    result = localization_result(LocalizationTable(tuple(rows)), resamples=50)
    assert "inside_lung" not in result.methods[RANDOM]  # no image defines it
    assert (result.methods[EVIDENCE]["inside_lung"].n, result.methods[GRAD_CAM]["inside_lung"].n) == (5, 6)
    found = {(each.measure, each.against): each.difference for each in result.differences}
    assert ("inside_lung", RANDOM) not in found
    inside = found["inside_lung", GRAD_CAM]
    assert inside.value == pytest.approx(0.3)  # with the second image on one side alone it would be 0.36
    assert inside.n == 5
    hit = found["hit", GRAD_CAM]
    room = 1 - 0.025 ** (1 / 6)  # no difference in 6 groups does not exclude one either way
    assert (hit.value, hit.low, hit.high) == pytest.approx((0.0, -room, room), abs=1e-6)


def test_a_table_reads_back_to_the_bit_and_gives_the_same_result(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [
        _row(image, method, random.random(), rest=random.random())
        for image in range(6)
        for method in (EVIDENCE, RANDOM)
    ]
    rows[3] = replace(rows[3], inside_lung=math.nan, group="=p", label="'@a")
    table = LocalizationTable(tuple(rows))
    table.write(tmp_path / "localization.csv")
    read = LocalizationTable.read(tmp_path / "localization.csv")
    lines = [line.split(",") for line in (tmp_path / "localization.csv").read_text().splitlines()]
    assert lines[0][-1] == "iou_area"
    (tmp_path / "earlier.csv").write_text("\n".join(",".join(line[:-1]) for line in lines))
    earlier = LocalizationTable.read(tmp_path / "earlier.csv")
    assert [replace(row, iou_area=0.0, inside_lung=0.0) for row in earlier.rows] == [
        replace(row, iou_area=0.0, inside_lung=0.0) for row in read.rows
    ]
    assert "iou_area" not in localization_result(earlier, resamples=50).methods[EVIDENCE]
    for before, after in zip(table.rows, read.rows, strict=True):
        assert astuple(before)[:5] == astuple(after)[:5]
        np.testing.assert_array_equal(astuple(before)[5:], astuple(after)[5:])
    assert localization_result(read, resamples=50) == localization_result(table, resamples=50)
    (tmp_path / "other.csv").write_text("file,group\na,b\n")
    with pytest.raises(DataError):
        LocalizationTable.read(tmp_path / "other.csv")
