"""Metrics per epoch, written to ``metrics_epochwise.csv`` and to TensorBoard event files."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar

from hilum.errors import OutputError
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

    It writes in the calling thread: that of torch's SummaryWriter prints a traceback where the disk is full.

    Args:
        run: The run's folder.
        first_epoch: First epoch to write, counted from 1.

    Raises:
        OutputError: The folder cannot be written; also from the methods.
    """

    def __init__(self, run: RunFolder, first_epoch: int) -> None:
        name = f"events.out.tfevents.{int(time.time()):010d}.{platform.node()}.{os.getpid()}"
        self._path = run.tensorboard / name
        with self._errors():
            run.tensorboard.mkdir(parents=True, exist_ok=True)
            self._stream = self._path.open("wb")
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        purge = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=first_epoch, session_log=purge))

    def add(self, row: EpochRow) -> None:
        """Write one epoch."""
        for name, value in asdict(row).items():
            if name != "epoch" and math.isfinite(value):
                part, _, metric = name.partition("_")
                tag = f"{metric}/{part}" if part in ("train", "val") else name
                summary = scalar(tag, value)  # type: ignore[no-untyped-call]
                self._write(Event(wall_time=time.time(), step=row.epoch, summary=summary))

    def close(self) -> None:
        """Close the event file."""
        with self._errors():
            self._stream.close()

    def _write(self, event: Event) -> None:
        with self._errors():
            RecordWriter(self._stream).write(event.SerializeToString())
            self._stream.flush()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"Cannot write '{self._path}': {error.strerror or error}.",
                hint="Check permissions and free space, then resume the run.",
            ) from error


def _cell(value: float) -> object:
    if isinstance(value, int):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
