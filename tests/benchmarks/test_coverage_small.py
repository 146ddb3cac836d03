"""The coverage benchmark in small: its population, its tally, and that clustering is what makes intervals hold."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
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
    scores = coverage.draw(coverage.DESIGNS[0], 2000, np.random.default_rng(0))
    clusters = scores.clusters()
    sizes = np.bincount(clusters)
    own = np.array([scores.labels[clusters == group][0] for group in range(sizes.size)])
    assert (sizes.min(), sizes.max()) == (1, 5)
    assert np.bincount(own).tolist() == [900, 540, 360, 200]
    assert np.array_equal(own[clusters], scores.labels)
    right = (scores.predicted == scores.labels) - np.bincount(
        scores.labels, scores.predicted == scores.labels
    )[scores.labels] / np.bincount(scores.labels)[scores.labels]  # fmt: skip
    pairs = [right[clusters == group][:2] for group in np.flatnonzero(sizes > 1)]
    assert np.corrcoef(np.array(pairs).T)[0, 1] > 0.15
    free = coverage.draw(coverage.DESIGNS[2], 2000, np.random.default_rng(0))
    assert np.bincount(free.labels).tolist() != np.bincount(scores.labels).tolist()


def test_misses_are_counted_on_their_side_and_undefined_intervals_are_left_out(coverage: ModuleType) -> None:
    bounds = [(0.4, 0.6), (0.6, 0.7), (0.1, 0.2), (0.5, 0.9), (np.nan, np.nan)]
    results = [{"clustered": {Key("accuracy"): Interval(0.5, low, high, 9)}} for low, high in bounds]
    (row,) = coverage.rows_of({Key("accuracy"): 0.5}, coverage.count(results, {Key("accuracy"): 0.5}))
    assert (row["sets"], row["interval_above_truth"], row["interval_below_truth"]) == (4, 1, 1)
    assert row["coverage"] == 0.5
    assert row["mean_width"] == pytest.approx(0.2)
    assert (row["low"], row["high"]) == pytest.approx((0.0676, 0.9324), abs=1e-4)  # Clopper-Pearson of 2 of 4


def test_clustered_intervals_hold_and_unclustered_ones_do_not(coverage: ModuleType) -> None:
    design = coverage.DESIGNS[0]
    truth = coverage.true_values(design, patients=40_000)
    tallies = coverage.count((coverage.simulate(number, design, 100, 100) for number in range(40)), truth)
    rows = [row for row in coverage.rows_of(truth, tallies) if row["claimed"]]
    assert {Key(row["metric"], row["class_name"]) for row in rows} == coverage.CLAIMED
    clustered = np.mean([row["coverage"] for row in rows])
    assert 0.88 <= clustered <= 0.985
    assert np.mean([row["unclustered_coverage"] for row in rows]) < clustered - 0.03
