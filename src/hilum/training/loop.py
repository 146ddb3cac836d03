"""The training loop.

All randomness is a function of (seed, epoch, row), and the state is written after each epoch and every few minutes
within one. On a CPU, a run that is interrupted and resumed ends with bit-identical weights. Several processes
(hilum.training.processes) take the steps of one, to rounding; the first of them writes the files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from hilum.config import Config
from hilum.errors import CheckpointError, DataError
from hilum.metrics.scores import validation_auc
from hilum.models.losses import MultiTaskLoss, class_weights, prior_shift
from hilum.models.weights import fit_state, save_weights
from hilum.run_folder import RunFolder
from hilum.training.checkpoint import load_state, save_state
from hilum.training.dataset import CachedDataset, EpochSampler, evaluation_loader, sampling_shares, training_loader
from hilum.training.device import explaining_out_of_memory, set_up
from hilum.training.journal import EpochRow, TensorBoardJournal, write_journal
from hilum.training.observer import TrainingObserver
from hilum.training.optim import Schedule, check_batch_size
from hilum.training.processes import Processes, here
from hilum.training.shortcuts import Treatments
from hilum.training.step import TrainingStep
from hilum.training.tally import Tally, mean
from hilum.training.validation import SplitOutput, run_split
from hilum.types import Batch


@dataclass
class Progress:
    """Progress of a run, stored for resuming.

    Attributes:
        epoch: Number of completed epochs.
        steps: Number of optimizer steps.
        best_epoch: Epoch with the lowest validation loss, counted from 1.
        best_loss: Lowest validation loss.
        rows: Metrics of each completed epoch.
    """

    epoch: int = 0
    steps: int = 0
    best_epoch: int = 0
    best_loss: float = float("inf")
    rows: list[EpochRow] = field(default_factory=list)


def fit(
    model: nn.Module,
    train: CachedDataset,
    val: CachedDataset,
    config: Config,
    run: RunFolder,
    observer: TrainingObserver,
    *,
    identity: str,
) -> Progress:
    """Train a network, write its best weights to ``run.best``, and return the Progress.

    Args:
        model: Network with its initial weights; trained in place.
        train: The training split.
        val: The validation split, whose loss selects the best epoch.
        config: All settings.
        run: Output folder; training continues from a state in it.
        observer: Progress callbacks.
        identity: Hash of settings, data and split, which must be the same when a run is resumed.

    Raises:
        DataError: A split is empty, or the loss is not finite; files of earlier epochs are kept.
        ConfigError: The batch size is 1, and batch normalization needs more images; or the processes cannot share it.
        CheckpointError: The state in ``run`` belongs to another run.
        DeviceError: The device is not available or out of memory.
    """
    processes = here()
    for name, dataset in (("training", train), ("validation", val)):
        if len(dataset) == 0:
            raise DataError(
                f"The {name} split has no images.", hint="Check the split; `hilum split DATA` prints its counts."
            )
    check_batch_size(config)
    torch.manual_seed(config.training.seed)
    epochs, parts = _prepare(model, train, val, config, observer, processes)
    progress, within = _resume(run, parts, identity, processes)
    save = partial(_save, run, parts, identity, progress) if processes.first else _save_nothing
    with closing(_Records(run, first_epoch=progress.epoch + 1)) if processes.first else nullcontext() as records:
        while progress.epoch < config.training.epochs and not _stalled(progress, config.training.early_stopping):
            row = epochs.run(progress, within, save)
            within = None
            progress.epoch = row.epoch
            progress.rows.append(row)
            best = row.val_loss < progress.best_loss
            if best:
                progress.best_loss, progress.best_epoch = row.val_loss, row.epoch
            if records is not None:
                records.write(progress, epochs.step.teacher, config.training.checkpoint_every)
            save()  # last, so that an epoch counts only if all its files are written
            observer.epoch_done(row, best=best)
    return progress


def _prepare(
    model: nn.Module,
    train: CachedDataset,
    val: CachedDataset,
    config: Config,
    observer: TrainingObserver,
    processes: Processes,
) -> tuple[_Epochs, dict[str, object]]:
    """Return what the epochs need, and the parts of it that have a state."""
    settings = config.training
    setup = set_up(model, config, processes)
    fabric, ema = setup.fabric, setup.ema
    judged = model if ema is None else ema.module  # the weights that are validated and saved
    shares = sampling_shares(train.labels, train.records, settings.sampling, settings.sampling_power)
    lungs = settings.from_bundle is not None or any(record.mask_path is not None for record in train.records)
    treatments = Treatments.of(config, train.class_names, lungs=lungs)
    totals = partial(processes.totals, device=fabric.device) if processes.size > 1 else None
    loss = MultiTaskLoss(config.loss, *_class_balance(train, config, shares), totals)
    if resident := train.fits(fabric.device):
        train = train.resident(fabric.device)
    sampler = EpochSampler(train.labels, settings.batch_size, settings.seed, shares=shares, processes=processes)
    schedule = Schedule(setup.optimizer, settings, steps_per_epoch=-(-len(sampler) // settings.accumulate))
    epochs = _Epochs(
        step=TrainingStep(config, setup, loss, treatments, judged),
        model=model,
        sampler=sampler,
        batches=training_loader(train, sampler, 0 if resident else settings.workers),
        val_batches=evaluation_loader(val, settings.batch_size, settings.workers, processes),
        schedule=schedule,
        observer=observer,
    )
    parts = {"model": model, "optimizer": setup.optimizer, "schedule": schedule, "precision": fabric.strategy.precision}
    return epochs, parts | ({"ema": ema.module} if ema else {})


class _Records:
    """Writer of the files of a run that are made after each epoch, except its state.

    Args:
        run: The run's folder.
        first_epoch: First epoch to write, counted from 1.
    """

    def __init__(self, run: RunFolder, first_epoch: int) -> None:
        self._run, self._tensorboard = run, TensorBoardJournal(run, first_epoch)

    def write(self, progress: Progress, judged: nn.Module, checkpoint_every: int) -> None:
        """Write the weights where they are the best or due, and the metrics of the last epoch."""
        run, row = self._run, progress.rows[-1]
        if progress.best_epoch == row.epoch:
            save_weights(run.best, judged.state_dict(), {"epoch": str(row.epoch), "val_loss": repr(row.val_loss)})
        if row.epoch % checkpoint_every == 0:
            save_weights(run.checkpoint(row.epoch), judged.state_dict(), {"epoch": str(row.epoch)})
        write_journal(run, progress.rows)
        self._tensorboard.add(row)

    def close(self) -> None:
        """Close the event file."""
        self._tensorboard.close()


@dataclass
class _Within:
    """The place inside an epoch at which its state was saved.

    Attributes:
        batches: Number of batches done.
        seconds: Time that they took.
        tally: State of the metrics.
        random: States of torch's random generators, which dropout uses: of the CPU and, on a GPU, of the device.
    """

    batches: int
    seconds: float
    tally: dict[str, Any]
    random: list[torch.Tensor]


@dataclass(frozen=True)
class _Epochs:
    """What an epoch needs."""

    step: TrainingStep
    model: nn.Module
    sampler: EpochSampler
    batches: DataLoader[Batch]
    val_batches: DataLoader[Batch]
    schedule: Schedule
    observer: TrainingObserver

    def run(self, progress: Progress, within: _Within | None, save: Callable[..., None]) -> EpochRow:
        """Train for the epoch after ``progress``, or for the rest of it after ``within``, and validate."""
        config, setup, epoch = self.step.config, self.step.setup, progress.epoch + 1
        started = time.perf_counter() - (within.seconds if within else 0.0)
        self.sampler.epoch, self.sampler.start = epoch, within.batches if within else 0
        self.observer.epoch_started(epoch, config.training.epochs, len(self.sampler) - self.sampler.start)
        torch.manual_seed(_seed_of_epoch(config.training.seed, epoch))  # dropout; all else has its own seeds
        loss, device = self.step.loss, setup.fabric.device
        with explaining_out_of_memory(config):
            tally = self._train(progress, within, save)
            with setup.fabric.autocast():
                measured = run_split(self.step.teacher, self.val_batches, loss, device, setup.processes)
        _require_finite(measured.loss, "validation", epoch)
        rate = setup.optimizer.param_groups[0]["lr"]
        self.schedule.after_epoch(measured.loss)
        return _row(epoch, tally, measured, loss, rate, time.perf_counter() - started)

    def _train(self, progress: Progress, within: _Within | None, save: Callable[..., None]) -> Tally:
        """Train for one epoch, or for the rest of it after ``within``, and return its metrics."""
        step, setup = self.step, self.step.setup
        settings, device = step.config.training, setup.fabric.device
        tally = Tally(within.tally if within else None)
        first, total = (within.batches if within else 0), len(self.batches)
        started = time.perf_counter() - (within.seconds if within else 0.0)
        due = time.monotonic() + 60 * settings.checkpoint_minutes
        setup.wrapped.train()
        for number, batch in enumerate(step.batches(self.batches, progress.epoch + 1), first):
            if within is not None and number == first:  # after the loader, which draws a number of its own
                _set_random(within.random, device)
            place = number % settings.accumulate
            group = min(settings.accumulate, total - number + place)  # the last group may be smaller
            done = step.backward(batch, progress.epoch + 1, 1 / group)
            if stepped := place + 1 == group:
                step.update()
                self.schedule.after_step()
                progress.steps += 1
                if setup.ema:
                    setup.ema.update(self.model, step=progress.steps)
            tally.add(done)
            _require_finite(tally.last_loss, "training", progress.epoch + 1)
            self.observer.batch_done(tally.last_loss)
            if settings.checkpoint_minutes and stepped and number + 1 < total and time.monotonic() >= due:
                save(_Within(number + 1, time.perf_counter() - started, tally.state(), _get_random(device)))
                due = time.monotonic() + 60 * settings.checkpoint_minutes
        return tally


def _get_random(device: torch.device) -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random(states: list[torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)


def _row(epoch: int, tally: Tally, measured: SplitOutput, loss: MultiTaskLoss, rate: float, seconds: float) -> EpochRow:
    known = [0.0 if np.isnan(part) else part for part in (tally.classification_loss, tally.segmentation_loss)]
    return EpochRow(
        epoch=epoch,
        train_loss=loss.weigh(*known),  # as for validation, each part averaged over the images that have it
        val_loss=measured.loss,
        train_cls_loss=tally.classification_loss,
        val_cls_loss=measured.classification_loss,
        train_seg_loss=tally.segmentation_loss,
        val_seg_loss=measured.segmentation_loss,
        train_accuracy=tally.accuracy,
        val_accuracy=_accuracy(measured.logits, measured.labels),
        train_dice=tally.dice,
        val_dice=mean(measured.dice),
        val_auc=validation_auc(measured.labels, measured.probabilities),
        learning_rate=rate,
        seconds=seconds,
    )


def _require_finite(loss: float, split: str, epoch: int) -> None:
    if not np.isfinite(loss):
        raise DataError(
            f"The {split} loss is {loss} in epoch {epoch}.",
            hint="Start a new run with a lower --learning-rate, or --precision 32-true. Earlier epochs are kept.",
        )


def _save(
    run: RunFolder, parts: dict[str, object], identity: str, progress: Progress, within: _Within | None = None
) -> None:
    states = {name: part.state_dict() for name, part in parts.items()}  # type: ignore[attr-defined]
    inside = None if within is None else vars(within)
    save_state(run.state, {**states, "identity": identity, "progress": asdict(progress), "within": inside})


def _save_nothing(within: _Within | None = None) -> None:
    """What processes other than the first do."""


def _resume(
    run: RunFolder, parts: dict[str, object], identity: str, processes: Processes
) -> tuple[Progress, _Within | None]:
    """Load the state in ``run`` into ``parts``, if there is one, and return the progress and place inside an epoch."""
    state: dict[str, Any] | None = processes.from_first(
        load_state(run.state) if processes.first and run.state.exists() else None
    )
    if state is None:
        return Progress(), None
    if state["identity"] != identity:
        raise CheckpointError(
            f"The state '{run.state}' belongs to other settings, data or another split.",
            hint="Resume with the settings in the run's config.toml, or choose another --output. Runs of an earlier "
            "version of hilum can be evaluated and exported, but not resumed.",
        )
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            fit_state(part, state[name], str(run.state))
        else:
            part.load_state_dict(state[name])  # type: ignore[attr-defined]
    saved, within = state["progress"], state["within"]
    progress = Progress(**{**saved, "rows": [EpochRow(**row) for row in saved["rows"]]})
    return progress, None if within is None else _Within(**within)


def _class_balance(
    train: CachedDataset, config: Config, shares: NDArray[np.float64] | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the class weights and the shift of the logits that corrects for them and for sampling; None without."""
    known = train.labels >= 0
    scheme = config.loss.class_weights
    if not known.any() or (shares is None and scheme == "none"):
        return None, None
    counts = np.bincount(train.labels[known], minlength=train.num_classes)
    drawn = counts if shares is None else np.bincount(train.labels[known], shares[known], train.num_classes)
    natural, sampled = ((of / of.sum()).tolist() for of in (counts, drawn))
    weights = class_weights(counts.tolist(), scheme, sampled)
    return weights, prior_shift(natural, sampled, weights) if config.loss.keep_prior else None


def _stalled(progress: Progress, patience: int) -> bool:
    return patience > 0 and progress.epoch - progress.best_epoch >= patience


def _seed_of_epoch(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def _accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    known = labels >= 0
    return float((logits.argmax(axis=1)[known] == labels[known]).mean()) if known.any() else float("nan")
