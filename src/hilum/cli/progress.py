"""Progress bars with the time left at a terminal; a line a minute where the output is a file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hilum.cli.console import console, errors

if TYPE_CHECKING:
    from hilum.training.journal import EpochRow

LINE_SECONDS = 60.0


def new_bar() -> Progress:
    """A bar with its count, the time gone and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that a library function feeds with (done, in all)."""
    steps = StepBars()
    try:
        yield steps.begin(title)
    finally:
        steps.close()


class StepBars:
    """The long steps of a command: one bar at a time, or a line a minute where the output is no terminal."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._lines: _Lines | None = None

    def begin(self, title: str) -> Callable[[int, int], None]:
        """Close the bar before and open one named ``title``."""
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
    """A TrainingObserver: one bar for the run, with the time left over all epochs, and a line per epoch."""

    def __init__(self, steps: StepBars) -> None:
        self._steps = steps
        self._bar: Progress | None = None

    def begin(self, title: str) -> Callable[[int, int], None]:
        """Begin a step; a terminal has room for one live display."""
        self.close()
        return self._steps.begin(title)

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        """See TrainingObserver."""
        if self._bar is None:
            self._steps.close()
            self._bar = new_bar()
            self._bar.start()
            self._task = self._bar.add_task("", total=(epochs - epoch + 1) * batches, note="")
        self._bar.update(self._task, description=f"Epoch {epoch}/{epochs}")
        self._epochs = epochs

    def batch_done(self, loss: float) -> None:
        """See TrainingObserver."""
        if self._bar:
            self._bar.update(self._task, advance=1, note=f"loss {loss:.3f}")

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
