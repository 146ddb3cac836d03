"""Run one case, and what is found in it: another exception than HilumError, too much time or too much memory."""

from __future__ import annotations

import hashlib
import resource
import time
import traceback
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import NamedTuple

from hostile_case import BYTES, SECONDS

from hilum.errors import HilumError

_STATM, _CLEAR = Path("/proc/self/statm"), Path("/proc/self/clear_refs")
_NOTABLE = 50_000_000  # bytes; a case that needs more sets the peak of the process back


class Target(NamedTuple):
    """What is fuzzed."""

    name: str
    seeds: list[bytes]
    run: Callable[[bytes], Hashable]  # may raise HilumError, and nothing else; returns the outcome of the case


class Finding(NamedTuple):
    """What is wrong with the answer to a case."""

    kind: str  # exception, time, memory; crash and hang are found by the process that watches
    place: str  # findings of one kind in one place are one
    details: str = ""

    def name(self, target: str) -> str:
        """Return the name of the file with the case."""
        return f"{target}-{self.kind}-{hashlib.sha256(self.place.encode()).hexdigest()[:8]}"


class Seen(NamedTuple):
    """What was seen of a case; the outcome is that of a case of the corpus if and only if nothing is new."""

    outcome: Hashable
    finding: Finding | None
    is_error: bool  # a HilumError, as it should be


def examine(target: Target, content: bytes) -> Seen:
    """Run one case, and return its outcome and what was found."""
    before, started = _resident(), time.process_time()
    outcome: Hashable
    finding, is_error = None, False
    try:
        outcome = target.run(content)
    except HilumError as error:
        outcome, is_error = tuple(_places(error)), True
    except MemoryError as error:
        outcome, finding = "memory", Finding("memory", _place_of(error), traceback.format_exc())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        outcome, finding = type(error).__name__, Finding("exception", _place_of(error), traceback.format_exc())
    took = time.process_time() - started
    if finding is None and took > SECONDS:
        finding = Finding("time", str(outcome), f"{took:.1f} s")
    peak = _peak()
    if peak - before > _NOTABLE:
        _forget_peak()
        if finding is None and peak - before > BYTES:
            finding = Finding("memory", str(outcome), f"{(peak - before) / 1e6:.0f} MB")
    return Seen(outcome, finding, is_error)


def _places(error: BaseException) -> list[tuple[str, int]]:
    """Return files and lines of the traceback of an error and of its causes."""
    places = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    return places + (_places(error.__cause__) if error.__cause__ is not None else [])


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/hilum/" in frame.filename] or frames
    names = dict.fromkeys(f"{Path(frame.filename).name}:{frame.name}" for frame in (own[-1], frames[-1]))
    return " ".join([type(error).__name__, *names])


def _resident() -> int:
    """Return the resident memory of the process, bytes; 0 where it cannot be asked."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 if _STATM.exists() else 0


def _forget_peak() -> None:
    try:
        _CLEAR.write_text("5")
    except OSError:
        return
