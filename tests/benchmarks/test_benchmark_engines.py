"""The benchmark of engines: its ratios, its choice, and a run on a small network. Nothing here is timed."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hilum.backends.open import Engine, open_engine
from hilum.bundle.bundle import load_bundle
from hilum.run_folder import RunFolder
from hilum.storage import as_json

FAST = Engine("openvino", "bf16")


@pytest.fixture(scope="module")
def engines(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("engines")


def test_ratios_are_to_the_least_size_in_the_same_way_and_round(engines: ModuleType, trained_run: RunFolder) -> None:
    one, two = engines.WAYS[0], engines.WAYS[-1]
    small, large, fast = engines.Row(64, engines.REFERENCE), engines.Row(96, engines.REFERENCE), engines.Row(96, FAST)
    taken = {
        (small, one): [4.0, 6.0], (small, two): [2.0, 4.0], (large, one): [8.0, 8.0], (large, two): [4.0, 16.0],
        (fast, two): [1.0, 1.0],
    }  # fmt: skip
    same = {"logit_difference": 0.0, "labels_agree": 1.0}
    rows = engines.summary(taken, dict.fromkeys((small, large, fast), same), 64, load_bundle(trained_run.bundle))
    assert rows[1]["ways"][one.name]["times_as_fast"]["all"] == [0.5, 0.75]
    assert rows[1]["ways"][two.name]["times_as_fast"]["all"] == [0.5, 0.25]
    assert list(rows[2]["ways"]) == [two.name]
    assert [row["accepted"] for row in rows] == [True, True, False]
    assert engines.best_at(rows, 96, accepted=True)["engine"] == "ONNX Runtime fp32"
    best = engines.best_at(rows, 96, accepted=False)
    assert (best["engine"], best["times_as_fast"]["all"]) == ("OpenVINO bf16", [2.0, 4.0])


def test_another_size_has_the_same_weights(engines: ModuleType, trained_run: RunFolder) -> None:
    bundle = load_bundle(trained_run.bundle)
    assert engines.at_size(bundle, 64) is bundle
    larger = engines.at_size(bundle, 96)
    images = engines.phantom_batch(larger.manifest.preprocess, 2)
    assert images.shape[-1] == 96
    found, expected = (
        open_engine(larger, Engine(name, "fp32")).run(images) for name in ("onnxruntime", "pytorch")
    )  # PyTorch reads the bundle's own weights
    np.testing.assert_allclose(found.classification, expected.classification, atol=1e-4)


def test_every_engine_takes_its_turn(
    engines: ModuleType, benchmark: Callable[[str], ModuleType], trained_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_COMPARED", 8)
    bundle = load_bundle(trained_run.bundle)
    opened = {row: (backend, images) for row, backend, images in engines.networks(bundle, [64])}
    assert {("onnxruntime", "fp32"), ("openvino", "fp32")} <= {row.engine for row in opened}
    usual = opened[engines.Row(64, engines.REFERENCE)][0]
    agreements = {row: engines.agreement(backend, usual, images) for row, (backend, images) in opened.items()}
    assert all(found["logit_difference"] < 1e-4 for row, found in agreements.items() if row.engine.precision == "fp32")
    taken = engines.measure(opened, 2, 0.0)
    assert {len(found) for found in taken.values()} == {2}
    ways = {way.name for row, way in taken if row.engine.backend == "pytorch"}
    assert ways == {way.name for way in engines.WAYS if not way.per_processor}
    rows = engines.summary(taken, agreements, 64, bundle)
    result: dict[str, Any] = {
        "command": "c", "rounds": 2, "compared": 8, "base": 64, "rows": rows, "processors": 2, "processor": "a",
        "load_average": 0.1, "ways": [way.name for way in engines.WAYS],
        "best": [engines.best_at(rows, 64, accepted=True)],
    }  # fmt: skip
    tables = benchmark("tables")
    for name, context in (("engines_of_one", {"result": as_json(result)}), ("engines", {"results": [as_json(result)]})):
        assert "| 64 | OpenVINO fp32 |" in tables.template(name, **context)
    assert "Not measured yet" in tables.template("engines", results=[])
