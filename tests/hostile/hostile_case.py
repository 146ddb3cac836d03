"""A hostile case: a file that someone could send, and the answer that it must get within a bound of time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

SECONDS = 2.0
"""Time for the answer to one case on an idle machine, which benchmarks/hostile.py measures."""
HANG_SECONDS = 10 * SECONDS
"""Processor time after which a test fails; a busy machine does not reach it."""
BYTES = 300_000_000
"""Memory for the answer to one case, in addition to that of the process before it."""

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class Case(NamedTuple):
    """One case."""

    name: str
    make: Callable[[Path], Path]  # writes it below a folder, and returns what to open
    answer: str  # a status of Result or the name of an exception's class


class Used(NamedTuple):
    """What the answer to a case took."""

    seconds: float  # the smaller of wall clock and processor time
    bytes: int | None  # by which the peak of resident memory rose; None where it is not known


@contextmanager
def measured() -> Iterator[list[Used]]:
    """Yield a list that gets what a block used when it ends."""
    used: list[Used] = []
    before, started, processor = _memory("VmRSS"), time.perf_counter(), time.process_time()
    yield used
    took = min(time.perf_counter() - started, time.process_time() - processor)
    peak = _memory("VmHWM")
    used.append(Used(took, None if before is None or peak is None else peak - before))


@contextmanager
def bounded() -> Iterator[None]:
    """Assert that a block takes less than HANG_SECONDS and, on Linux, at most BYTES of memory."""
    with measured() as used:
        yield
    assert used[0].seconds < HANG_SECONDS, f"{used[0].seconds:.1f} s"
    assert used[0].bytes is None or used[0].bytes < BYTES, f"{used[0].bytes / 1e6:.0f} MB"


def parametrize(cases: list[Case]) -> pytest.MarkDecorator:
    """Return the decorator that runs a test once for each case, under its name."""
    assert len({case.name for case in cases}) == len(cases)
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def _memory(field: str) -> int | None:
    """Return a size of this process in bytes; VmRSS also sets the peak, VmHWM, back."""
    try:
        if field == "VmRSS":
            _CLEAR.write_text("5")
        lines = _STATUS.read_text().splitlines()
    except OSError:  # not Linux
        return None
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))
