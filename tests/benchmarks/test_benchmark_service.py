from __future__ import annotations

import argparse
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from hilum.run_folder import RunFolder


@pytest.fixture(scope="module")
def service(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("service")


def test_a_short_run_counts_every_answer(service: ModuleType, trained_run: RunFolder) -> None:
    settings = {"images": None, "count": 4, "clients": 4, "rounds": 1, "seconds": 6, "bare_seconds": 1}
    found = service.measure(argparse.Namespace(bundle=str(trained_run.bundle), **settings))
    (one,) = found["rounds"]
    assert set(found["statuses"]) <= {"200", "422"}
    assert sum(found["statuses"].values()) == pytest.approx(6 * one["served"], rel=0.2)
    assert one["ratio"] == pytest.approx(one["served"] / one["bare"])
    assert found["healthz"]["n"] > 10
    assert 50 < found["memory"]["last_mib"] < 4000
    assert found["drawn"]
    assert found["images"] == 4


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"rounds": [{"ratio": 0.8}] * 3},
        {"statuses": {"200": 9, "500": 1}},
        {"healthz": {"p99_ms": 101.0}},
        {"memory": {"growth": 0.06}},
    ],
)
def test_each_bound_is_told_when_missed(service: ModuleType, change: dict[str, Any]) -> None:
    met = {
        "rounds": [{"ratio": 0.9}] * 3,
        "statuses": {"200": 9, "422": 1, "429": 2, "503": 1},
        "healthz": {"p99_ms": 50.0},
        "memory": {"growth": 0.01},
    }
    assert len(service.missed(met | change)) == len(change)


def test_growth_leaves_the_start_out(service: ModuleType) -> None:
    assert service.growth([1.0] * 10 + [100.0] * 40) == 0
    assert service.growth([100.0] * 40 + [110.0] * 10) == pytest.approx(0.1)
