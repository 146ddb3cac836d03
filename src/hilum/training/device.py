"""Where a run computes: the device it asked for, and what to say when its memory is exhausted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric import Fabric
from lightning_utilities.core import rank_zero

from hilum.config import Config
from hilum.errors import ConfigError, DeviceError


def device_of(config: Config) -> torch.device:
    """The device that ``config`` asks for; ``auto`` is CUDA where there is one.

    Raises:
        DeviceError: CUDA is asked for and absent, or has fewer devices.
        ConfigError: the device's name is not known.
    """
    name = config.training.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ConfigError(f"Expected --device auto, cpu, cuda or cuda:N, got {name!r}.")
    if kind == "cpu":
        return torch.device("cpu")
    available = torch.cuda.device_count()
    if int(number or 0) >= available:
        raise DeviceError(
            f"Expected the CUDA device {name}, PyTorch finds {available} CUDA device(s).",
            hint="Use --device cpu, or check the driver with nvidia-smi.",
        )
    return torch.device("cuda", int(number or 0))


def open_fabric(config: Config) -> Fabric:
    """Lightning Fabric on the device of ``config``, in its precision; errors as for device_of."""
    device = device_of(config)
    devices = 1 if device.index is None else [device.index]
    with _without_announcements():
        return Fabric(accelerator=device.type, devices=devices, precision=config.training.precision)


@contextmanager
def _without_announcements() -> Iterator[None]:
    """Fabric logs the accelerators it found and the precision it was given."""
    logger: logging.Logger = rank_zero.log  # whichever part of Lightning set it last
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def explaining_out_of_memory(config: Config) -> Iterator[None]:
    """Turn CUDA's out-of-memory error into one that says which flags help."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        training, size = config.training, config.preprocess.size
        cures = []
        if training.batch_size > 1:
            half, double = training.batch_size // 2, training.accumulate * 2
            cures.append(f"--batch-size {half} --accumulate {double} keeps the images per step")
        if training.precision == "32-true":
            cures.append("--precision bf16-mixed needs about half")
        if size > 32:
            cures.append(f"--size {max(32, size // 2 // 32 * 32)} needs about a quarter")
        raise DeviceError(
            f"Expected {training.batch_size} images of {size}x{size} to fit the device's memory, they do not.",
            hint=f"{'; '.join(cures) or 'Use --device cpu'}.",
        ) from error
