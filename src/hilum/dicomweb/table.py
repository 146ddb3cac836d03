"""The log of images as CSV: it grows row by row, over any number of runs. UIDs and answers, nothing of patients."""

from __future__ import annotations

import io
import os
from datetime import datetime, timezone
from pathlib import Path

from hilum.dicomweb.work import Row
from hilum.errors import OutputError
from hilum.storage import CsvWriter

COLUMNS = ("time", "bundle", "study", "series", "instance", "status", "predicted_label", "probability", "reason")


class Log:
    """A table that rows are added to; each is on the disk before the next image is begun.

    The half line that a killed run may have left is ended, and stays.

    Args:
        path: A CSV of COLUMNS, made if absent.
        bundle_id: The bundle that answers.

    Raises:
        OutputError: It cannot be written, or it is another file.
    """

    def __init__(self, path: Path, bundle_id: str) -> None:
        self._path, self._bundle_id = path, bundle_id
        head = _line(COLUMNS)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab+") as stream:
                size = stream.tell()
                stream.seek(0)
                if size and stream.read(len(head)) != head:
                    raise OutputError(
                        f"Expected the log of earlier runs at {path}, got another file.", hint="Name another --log."
                    )
                stream.seek(max(0, size - 1))
                begin = head if not size else b"" if stream.read(1) == b"\n" else b"\n"
                stream.write(begin)
        except OSError as error:
            raise self._refused(error) from error

    def write(self, row: Row) -> None:
        """Add a row, with the time in UTC.

        Raises:
            OutputError: It cannot be written.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        probability = "" if row.probability is None else f"{row.probability:.6f}"
        line = _line((now, self._bundle_id, *row.image, row.status, row.label, probability, row.reason))
        try:
            with self._path.open("ab") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(
            f"Could not write {self._path}: {error.strerror or error}.", hint="Choose another --log, or free space."
        )


def _line(cells: tuple[object, ...]) -> bytes:
    stream = io.StringIO(newline="")
    CsvWriter(stream).write_row(cells)
    return stream.getvalue().encode("utf-8", "backslashreplace")
