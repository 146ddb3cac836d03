"""Run the input check on many files and write a table of all measurements, including unreadable files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hilum.errors import ReadError
from hilum.gate import Reading
from hilum.gate.verdict import ACCEPTED
from hilum.inference.predictor import Predictor
from hilum.storage import CsvWriter, atomic_path

UNREADABLE = "unreadable"
_COLUMNS = ("file", "verdict", "check", "passed", "severity", "value", "measured", "expected")


@dataclass(frozen=True)
class FileVerdict:
    """Verdict of the input check on one file.

    Attributes:
        file: Path of the file.
        reason: ``accepted``, ``unreadable``, or the reason why it is refused.
        readings: All measurements; empty for the classic gate and for unreadable files.
        messages: Messages of the findings, if there are no readings.
        orientation_fix: Description of the rotation or inversion that would correct the image; empty if none applies.
    """

    file: Path
    reason: str
    readings: tuple[Reading, ...] = ()
    messages: tuple[str, ...] = ()
    orientation_fix: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the model would predict on this file."""
        return self.reason == ACCEPTED


def examine_files(predictor: Predictor, files: Sequence[Path], table: Path | None = None) -> Iterator[FileVerdict]:
    """Yield the verdict on each file, in order; unreadable files have the reason ``unreadable``.

    Args:
        predictor: Predictor whose input check and network are used.
        files: The files, such as those of hilum.data.find.find_images.
        table: CSV with one row per measurement, written when all files are done.

    Raises:
        OutputError: The table cannot be written.
    """
    with ExitStack() as stack:
        writer: CsvWriter | None = None
        if table is not None:
            temporary = stack.enter_context(atomic_path(table))
            stream = temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="")  # file names
            writer = CsvWriter(stack.enter_context(stream))
            writer.write_row(_COLUMNS)
        for file in files:
            verdict = _examine(predictor, file)
            if writer:
                writer.write_rows(_rows(verdict))
            yield verdict


def _examine(predictor: Predictor, file: Path) -> FileVerdict:
    try:
        verdict = predictor.examine(file)
    except ReadError as error:
        return FileVerdict(file, UNREADABLE, messages=(str(error),))
    messages = () if verdict.readings else tuple(finding.message for finding in verdict.findings)
    return FileVerdict(
        file,
        verdict.reason,
        verdict.readings,
        messages,
        verdict.orientation_fix.describe() if verdict.orientation_fix else "",
    )


def _rows(verdict: FileVerdict) -> Iterator[tuple[object, ...]]:
    name, reason = str(verdict.file), verdict.reason
    for reading in verdict.readings:
        value = "" if math.isnan(reading.value) else f"{reading.value:.6g}"
        facts = reading.check, int(reading.passed), reading.severity, value, reading.measured, reading.expected
        yield name, reason, *facts
    if not verdict.readings:
        yield name, reason, "", int(verdict.accepted), "", "", "; ".join(verdict.messages), ""
