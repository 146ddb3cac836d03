"""Device, CPU threads, precision and memory layout of a run, and errors about them.

Settings that are ``auto`` have fixed values here (AUTO); hilum.training.compute measures them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning_utilities.core import rank_zero
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from hilum.config import Config
from hilum.cpus import available_cpus, has_bfloat16
from hilum.errors import ConfigError, DeviceError
from hilum.training.optim import build_ema, build_optimizer
from hilum.training.processes import ALONE, Processes, here
from hilum.training.synced import synchronize
from hilum.types import Finding

AUTO: dict[str, Any] = {"precision": "32-true", "channels_last": True, "compile": False, "threads": 0}
"""Settings that may be ``auto``, and their values where they are not measured."""


def settled(config: Config, values: Mapping[str, Any] = AUTO) -> Config:
    """Return the settings with ``auto`` replaced by ``values``."""
    unset = {name: value for name, value in values.items() if getattr(config.training, name) == "auto"}
    return config.model_copy(update={"training": config.training.model_copy(update=unset)}) if unset else config


def device_of(config: Config) -> torch.device:
    """Return the device of the settings; ``auto`` is CUDA if available, else the CPU.

    Where processes train together, each has the GPU of its number on its machine.

    Raises:
        DeviceError: The CUDA device is not available.
        ConfigError: The device is unknown, or all processes would use the same GPU.
    """
    name = config.training.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ConfigError(f"Unknown device {name!r}.", hint="Use --device auto, cpu, cuda or cuda:N.")
    if kind == "cpu":
        return torch.device("cpu")
    processes = here()
    if number and processes.local_size > 1:
        raise ConfigError(f"{processes.local_size} processes cannot train on {name}.", hint="Use --device cuda.")
    number = number or str(processes.local_rank)
    available = torch.cuda.device_count()
    if int(number) >= available:
        raise DeviceError(
            f"Device cuda:{number} is not available: PyTorch finds {available} CUDA devices.",
            hint="Use --device cpu, or check the driver with nvidia-smi.",
        )
    return torch.device("cuda", int(number))


def open_fabric(config: Config) -> Fabric:
    """Return Lightning Fabric with the device and precision of the settings; raises as device_of."""
    device = device_of(config)
    devices = 1 if device.index is None else [device.index]
    with _without_announcements():
        precision: Any = settled(config).training.precision
        # Fabric would otherwise find torchrun's variables, and processes are joined in hilum.training.processes
        alone = LightningEnvironment()
        return Fabric(accelerator=device.type, devices=devices, precision=precision, plugins=[alone])


@dataclass(frozen=True)
class Setup:
    """A network on its device, ready for training.

    Attributes:
        fabric: The device and precision.
        wrapped: The network as it is called in training.
        optimizer: Its optimizer.
        wrapped_optimizer: The optimizer as it is stepped in training.
        ema: The averaged weights, or None.
        processes: The processes that train together.
    """

    fabric: Fabric
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    wrapped_optimizer: Any
    ema: ModelEmaV3 | None
    processes: Processes = ALONE


def set_up(model: nn.Module, config: Config, processes: Processes = ALONE) -> Setup:
    """Move a network to the device of the settings, with their precision and memory layout; raises as device_of.

    The network is changed in place. It is not compiled before it is called.

    Args:
        model: The network.
        config: All settings.
        processes: The processes that train together, whose batch normalization is synchronized.
    """
    training = settled(config).training
    fabric = open_fabric(config)
    layout = torch.channels_last if training.channels_last else torch.contiguous_format
    fabric.to_device(model).to(memory_format=layout)
    if fabric.device.type == "cpu" and training.precision == "bf16-mixed":
        keep_float32(model)
    synchronize(model, processes)
    optimizer = build_optimizer(model, training)
    ema = build_ema(model, training)
    if training.compile:
        model.compile()
    wrapped, wrapped_optimizer = fabric.setup(model, optimizer)
    return Setup(fabric, wrapped, optimizer, wrapped_optimizer, ema, processes)


class _Float32:
    """Mixin of a convolution that computes in float32 inside a block of mixed precision."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        with torch.autocast(image.device.type, enabled=False):
            result: torch.Tensor = super().forward(image.float())  # type: ignore[misc]
            return result


def keep_float32(model: nn.Module) -> None:
    """Let depthwise convolutions with a stride or a kernel above 3 compute in float32, in place.

    On a CPU, oneDNN has no fast bfloat16 code for the gradients of these: they took 2 to 10 times as long as in float32
    (16 images, EfficientNet-Lite0 at 128 pixels, AVX-512 with bf16), all other convolutions half as long.
    """
    for module in model.modules():
        if not isinstance(module, nn.Conv2d) or isinstance(module, _Float32):
            continue
        slow = max(module.stride) > 1 or max(module.kernel_size) > 3
        if slow and 1 < module.groups == module.in_channels:
            kind: Any = type(module)
            module.__class__ = _float32_class(kind)


@cache
def _float32_class(kind: Any) -> Any:
    return type(f"Float32{kind.__name__}", (_Float32, kind), {})


def now(device: torch.device) -> float:
    """Return the time in seconds, after the work queued on a GPU is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def using_threads(threads: int | str) -> Iterator[int]:
    """Set the number of torch's CPU threads inside the block, and yield it.

    Args:
        threads: Number of threads; 0 and ``auto`` use torch's default (physical cores, or ``OMP_NUM_THREADS``), limited
            to the processors available to this process (hilum.cpus) or, where processes train together, its share.
    """
    before = torch.get_num_threads()
    asked = 0 if isinstance(threads, str) else threads
    torch.set_num_threads(asked or min(before, max(1, available_cpus() // here().local_size)))
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
        if training.precision in ("auto", "32-true"):
            hints.append("--precision bf16-mixed (about half the memory)")
        if size > 32:
            hints.append(f"--size {max(32, size // 2 // 32 * 32)} (about a quarter)")
        raise DeviceError(
            f"Out of device memory with {training.batch_size} images of {size} x {size} pixels per batch.",
            hint=f"Try {'; '.join(hints) or '--device cpu'}.",
        ) from error
