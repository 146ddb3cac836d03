"""Progress callbacks of the training loop. The display is in hilum.cli.progress."""

from __future__ import annotations

from typing import Protocol

from hilum.training.journal import EpochRow


class TrainingObserver(Protocol):
    """Callbacks of the training loop, called in this order from its thread."""

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        """Handle the start of epoch ``epoch`` of ``epochs``, counted from 1, with ``batches`` training batches."""

    def batch_done(self, loss: float) -> None:
        """Handle the end of a training batch."""

    def epoch_done(self, row: EpochRow, *, best: bool) -> None:
        """Handle the end of an epoch; ``best`` if its validation loss is the lowest so far."""


class Silent:
    """Observer that does nothing."""

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        """Do nothing."""

    def batch_done(self, loss: float) -> None:
        """Do nothing."""

    def epoch_done(self, row: EpochRow, *, best: bool) -> None:
        """Do nothing."""
