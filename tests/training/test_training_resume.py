"""Killed at any instant and resumed, a run ends as one that was not, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_setup import BATCH, Killed, Killer, make_config, same_tensors, snapshot, start, without_seconds

from hilum.config import Config
from hilum.errors import CheckpointError
from hilum.models.weights import save_weights
from hilum.run_folder import RunFolder
from hilum.storage import sha256_file
from hilum.training import loop
from hilum.training.checkpoint import load_state
from hilum.training.loop import Progress
from hilum.training.observer import Silent, TrainingObserver
from hilum.training.prepare import PreparedData

# --- killed and resumed -------------------------------------------------------------------------------------------


KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "cosine, EMA, accumulation": {
        "training": {"schedule": "cosine", "ema_decay": 0.9, "accumulate": 3},
        "shortcuts": {"background_p": 0.4, "erase_p": 0.3, "lesion_p": 0.9},
        "loss": {"class_weights": "effective"},
    },
    "plateau, balanced, no EMA, bfloat16": {
        "training": {
            "schedule": "plateau", "ema_decay": 0, "plateau_patience": 0, "sampling": "class",
            "precision": "bf16-mixed", "channels_last": False,
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=list(KINDS))
def whole(
    request: pytest.FixtureRequest, phantoms: Path, prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Config, Path, Progress]:
    """A run that nobody interrupts."""
    config = make_config(phantoms, **KINDS[request.param])
    root = tmp_path_factory.mktemp("whole")
    return config, root, start(config, prepared, root)[0]


def kill_by_observer(epoch: int, batch: int | None) -> Callable[[pytest.MonkeyPatch], TrainingObserver]:
    return lambda patch: Killer(epoch, batch)


def kill_around_the_state(epoch: int, *, written: bool) -> Callable[[pytest.MonkeyPatch], TrainingObserver]:
    """In ``epoch``, just before or just after its state is written."""
    save = loop._save

    def kill(run: RunFolder, parts: Any, identity: str, progress: Progress, within: Any = None) -> None:
        if written or progress.epoch < epoch:
            save(run, parts, identity, progress, within)
        if progress.epoch == epoch:
            raise Killed

    def begin(patch: pytest.MonkeyPatch) -> TrainingObserver:
        patch.setattr(loop, "_save", kill)
        return Silent()

    return begin


@pytest.mark.parametrize(
    "kill",
    [
        kill_by_observer(1, 1), kill_by_observer(2, 2), kill_by_observer(2, None),
        kill_around_the_state(2, written=False), kill_around_the_state(3, written=True),
    ],
    ids=["first epoch", "middle of an epoch", "end of an epoch", "before a state", "after the last state"],
)  # fmt: skip
def test_a_killed_run_ends_as_one_that_was_not(
    whole: tuple[Config, Path, Progress],
    kill: Callable[[pytest.MonkeyPatch], TrainingObserver],
    prepared: PreparedData,
    tmp_path: Path,
) -> None:
    config, root, expected = whole
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        start(config, prepared, tmp_path, kill(patch))
    torch.manual_seed(99)  # a new process has other random numbers behind it
    np.random.seed(99)
    progress, _ = start(config, prepared, tmp_path)
    mine, other = RunFolder(tmp_path), RunFolder(root)
    assert mine.best.read_bytes() == other.best.read_bytes()
    assert without_seconds(progress.rows) == without_seconds(expected.rows)
    assert progress.best_epoch == expected.best_epoch
    assert progress.steps == expected.steps
    one, two = load_state(mine.state), load_state(other.state)
    for part in one.keys() - {"progress"}:  # optimizer, schedule, average, precision
        assert same_tensors(one[part], two[part]), part
    assert [line.rsplit(",", 1)[0] for line in mine.metrics.read_text().splitlines()] == [
        line.rsplit(",", 1)[0] for line in other.metrics.read_text().splitlines()
    ]


@pytest.mark.parametrize(("epoch", "batch"), [(1, 4), (2, 1), (2, 4), (3, 4)])
def test_a_run_saved_inside_an_epoch_goes_on_there(
    whole: tuple[Config, Path, Progress], epoch: int, batch: int, prepared: PreparedData, tmp_path: Path
) -> None:
    """Trap: a killed training lost its whole epoch. Here a state is saved after each step, and none is taken twice."""
    _, root, expected = whole
    config = whole[0].model_copy(update={"training": whole[0].training.model_copy(update={"checkpoint_minutes": 1e-9})})
    with pytest.raises(Killed):
        start(config, prepared, tmp_path, Killer(epoch, batch))
    state = load_state(RunFolder(tmp_path).state)
    saved = 0 if state["within"] is None else state["within"]["batches"]
    group = config.training.accumulate
    assert saved == (batch - 1) // group * group  # killed before the state of the last batch was written
    assert state["progress"]["epoch"] == epoch - 1
    torch.manual_seed(99)
    counter = Counter()
    progress, _ = start(config, prepared, tmp_path, counter)
    batches = len(prepared.datasets["train"]) // BATCH
    assert counter.batches[epoch] == batches - saved
    mine, other = RunFolder(tmp_path), RunFolder(root)
    assert mine.best.read_bytes() == other.best.read_bytes()
    assert without_seconds(progress.rows) == without_seconds(expected.rows)
    one, two = load_state(mine.state), load_state(other.state)
    for part in one.keys() - {"progress"}:
        assert same_tensors(one[part], two[part]), part


class Counter(Silent):
    """Counts the batches of each epoch."""

    def __init__(self) -> None:
        self.batches: dict[int, int] = {}

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        self._epoch = epoch
        self.batches[epoch] = 0

    def batch_done(self, loss: float) -> None:
        self.batches[self._epoch] += 1


def test_it_learns_something_to_be_the_same(whole: tuple[Config, Path, Progress]) -> None:
    """Or the test above would pass with a loop that does nothing."""
    rows = whole[2].rows
    assert len({row.val_loss for row in rows}) == len(rows)
    assert rows[-1].train_seg_loss < rows[0].train_seg_loss


def test_a_state_of_another_run_is_refused_and_left_alone(
    whole: tuple[Config, Path, Progress], prepared: PreparedData
) -> None:
    config, root, _ = whole
    before = snapshot(root)
    with pytest.raises(CheckpointError):
        start(config, prepared, root, identity="another")
    assert snapshot(root) == before


def test_a_damaged_state_is_named(whole: tuple[Config, Path, Progress], prepared: PreparedData, tmp_path: Path) -> None:
    content = RunFolder(whole[1]).state.read_bytes()
    RunFolder(tmp_path).state.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        start(whole[0], prepared, tmp_path)


def test_a_finished_run_has_nothing_left_to_do(whole: tuple[Config, Path, Progress], prepared: PreparedData) -> None:
    config, root, expected = whole
    before = sha256_file(RunFolder(root).best)
    progress, _ = start(config, prepared, root)
    assert without_seconds(progress.rows) == without_seconds(expected.rows)
    assert sha256_file(RunFolder(root).best) == before


def test_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    """safetensors writes its own metadata in a random order."""
    state = {"a": torch.zeros(2), "b": torch.ones(3)}
    written = set()
    for turn in range(12):
        save_weights(tmp_path / f"{turn}.safetensors", state, {"epoch": "1", "val_loss": "0.5", "other": "x"})
        written.add((tmp_path / f"{turn}.safetensors").read_bytes())
    assert len(written) == 1
