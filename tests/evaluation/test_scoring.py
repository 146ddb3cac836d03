"""Scores through an engine: whose rows are whose, what is measured where, and distances against SciPy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_writing import encode
from PIL import Image
from scipy.ndimage import binary_erosion, distance_transform_edt

from hilum.backends.base import BackendOutput
from hilum.config import PreprocessSpec
from hilum.data.cache import open_cache
from hilum.data.index import Index, build_index
from hilum.errors import DataError
from hilum.evaluation.measure import hausdorff_share, score_records
from hilum.phantoms.chest import draw_phantom

SPEC = PreprocessSpec(size=64)


class Bright:
    """Lung is where the image is dark; the logits are its mean gray and twice that."""

    def run(self, images: np.ndarray) -> BackendOutput:
        mean = images.mean(axis=(1, 2, 3))
        return BackendOutput((1 - images).astype(np.float32), np.stack([mean, 2 * mean, 0 * mean, 0 * mean], 1), None)


@pytest.fixture(scope="module")
def index(phantoms: Path) -> Index:
    return build_index(phantoms)


def test_scores_are_those_of_each_record(index: Index, tmp_path: Path) -> None:
    records = index.records[:11]
    cache = open_cache(records, SPEC, tmp_path)
    seen: list[tuple[int, int]] = []
    names = [index.key(record) for record in records]
    scored = score_records(
        Bright(), cache, records, names, index.class_names, SPEC,
        split="test", temperature=2.0, mask_threshold=0.6, keep_lungs=True, batch_size=4,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    scores = scored.scores
    means = np.asarray(cache.images, np.float64).mean(axis=(1, 2)) / 255
    assert scores.logits is not None
    np.testing.assert_allclose(scores.logits[:, 1], 2 * means, rtol=1e-5)
    exponential = np.exp(scores.logits / 2)
    np.testing.assert_allclose(scores.probabilities, exponential / exponential.sum(axis=1, keepdims=True))
    assert [index.class_names[label] for label in scores.labels] == [record.label for record in records]
    assert scores.files == tuple(names)
    assert seen == [(4, 11), (8, 11), (11, 11)]
    with_mask = np.array([record.mask_path is not None for record in records])
    np.testing.assert_array_equal(scores.masked, with_mask)
    row = int(np.flatnonzero(with_mask)[0])
    reference = cache.masks[cache.mask_row[row]] > 0
    predicted = 1 - cache.images[row] / 255 > 0.6
    assert scores.dice[row] == pytest.approx(2 * (reference & predicted).sum() / (reference.sum() + predicted.sum()))
    assert scored.lungs is not None
    np.testing.assert_array_equal(scored.lungs[row], reference)
    without = int(np.flatnonzero(~with_mask)[0]) if not with_mask.all() else None
    if without is not None:
        np.testing.assert_array_equal(scored.lungs[without], 1 - cache.images[without] / np.float32(255) > 0.6)


def test_a_class_that_the_network_does_not_know_is_refused(index: Index, tmp_path: Path) -> None:
    records = index.records[:3]
    cache = open_cache(records, SPEC, tmp_path)
    with pytest.raises(DataError):
        score_records(Bright(), cache, records, ["x"] * 3, ("a", "b"), SPEC, split="test")


def test_distances_are_left_out_when_not_asked_for(index: Index, tmp_path: Path) -> None:
    records = index.records[:3]
    cache = open_cache(records, SPEC, tmp_path)
    scored = score_records(
        Bright(), cache, records, ["x", "y", "z"], index.class_names, SPEC, split="test", distances=False
    )
    assert scored.scores.hd95_share is None
    assert scored.lungs is None


def test_a_kept_pass_is_used_for_the_same_images_and_masks_alone(index: Index, tmp_path: Path) -> None:
    """Trap: a mask that was corrected before an evaluation was continued was compared as it had been."""

    class Counting(Bright):
        calls = 0

        def run(self, images: np.ndarray) -> BackendOutput:
            self.calls += 1
            return super().run(images)

    record = next(record for record in index.records if record.mask_path is not None)
    assert record.mask_path
    mask = tmp_path / "mask.png"
    mask.write_bytes(record.mask_path.read_bytes())
    records, backend = [replace(record, mask_path=mask)], Counting()

    def dice(threshold: float = 0.5) -> float:
        cache = open_cache(records, SPEC, tmp_path)
        return float(score_records(
            backend, cache, records, ["x"], index.class_names, SPEC,
            split="test", mask_threshold=threshold, kept=tmp_path / "kept.npz",
        ).scores.dice[0])  # fmt: skip

    first = dice()
    assert (dice(), backend.calls) == (first, 1)
    mask.write_bytes(encode(Image.fromarray(np.full((64, 64), 255, np.uint8))))
    second = dice()
    assert (second != first, backend.calls) == (True, 2)
    dice(0.6)
    assert backend.calls == 3


def _surface_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """From every edge pixel of one mask to the nearest edge pixel of the other."""
    edges = [mask & ~binary_erosion(mask) for mask in (one, other)]
    return distance_transform_edt(~edges[1])[edges[0]]


def test_the_distance_is_that_of_the_surfaces_by_the_height_of_the_reference() -> None:
    generator = np.random.default_rng(0)
    masks = np.zeros((2, 6, 48, 48), np.bool_)
    for side in range(2):
        for row in range(6):
            top, left, height, width = generator.integers(4, 20, 4)
            masks[side, row, top : top + height, left : left + width] = True
    found = hausdorff_share(masks[0], masks[1])
    for row in range(6):
        one, other = masks[:, row]
        expected = max(
            np.percentile(_surface_distance(one, other), 95), np.percentile(_surface_distance(other, one), 95)
        )
        assert found[row] == pytest.approx(expected / (np.ptp(np.flatnonzero(other.any(axis=1))) + 1), abs=1e-5)


def test_equal_contours_have_equal_distances_at_every_size() -> None:
    y, x = np.mgrid[:64, :64]
    reference = (np.hypot((y - 30) / 22, (x - 18) / 10) < 1) | (np.hypot((y - 30) / 20, (x - 46) / 9) < 1)
    pair = np.stack([np.roll(reference, 3, axis=0), reference])[:, None]
    small, large = (hausdorff_share(*np.kron(pair, np.ones((1, 1, by, by), np.bool_))) for by in (2, 4))
    assert small == pytest.approx(3 / np.ptp(np.flatnonzero(reference.any(axis=1))), rel=0.05)
    assert large == pytest.approx(small, rel=1e-6)
    drawn = [draw_phantom(5, "Normal", size=size).lung_mask[None] > 0 for size in (128, 224)]
    shifted = [np.roll(mask, mask.shape[1] // 32, axis=1) for mask in drawn]
    small, large = (hausdorff_share(*masks) for masks in zip(shifted, drawn, strict=True))
    assert small > 0.03
    assert large == pytest.approx(small, rel=0.05)


def test_an_empty_mask_is_a_diagonal_away_and_two_agree() -> None:
    masks = np.zeros((3, 30, 40), np.bool_)
    masks[0, 5:9, 5:9] = True
    reference = np.zeros_like(masks)
    reference[1, 5:9, 5:9] = True
    assert hausdorff_share(masks, reference).tolist() == [50 / 30, 50 / 4, 0]
