"""Where a run computes: its device, its CPU threads, and what to say when they cannot do what is asked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric import Fabric
from lightning_utilities.core import rank_zero

from hilum.config import Config
from hilum.cpus import available_cpus, has_bfloat16
from hilum.errors import ConfigError, DeviceError
from hilum.types import Finding


def device_of(config: Config) -> torch.device:
    """Return the device that ``config`` asks for; ``auto`` is CUDA where there is one.

    Raises:
        DeviceError: CUDA is asked for and absent, or has fewer devices.
        ConfigError: The device's name is not known.
    """
    name = config.training.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ConfigError(f"Unknown device {name!r}.", hint="Use --device auto, cpu, cuda or cuda:N.")
    if kind == "cpu":
        return torch.device("cpu")
    available = torch.cuda.device_count()
    if int(number or 0) >= available:
        raise DeviceError(
            f"No CUDA device {name}: PyTorch finds {available}.",
            hint="Use --device cpu, or check the driver with nvidia-smi.",
        )
    return torch.device("cuda", int(number or 0))


def open_fabric(config: Config) -> Fabric:
    """Return Lightning Fabric on the device of ``config``, in its precision; errors as for device_of."""
    device = device_of(config)
    devices = 1 if device.index is None else [device.index]
    with _without_announcements():
        return Fabric(accelerator=device.type, devices=devices, precision=config.training.precision)


@contextmanager
def using_threads(threads: int) -> Iterator[int]:
    """Let torch use so many CPU threads inside the block, and yield their number.

    Args:
        threads: 0 takes torch's own number (the physical cores, or ``OMP_NUM_THREADS``), at most what the affinity
            mask and the cgroup's quota leave to this process.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or min(before, available_cpus()))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def check_precision(config: Config) -> tuple[Finding, ...]:
    """Warn where ``config`` computes in bfloat16 on a processor that has to emulate it."""
    training = config.training
    if training.precision != "bf16-mixed" or device_of(config).type != "cpu" or has_bfloat16() is not False:
        return ()
    message = "This processor has no bfloat16 arithmetic; bf16-mixed is slower on it than --precision 32-true."
    return (Finding("precision", "warning", message),)


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
    """Turn CUDA's out-of-memory error into one that says which options help."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        training, size = config.training, config.preprocess.size
        hints = []
        if training.batch_size > 1:
            half, double = training.batch_size // 2, training.accumulate * 2
            hints.append(f"--batch-size {half} --set training.accumulate={double} keeps the images per step")
        if training.precision == "32-true":
            hints.append("--precision bf16-mixed needs about half")
        if size > 32:
            hints.append(f"--size {max(32, size // 2 // 32 * 32)} needs about a quarter")
        raise DeviceError(
            f"Out of device memory with {training.batch_size} images of {size}x{size} per batch.",
            hint=f"{'; '.join(hints) or 'Use --device cpu'}.",
        ) from error
