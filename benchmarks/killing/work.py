"""Log what a command does, so that what it does twice can be counted. The hooks run in the forked process."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

START = "start"


class Line(NamedTuple):
    """One line of a log: seconds of the monotonic clock, kind of work, and which."""

    seconds: float
    kind: str
    name: str


def note(kind: str, name: object = "") -> None:
    """Append a line to the log of the attempt."""
    descriptor = os.open(os.environ["HILUM_KILL_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{time.monotonic():.6f}\t{kind}\t{name!s}\n".encode("utf-8", "backslashreplace"))
    os.close(descriptor)


def read(log: Path) -> list[Line]:
    """The lines of a log, in order."""
    if not log.exists():
        return []
    cells = (line.split("\t", 2) for line in log.read_text(encoding="utf-8").splitlines())
    return [Line(float(seconds), kind, name) for seconds, kind, name in cells]


def repeated(lines: Sequence[Line]) -> Counter[str]:
    """How often work of each kind was done that had been done before."""
    times = Counter((line.kind, line.name) for line in lines if line.kind not in (START, "save"))
    again: Counter[str] = Counter()
    for (kind, _), count in times.items():
        again[kind] += count - 1
    return again


def lost_seconds(lines: Sequence[Line]) -> list[float]:
    """For each process but the last, the seconds of training that the next one did again."""
    processes: list[list[Line]] = []
    for line in lines:
        if line.kind == START:
            processes.append([line])
        elif line.kind == "batches":
            processes[-1].append(line)
    lost = []
    for before, after in pairwise(processes):
        names = [line.name for line in before]
        again = names.index(after[1].name) if len(after) > 1 and after[1].name in names else None
        lost.append(before[-1].seconds - before[again - 1].seconds if again else 0.0)
    return lost


def longest_step(lines: Sequence[Line]) -> float:
    """The longest time between two batches of one process, which covers validation and saving."""
    batches = [line for line in lines if line.kind in (START, "batches")]
    pairs = pairwise(batches)
    return max((two.seconds - one.seconds for one, two in pairs if START not in (one.kind, two.kind)), default=0.0)


def _around(owner: Any, name: str, before: Callable[..., None]) -> None:
    """Call a function before another one, with its arguments."""
    original = getattr(owner, name)

    def both(*arguments: Any, **named: Any) -> Any:
        before(*arguments, **named)
        return original(*arguments, **named)

    setattr(owner, name, both)


def steps() -> None:
    """Log the steps that a command shows."""
    from hilum.cli.progress import StepBars

    note(START)
    _around(StepBars, "begin", lambda self, title: note("steps", title))


def files_checked() -> None:
    """Log the files that an index decodes."""
    from hilum.data import integrity

    note(START)
    _around(integrity, "_inspect", lambda record: note("files", record.image_path.name))


def files_decoded() -> None:
    """Log the files that are decoded into the cache."""
    from hilum.data import cache_build

    note(START)
    _around(cache_build, "_decode", lambda job, spec: note("files", job.record.image_path.name))


def images_prepared() -> None:
    """Log the images that are read for prediction."""
    from hilum.inference.predictor import Predictor

    note(START)
    _around(Predictor, "prepare", lambda self, source: note("images", getattr(source, "name", source)))


def images_stored() -> None:
    """As images_prepared; the engines' speeds are not measured, since times would choose the engine."""
    from hilum.backends import measure

    images_prepared()
    measure.measure_speeds = lambda bundle, engines, seconds: []


def batches_and_steps() -> None:
    """Log the batches and epochs of a training, and the steps before and after it."""
    from hilum.cli.progress import TrainingBars

    steps()
    files = {"left": 0, "epoch": 0}

    def started(self: object, epoch: int, epochs: int, batches: int) -> None:
        files.update(left=batches, epoch=epoch)

    def done(self: object, loss: float) -> None:
        files["left"] -= 1
        note("batches", f"{files['epoch']} {files['left']}")

    _around(TrainingBars, "epoch_started", started)
    _around(TrainingBars, "batch_done", done)
    _around(TrainingBars, "epoch_done", lambda self, row, best: note("epochs", row.epoch))
