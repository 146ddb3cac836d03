"""The count of errors, and the table of training recipes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from score_making import scores_of

from hilum.storage import as_json

NAMES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")


def test_errors_are_counted_by_classes_and_source(benchmark: Callable[[str], ModuleType]) -> None:
    labels = np.array([1] * 7 + [3] * 5 + [0, 2])
    predicted = np.array([1, 3, 3, 3, 3, 3, 3] + [3] * 5 + [2, 2])
    chances = np.full((14, 4), 0.1)
    chances[np.arange(14), predicted] = 0.7
    chances[1:3] = [0.02, 0.02, 0.0, 0.96]
    found = benchmark("errors").counted(
        scores_of(labels, chances, class_names=NAMES, sources=("kermany",) * 12 + (None, None))
    )
    swaps = {"label": "Lung_Opacity", "predicted": "Viral Pneumonia", "source": "kermany", "images": 6, "confident": 2}
    assert found["rows"] == [swaps]
    assert found["others"] == {"images": 1, "confident": 0}
    shares = ("accuracy", "swaps", "accuracy_as_one", "answered", "accuracy_of_answered")
    assert [(found[name]["hits"], found[name]["n"]) for name in shares] == [(7, 14), (6, 7), (13, 14), (2, 14), (0, 2)]


@pytest.mark.parametrize(
    ("values", "expected"), [([0.9], "0.900"), ([0.9, 0.94], "0.920 (0.900–0.940)"), ([None], ""), ([], "")]
)
def test_a_recipe_has_the_mean_and_range_over_its_seeds(
    benchmark: Callable[[str], ModuleType], values: list[float | None], expected: str
) -> None:
    runs = [{"figures": {"accuracy": {"value": value}}} for value in values]
    assert benchmark("tables").over_seeds(runs, "figures", "accuracy") == expected


def test_recipes_are_a_table_of_those_that_were_run(benchmark: Callable[[str], ModuleType]) -> None:
    def figure(value: float) -> dict[str, Any]:
        return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 2702}

    names = benchmark("ablation").FIGURES
    run = {"figures": dict.fromkeys(names, figure(0.9)), "pointing": {"images": 44, "evidence": figure(0.7)}}
    result = {
        "recipes": {"as packaged": {"1": run, "2": run}, "no measures": {}}, "passes": 25612, "images": 600,
        "settings": {"preprocess": {"size": 128}}, "split_digest": "2058d315861d00", "command": "c",
    }  # fmt: skip
    table = benchmark("tables").template("recipes", result=as_json(result))
    assert "| as packaged | 2 | 0.900 (0.900–0.900) |" in table
    assert "no measures" not in table
    assert "n = 2,702" in table
    assert "±0.010 in accuracy" in table
