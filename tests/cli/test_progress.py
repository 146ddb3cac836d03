"""Progress without a terminal: a line at a steady pace, also while a step reports nothing."""

from __future__ import annotations

import re
import time

import pytest

from hilum.cli import progress


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.05)
    return 0.3  # enough for some lines


def _lines(captured: str) -> list[str]:
    return [line[9:] for line in captured.splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]


def test_a_silent_step_and_one_that_counts_both_write_lines(quick: float, capsys: pytest.CaptureFixture[str]) -> None:
    steps = progress.StepBars()
    steps.begin("Waiting")
    time.sleep(quick)
    update = steps.begin("Counting")
    update(5, 10)
    time.sleep(quick)
    steps.close()
    titles = [line.split(":")[0].split(",")[0] for line in _lines(capsys.readouterr().err)]
    assert titles == sorted(titles, reverse=True)  # Waiting, then Counting
    assert set(titles) == {"Waiting", "Counting"}


def test_what_is_done_is_counted(quick: float, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.counting("Reading") as update:
        update(1500, 3000)
        time.sleep(quick)
    line = _lines(capsys.readouterr().err)[-1]
    assert line.startswith("Reading: 1,500 of 3,000 (")
    assert line.endswith("min left)")


def test_a_closed_step_writes_no_more(quick: float, capsys: pytest.CaptureFixture[str]) -> None:
    steps = progress.StepBars()
    steps.begin("Waiting")
    steps.close()
    time.sleep(quick)
    assert _lines(capsys.readouterr().err) == []


def test_an_epoch_counts_its_batches(quick: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Trap: without a terminal, a training said nothing from one epoch to the next."""
    steps = progress.StepBars()
    bars = progress.TrainingBars(steps)
    for epoch, batches in ((1, 1200), (2, 3)):
        bars.epoch_started(epoch, 8, 1200)
        for _ in range(batches):
            bars.batch_done(0.5)
        time.sleep(quick)
    bars.close()
    steps.close()
    lines = _lines(capsys.readouterr().err)
    assert any(line.startswith("Epoch 1/8: 1,200 of 1,200 (") for line in lines)
    assert lines[-1].startswith("Epoch 2/8: 3 of 1,200 (")
    assert len(lines) < 20  # at the pace, not with every batch


def test_a_minute_is_the_pace(capsys: pytest.CaptureFixture[str]) -> None:
    assert progress.LINE_SECONDS == 60
    with progress.counting("Reading") as update:
        update(1, 2)
    assert capsys.readouterr().err == ""
