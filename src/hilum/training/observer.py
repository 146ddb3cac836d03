"""Progress callbacks of the training loop: the command line draws bars with them, a library call is silent."""

from __future__ import annotations

from typing import Protocol

from hilum.training.journal import EpochRow


class TrainingObserver(Protocol):
    """Callbacks of the loop, called in this order from its own thread."""

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        """Handle the start of epoch ``epoch`` of ``epochs``, counted from 1, with ``batches`` training batches."""

    def batch_done(self, loss: float) -> None:
        """Handle the end of a training batch."""

    def epoch_done(self, row: EpochRow, *, best: bool) -> None:
        """Handle an epoch that is measured and stored; ``best``: it has the lowest validation loss so far."""


class Silent:
    """An observer that does nothing."""

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        """Do nothing."""

    def batch_done(self, loss: float) -> None:
        """Do nothing."""

    def epoch_done(self, row: EpochRow, *, best: bool) -> None:
        """Do nothing."""
