"""Where a run computes: threads, and a precision that the processor has to emulate."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hilum.config import load_config
from hilum.training import device
from hilum.training.device import check_precision, using_threads


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("asked", "cpus", "used"), [(0, 8, 3), (0, 2, 2), (1, 8, 1), (5, 2, 5)])
def test_threads_are_those_asked_for_or_what_is_available(
    asked: int, cpus: int, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "available_cpus", lambda: cpus)
    with using_threads(asked) as threads:
        assert threads == torch.get_num_threads() == used
    assert torch.get_num_threads() == 3


def test_threads_are_given_back_after_an_error() -> None:
    with pytest.raises(RuntimeError), using_threads(1):
        raise RuntimeError
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(
    ("precision", "has", "warned"),
    [("bf16-mixed", False, True), ("bf16-mixed", True, False), ("bf16-mixed", None, False), ("32-true", False, False)],
)
def test_bfloat16_that_is_emulated_is_a_warning(
    precision: str, has: bool | None, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "has_bfloat16", lambda: has)
    config = load_config(overrides={"training": {"precision": precision, "device": "cpu"}})
    assert [(found.check, found.severity) for found in check_precision(config)] == [("precision", "warning")] * warned
