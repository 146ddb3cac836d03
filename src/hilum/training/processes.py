"""The processes of one training run, and what they send each other.

Every process has the same weights and takes its part of each batch. Collective operations are torch.distributed's:
NCCL between GPUs, Gloo between CPUs. With one process, they return what they were given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from hilum.errors import ConfigError, ServerError

_T = TypeVar("_T")
_PATIENCE = timedelta(days=7)
"""How long processes wait while the first one decodes images or evaluates."""
_STEP = timedelta(minutes=10)
"""How long processes wait for each other in a step. One that ends is noticed at once, by its closed connection."""
_START = timedelta(minutes=5)


class LostProcessError(ServerError):
    """Another process of the run has ended or does not answer."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, and which of them this is.

    Attributes:
        rank: Number of this process; process 0 writes the run's folder.
        size: Number of processes.
        local_rank: Number of this process among those of its machine.
        local_size: Number of processes of its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    _steps: Any = None  # torch's process group for the steps, and one that waits longer
    _patient: Any = None

    @property
    def first(self) -> bool:
        """Whether this process writes the run's folder."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Return which of ``count`` consecutive items are this process's; the parts differ by at most one item."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over the processes, the same on each."""
        if self.size == 1:
            return tensor
        summed = tensor.clone()
        with self._talking():
            distributed.all_reduce(summed, group=self._steps)
        return summed

    def totals(self, counts: Sequence[int], device: torch.device) -> list[int]:
        """Return the sums of several numbers over the processes."""
        if self.size == 1:
            return list(counts)
        return [int(count) for count in self.total(torch.tensor(counts, device=device)).tolist()]

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensors (N, ...) of all processes, (N x size, ...), in the order of the processes."""
        if self.size == 1:
            return tensor
        own = tensor.contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        with self._talking():
            distributed.all_gather(parts, own, group=self._steps)
        return torch.cat(parts)

    def gather_objects(self, item: _T) -> list[_T]:
        """Return the items of all processes, in their order."""
        if self.size == 1:
            return [item]
        items: list[_T] = [item] * self.size
        with self._talking():
            distributed.all_gather_object(items, item, group=self._patient)
        return items

    def from_first(self, item: _T | None) -> _T:
        """Return the item of the first process, however long it takes to get there."""
        items: list[_T | None] = [item]
        if self.size > 1:
            with self._talking():
                distributed.broadcast_object_list(items, src=0, group=self._patient)
        return items[0]  # type: ignore[return-value]  # the first process has one

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace the gradients of a network by their sums over the processes.

        DistributedDataParallel is not used: it waits for a gradient of every parameter, while a batch without masks has
        none for the decoder, and the optimizer must leave out what has none.
        """
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        summed = self.total(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        parts = torch.split(summed, [gradient.numel() for gradient in gradients])
        for gradient, new in zip(gradients, parts, strict=True):
            gradient.copy_(new.view(gradient.shape))

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of Gloo, NCCL or the store
            raise LostProcessError(
                f"Process {self.rank} of {self.size} lost its connection to the others.",
                hint="One of them ended or does not answer; see its own message. Continue the run with --resume.",
            ) from error


ALONE = Processes()

_joined = ALONE


def here() -> Processes:
    """Return the processes of the run in progress; ALONE outside ``joined``."""
    return _joined


@contextmanager
def joined(timeout: timedelta = _START) -> Iterator[Processes]:
    """Join the other processes of the run, if the environment says that there are others, and yield the Processes.

    The variables are those that ``torchrun`` sets: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and
    MASTER_PORT.

    Args:
        timeout: How long to wait for the others.

    Raises:
        ConfigError: A variable is missing or out of range, or this system has no torch.distributed.
        ServerError: The first process cannot be reached, or does not come.
    """
    global _joined
    if _joined.size > 1 or _alone():
        yield _joined
        return
    own = _of_environment()
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        distributed.init_process_group(backend, rank=own.rank, world_size=own.size, timeout=timeout)
        steps = distributed.new_group(timeout=_STEP)
        patient = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        waited = f"{timeout.total_seconds():.0f} s"
        raise ServerError(
            f"Process {own.rank} of {own.size} did not find the others at {place} within {waited}.",
            hint="Check MASTER_ADDR and MASTER_PORT, the firewall, and that every process was started.",
        ) from error
    _joined = Processes(own.rank, own.size, own.local_rank, own.local_size, steps, patient)
    try:
        yield _joined
    finally:
        _joined = ALONE
        distributed.destroy_process_group()


def _alone() -> bool:
    return os.environ.get("WORLD_SIZE", "") in ("", "1")


def require_one_process(what: str) -> None:
    """Check that this process was not started as one of several.

    Raises:
        ConfigError: It was; the message names ``what``.
    """
    if not _alone():
        raise ConfigError(f"{what} needs a single process.", hint="Start it without torchrun, or unset WORLD_SIZE.")


def _of_environment() -> Processes:
    require_distributed()
    values = {}
    for name, default in (("RANK", None), ("WORLD_SIZE", None), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1")):
        text = os.environ.get(name) or default
        if text is None or not text.isdecimal():
            raise ConfigError(
                f"Expected a number in the environment variable {name}, got {text!r}.",
                hint="Start the processes with torchrun or --devices, or unset WORLD_SIZE.",
            )
        values[name] = int(text)
    if values["RANK"] >= values["WORLD_SIZE"]:
        raise ConfigError(
            f"RANK is {values['RANK']} of {values['WORLD_SIZE']} processes, and counts from 0.",
            hint="Start the processes with torchrun or --devices, or unset WORLD_SIZE.",
        )
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise ConfigError(
                f"WORLD_SIZE is {values['WORLD_SIZE']}, but {name} is not set.",
                hint="Start the processes with torchrun or --devices, or unset WORLD_SIZE.",
            )
    return Processes(values["RANK"], values["WORLD_SIZE"], values["LOCAL_RANK"], values["LOCAL_WORLD_SIZE"])


def check_parts(batch_size: int, processes: Processes) -> None:
    """Check that the processes can have equal parts of a batch.

    Raises:
        ConfigError: They cannot.
    """
    if batch_size % processes.size:
        raise ConfigError(
            f"{processes.size} processes cannot share batches of {batch_size} images equally.",
            hint="Choose a --batch-size that is a multiple of the number of processes; it counts all of their images.",
        )


def require_distributed() -> None:
    """Check that this system can train on several processes.

    Raises:
        ConfigError: It is Windows, or torch was built without torch.distributed.
    """
    if sys.platform == "win32" or not distributed.is_available():
        raise ConfigError(
            "Training on several processes needs Linux or macOS, and a PyTorch with torch.distributed.",
            hint="Train on one process, or use WSL.",
        )
