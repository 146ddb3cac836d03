"""The coverage benchmark in small: its population, its tally, and that clustering is what makes intervals hold."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hilum.metrics.bootstrap import Interval
from hilum.metrics.table import Key

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "coverage.py"


@pytest.fixture(scope="module")
def coverage(benchmark: Callable[[str], ModuleType]) -> ModuleType:  # benchmark puts the folder on the path
    spec = importlib.util.spec_from_file_location("coverage_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_test_set_has_uneven_classes_and_patients_whose_images_are_alike(coverage: ModuleType) -> None:
    scores, other = coverage.draw(coverage.DESIGNS[0], 2200, np.random.default_rng(0))
    clusters = scores.clusters()
    sizes = np.bincount(clusters)
    own = np.array([scores.labels[clusters == group][0] for group in range(sizes.size)])
    assert (sizes.min(), sizes.max()) == (1, 5)
    assert np.bincount(own).tolist() == [990, 590, 400, 220]
    assert np.array_equal(own[clusters], scores.labels)
    right = (scores.predicted == scores.labels) - np.bincount(
        scores.labels, scores.predicted == scores.labels
    )[scores.labels] / np.bincount(scores.labels)[scores.labels]  # fmt: skip
    pairs = [right[clusters == group][:2] for group in np.flatnonzero(sizes > 1)]
    assert np.corrcoef(np.array(pairs).T)[0, 1] > 0.15
    assert scores.files == other.files
    assert np.mean((scores.predicted == other.predicted) == (scores.predicted == scores.labels)) > 0.5
    free = coverage.draw(coverage.DESIGNS[2], 2200, np.random.default_rng(0))[0]
    assert np.bincount(free.labels).tolist() != np.bincount(scores.labels).tolist()


def test_misses_are_counted_on_their_side_and_missing_intervals_by_their_reason(coverage: ModuleType) -> None:
    bounds = [(0.4, 0.6), (0.6, 0.7), (0.1, 0.2), (0.5, 0.9)]
    intervals = [Interval(0.5, low, high, 9, at_least=low == 0.4) for low, high in bounds] + [
        Interval(0.5, np.nan, np.nan, 9, "few_groups")
    ]
    key = Key("accuracy")
    results = [coverage.Simulated({"clustered": {key: interval}}) for interval in intervals]
    design = coverage.DESIGNS[0]
    (row,) = coverage.rows_of(design, {key: 0.5}, coverage.count(results, {key: 0.5}))
    assert (row["sets"], row["interval_above_truth"], row["interval_below_truth"]) == (4, 1, 1)
    assert (row["without_interval"], row["reason"], row["coverage"]) == (1, "few_groups", 0.5)
    assert row["mean_width"] == pytest.approx(0.2)
    assert row["at_least"] == 0.25
    assert (row["low"], row["high"]) == pytest.approx((0.0676, 0.9324), abs=1e-4)  # Clopper-Pearson of 2 of 4
    assert row["status"] == "chance"
    (row,) = coverage.rows_of(design, {key: 0.5}, coverage.count(results[3:] + results[4:], {key: 0.5}))
    assert (row["status"], row["coverage"]) == ("refused", None)
    elsewhere = [replace(result, truth={key: 0.65}) for result in results]
    assert coverage.count(elsewhere, {key: 0.5})["clustered"][key].above == 0


def test_what_fails_and_what_may_be_wide(coverage: ModuleType) -> None:
    found = [
        coverage.status_of(*figures, at_least=False)
        for figures in ((0.95, 0.94, 0.96), (0.91, 0.89, 0.929), (0.92, 0.90, 0.94), (0.99, 0.975, 1.0))
    ]
    assert found == ["held", "failed", "chance", "failed"]
    assert coverage.status_of(0.99, 0.975, 1.0, at_least=True) == "wide"


def test_clustered_intervals_hold_and_unclustered_ones_do_not(coverage: ModuleType) -> None:
    design = replace(coverage.DESIGNS[0], patients=(45, 27, 18, 10))
    truth = coverage.true_values(design, patients=40_000)
    tallies = coverage.count((coverage.simulate(number, design, 100) for number in range(40)), truth)
    rows = list(coverage.rows_of(design, truth, tallies))
    clustered = np.mean([row["coverage"] for row in rows])
    assert 0.91 <= clustered <= 0.985
    assert np.mean([row["unclustered_coverage"] for row in rows]) < clustered - 0.03


def test_the_truth_of_a_test_set_with_chance_shares_is_at_its_shares(coverage: ModuleType) -> None:
    design = coverage.DESIGNS[2]
    found = coverage.simulate(0, design, 50)
    truth = coverage.true_values(design, patients=40_000)
    assert found.truth is not None
    apart = {metric: max(abs(found.truth[Key(metric, k)] - truth[Key(metric, k)]) for k in coverage.CLASSES)
             for metric in ("recall", "precision")}  # fmt: skip
    assert apart["recall"] < 0.01 < apart["precision"]
