"""Estimate image counts, memory and time of a run from a few steps on its images. Nothing is left on the disk."""

from __future__ import annotations

import itertools
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import nn

from hilum.config import Config
from hilum.data.cache import cache_bytes, open_cache
from hilum.data.index import build_index
from hilum.data.split import records_of
from hilum.errors import ConfigError
from hilum.metrics.scores import labels_of
from hilum.models.build import build_model, count_parameters
from hilum.models.losses import MultiTaskLoss
from hilum.progress import Step
from hilum.training.compute import choose_compute, steps_of
from hilum.training.dataset import CachedDataset, EpochSampler, evaluation_loader, sampling_shares, training_loader
from hilum.training.device import check_precision, explaining_out_of_memory, now, set_up, using_threads
from hilum.training.optim import check_batch_size
from hilum.training.prepare import choose_split
from hilum.training.shortcuts import Treatments
from hilum.training.step import TrainingStep
from hilum.training.validation import run_split
from hilum.types import SPLIT_NAMES, Finding, ModelOutput, Record, SplitName

_WARM_UP, _TIMED = 2, 6


@dataclass(frozen=True)
class Plan:
    """Result of a dry run.

    Attributes:
        class_names: The K class names.
        findings: Findings about missing files and the precision; few files are decoded.
        images: Number of images per split.
        masks: Number of lung masks per split.
        parameters: Number of trainable parameters.
        cache_bytes: Disk space of the decoded images.
        memory_bytes: Peak memory of the process (CPU) or of the device (CUDA) during the timed steps.
        device: Device of the timed steps.
        seconds_per_step: Mean time of a step with one batch, with its augmentation and input.
        seconds_total: Estimated time of all epochs, including validation.
    """

    class_names: tuple[str, ...]
    findings: tuple[Finding, ...]
    images: Mapping[SplitName, int]
    masks: Mapping[SplitName, int]
    parameters: int
    cache_bytes: int
    memory_bytes: int
    device: str
    seconds_per_step: float
    seconds_total: float


def plan(config: Config, step: Step | None = None) -> Plan:
    """Index and split the dataset, time a few steps on its images, and return the estimates.

    A few batches are decoded, into a folder that is deleted again.

    Args:
        config: All settings.
        step: Progress callbacks; the choice of settings that are ``auto`` is a finding.

    Raises:
        HilumError: As for ``train``.
    """
    if config.data is None:
        raise ConfigError("No data to train on.", hint="Name a folder or a CSV file: hilum train DATA.")
    check_batch_size(config)
    step = step or Step()
    index = build_index(config.data, classes=config.classes, check=False)
    split = choose_split(index, config)
    rows = {name: records_of(index, split, name) for name in SPLIT_NAMES}
    images = {name: len(records) for name, records in rows.items()}
    masks = {name: sum(record.mask_path is not None for record in records) for name, records in rows.items()}
    model = build_model(config.model, config.preprocess, len(index.class_names))
    parameters = count_parameters(model)
    with TemporaryDirectory() as folder, using_threads(config.training.threads):
        sample = _sample(rows["train"], index.class_names, config, Path(folder))
        computed = choose_compute(model, sample, config, steps_of(config, images["train"]), step)
        with using_threads(computed.training.threads):
            fabric, timed = _time(model, computed, sample)
    batches = max(1, images["train"] // config.training.batch_size)
    per_epoch = batches * timed.step + images["val"] / config.training.batch_size * timed.validation
    return Plan(
        class_names=index.class_names,
        findings=(*check_precision(config), *index.findings),
        images=images,
        masks=masks,
        parameters=parameters,
        cache_bytes=sum(cache_bytes(images[name], masks[name], config.preprocess) for name in SPLIT_NAMES),
        memory_bytes=_peak_memory(fabric),
        device=str(fabric.device),
        seconds_per_step=timed.step,
        seconds_total=per_epoch * config.training.epochs,
    )


class _Timed(NamedTuple):
    step: float  # seconds of a step, with its share of the input
    validation: float  # seconds of a batch in validation


class ConfidentTeacher(nn.Module):
    """The network in training, as it will find lungs later: at first it finds none that are reliable.

    Where lungs are not known, images stay as they are, so that a step takes less time than later.

    Args:
        model: The network.
        side: Side of the images, pixels.
    """

    lungs: torch.Tensor

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("lungs", _lungs(side))

    def forward(self, image: torch.Tensor) -> ModelOutput:
        """Return the network's output with the same lungs for every image."""
        output: ModelOutput = self.model(image)
        logits = (20 * self.lungs.to(image.device) - 10).expand(len(image), -1, -1, -1)
        return output._replace(mask_logits=logits)


def _sample(records: Sequence[Record], class_names: tuple[str, ...], config: Config, folder: Path) -> CachedDataset:
    """Decode as many training images as are timed, drawn as in training, into a cache in ``folder``."""
    training = config.training
    labels = labels_of(records, class_names)
    shares = sampling_shares(labels, records, training.sampling, training.sampling_power)
    count = min(len(records), (_WARM_UP + _TIMED) * training.batch_size)
    chosen = np.sort(np.random.default_rng(training.seed).choice(len(records), count, replace=False, p=shares))
    sample = [records[row] for row in chosen]
    return CachedDataset(open_cache(sample, config.preprocess, folder), sample, class_names, config.preprocess)


def _time(model: nn.Module, config: Config, sample: CachedDataset) -> tuple[Fabric, _Timed]:
    """Return the device and the mean times of the steps after those that warm up, input included."""
    setup = set_up(model, config)
    treatments, loss = Treatments.of(config, sample.class_names), MultiTaskLoss(config.loss)
    teacher = ConfidentTeacher(model if setup.ema is None else setup.ema.module, config.preprocess.size)
    step = TrainingStep(config, setup, loss, treatments, teacher)
    sampler = EpochSampler(sample.labels, config.training.batch_size, config.training.seed)
    epochs = range(-(-(_WARM_UP + _TIMED) // len(sampler)))  # a small dataset is repeated
    loader = itertools.chain.from_iterable(training_loader(sample, sampler, config.training.workers) for _ in epochs)
    setup.wrapped.train()
    ends = []
    with explaining_out_of_memory(config):
        for number, batch in enumerate(itertools.islice(step.batches(loader, 1), _WARM_UP + _TIMED)):
            float(step.backward(batch, number).losses.total.detach())
            step.update()
            if setup.ema:
                setup.ema.update(model, step=number + 1)
            ends.append(now(setup.fabric.device))
        judged = model if setup.ema is None else setup.ema.module
        batches = list(evaluation_loader(sample, config.training.batch_size, 0))
        started = now(setup.fabric.device)
        with setup.fabric.autocast():
            run_split(judged, batches, loss, setup.fabric.device)
        validation = (now(setup.fabric.device) - started) / len(batches)
    return setup.fabric, _Timed((ends[-1] - ends[_WARM_UP - 1]) / _TIMED, validation)


def _lungs(side: int) -> torch.Tensor:
    """Return two ellipses of the size of lungs, (1, 1, S, S) float32 in {0, 1}."""
    y, x = np.mgrid[:side, :side] / side
    left, right = (((x - center) / 0.15) ** 2 + ((y - 0.5) / 0.3) ** 2 < 1 for center in (0.3, 0.7))
    return torch.from_numpy((left | right).astype(np.float32))[None, None]


def _peak_memory(fabric: Fabric) -> int:
    if fabric.device.type == "cuda":
        return torch.cuda.max_memory_allocated(fabric.device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
