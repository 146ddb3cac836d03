from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from hilum.run_folder import RunFolder


@pytest.fixture(scope="module")
def soak(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("soak")


@pytest.mark.slow
def test_a_short_run_compares_every_answer(
    soak: ModuleType, benchmark: Callable[[str], ModuleType], trained_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "SHARE", 0.3)
    cases = soak.hostile_requests()
    assert len(cases) > 100
    assert {case.status for case in cases} == {"ok", "refused", "unreadable"}
    small = [case for case in cases if len(case.request) < 100_000 and case.status == "unreadable"]
    monkeypatch.setattr(soak, "hostile_requests", lambda: small)
    settings = {"images": None, "count": 3, "clients": 4, "minutes": 0.1, "seconds": 3, "warm_seconds": 0}
    found = soak.measure(argparse.Namespace(bundle=str(trained_run.bundle), **settings))
    assert not found["clean"]["faults"]
    assert not found["mixed"]["faults"]
    assert found["clean"]["hostile"] == 0 < found["mixed"]["hostile"]
    assert sum(found["clean"]["statuses"].values()) == found["clean"]["good"]
    assert len(found["rounds"]) == 1
    assert found["rounds"][0] == pytest.approx(found["mixed"]["p99_ms"] / found["clean"]["p99_ms"])
    whole = found | {"bounds": soak.BOUNDS, "share": soak.SHARE, "processors": 2, "processor": "a", "load_average": 0.5}
    whole["command"] = "python benchmarks/soak.py"
    assert "| 0 | 0 | 0 |" in benchmark("tables").template("soak", result=whole)


def answer(status: str = "ok", label: str = "A", probabilities: tuple[float, float] = (0.7, 0.3)) -> bytes:
    prediction = {"predicted_label": label, "probabilities": dict(zip("AB", probabilities, strict=True))}
    return json.dumps({"results": [{"status": status, "prediction": prediction}]}).encode()


def test_a_wrong_answer_is_found(soak: ModuleType) -> None:
    good = soak.Expected("a.png", b"", "ok", "A", (0.7, 0.3))
    even = soak.Expected("a.png", b"", "ok", "A", (0.5002, 0.4998))
    cut = soak.Expected("cut", b"", "unreadable", is_hostile=True)
    whole = soak.Expected("whole", b"", "ok", is_hostile=True)
    refused = json.dumps({"type": "urn:hilum:problem:refused"}).encode()
    unreadable = json.dumps({"type": "urn:hilum:problem:unreadable"}).encode()
    right = [(good, 200, answer()), (even, 200, answer("ok", "B", (0.4998, 0.5002))), (cut, 422, unreadable)]
    right += [(whole, 200, answer("ok", "B"))]
    wrong = [
        (good, 200, answer("ok", "B")), (good, 200, answer("ok", "A", (0.69, 0.31))), (good, 503, b""),
        (good, 422, refused), (cut, 422, refused), (cut, 200, answer()),
    ]  # fmt: skip
    assert [soak.fault(*each) for each in right] == [""] * 4
    assert all(soak.fault(*each) for each in wrong)


@pytest.mark.parametrize(
    "change",
    [{}, {"rounds": [1.0, 2.1, 2.2]}, {"mixed": {"faults": {"a.png: status 503": 1}}}, {"memory": {"growth": 0.06}}],
)
def test_each_bound_is_told_when_missed(soak: ModuleType, change: dict[str, Any]) -> None:
    met = {"rounds": [1.0, 1.1, 3.0], "clean": {"faults": {}}, "mixed": {"faults": {}}, "memory": {"growth": 0.01}}
    assert len(soak.missed(met | change)) == len(change)
