"""The training loop.

All randomness is a function of (seed, epoch, row), and the state is written after each epoch. On a CPU, a run that is
interrupted and resumed ends with bit-identical weights.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hilum.config import Config
from hilum.errors import CheckpointError, DataError
from hilum.metrics.scores import validation_auc
from hilum.models.losses import MultiTaskLoss, class_weights, prior_shift
from hilum.models.weights import fit_state, save_weights
from hilum.run_folder import RunFolder
from hilum.training.augment import augment, draw_parameters
from hilum.training.checkpoint import load_state, save_state
from hilum.training.dataset import CachedDataset, EpochSampler, evaluation_loader, sampling_shares, training_loader
from hilum.training.device import explaining_out_of_memory, open_fabric
from hilum.training.journal import EpochRow, TensorBoardJournal, write_journal
from hilum.training.observer import TrainingObserver
from hilum.training.optim import Schedule, build_ema, build_optimizer, check_batch_size
from hilum.training.shortcuts import Treatments
from hilum.training.validation import SplitOutput, overlap_scores, run_split
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
        ConfigError: The batch size is 1, and batch normalization needs more images.
        CheckpointError: The state in ``run`` belongs to another run.
        DeviceError: The device is not available or out of memory.
    """
    settings = config.training
    for name, dataset in (("training", train), ("validation", val)):
        if len(dataset) == 0:
            raise DataError(
                f"The {name} split has no images.", hint="Check the split; `hilum split DATA` prints its counts."
            )
    check_batch_size(config)
    fabric = open_fabric(config)
    torch.manual_seed(settings.seed)
    fabric.to_device(model).to(memory_format=torch.channels_last)  # faster on a CPU
    optimizer = build_optimizer(model, settings)
    ema = build_ema(model, settings)
    judged = model if ema is None else ema.module  # the weights that are validated and saved
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    shares = sampling_shares(train, settings.sampling, settings.sampling_power)
    lungs = settings.from_bundle is not None or any(record.mask_path is not None for record in train.records)
    treatments = Treatments.of(config, train.class_names, lungs=lungs)
    loss = MultiTaskLoss(config.loss, *_class_balance(train, config, shares))

    sampler = EpochSampler(train.labels, settings.batch_size, settings.seed, shares=shares)
    batches = training_loader(train, sampler, settings.workers)
    val_batches = evaluation_loader(val, settings.batch_size, settings.workers)
    schedule = Schedule(optimizer, settings, steps_per_epoch=-(-len(sampler) // settings.accumulate))
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "precision": fabric.strategy.precision}
    parts |= {"ema": ema.module} if ema else {}
    progress = _resume(run, parts, identity)

    with closing(TensorBoardJournal(run, first_epoch=progress.epoch + 1)) as tensorboard:
        while progress.epoch < settings.epochs and not _stalled(progress, settings.early_stopping):
            epoch, started = progress.epoch + 1, time.perf_counter()
            observer.epoch_started(epoch, settings.epochs, len(sampler))
            torch.manual_seed(_seed_of_epoch(settings.seed, epoch))  # dropout; all else has its own seeds
            sampler.epoch = epoch
            tally = _Tally()
            wrapped.train()
            with explaining_out_of_memory(config):
                for number, batch in enumerate(batches):
                    batch = fabric.to_device(batch)
                    batch = augment(batch, draw_parameters(config.augment, settings.seed, epoch, batch.row))
                    place = number % settings.accumulate
                    group = min(settings.accumulate, len(sampler) - number + place)  # the last group may be smaller
                    if treatments:
                        treated = treatments.treat(batch, judged, epoch)
                        batch = treated.batch
                    output = wrapped(batch.image)
                    losses = loss(output, batch, treatments.loss(output, treated) if treatments else None)
                    fabric.backward(losses.total / group)
                    if place + 1 == group:
                        # GradScaler (16-mixed) skips steps with overflowing gradients, so they are not an error
                        fabric.clip_gradients(
                            wrapped, wrapped_optimizer, max_norm=settings.clip_norm, error_if_nonfinite=False
                        )
                        wrapped_optimizer.step()
                        wrapped_optimizer.zero_grad()
                        schedule.after_step()
                        progress.steps += 1
                        if ema:
                            ema.update(model, step=progress.steps)
                    tally.add(output, losses, batch)
                    _require_finite(tally.last_loss, "training", epoch)
                    observer.batch_done(tally.last_loss)
                with fabric.autocast():
                    measured = run_split(judged, val_batches, loss, fabric.device)
            _require_finite(measured.loss, "validation", epoch)
            rate = optimizer.param_groups[0]["lr"]
            schedule.after_epoch(measured.loss)
            row = _row(epoch, tally, measured, loss, rate, time.perf_counter() - started)
            progress.epoch = epoch
            progress.rows.append(row)
            best = measured.loss < progress.best_loss
            if best:
                progress.best_loss, progress.best_epoch = measured.loss, epoch
                save_weights(run.best, judged.state_dict(), {"epoch": str(epoch), "val_loss": repr(measured.loss)})
            if epoch % settings.checkpoint_every == 0:
                save_weights(run.checkpoint(epoch), judged.state_dict(), {"epoch": str(epoch)})
            write_journal(run, progress.rows)
            tensorboard.add(row)
            _save(run, parts, identity, progress)  # last, so that an epoch counts only if all its files are written
            observer.epoch_done(row, best=best)
    return progress


class _Tally:
    """Running sums of metrics over a training epoch; NaN without labels or masks."""

    def __init__(self) -> None:
        self._sums = dict.fromkeys(("classification", "segmentation", "correct"), 0.0)
        self._counts = dict.fromkeys(("labels", "masks"), 0)
        self._dice: list[NDArray[np.float64]] = []
        self.last_loss = float("nan")

    def add(self, output: Sequence[torch.Tensor], losses: Sequence[torch.Tensor], batch: Batch) -> None:
        mask_logits, class_logits = output[0], output[1]
        total, classification, segmentation = (float(value.detach()) for value in losses)
        known = batch.label >= 0
        labels, masks = int(known.sum()), len(batch.mask_rows)
        self.last_loss = total
        self._sums["classification"] += classification * labels
        self._sums["segmentation"] += segmentation * masks
        self._sums["correct"] += int((class_logits.argmax(dim=1)[known] == batch.label[known]).sum())
        self._counts["labels"] += labels
        self._counts["masks"] += masks
        self._dice.append(overlap_scores(mask_logits, batch)[0])

    def _share(self, name: str, count: str) -> float:
        return self._sums[name] / self._counts[count] if self._counts[count] else float("nan")

    @property
    def classification_loss(self) -> float:
        return self._share("classification", "labels")

    @property
    def segmentation_loss(self) -> float:
        return self._share("segmentation", "masks")

    @property
    def accuracy(self) -> float:
        return self._share("correct", "labels")

    @property
    def dice(self) -> float:
        return _mean(np.concatenate(self._dice))


def _row(
    epoch: int, tally: _Tally, measured: SplitOutput, loss: MultiTaskLoss, rate: float, seconds: float
) -> EpochRow:
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
        val_dice=_mean(measured.dice),
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


def _save(run: RunFolder, parts: dict[str, object], identity: str, progress: Progress) -> None:
    states = {name: part.state_dict() for name, part in parts.items()}  # type: ignore[attr-defined]
    save_state(run.state, {**states, "identity": identity, "progress": asdict(progress)})


def _resume(run: RunFolder, parts: dict[str, object], identity: str) -> Progress:
    """Load the state in ``run`` into ``parts``, if there is one, and return the progress."""
    if not run.state.exists():
        return Progress()
    state = load_state(run.state)
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
    saved = state["progress"]
    return Progress(**{**saved, "rows": [EpochRow(**row) for row in saved["rows"]]})


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


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
