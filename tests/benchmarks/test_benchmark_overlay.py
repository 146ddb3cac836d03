"""The benchmark of overlays: what it draws, and its ratios. Nothing here is timed."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import cv2
import numpy as np
import pytest

from hilum.bundle.bundle import load_bundle
from hilum.inference.predictor import Predictor
from hilum.run_folder import RunFolder
from hilum.storage import as_json


@pytest.fixture
def overlay(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("overlay")


def test_every_way_draws(overlay: ModuleType, benchmark: Callable[[str], ModuleType], trained_run: RunFolder) -> None:
    results = overlay.predictions(Predictor(load_bundle(trained_run.bundle)), 299, 2)
    assert [result.radiograph.shape for result in results] == [(299, 299)] * 2
    original = cv2.imdecode(overlay.WAYS[overlay.ORIGINAL](results[0])[1], cv2.IMREAD_COLOR)
    assert original.shape == (299, 299, 3)
    assert (original[results[0].mask] != results[0].radiograph.pixels[results[0].mask][:, None]).any()
    for kind in ("PNG", "JPEG"):
        [(_, content)] = overlay.WAYS[f"draw and encode {kind}"](results[0])
        drawn = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert drawn.shape == overlay.WAYS["draw"](results[0]).shape
    rows = overlay.summary(overlay.measure(results, 1), 4)
    result = {"command": "c", "rounds": 1, "images": 2, "sizes": {"299": rows}, "processor": "a", "load_average": 0.1}
    assert "| 299 | draw |" in benchmark("tables").template("overlay", result=as_json(result))


def test_ratios_are_taken_within_rounds(overlay: ModuleType) -> None:
    first, drawn = overlay.summary({overlay.ORIGINAL: [40.0, 90.0], "draw": [4.0, 3.0]}, 4)
    assert first["times_the_original"]["all"] == [1, 1]
    assert drawn["times_the_original"]["all"] == [10, 30]
    assert (first["bound"], drawn["bound"]) == (None, 4)
