"""Training on two processes equals training on one, and processes that fail end all of them with one error."""

from __future__ import annotations

import dataclasses
import time
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import together
import torch
from training_setup import BATCH, Killed, Killer, make_config, start

from hilum.config import Config
from hilum.errors import ConfigError, DeviceError, HilumError, ServerError
from hilum.run_folder import RunFolder
from hilum.training import launch as launching
from hilum.training.dataset import EpochSampler
from hilum.training.launch import launch
from hilum.training.loop import Progress
from hilum.training.prepare import PreparedData
from hilum.training.processes import Processes, joined

# Two processes on one processor of a loaded machine take as long as their imports.
ALL = {"shortcuts": {"background_p": 0.4, "erase_p": 0.3, "lesion_p": 0.9}, "augment": {"noise_p": 0.5}}


def config_of(phantoms: Path, **sections: dict[str, Any]) -> Config:
    training = {"epochs": 2, "ema_decay": 0.8, "accumulate": 2, "precision": "32-true", "checkpoint_minutes": 1e-9}
    return make_config(phantoms, training=training, **sections)


@dataclasses.dataclass(frozen=True)
class Trained:
    """Runs of one process and of two."""

    one: Progress
    model: torch.nn.Module
    gradients: dict[str, dict[str, torch.Tensor | None]]
    two: list[dict[str, Any]]  # of each process
    folder: Path
    config: Config


@pytest.fixture(scope="module")
def trained(phantoms: Path, prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("together")
    config, changed = config_of(phantoms), config_of(phantoms, **ALL)
    one, model = start(config, prepared, folder / "one", kind=torch.float64)
    with pytest.raises(Killed):
        start(config, prepared, folder / "half-one", Killer(2, 2), kind=torch.float64)
    gradients = together.all_gradients(changed, prepared)
    (folder / "two").mkdir()
    arguments = config, changed, prepared, folder / "half-one", folder / "two"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "available_cpus", lambda: 2)
        launch(together.train_all, arguments, config, 2, 1)
    two = [torch.load(folder / "two" / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    return Trained(one, model, gradients, two, folder, config)


@pytest.mark.parametrize("masks", ["all", "half", "none"])
@pytest.mark.parametrize(("kind", "bound"), [("float64", 1e-6), ("float32", 1e-4)])
def test_gradients_are_those_of_one_process(trained: Trained, kind: str, bound: float, masks: str) -> None:
    """With treatments, dropout and batch normalization; where one process has no masks, and where neither has.

    In float32, a gradient of four images and one of eight are rounded differently; the bound is relative to the
    largest gradient.
    """
    expected = trained.gradients[f"{kind}, {masks}"]
    decoder = [gradient for name, gradient in expected.items() if name.startswith("decoder")]
    assert all((gradient is None) == (masks == "none") for gradient in decoder)
    largest = max(float(gradient.abs().max()) for gradient in expected.values() if gradient is not None)
    assert largest > 0.01
    for own in trained.two:
        found = own["gradients"][f"{kind}, {masks}"]
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            if gradient is None:
                assert found[name] is None, name
            else:
                assert float((found[name] - gradient).abs().max()) < bound * min(largest, 1.0), name


def metrics(rows: list[Any]) -> list[list[float]]:
    return [[value for name, value in row.items() if name != "seconds"] for row in rows]


def close_weights(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return all(float((found[name] - tensor).abs().max()) < 1e-5 for name, tensor in expected.items())


@pytest.mark.parametrize("which", ["whole", "rest"], ids=["whole run", "resumed from one process"])
def test_metrics_and_weights_are_those_of_one_process(trained: Trained, which: str) -> None:
    expected = metrics([dataclasses.asdict(row) for row in trained.one.rows])
    for own in trained.two:
        np.testing.assert_allclose(metrics(own["rows"][which]), expected, rtol=1e-5, atol=1e-5)
        assert close_weights(own["weights"][which], trained.model.state_dict())
    first, second = (own["weights"][which] for own in trained.two)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_one_process_resumes_two(trained: Trained, prepared: PreparedData, tmp_path: Path) -> None:
    """From the middle of an epoch, where process 0 had saved the state of both."""
    progress, model = start(trained.config, prepared, trained.folder / "two" / "half", kind=torch.float64)
    expected = metrics([dataclasses.asdict(row) for row in trained.one.rows])
    np.testing.assert_allclose(metrics([dataclasses.asdict(row) for row in progress.rows]), expected, 1e-5, 1e-5)
    assert close_weights(model.state_dict(), trained.model.state_dict())


def test_the_first_process_alone_writes(trained: Trained) -> None:
    run = RunFolder(trained.folder / "two" / "whole")
    assert len(list(run.tensorboard.iterdir())) == 1
    assert run.metrics.read_text().count("\n") == 3
    assert run.state.is_file()
    assert run.best.is_file()


# --- processes that fail -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [("killed", DeviceError, "SIGKILL"), ("error", HilumError, "Not this one."), ("bug", HilumError, "KeyError")],
)
def test_a_process_that_ends_ends_the_others(
    phantoms: Path, monkeypatch: pytest.MonkeyPatch, how: str, error: type[HilumError], text: str
) -> None:
    monkeypatch.setattr(launching, "available_cpus", lambda: 2)
    started = time.monotonic()
    with pytest.raises(error) as caught:
        launch(together.die, (how,), config_of(phantoms), 2, 1)
    assert text in caught.value.message
    assert not isinstance(caught.value, ServerError)  # the other one's error, which is a consequence
    assert caught.value.hint
    assert time.monotonic() - started < 120


def environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_first_process_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="9")
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:9"), joined(timedelta(seconds=1)):
        pass


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
        {"WORLD_SIZE": "2", "RANK": "1"},
        {"WORLD_SIZE": "two", "RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
        {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
    ],
)
def test_an_incomplete_environment(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    environment(monkeypatch, **variables)
    with pytest.raises(ConfigError), joined():
        pass


def test_one_process_needs_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, WORLD_SIZE="1")
    with joined() as processes:
        assert (processes.size, processes.first, processes.part(7)) == (1, True, slice(0, 7))


@pytest.mark.parametrize(("devices", "nodes"), [(3, 1), (1, 3)])
def test_a_batch_that_cannot_be_shared(phantoms: Path, devices: int, nodes: int) -> None:
    with pytest.raises(ConfigError, match=str(BATCH)):
        launch(together.die, ("",), config_of(phantoms), devices, nodes)


def test_more_processes_than_processors(phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "available_cpus", lambda: 1)
    with pytest.raises(ConfigError, match="--devices"):
        launch(together.die, ("",), config_of(phantoms), 2, 1)


@pytest.mark.parametrize("node", [{}, {"MASTER_ADDR": "a"}, {"MASTER_ADDR": "a", "NODE_RANK": "2"}])
def test_machines_need_their_number(phantoms: Path, monkeypatch: pytest.MonkeyPatch, node: dict[str, str]) -> None:
    environment(monkeypatch, **node)
    with pytest.raises(ConfigError, match="NODE_RANK"):
        launch(together.die, ("",), config_of(phantoms), 1, 2)


def test_windows_is_refused(phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(ConfigError, match="Linux"):
        launch(together.die, ("",), config_of(phantoms), 2, 1)


# --- the order of the images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [None, np.arange(1, 25) / 300])
def test_the_batches_do_not_depend_on_the_processes(shares: Any) -> None:
    labels = np.zeros(24, np.int64)
    whole = EpochSampler(labels, 8, seed=3, shares=shares)
    parts = [EpochSampler(labels, 8, seed=3, shares=shares, processes=Processes(rank, 4)) for rank in range(4)]
    for epoch in (1, 2):
        for sampler in (whole, *parts):
            sampler.epoch = epoch
        joined_parts = [list(chain.from_iterable(batches)) for batches in zip(*parts, strict=True)]
        assert joined_parts == list(whole)


@pytest.mark.parametrize(("count", "size"), [(10, 4), (2, 3), (0, 2)])
def test_parts_cover_everything_once(count: int, size: int) -> None:
    items = list(range(count))
    parts = [items[Processes(rank, size).part(count)] for rank in range(size)]
    assert list(chain.from_iterable(parts)) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
