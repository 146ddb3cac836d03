from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from hilum.gate import Verdict
from hilum.types import Radiograph


@pytest.fixture(scope="module")
def gate(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("gate")


def test_a_proportion_has_its_exact_interval(benchmark: Callable[[str], ModuleType]) -> None:
    proportion = benchmark("measuring").proportion
    entry = proportion(48, 48)
    assert (entry["value"], entry["n"]) == (1, 48)
    assert entry["low"] == pytest.approx(0.025 ** (1 / 48))  # Clopper and Pearson's closed form for n of n
    assert proportion(0, 0)["value"] is None


def test_the_area_under_the_curve_counts_ties_half(gate: ModuleType) -> None:
    entry = gate.auroc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    assert entry["value"] == pytest.approx(7 / 8)
    assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1


def test_images_are_scaled_and_turned(gate: ModuleType) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert gate.scaled(Radiograph(np.zeros((50, 100), np.uint8)), 200).shape == (100, 200)
    assert gate.scaled(Radiograph(np.zeros((50, 100), np.uint8)), 200, shorter=True).shape == (200, 400)
    np.testing.assert_array_equal(gate.turned(Radiograph(pixels), 1).pixels, np.rot90(pixels, 3))  # clockwise
    np.testing.assert_array_equal(gate.inverted(Radiograph(pixels)).pixels, 255 - pixels)


class _Gates:
    """The classic gate accepts all, the learned one what is bright."""

    def classic(self, image: Radiograph) -> Verdict:
        return Verdict("accepted")

    def learned(self, image: Radiograph) -> Verdict:
        return Verdict("accepted" if image.pixels.mean() > 100 else "too dark")


def _image(level: int) -> Radiograph:
    pixels: NDArray[np.uint8] = np.full((4, 4), level, np.uint8)
    return Radiograph(pixels)


def test_a_row_counts_the_verdicts_of_both(gate: ModuleType) -> None:
    table = gate.Table(_Gates())
    table.add(
        "accepted, negative examples",
        "all of these",
        [_image(50), _image(150)],
        must="≤ 0.01",
        hit=lambda v: v.reason == "accepted",
    )
    (row,) = table.rows
    assert (row["classic"]["value"], row["learned"]["value"]) == (1.0, 0.5)
    assert row["must"] == "≤ 0.01"
