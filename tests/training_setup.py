"""What the training tests share: small settings, the loop alone, and comparisons."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hilum.config import Config, load_config
from hilum.models.build import build_model
from hilum.run_folder import RunFolder
from hilum.storage import sha256_file
from hilum.training.journal import EpochRow
from hilum.training.loop import Progress, fit
from hilum.training.observer import Silent, TrainingObserver
from hilum.training.prepare import PreparedData

BATCH = 8
SMALL: dict[str, dict[str, Any]] = {
    "preprocess": {"size": 32},
    "model": {
        "encoder": "mobilenetv3_small_050", "decoder_channels": [16, 8, 8, 4, 4], "pretrained": False, "dropout": 0.2,
    },
    "training": {"epochs": 3, "batch_size": BATCH, "device": "cpu", "learning_rate": 3e-3, "early_stopping": 0},
}  # fmt: skip


def make_config(data: Path, **sections: dict[str, Any]) -> Config:
    names = SMALL.keys() | sections.keys()
    merged = {name: SMALL.get(name, {}) | sections.get(name, {}) for name in names}
    return load_config(overrides={"data": data, **merged})


def start(
    config: Config,
    data: PreparedData,
    root: Path,
    observer: TrainingObserver | None = None,
    identity: str = "one",
    kind: torch.dtype = torch.float32,
) -> tuple[Progress, nn.Module]:
    """What the pipeline does, without evaluation and export; ``kind`` is the type of the weights."""
    torch.manual_seed(config.training.seed)
    model = build_model(config.model, config.preprocess, len(data.index.class_names)).to(kind)
    model.register_forward_pre_hook(lambda module, inputs: tuple(value.to(kind) for value in inputs))
    train_set, val_set = data.datasets["train"], data.datasets["val"]
    return fit(model, train_set, val_set, config, RunFolder(root), observer or Silent(), identity=identity), model


def snapshot(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def without_seconds(rows: list[EpochRow]) -> list[dict[str, Any]]:
    # NaN is unlike itself; its text is not
    return [{k: repr(v) for k, v in dataclasses.asdict(row).items() if k != "seconds"} for row in rows]


def same_tensors(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_tensors(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_tensors, one, other))
    return bool(one == other)


class Killed(Exception):  # noqa: N818 - an event, no error
    """Not a HilumError: nothing in hilum may catch it."""


class Killer:
    """Ends the run in ``epoch``, after ``batch`` batches, or when the epoch is done."""

    def __init__(self, epoch: int, batch: int | None) -> None:
        self._target, self._batch = epoch, batch
        self._epoch = self._done = 0

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        self._epoch, self._done = epoch, 0

    def batch_done(self, loss: float) -> None:
        self._done += 1
        if (self._epoch, self._done) == (self._target, self._batch):
            raise Killed

    def epoch_done(self, row: EpochRow, *, best: bool) -> None:
        if row.epoch == self._target and self._batch is None:
            raise Killed
