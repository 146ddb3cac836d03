"""The bounds of scale.py, and its table."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

SPREAD = {"median": 0.1, "min": 0.0, "max": 0.2}


def result(**changes: Any) -> dict[str, Any]:
    """A result that meets every bound, but for changes, in part of the kills."""
    kill = {
        "shards": 20, "shards_before": 15, "repeated": [90, 100], "written_again": 0, "missing": 0, "twice": 0,
        "different_rows": 0,
    }  # fmt: skip
    whole = {
        "images": 1000, "rounds": 1, "shard_rows": 50, "workers": 2, "different_rows": 0, "bound": 0.15,
        "ways": {"local": {"seconds": SPREAD, "ms_per_image": SPREAD}}, "processors": 2, "processor": "x",
        "overhead": {"seconds": SPREAD, "ms_per_image": SPREAD}, "load_average": 1.0, "command": "c",
    }  # fmt: skip
    own = {name: value for name, value in changes.items() if name not in kill}
    return whole | {"kill": kill | {name: value for name, value in changes.items() if name in kill}} | own


@pytest.mark.parametrize(
    "changes",
    [
        {"different_rows": 1}, {"missing": 1}, {"twice": 1}, {"written_again": 1}, {"repeated": [90, 101]},
        {"overhead": {"seconds": {**SPREAD, "median": 0.16}, "ms_per_image": SPREAD}},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_each_bound_is_told_when_missed(benchmark: Callable[[str], ModuleType], changes: dict[str, Any]) -> None:
    scale = benchmark("scale")
    assert not scale.missed(result())
    assert scale.missed(result(**changes))


def test_the_table(benchmark: Callable[[str], ModuleType]) -> None:
    tables = benchmark("tables")
    assert "| images missing; twice | 0; 3 |" in tables.template("scale", result=result(twice=3))
    assert "Not measured yet" in tables.template("scale", result=None)


def test_shards_are_timed_from_the_first_to_the_last(
    benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = benchmark("scale")
    times = iter([10.0, 11.0, 13.0])
    monkeypatch.setattr(scale.time, "perf_counter", lambda: next(times))
    clock = scale.Clock(4)
    for done in range(1, 11):  # 4, 8 and the last
        clock(done, 10)
    assert [done for _, done in clock.seen] == [4, 8, 10]
    assert clock.per_image == pytest.approx(500)
