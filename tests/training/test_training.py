"""Training on phantoms, small enough for a test: it learns, it goes on after being killed, it refuses what it must."""

from __future__ import annotations

import csv
import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_setup import BATCH, Killed, Killer, make_config, same_tensors, snapshot, start

from hilum import pipeline
from hilum.config import Config
from hilum.data.index import build_index, save_index
from hilum.data.split import make_split, save_split
from hilum.errors import CheckpointError, ConfigError, DataError, OutputError, SplitError
from hilum.evaluation.results import load_report
from hilum.models.build import build_model
from hilum.models.losses import MultiTaskLoss, class_weights
from hilum.models.weights import load_weights
from hilum.phantoms.chest import PHANTOM_CLASSES
from hilum.pipeline import TrainedRun, train
from hilum.progress import Step
from hilum.run_folder import RunFolder
from hilum.training import device, loop, step
from hilum.training.checkpoint import load_state
from hilum.training.dataset import CachedDataset, EpochSampler, evaluation_loader
from hilum.training.dry_run import plan
from hilum.training.loop import fit
from hilum.training.observer import Silent
from hilum.training.prepare import PreparedData
from hilum.training.shortcuts import Treatments
from hilum.training.validation import run_split

# --- one whole run ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedRun, Config]:
    """index, split, cache, train, evaluate, export: shared, so do not write into it."""
    config = make_config(
        phantoms,
        training={"epochs": 10, "checkpoint_every": 4, "ema_decay": 0.8, "learning_rate": 5e-3},
        augment={"flip_p": 0.5},
    )
    return train(config, RunFolder(tmp_path_factory.mktemp("run") / "run")), config


def test_the_loss_falls(trained: tuple[TrainedRun, Config]) -> None:
    rows = trained[0].progress.rows
    assert [row.epoch for row in rows] == list(range(1, 11))
    assert rows[-1].train_loss < 0.85 * rows[0].train_loss
    assert rows[-1].val_loss < rows[0].val_loss
    assert rows[-1].train_seg_loss < 0.9 * rows[0].train_seg_loss
    assert rows[-1].train_dice > rows[0].train_dice + 0.1
    assert trained[0].progress.best_loss == min(row.val_loss for row in rows)


def test_it_leaves_its_files(trained: tuple[TrainedRun, Config]) -> None:
    run = trained[0].run
    with run.metrics.open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["epoch"] for row in table] == [str(epoch) for epoch in range(1, 11)]
    assert list(table[0]) == [
        "epoch", "train_loss", "val_loss", "train_cls_loss", "val_cls_loss", "train_seg_loss", "val_seg_loss",
        "train_accuracy", "val_accuracy", "train_dice", "val_dice", "val_auc", "learning_rate", "seconds",
    ]  # fmt: skip
    for line, row in zip(table, trained[0].progress.rows, strict=True):
        assert float(line["val_loss"]) == pytest.approx(row.val_loss, rel=1e-5)
    assert sorted(path.name for path in (run.root / "checkpoints").iterdir()) == [
        "epoch_0004.safetensors",
        "epoch_0008.safetensors",
    ]
    assert any(path.name.startswith("events.out.tfevents") for path in run.tensorboard.iterdir())
    for path in (run.config, run.index, run.split, run.state, run.best, run.summary, run.bundle / "bundle.json"):
        assert path.is_file(), path
    summary = json.loads(run.summary.read_text())
    assert summary["best_epoch"] == trained[0].progress.best_epoch
    assert summary["epochs"] == 10
    assert sum(summary["images"].values()) == 48


def test_the_kept_weights_are_those_that_were_measured(
    trained: tuple[TrainedRun, Config], prepared: PreparedData
) -> None:
    """Loaded afresh, the best weights have the losses of their row over the whole split, whatever the batches."""
    (result, config), data = trained, prepared
    model = build_model(config.model, config.preprocess, 4)
    header = load_weights(model, result.run.best)
    best = result.progress.rows[result.progress.best_epoch - 1]
    assert header == {"epoch": str(best.epoch), "val_loss": repr(best.val_loss)}
    counts = np.bincount(data.datasets["train"].labels).tolist()
    loss = MultiTaskLoss(config.loss, class_weights(counts, config.loss.class_weights))
    for batch_size in (1, 5):
        batches = evaluation_loader(data.datasets["val"], batch_size, 0)
        again = run_split(model, batches, loss, torch.device("cpu"))
        assert again.loss == pytest.approx(best.val_loss, rel=1e-4)
        assert again.segmentation_loss == pytest.approx(best.val_seg_loss, rel=1e-4)
        assert np.nanmean(again.dice) == pytest.approx(best.val_dice, abs=2e-3)


def test_a_folder_with_a_run_is_refused_and_left_alone(trained: tuple[TrainedRun, Config]) -> None:
    result, config = trained
    before = snapshot(result.run.root)
    with pytest.raises(OutputError) as caught:
        train(config, result.run)
    assert str(result.run.root) in caught.value.message
    assert "hilum evaluate" in caught.value.hint
    assert snapshot(result.run.root) == before


def test_a_folder_with_an_unfinished_run_is_to_be_resumed(phantoms: Path, tmp_path: Path) -> None:
    RunFolder(tmp_path).state.write_bytes(b"what an epoch left")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError) as caught:
        train(make_config(phantoms), RunFolder(tmp_path))
    assert f"hilum train --resume {tmp_path}" in caught.value.hint
    assert snapshot(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_found_before_the_work(phantoms: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    begun: list[str] = []
    step = Step(lambda title: begun.append(title) or (lambda done, total: None))  # type: ignore[func-returns-value]
    with pytest.raises(OutputError):
        train(make_config(phantoms), RunFolder(tmp_path / "file" / "run"), step=step)
    assert not begun


def test_going_on_with_other_settings_is_refused_and_changes_nothing(trained: tuple[TrainedRun, Config]) -> None:
    result, config = trained
    other = config.model_copy(update={"training": config.training.model_copy(update={"learning_rate": 0.5})})
    before = snapshot(result.run.root)
    with pytest.raises(CheckpointError, match=r"config\.toml"):
        train(other, result.run, resume=True)
    assert snapshot(result.run.root) == before  # above all config.toml, which the message sends one to


def test_a_run_killed_in_its_evaluation_or_export_does_not_do_again_what_it_had_done(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: evaluation and export started again from their beginning after each kill."""
    config = make_config(phantoms, training={"epochs": 1})
    whole, run = train(config, RunFolder(tmp_path / "run")).run, RunFolder(tmp_path / "killed" / "run")

    def kill(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("hilum.evaluation.measure.localize", kill)
        with pytest.raises(Killed):
            train(config, run)
    assert len([*run.root.glob("unfinished_test_*.npz")]) == 1
    with monkeypatch.context() as patch:
        patch.setattr("hilum.evaluation.measure.run_batches", kill)  # the network is not run on the test split again
        patch.setattr("hilum.export.run.export_run", kill)
        with pytest.raises(Killed):
            train(config, run, resume=True)
    assert not [*run.root.glob("unfinished_*")]
    with monkeypatch.context() as patch:
        patch.setattr("hilum.pipeline.evaluate_run", kill)
        resumed = train(config, run, resume=True)
    for name in ("report.json", "predictions.csv", "report.html", "sample_overlays.png"):
        assert (run.results("test") / name).read_bytes() == (whole.results("test") / name).read_bytes(), name
    assert resumed.report == load_report(whole.results("test") / "report.json")
    assert (run.bundle / "model.onnx").read_bytes() == (whole.bundle / "model.onnx").read_bytes()
    run.best.write_bytes(run.best.read_bytes() + b" ")  # other weights
    assert pipeline._finished_report(run) is None


def test_an_attempt_that_failed_does_not_block_its_folder(phantoms: Path, tmp_path: Path) -> None:
    config = make_config(phantoms, training={"epochs": 1})
    one_class = config.model_copy(update={"classes": ("COVID",)})
    with pytest.raises(DataError, match="at least 2 classes"):
        train(one_class, RunFolder(tmp_path))
    trained = train(config, RunFolder(tmp_path))
    assert {f.class_name for f in trained.report.figures if f.metric == "recall"} == {*PHANTOM_CLASSES}


# --- when it stops ------------------------------------------------------------------------------------------------


def test_early_stopping_stops_and_keeps_the_best(
    phantoms: Path, prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter((1.0, 0.5, 0.6, 0.7, 0.1, 0.1))
    measure = loop.run_split
    monkeypatch.setattr(loop, "run_split", lambda *given: dataclasses.replace(measure(*given), loss=next(losses)))
    config = make_config(phantoms, training={"epochs": 6, "early_stopping": 2})
    progress, _ = start(config, prepared, tmp_path)
    assert [row.val_loss for row in progress.rows] == [1.0, 0.5, 0.6, 0.7]
    assert (progress.best_epoch, progress.best_loss) == (2, 0.5)
    model = build_model(config.model, config.preprocess, 4)
    assert load_weights(model, RunFolder(tmp_path).best)["epoch"] == "2"
    assert start(config, prepared, tmp_path)[0].epoch == 4  # resumed, it has stopped all the same


class Poisoner(Killer):
    """Makes the weights NaN in ``epoch``, after ``batch`` batches."""

    model: nn.Module

    def batch_done(self, loss: float) -> None:
        try:
            super().batch_done(loss)
        except Killed:
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))


@pytest.mark.parametrize(("batch", "where"), [(1, "training"), (4, "validation")], ids=["training", "validation"])
def test_a_loss_that_is_no_number_names_the_epoch_and_keeps_what_was(
    batch: int, where: str, phantoms: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    config = make_config(phantoms, training={"ema_decay": 0})
    assert len(prepared.datasets["train"]) // BATCH == 4
    with pytest.raises(Killed):
        start(config, prepared, tmp_path, Killer(1, None))
    before = snapshot(tmp_path)
    observer = Poisoner(2, batch)
    observer.model = build_model(config.model, config.preprocess, 4)
    with pytest.raises(DataError) as caught:
        fit(
            observer.model, prepared.datasets["train"], prepared.datasets["val"], config, RunFolder(tmp_path), observer,
            identity="one",
        )  # fmt: skip
    assert where in caught.value.message
    assert "epoch 2" in caught.value.message
    assert "nan" in caught.value.message
    assert "--learning-rate" in caught.value.hint
    after = snapshot(tmp_path)
    assert {name: after[name] for name in before if "tensorboard" not in name} == {
        name: digest for name, digest in before.items() if "tensorboard" not in name
    }


def test_a_gradient_that_overflows_ends_in_that_error_too(
    phantoms: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    config = make_config(phantoms, training={"ema_decay": 0})
    model = build_model(config.model, config.preprocess, 4)
    next(model.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DataError, match="epoch 1"):
        fit(
            model, prepared.datasets["train"], prepared.datasets["val"], config, RunFolder(tmp_path), Silent(),
            identity="one",
        )  # fmt: skip


def test_an_empty_split_is_named(phantoms: Path, prepared: PreparedData, tmp_path: Path) -> None:
    config, full = make_config(phantoms), prepared.datasets["val"]
    empty = CachedDataset(full._cache, (), prepared.index.class_names, config.preprocess)
    model = build_model(config.model, config.preprocess, 4)
    with pytest.raises(DataError, match="validation split"):
        fit(model, full, empty, config, RunFolder(tmp_path), Silent(), identity="one")


# --- steps and arithmetic -----------------------------------------------------------------------------------------


def test_every_epoch_has_its_own_order_and_changes(
    phantoms: Path, prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, list[list[int]]] = {}
    draw = step.draw_parameters

    def record(config: Any, seed: int, epoch: int, rows: torch.Tensor) -> Any:
        seen.setdefault(epoch, []).append(rows.tolist())
        return draw(config, seed, epoch, rows)

    monkeypatch.setattr(step, "draw_parameters", record)
    start(make_config(phantoms, training={"epochs": 2}), prepared, tmp_path)
    sampler = EpochSampler(prepared.datasets["train"].labels, BATCH, seed=0)
    for epoch in (1, 2):
        sampler.epoch = epoch
        assert seen[epoch] == list(sampler)
    assert seen[1] != seen[2]


def test_accumulation_steps_as_often_as_the_batch_it_stands_for(
    phantoms: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    steps = {}
    for name, settings in {
        "8": {"batch_size": 8},
        "4x2": {"batch_size": 4, "accumulate": 2},
        "8x3": {"batch_size": 8, "accumulate": 3},
        "8x9": {"batch_size": 8, "accumulate": 9},
    }.items():
        config = make_config(phantoms, training={"epochs": 1, **settings})
        steps[name] = start(config, prepared, tmp_path / name)[0].steps
    assert steps == {"8": 4, "4x2": 4, "8x3": 2, "8x9": 1}  # the epoch's last group is stepped though it is smaller


def test_the_last_group_of_an_epoch_is_a_mean_as_all_are(
    phantoms: Path, prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four batches, groups of four or up to nine: the same single step. Plain SGD, which shows a gradient's scale."""
    monkeypatch.setattr(device, "build_optimizer", lambda model, config: torch.optim.SGD(model.parameters(), lr=0.1))
    states = []
    for accumulate in (4, 9):
        training = {"epochs": 1, "accumulate": accumulate, "clip_norm": 1e9, "schedule": "plateau"}
        _, model = start(make_config(phantoms, training=training), prepared, tmp_path / str(accumulate))
        states.append(model.state_dict())
    assert same_tensors(*states)


def test_the_average_is_what_is_kept(phantoms: Path, prepared: PreparedData, tmp_path: Path) -> None:
    config = make_config(phantoms, training={"epochs": 1, "ema_decay": 0.9})
    _, model = start(config, prepared, tmp_path)
    kept, last = load_file(RunFolder(tmp_path).best), model.state_dict()
    assert kept.keys() == last.keys()
    averaged = load_state(RunFolder(tmp_path).state)["ema"]
    for name, tensor in kept.items():
        assert torch.equal(tensor, averaged[name]), name
        if name.endswith("num_batches_tracked") or name in ("mean", "std"):
            assert torch.equal(tensor, last[name]), name
    assert not torch.equal(kept["scores.weight"], last["scores.weight"])
    assert not torch.equal(kept["encoder.model.bn1.running_mean"], last["encoder.model.bn1.running_mean"])


def test_images_with_neither_label_nor_mask_are_no_obstacle(
    phantoms: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    config, full = make_config(phantoms, training={"epochs": 1, "ema_decay": 0}), prepared.datasets["train"]
    records = [dataclasses.replace(record, label=None) for record in full.records]
    rows = np.full(len(full), -1)
    cache = dataclasses.replace(full._cache, mask_row=rows)
    bare = CachedDataset(cache, records, prepared.index.class_names, config.preprocess)
    model = build_model(config.model, config.preprocess, 4)
    config = config.model_copy(update={"loss": config.loss.model_copy(update={"class_weights": "none"})})
    progress = fit(model, bare, prepared.datasets["val"], config, RunFolder(tmp_path), Silent(), identity="one")
    assert progress.rows[0].train_loss == 0
    assert np.isnan([progress.rows[0].train_cls_loss, progress.rows[0].train_seg_loss]).all()
    with RunFolder(tmp_path).metrics.open(newline="") as stream:
        assert next(csv.DictReader(stream))["train_dice"] == ""


def test_bfloat16_trains_on_a_cpu(phantoms: Path, prepared: PreparedData, tmp_path: Path) -> None:
    config = make_config(phantoms, training={"epochs": 1, "precision": "bf16-mixed"})
    few = prepared.datasets["train"].subset(range(0, 4 * BATCH, 2))  # many processors emulate it, slowly
    torch.manual_seed(config.training.seed)
    model = build_model(config.model, config.preprocess, 4)
    before = {name: value.clone() for name, value in model.named_parameters()}
    progress = fit(model, few, few, config, RunFolder(tmp_path), Silent(), identity="one")
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert np.isfinite([progress.rows[-1].train_loss, progress.rows[-1].val_loss]).all()
    assert all(not torch.equal(before[name], value) for name, value in model.named_parameters())


def test_a_batch_of_one_is_refused_before_anything_is_written(
    phantoms: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="batch size"):
        start(make_config(phantoms, training={"batch_size": 1}), prepared, tmp_path)
    assert not list(tmp_path.iterdir())


# --- the dry run --------------------------------------------------------------------------------------------------


def test_a_dry_run_counts_and_writes_nothing(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    before = snapshot(phantoms)
    made = plan(make_config(phantoms))
    assert snapshot(phantoms) == before
    assert not list(tmp_path.iterdir())
    assert made.class_names == ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
    assert sum(made.images.values()) == 48
    assert made.images["train"] > made.images["val"] > 0
    with (phantoms / "metadata.csv").open(newline="") as stream:
        assert sum(made.masks.values()) == sum(row["mask"] != "" for row in csv.DictReader(stream))
    assert made.cache_bytes == (48 + sum(made.masks.values())) * 32 * 32
    assert made.parameters == sum(
        p.numel() for p in build_model(make_config(phantoms).model, make_config(phantoms).preprocess, 4).parameters()
    )
    assert made.memory_bytes > 50_000_000
    assert made.device == "cpu"
    assert 0 < made.seconds_per_step < 60
    assert made.seconds_total >= 3 * (made.images["train"] // BATCH) * made.seconds_per_step


def test_a_split_file_goes_before_a_split_of_the_data_that_cannot_be_used(phantoms: Path, tmp_path: Path) -> None:
    config = make_config(phantoms)
    index = build_index(phantoms, check=False)
    save_split(make_split(index, config.split), tmp_path / "split.json")
    half = [replace(record, split="train") if row % 2 else record for row, record in enumerate(index.records)]
    save_index(replace(index, records=tuple(half)), tmp_path / "half.csv")
    halved = make_config(tmp_path / "half.csv")
    with pytest.raises(SplitError, match="`split` column"):
        plan(halved)
    named = make_config(tmp_path / "half.csv", split={"split_file": tmp_path / "split.json"})
    assert sum(plan(named).images.values()) == 48


def test_a_dry_run_times_what_training_does(phantoms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: on random images no change against shortcuts took place, so that an epoch took longer than was said."""
    kinds: list[int] = []
    treat = Treatments.treat

    def record(self: Treatments, *given: Any) -> Any:
        treated = treat(self, *given)
        assert 0 < float(treated.batch.image.std()) < 0.5
        kinds.extend(treated.kind.tolist())
        return treated

    monkeypatch.setattr(Treatments, "treat", record)
    shortcuts = {"background_p": 0.3, "erase_p": 0.3, "lesion_p": 0.9}
    made = plan(make_config(phantoms, shortcuts=shortcuts, training={"ema_decay": 0.9, "sampling": "class"}))
    assert set(kinds) == {0, 1, 2, 3}
    assert len(kinds) == 8 * BATCH  # two steps to warm up, and six
    assert made.seconds_total > 0


def test_a_dry_run_without_data_says_so(phantoms: Path) -> None:
    with pytest.raises(ConfigError, match="No data"):
        plan(make_config(phantoms).model_copy(update={"data": None}))
