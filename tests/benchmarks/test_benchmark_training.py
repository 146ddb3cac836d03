"""The benchmark of training: its ratios and bounds, and a round on a few phantoms. Nothing here is timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from hilum.config import Config, load_config
from hilum.data.cache import open_cache
from hilum.storage import as_json
from hilum.training.dataset import CachedDataset
from hilum.types import class_names_of


@pytest.fixture(scope="module")
def training(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("training")


def test_ratios_are_taken_within_rounds(training: ModuleType) -> None:
    same, ours = training.WAYS
    rates = {training.ORIGINAL: [2.0, 4.0], same: [4.0, 6.0], ours: [10.0, 40.0]}
    rows = training.summary(rates, "cpu", {same: load_config("original")})
    assert [row["ratio"]["all"] for row in rows] == [[1.0, 1.0], [2.0, 1.5], [5.0, 10.0]]
    assert [row["bound"] for row in rows] == [None, 1.5, 4]
    assert rows[1]["settings"]["precision"] == "auto"


def test_every_way_trains(
    training: ModuleType,
    benchmark: Callable[[str], ModuleType],
    phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "SIZE", 64)
    monkeypatch.setattr(training, "BATCH", 4)
    monkeypatch.setattr(training, "WORTH", 0)  # nothing is measured: the settings are those of a short run
    records = training.choose(phantoms, 11)
    assert len(records) == 8
    spec = load_config("original").preprocess.model_copy(update={"size": 64})
    cached = CachedDataset(open_cache(records, spec, tmp_path), records, class_names_of(records), spec)
    cpu = torch.device("cpu")
    named: dict[str, Any] = {training.ORIGINAL: training.original_way(records, cached, cpu)}
    chosen: dict[str, Config] = {}
    for way, preset in training.WAYS.items():
        named[way], chosen[way] = training.hilum_way(preset, cached, cpu)
    assert [config.model.name for config in chosen.values()] == ["unet", "evidence"]
    rates = training.measure(named, {}, 1, len(records), cpu)
    assert all(rate > 0 for (rate,) in rates.values())
    result = {
        "rows": training.summary(rates, "cpu", chosen), "size": 64, "batch": 4, "images": 8, "masks": 3, "drawn": True,
        "rounds": 1, "device": "cpu", "torch": "1", "processors": 2, "processor": "a", "load_average": 0.1,
        "command": "c",
    }  # fmt: skip
    assert "| evidence network in hilum's loop |" in benchmark("tables").template("training", result=as_json(result))
