from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray

from hilum.errors import BundleError
from hilum.export.feature_statistics import fit_reference
from hilum.gate.post_check import AnswerThresholds, FeatureReference, LungShape, distance_readings, lung_readings
from hilum.phantoms.chest import draw_phantom

BOUNDS = AnswerThresholds(lungs_found=0.02, lung_least=0.1, lung_most=0.6, parts=2, symmetry=0.3, border=0.5)


def two_lungs(left: int = 20, right: int = 20, *, height: int = 40, top: int = 30) -> NDArray[np.bool_]:
    lung = np.zeros((100, 100), bool)
    lung[top : top + height, 40 - left : 40] = True
    lung[top : top + height, 60 : 60 + right] = True
    return lung


def failed(lung: NDArray[np.bool_]) -> list[str]:
    return [reading.check for reading in lung_readings(LungShape.of(lung), BOUNDS) if not reading.passed]


def test_the_shape_of_two_rectangles() -> None:
    shape = LungShape.of(two_lungs(20, 10))
    assert shape.share == pytest.approx(0.12)
    assert shape.parts == 2
    assert shape.symmetry == pytest.approx(0.5)
    assert shape.border == 0
    assert LungShape.of(two_lungs(top=60)).border == pytest.approx(40 / 1600**0.5)  # both bottom edges, 20 px each


def test_small_pieces_are_no_parts() -> None:
    lung = two_lungs()
    lung[:4, :5] = True
    assert LungShape.of(lung).parts == 2
    lung[:10, :20] = True
    assert LungShape.of(lung).parts == 3


@pytest.mark.parametrize(
    ("lung", "checks"),
    [
        (two_lungs(), []),
        (np.zeros((100, 100), bool), ["lungs_found", "lung_least", "lung_symmetry"]),
        (two_lungs(6, 6), ["lung_least"]),
        (two_lungs(40, 40, height=90, top=5), ["lung_most", "lung_border"]),
        (two_lungs(30, 5), ["lung_symmetry"]),
        (np.ones((1, 1), bool), ["lung_most", "lung_symmetry", "lung_border"]),
    ],
    ids=["good", "none", "small", "large", "one side", "one pixel"],
)
def test_each_oddity_has_its_check(lung: NDArray[np.bool_], checks: list[str]) -> None:
    assert failed(lung) == checks


def test_only_missing_lungs_refuse() -> None:
    readings = lung_readings(LungShape.of(two_lungs()), BOUNDS)
    assert [reading.check for reading in readings if reading.severity == "error"] == ["lungs_found"]


@pytest.mark.parametrize("seed", range(4))
def test_the_lungs_of_phantoms_pass(seed: int) -> None:
    assert failed(draw_phantom(seed, "Normal", size=128).lung_mask) == []


def test_what_has_no_bound_is_not_measured() -> None:
    assert lung_readings(LungShape.of(two_lungs()), AnswerThresholds()) == ()
    assert distance_readings(9.0, AnswerThresholds()) == ()


def test_far_warns_and_very_far_refuses() -> None:
    bounds = AnswerThresholds(distance_warned=1.5, distance_refused=2.0)
    severities = [
        [reading.severity for reading in distance_readings(distance, bounds) if not reading.passed]
        for distance in (1.5, 1.8, 2.1)
    ]
    assert severities == [[], ["warning"], ["error", "warning"]]


def test_the_distance_is_that_of_mahalanobis() -> None:
    random = np.random.default_rng(0)
    mixing = random.normal(size=(6, 6))
    features = (random.normal(size=(20_000, 6)) @ mixing + 3).astype(np.float32)
    reference = fit_reference(features)
    inverse = np.linalg.inv(np.cov(features.T))
    differences = features[:50] - features.mean(axis=0)
    expected = np.sqrt(np.einsum("nf,fg,ng->n", differences, inverse, differences) / 6)
    np.testing.assert_allclose(reference.distance(features[:50]), expected, rtol=0.02)
    assert np.sqrt(np.mean(reference.distance(features) ** 2)) == pytest.approx(1, abs=0.01)


def test_a_feature_that_never_varies_is_no_obstacle() -> None:
    features = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    features[:, 2] = 1.0
    assert np.isfinite(fit_reference(features).distance(features)).all()


def test_a_reference_comes_back_as_it_was_kept() -> None:
    features = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    reference = fit_reference(features)
    back = FeatureReference.read(reference.content())
    np.testing.assert_array_equal(back.distance(features), reference.distance(features))


def _archive(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 damaged",
        _archive(mean=np.zeros(3)),
        _archive(mean=np.zeros(3), whitening=np.zeros((3, 2))),
        _archive(mean=np.array([None, {}], dtype=object), whitening=np.zeros((2, 2))),
    ],
    ids=["empty", "damaged", "half", "other shapes", "objects"],
)
def test_a_damaged_reference_is_a_bundle_error(content: bytes) -> None:
    with pytest.raises(BundleError, match="feature statistics"):
        FeatureReference.read(content)
