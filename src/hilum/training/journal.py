"""The journal of a run, written after each epoch: ``metrics_epochwise.csv`` and TensorBoard's events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from torch.utils.tensorboard.writer import SummaryWriter

from hilum.run_folder import RunFolder
from hilum.storage import write_csv


@dataclass(frozen=True)
class EpochRow:
    """Metrics of one epoch; NaN where the split has no label or no mask at all.

    Losses are means over the labels (``cls``) and the masks (``seg``) of the split, and their weighted sum. Those
    of ``train``, its accuracy and its Dice are of the augmented images, with dropout, while the weights changed;
    those of ``val`` are of the weights that would be kept. ``learning_rate`` is that of the next step.
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
        """Return one line for people."""
        return (
            f"loss {self.train_loss:.4f} / {self.val_loss:.4f}  accuracy {self.train_accuracy:.3f} / "
            f"{self.val_accuracy:.3f}  Dice {self.train_dice:.3f} / {self.val_dice:.3f}  "
            f"AUROC {self.val_auc:.3f}  (train / val)  {self.seconds:.0f} s"
        )


def write_journal(run: RunFolder, rows: Sequence[EpochRow]) -> None:
    """Write all rows so far; a few hundred short lines, so the whole file each time."""
    header = [field.name for field in fields(EpochRow)]
    cells = ([_cell(value) for value in asdict(row).values()] for row in rows)
    write_csv(run.metrics, header, cells)


class TensorBoardJournal:
    """Scalars per epoch for TensorBoard; a resumed run overwrites the epochs it repeats."""

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
