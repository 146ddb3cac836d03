"""Device, CPU threads and precision of a run, and errors about them."""

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
    """Return the device of the settings; ``auto`` is CUDA if available, else the CPU.

    Raises:
        DeviceError: The CUDA device is not available.
        ConfigError: The device is unknown.
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
            f"CUDA device {name} is not available: PyTorch finds {available}.",
            hint="Use --device cpu, or check the driver with nvidia-smi.",
        )
    return torch.device("cuda", int(number or 0))


def open_fabric(config: Config) -> Fabric:
    """Return Lightning Fabric with the device and precision of the settings; raises as device_of."""
    device = device_of(config)
    devices = 1 if device.index is None else [device.index]
    with _without_announcements():
        return Fabric(accelerator=device.type, devices=devices, precision=config.training.precision)


@contextmanager
def using_threads(threads: int) -> Iterator[int]:
    """Set the number of torch's CPU threads inside the block, and yield it.

    Args:
        threads: Number of threads; 0 uses torch's default (physical cores, or ``OMP_NUM_THREADS``), limited to the
            processors available to this process (hilum.cpus).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or min(before, available_cpus()))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def check_precision(config: Config) -> tuple[Finding, ...]:
    """Return a warning if the settings use bfloat16 on a processor without bfloat16 instructions."""
    training = config.training
    if training.precision != "bf16-mixed" or device_of(config).type != "cpu" or has_bfloat16() is not False:
        return ()
    message = "This processor has no bfloat16 instructions; bf16-mixed is slower than --precision 32-true."
    return (Finding("precision", "warning", message),)


@contextmanager
def _without_announcements() -> Iterator[None]:
    """Suppress Fabric's log messages about accelerators and precision."""
    logger: logging.Logger = rank_zero.log
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def explaining_out_of_memory(config: Config) -> Iterator[None]:
    """Convert CUDA's out-of-memory error into a DeviceError with options that reduce memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        training, size = config.training, config.preprocess.size
        hints = []
        if training.batch_size > 1:
            half, double = training.batch_size // 2, training.accumulate * 2
            hints.append(f"--batch-size {half} --set training.accumulate={double} (same images per step)")
        if training.precision == "32-true":
            hints.append("--precision bf16-mixed (about half the memory)")
        if size > 32:
            hints.append(f"--size {max(32, size // 2 // 32 * 32)} (about a quarter)")
        raise DeviceError(
            f"Out of device memory with {training.batch_size} images of {size} x {size} pixels per batch.",
            hint=f"Try {'; '.join(hints) or '--device cpu'}.",
        ) from error
