"""The state and the journals of a training: what they hold, and a disk that cannot take them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hilum.errors import OutputError
from hilum.run_folder import RunFolder
from hilum.training.checkpoint import load_state, save_state
from hilum.training.journal import EpochRow, TensorBoardJournal

ROW = EpochRow(1, 0.5, 0.25, *[0.125] * 8, float("nan"), 0.001, 3.0)


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """The system refuses to let a file grow beyond ``limit`` bytes, as on a full disk."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_state_that_the_disk_cannot_take_is_an_output_error(tmp_path: Path) -> None:
    """Trap: torch.save raised RuntimeError, a traceback."""
    path = tmp_path / "last.ckpt"
    save_state(path, {"step": 1})
    with full_disk(10_000), pytest.raises(OutputError, match=r"last\.ckpt"):
        save_state(path, {"step": 2, "weights": torch.zeros(10_000)})
    assert load_state(path)["step"] == 1
    assert [child.name for child in tmp_path.iterdir()] == ["last.ckpt"]


def test_equal_states_are_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_state(tmp_path / name, {"weights": torch.arange(5)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_events_that_the_disk_cannot_take_are_an_output_error(tmp_path: Path) -> None:
    """Trap: SummaryWriter's thread printed a traceback."""
    journal = TensorBoardJournal(RunFolder(tmp_path), first_epoch=1)
    with full_disk(200), pytest.raises(OutputError, match="tfevents"):
        journal.add(ROW)
    journal.close()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="tensorboard"):
        TensorBoardJournal(RunFolder(tmp_path / "file"), first_epoch=1)


def test_tensorboard_shows_the_epochs_and_of_a_repeated_one_the_last(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with closing(TensorBoardJournal(run, first_epoch=1)) as journal:
        journal.add(ROW)
        journal.add(replace(ROW, epoch=2, val_loss=9.0))
    first = next(run.tensorboard.iterdir())
    first.rename(first.with_name("events.out.tfevents.0000000001.host.1"))  # an earlier process
    with closing(TensorBoardJournal(run, first_epoch=2)) as journal:
        journal.add(replace(ROW, epoch=2, val_loss=0.75))
    shown = EventAccumulator(str(run.tensorboard))
    shown.Reload()
    assert [(event.step, event.value) for event in shown.Scalars("loss/val")] == [(1, 0.25), (2, 0.75)]
    assert {"loss/train", "seg_loss/val", "learning_rate", "seconds"} <= {*shown.Tags()["scalars"]}
    assert "auc/val" not in shown.Tags()["scalars"]
