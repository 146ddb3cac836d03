"""Estimate image counts, memory and time of a run from a few timed steps. Nothing is written."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import nn

from hilum.config import Config
from hilum.data.cache import cache_bytes
from hilum.data.index import build_index
from hilum.data.split import records_of
from hilum.errors import ConfigError
from hilum.models.build import build_model, count_parameters
from hilum.models.losses import MultiTaskLoss
from hilum.training.augment import augment, draw_parameters
from hilum.training.device import check_precision, explaining_out_of_memory, open_fabric, using_threads
from hilum.training.optim import build_optimizer, check_batch_size
from hilum.training.prepare import choose_split
from hilum.training.shortcuts import Treatments
from hilum.types import SPLIT_NAMES, Batch, Finding, SplitName

_WARM_UP, _TIMED = 1, 3


@dataclass(frozen=True)
class Plan:
    """Result of a dry run.

    Attributes:
        class_names: The K class names.
        findings: Findings about missing files and the precision; files are not decoded.
        images: Number of images per split.
        masks: Number of lung masks per split.
        parameters: Number of trainable parameters.
        cache_bytes: Disk space of the decoded images.
        memory_bytes: Peak memory of the process (CPU) or of the device (CUDA) during the timed steps.
        device: Device of the timed steps.
        seconds_per_step: Median time of a forward and backward pass of one batch.
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


def plan(config: Config) -> Plan:
    """Index and split the dataset without decoding, time a few steps on random images, and return the estimates.

    Raises:
        HilumError: As for ``train``.
    """
    if config.data is None:
        raise ConfigError("No data to train on.", hint="Name a folder or a CSV file: hilum train DATA.")
    check_batch_size(config)
    index = build_index(config.data, classes=config.classes, check=False)
    split = choose_split(index, config)
    rows = {name: records_of(index, split, name) for name in SPLIT_NAMES}
    images = {name: len(records) for name, records in rows.items()}
    masks = {name: sum(record.mask_path is not None for record in records) for name, records in rows.items()}
    fabric = open_fabric(config)
    model = build_model(config.model, config.preprocess, len(index.class_names))
    mask_share = masks["train"] / max(1, images["train"])
    with using_threads(config.training.threads):
        seconds, forward = _time_steps(model, config, fabric, mask_share, index.class_names)
    per_epoch = images["train"] / config.training.batch_size * seconds
    per_epoch += images["val"] / config.training.batch_size * forward
    return Plan(
        class_names=index.class_names,
        findings=(*check_precision(config), *index.findings),
        images=images,
        masks=masks,
        parameters=count_parameters(model),
        cache_bytes=sum(cache_bytes(images[name], masks[name], config.preprocess) for name in SPLIT_NAMES),
        memory_bytes=_peak_memory(fabric),
        device=str(fabric.device),
        seconds_per_step=seconds,
        seconds_total=per_epoch * config.training.epochs,
    )


def _time_steps(
    model: nn.Module, config: Config, fabric: Fabric, mask_share: float, class_names: tuple[str, ...]
) -> tuple[float, float]:
    """Return the median seconds of a training step and of a forward pass."""
    model.to(memory_format=torch.channels_last)  # as in the loop
    treatments = Treatments.of(config, class_names)
    optimizer = build_optimizer(model, config.training)
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    loss = MultiTaskLoss(config.loss)
    steps, forwards = [], []
    with explaining_out_of_memory(config):
        for number in range(_WARM_UP + _TIMED):
            batch = fabric.to_device(_random_batch(config, mask_share, len(class_names)))
            wrapped.train()
            started = _now(fabric)
            changed = augment(batch, draw_parameters(config.augment, 0, number, batch.row))
            treated = treatments.treat(changed, model, number) if treatments else None
            changed = treated.batch if treated else changed
            output = wrapped(changed.image)
            extra = treatments.loss(output, treated) if treatments and treated else None
            fabric.backward(loss(output, changed, extra).total)
            wrapped_optimizer.step()
            wrapped_optimizer.zero_grad()
            steps.append(_now(fabric) - started)
            wrapped.eval()
            with torch.inference_mode():
                started = _now(fabric)
                wrapped(batch.image)
                forwards.append(_now(fabric) - started)
    return sorted(steps[_WARM_UP:])[_TIMED // 2], sorted(forwards[_WARM_UP:])[_TIMED // 2]


def _random_batch(config: Config, mask_share: float, num_classes: int) -> Batch:
    n, spec = config.training.batch_size, config.preprocess
    m = round(n * mask_share)
    return Batch(
        image=torch.rand(n, spec.channels, spec.size, spec.size),
        mask=(torch.rand(m, 1, spec.size, spec.size) > 0.5).float(),
        mask_rows=torch.arange(m),
        label=torch.randint(num_classes, (n,)),
        row=torch.arange(n),
    )


def _now(fabric: Fabric) -> float:
    if fabric.device.type == "cuda":
        torch.cuda.synchronize(fabric.device)
    return time.perf_counter()


def _peak_memory(fabric: Fabric) -> int:
    if fabric.device.type == "cuda":
        return torch.cuda.max_memory_allocated(fabric.device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
