"""Metrics per epoch, written to ``metrics_epochwise.csv`` and to TensorBoard event files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from torch.utils.tensorboard.writer import SummaryWriter

from hilum.run_folder import RunFolder
from hilum.storage import write_csv


@dataclass(frozen=True)
class EpochRow:
    """Metrics of one epoch; NaN if the split has no labels or no masks.

    Losses are means over the labels (``cls``) and masks (``seg``) of the split, and their weighted sum. Training
    metrics are measured during the epoch on augmented images with dropout, validation metrics after it.
    ``learning_rate`` is that of the next step.
    """

    epoch: int
    train_loss: float
    val_loss: float
    train_cls_loss: float
    val_cls_loss: float
    train_seg_loss: float
    val_seg_loss: float
    train_accuracy: float
    val_accuracy: float
    train_dice: float
    val_dice: float
    val_auc: float
    learning_rate: float
    seconds: float

    def line(self) -> str:
        """Return a one-line summary."""
        return (
            f"loss {self.train_loss:.4f} / {self.val_loss:.4f}  accuracy {self.train_accuracy:.3f} / "
            f"{self.val_accuracy:.3f}  Dice {self.train_dice:.3f} / {self.val_dice:.3f}  "
            f"AUROC {self.val_auc:.3f}  (train / val)  {self.seconds:.0f} s"
        )


def write_journal(run: RunFolder, rows: Sequence[EpochRow]) -> None:
    """Write the rows of all epochs so far to the run's CSV file."""
    header = [field.name for field in fields(EpochRow)]
    cells = ([_cell(value) for value in asdict(row).values()] for row in rows)
    write_csv(run.metrics, header, cells)


class TensorBoardJournal:
    """Writer of TensorBoard scalars per epoch; a resumed run overwrites repeated epochs.

    Args:
        run: The run's folder.
        first_epoch: First epoch to write, counted from 1.
    """

    def __init__(self, run: RunFolder, first_epoch: int) -> None:
        self._writer = SummaryWriter(str(run.tensorboard), purge_step=first_epoch)

    def add(self, row: EpochRow) -> None:
        """Write one epoch."""
        for name, value in asdict(row).items():
            if name != "epoch" and math.isfinite(value):
                part, _, metric = name.partition("_")
                tag = f"{metric}/{part}" if part in ("train", "val") else name
                self._writer.add_scalar(tag, value, row.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def _cell(value: float) -> object:
    if isinstance(value, int):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
