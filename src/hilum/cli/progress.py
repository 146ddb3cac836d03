"""Progress display: bars with the remaining time at a terminal, otherwise one line per minute on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from hilum.cli.console import console, errors

if TYPE_CHECKING:
    from hilum.training.journal import EpochRow

LINE_SECONDS = 60.0


class SpeedColumn(ProgressColumn):
    """Items per second over the last half minute."""

    def render(self, task: Task) -> Text:
        """Return the speed of a task; empty before it is known."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")


def new_bar() -> Progress:
    """Return a progress bar with count, speed, elapsed time and remaining time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        SpeedColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of one step; yields a callback that takes (done, total)."""
    steps = StepBars()
    try:
        yield steps.begin(title)
    finally:
        steps.close()


class StepBars:
    """Display of a command's steps: one bar at a time, or one line per minute without a terminal."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._lines: _Lines | None = None

    def begin(self, title: str) -> Callable[[int, int], None]:
        """Close the previous bar, open one named ``title`` and return its callback, which takes (done, total)."""
        if not errors.is_terminal:
            self._lines = self._lines or _Lines()
            return self._lines.begin(title)
        self.close()
        self._bar = bar = new_bar()
        bar.start()
        task = bar.add_task(title, total=None, note="")
        return lambda done, total: bar.update(task, completed=done, total=total)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None
        if self._lines:
            self._lines.stop()
            self._lines = None


class _Lines:
    """A line on stderr every LINE_SECONDS with the step under way, also while a step reports nothing."""

    def __init__(self) -> None:
        self._title, self._began, self._done, self._total = "", time.monotonic(), 0, 0
        self._stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def begin(self, title: str) -> Callable[[int, int], None]:
        """Begin a step and return its callback, which takes (done, total)."""
        self._title, self._began, self._done, self._total = title, time.monotonic(), 0, 0

        def update(done: int, total: int) -> None:
            self._done, self._total = done, total

        return update

    def stop(self) -> None:
        """Write no more lines."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(LINE_SECONDS):
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {self._title}{self._state()}\n")
            sys.stderr.flush()

    def _state(self) -> str:
        done, total, seconds = self._done, self._total, time.monotonic() - self._began
        if not done:
            return "" if seconds < LINE_SECONDS else f", for {seconds / 60:.0f} min"
        rate = done / max(seconds, 1e-3)
        left = f", {(total - done) / rate / 60:.0f} min left" if total > done else ""
        return f": {done:,} of {total:,} ({rate:.1f}/s{left})"


class TrainingBars:
    """TrainingObserver that shows one bar for all epochs and prints one line per epoch.

    Without a terminal, a line per minute counts the batches of the epoch instead of the bar.
    """

    def __init__(self, steps: StepBars) -> None:
        self._steps = steps
        self._bar: Progress | None = None
        self._update: Callable[[int, int], None] | None = None

    def begin(self, title: str) -> Callable[[int, int], None]:
        """Begin a step before or after training; closes the training bar, since a terminal shows one bar at a time."""
        self.close()
        return self._steps.begin(title)

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        """See TrainingObserver."""
        self._epochs = epochs
        if not errors.is_terminal:
            self._done, self._batches = 0, batches
            self._update = self._steps.begin(f"Epoch {epoch}/{epochs}")
            return
        if self._bar is None:
            self._steps.close()
            self._bar = new_bar()
            self._bar.start()
            self._task = self._bar.add_task("", total=(epochs - epoch + 1) * batches, note="")
        self._bar.update(self._task, description=f"Epoch {epoch}/{epochs}")

    def batch_done(self, loss: float) -> None:
        """See TrainingObserver."""
        if self._bar:
            self._bar.update(self._task, advance=1, note=f"loss {loss:.3f}")
        elif self._update:
            self._done += 1
            self._update(self._done, self._batches)

    def epoch_done(self, row: EpochRow, *, best: bool) -> None:
        """See TrainingObserver."""
        mark = "*" if best else " "
        stamp = time.strftime("%H:%M:%S")
        line = f"{stamp} {mark} epoch {row.epoch:3d}/{self._epochs}  {row.line()}"
        console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None
