"""The temperature against scikit-learn, the figures against plain loops, the intervals against the truth."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from score_making import scores_of
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from hilum.bundle.bundle import Manifest, load_bundle, write_bundle
from hilum.bundle.calibration import (
    Calibration,
    calibration_from_json,
    calibration_of,
    calibration_to_json,
    with_calibration,
)
from hilum.bundle.prediction_sets import softmax
from hilum.config import ModelConfig, PreprocessSpec
from hilum.errors import DataError
from hilum.metrics.calibration import calibration_figures, calibration_result, fit_calibration, fit_temperature
from hilum.metrics.conformal import fit_quantiles
from hilum.metrics.scores import Scores
from hilum.metrics.selective import choose_threshold
from hilum.storage import write_json
from hilum.types import CalibratedPer

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def draw(count: int, seed: int = 0, temperature: float = 1.0, classes: int = 4) -> tuple[Floats, Labels]:
    """Logits (N, K) that are ``temperature`` times those of the labels' true chances."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, classes))
    labels = (rng.random((count, 1)) > softmax(logits).cumsum(axis=1)).sum(axis=1)
    return logits * temperature, np.minimum(labels, classes - 1).astype(np.int64)


def make_scores(logits: Floats, labels: Labels, groups: tuple[str, ...] | None = None, **fields: object) -> Scores:
    given = {
        "groups": groups or ("",) * len(labels),
        "split": "val",
        "logits": logits,
        "probabilities": softmax(logits),
    }
    return scores_of(labels, **{**given, **fields})  # type: ignore[arg-type]


# Temperature


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_put_in_comes_out(true: float) -> None:
    logits, labels = draw(20_000, temperature=true)
    assert fit_temperature(logits, labels) == pytest.approx(true, rel=0.03)


@pytest.mark.parametrize("seed", range(2))
def test_no_other_temperature_has_a_lower_log_loss(seed: int) -> None:
    logits, labels = draw(300, seed, temperature=2.0)
    found = fit_temperature(logits, labels)
    losses = {t: log_loss(labels, softmax(logits, t), labels=range(4)) for t in np.geomspace(0.05, 20, 200)}
    assert log_loss(labels, softmax(logits, found), labels=range(4)) <= min(losses.values()) + 1e-9
    assert found == pytest.approx(min(losses, key=losses.__getitem__), rel=0.031)


def test_unknown_labels_take_no_part() -> None:
    logits, labels = draw(200)
    more = np.concatenate([logits, np.full((50, 4), 9.0)])
    assert fit_temperature(more, np.concatenate([labels, np.full(50, -1)])) == fit_temperature(logits, labels)


def test_logits_too_large_for_exp_are_no_matter() -> None:
    logits, labels = draw(500)
    assert fit_temperature(logits * 1000, labels) == pytest.approx(20, rel=1e-3)  # the bound
    figures = calibration_figures(logits * 1000, labels, np.arange(500), resamples=10)
    assert np.isfinite(figures.nll.value)


@pytest.mark.parametrize("labels", [[-1] * 5, [2] * 5, [-1, 1, 1, 1, -1]])
def test_fewer_than_two_classes_are_a_data_error(labels: list[int]) -> None:
    with pytest.raises(DataError):
        fit_temperature(np.zeros((5, 4)), np.array(labels))


# Figures


def test_figures_match_plain_loops() -> None:
    logits, labels = draw(301, seed=3, temperature=2.5)
    figures = calibration_figures(logits, labels, np.arange(301), resamples=100)
    probabilities = softmax(logits)
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(int)
    assert figures.nll.value == pytest.approx(log_loss(labels, probabilities, labels=range(4)))
    brier = [
        sum((p - (k == label)) ** 2 for k, p in enumerate(row))
        for row, label in zip(probabilities, labels, strict=True)
    ]
    assert figures.brier.value == pytest.approx(np.mean(brier))
    order = np.argsort(confidence)
    members = [[i for i in order if b.low <= confidence[i] <= b.high] for b in figures.bins]
    assert list(chain.from_iterable(members)) == order.tolist()  # every image in one bin, in order
    assert len(members) == 15
    assert {len(rows) for rows in members} <= {20, 21}
    gaps = [len(rows) / 301 * abs(right[rows].mean() - confidence[rows].mean()) for rows in members]
    assert figures.ece.value == pytest.approx(sum(gaps))
    for rows, b in zip(members, figures.bins, strict=True):
        assert b.accuracy.value == pytest.approx(right[rows].mean())
        assert b.accuracy.n == len(rows)
        assert b.confidence == pytest.approx(confidence[rows].mean())
    curve = calibration_curve(right, confidence, n_bins=15, strategy="quantile")
    np.testing.assert_allclose([b.accuracy.value for b in figures.bins], curve[0], atol=0.06)  # its edges differ by one
    for interval in (figures.ece, figures.brier, figures.nll):
        assert interval.low <= interval.value <= interval.high
        assert interval.n == 301


@pytest.mark.parametrize("count", [10, 24, 60, 301, 374, 1000])
def test_bins_of_the_diagram_are_those_of_the_ece_merged_to_25_images(count: int) -> None:
    logits, labels = draw(count, seed=3, temperature=2.5)
    figures = calibration_figures(logits, labels, np.arange(count), resamples=20)
    sizes = [b.accuracy.n for b in figures.diagram]
    assert sum(sizes) == sum(b.accuracy.n for b in figures.bins) == count
    assert min(sizes) >= 25 or len(sizes) == 1
    edges = {b.high for b in figures.bins}
    confidence = softmax(logits).max(axis=1)
    right = softmax(logits).argmax(axis=1) == labels
    for b in figures.diagram:
        inside = (confidence >= b.low) & (confidence <= b.high)
        assert b.high in edges
        assert b.accuracy.n == inside.sum()
        assert b.accuracy.value == pytest.approx(right[inside].mean())
        assert b.confidence == pytest.approx(confidence[inside].mean())
    if count == 1000:
        assert figures.diagram == figures.bins


def test_equal_confidences_share_a_bin() -> None:
    confidence = np.repeat([0.6, 0.75, 0.9999], [100, 50, 250])
    logits = np.stack([np.log(confidence), np.log(1 - confidence)], axis=1)
    labels = np.arange(400) % 2
    bins = calibration_figures(logits, labels, np.arange(400), resamples=10).bins
    assert [b.accuracy.n for b in bins] == [100, 50, 250]
    assert [b.confidence for b in bins] == pytest.approx([0.6, 0.75, 0.9999])
    assert [b.low for b in bins] == [b.high for b in bins]


def test_a_sharp_network_that_is_always_right_and_a_uniform_one() -> None:
    labels = np.arange(90) % 3
    sharp = calibration_figures(50.0 * np.eye(3)[labels], labels, np.arange(90), resamples=50)
    assert sharp.ece.value == pytest.approx(0, abs=1e-12)
    assert sharp.brier.value == pytest.approx(0, abs=1e-12)
    flat = calibration_figures(np.zeros((90, 3)), labels, np.arange(90), resamples=50)
    assert flat.nll.value == pytest.approx(np.log(3))
    assert flat.brier.value == pytest.approx(2 / 3)
    assert flat.ece.value == pytest.approx(0, abs=1e-12)  # right in a third, with a third of confidence
    assert len(flat.bins) == 1


@pytest.mark.parametrize("temperature", [1.0, 1.6])
def test_the_interval_of_the_ece_covers_the_truth(temperature: float) -> None:
    """A percentile interval would not hold the 0 of a perfect network once in these 40 draws."""
    logits, labels = draw(100_000, seed=9, temperature=temperature)
    truth, held = 0.0, 0
    if temperature != 1:
        truth = calibration_figures(logits, labels, np.arange(labels.size), resamples=2).ece.value
    for seed in range(40):
        own, wanted = draw(300, seed, temperature)
        ece = calibration_figures(own, wanted, np.arange(300), resamples=100, seed=seed).ece
        held += ece.low <= truth <= ece.high
    assert held >= 37


def test_before_and_after() -> None:
    logits, labels = draw(3000, seed=1, temperature=3.0)
    labels[:100] = -1
    scores = make_scores(logits, labels)
    calibration = fit_calibration(make_scores(*draw(3000, seed=2, temperature=3.0)))
    result = calibration_result(scores, calibration, resamples=100)
    assert result.temperature == calibration.temperature == pytest.approx(3, rel=0.1)
    assert result.after.ece.high < result.before.ece.low
    assert result.after.nll.high < result.before.nll.low
    assert result.after.brier.value < result.before.brier.value
    assert result.before.ece.n == 2900
    divided = logits / calibration.temperature
    assert result.after == calibration_figures(divided, labels, scores.clusters(), resamples=100)
    same = calibration_result(scores, None, resamples=100)
    assert same.temperature == 1
    assert same.before == same.after == result.before


def test_groups_widen_the_intervals() -> None:
    logits, labels = draw(60, seed=4)
    logits, labels = np.repeat(logits, 8, axis=0), np.repeat(labels, 8)
    alone = calibration_figures(logits, labels, np.arange(480))
    together = calibration_figures(logits, labels, np.arange(480) // 8)
    assert together.nll.value == pytest.approx(alone.nll.value)
    assert together.nll.high - together.nll.low > 2 * (alone.nll.high - alone.nll.low)


def test_without_labels_or_logits_there_is_nothing_to_measure() -> None:
    with pytest.raises(DataError):
        calibration_figures(np.zeros((3, 2)), np.full(3, -1), np.arange(3))
    logits, labels = draw(20)
    for measure in (fit_calibration, lambda scores: calibration_result(scores, None)):
        with pytest.raises(DataError):
            measure(replace(make_scores(logits, labels), logits=None))


# All that is fitted


def test_everything_is_fitted_at_the_temperature() -> None:
    logits, labels = draw(900, seed=5, temperature=2.0)
    labels[::10] = -1
    groups = tuple(f"p{row // 3}" for row in range(900))
    scores = make_scores(logits, labels, groups)
    calibration = fit_calibration(scores, digest="d" * 64, target_accuracy=0.7)
    probabilities = softmax(logits, fit_temperature(logits, labels))
    assert calibration.temperature == fit_temperature(logits, labels)
    assert calibration.quantiles == fit_quantiles(probabilities, labels, np.arange(900) // 3)
    assert calibration.abstention_threshold is not None
    assert calibration.abstention_threshold == choose_threshold(probabilities, labels, np.arange(900) // 3, target=0.7)
    assert (calibration.n, calibration.groups, calibration.split) == (810, 300, "val")
    assert fit_calibration(make_scores(logits, labels, groups, probabilities=np.full((900, 4), 0.25))) == (
        fit_calibration(scores)
    )


@pytest.mark.parametrize("per", ["all", "predicted-class"])
@pytest.mark.parametrize("target", [0.7, 0.999])
def test_a_calibration_comes_back_from_its_file(tmp_path: Path, target: float, per: CalibratedPer) -> None:
    calibration = fit_calibration(make_scores(*draw(900)), digest="d", target_accuracy=target, per=per)
    assert (calibration.class_thresholds is None) == (per == "all")
    assert (calibration.abstention_threshold is None) == (target == 0.999)
    write_json(tmp_path / "calibration.json", calibration_to_json(calibration))
    assert calibration_from_json(json.loads((tmp_path / "calibration.json").read_text())) == calibration


@pytest.mark.parametrize("content", [None, [], {}, {"temperature": "warm"}, 3])
def test_what_is_no_calibration_is_a_data_error(content: object) -> None:
    with pytest.raises(DataError) as caught:
        calibration_from_json(content)
    assert caught.value.hint


def test_it_goes_into_the_bundle(tmp_path: Path) -> None:
    manifest = Manifest(
        name="m", class_names=tuple("abcd"), preprocess=PreprocessSpec(size=64), model=ModelConfig(), opset=18
    )
    calibration = fit_calibration(make_scores(*draw(900)), digest="d", target_accuracy=0.7)
    write_bundle(tmp_path / "b.hilum", with_calibration(manifest, calibration, note="mine"), {})
    found = load_bundle(tmp_path / "b.hilum").manifest
    assert found.temperature == calibration.temperature
    assert found.conformal_quantiles == calibration.quantiles
    assert found.prediction_set_quantiles == calibration.quantiles["0.90"]
    assert found.abstention_threshold == calibration.abstention_threshold
    facts = {key: found.calibration[key] for key in ("images", "groups", "split", "digest", "note")}
    assert facts == {"images": 900, "groups": 900, "split": "val", "digest": "d", "note": "mine"}
    assert (found.opset, found.name) == (18, "m")
    assert calibration_of(found) == calibration
    assert calibration_of(manifest) is None


def test_a_calibration_of_other_classes_is_refused() -> None:
    manifest = Manifest(name="m", class_names=tuple("abc"), preprocess=PreprocessSpec(size=64), model=ModelConfig())
    with pytest.raises(DataError):
        with_calibration(manifest, Calibration(1.0, {"0.90": (0.5,) * 4}, None, 0.95, 9, 9, "val"))
