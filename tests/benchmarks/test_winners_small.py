"""The benchmark of false winners in small: its pairs, the former rule, and what the adjustment changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from hilum.evaluation.compare import compare
from hilum.metrics.table import WITHIN_SOURCES, Key, statistics_of


@pytest.fixture(scope="module")
def winners(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("winners")


def test_equal_models_have_equal_true_figures_and_different_ones_do_not(winners: ModuleType) -> None:
    equal, different = winners.KINDS
    both = winners.draw(equal, np.random.default_rng(0), copies=20)
    found = [statistics_of(scores)(np.ones((1, len(scores.files)))) for scores in both]
    for key in (Key(WITHIN_SOURCES), Key("accuracy"), Key("dice"), Key("hd95_share"), Key("macro_roc_auc")):
        assert found[0][key][0] == pytest.approx(found[1][key][0], abs=0.012), key
    assert not np.array_equal(both[0].predicted, both[1].predicted)
    assert winners.true_difference(different, copies=20) == pytest.approx(0.029, abs=0.006)
    small = winners.draw(equal, np.random.default_rng(0))[0]
    assert sorted(np.bincount(small.labels[np.unique(small.clusters(), return_index=True)[1]]).tolist()) == [
        24,
        44,
        56,
        116,
    ]


def test_the_former_rule_adjusts_aurocs_alone(winners: ModuleType) -> None:
    found = compare(*winners.draw(winners.KINDS[0], np.random.default_rng(1)), resamples=20)
    alone = [replace(d, p=0.04, difference=0.1) for d in found.differences]
    before = winners.better_before(alone)
    assert before[Key("accuracy")] == "B"
    assert before[Key("hd95_share")] == "A"
    assert before[Key("roc_auc", "Viral")] is None
    assert before[Key("roc_auc", "Normal", "one", "Opacity")] is None
    assert winners.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_equal_models_are_called_better_by_the_former_rule_and_not_by_the_new(winners: ModuleType) -> None:
    result = winners.run(winners.KINDS[0], pairs=20, margin=0.03, resamples=100, processes=1)
    assert result["old_any"]["value"] > 0.5
    assert result["any"]["value"] == result["primary"]["value"] < 0.25
    assert result["adjusted"]["value"] < 0.25
    assert result["figures"] > 100
