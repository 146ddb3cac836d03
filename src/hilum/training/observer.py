"""Who is told what happens during a run: the command line draws progress bars, tests listen, a library is silent."""

from __future__ import annotations

from typing import Protocol

from hilum.training.journal import EpochRow


class TrainingObserver(Protocol):
    """Called by the loop, in this order, from its own thread."""

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        """Epoch ``epoch`` of ``epochs``, counted from 1, begins; it has ``batches`` training batches."""

    def batch_done(self, loss: float) -> None:
        """One training batch is done."""

    def epoch_done(self, row: EpochRow, *, best: bool) -> None:
        """The epoch is measured and stored; ``best`` if it has the lowest validation loss so far."""


class Silent:
    """An observer that says nothing."""

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        """Nothing."""

    def batch_done(self, loss: float) -> None:
        """Nothing."""

    def epoch_done(self, row: EpochRow, *, best: bool) -> None:
        """Nothing."""
