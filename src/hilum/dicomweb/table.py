"""Log of processed images as CSV, appended by every run. It contains UIDs and results, no patient data."""

from __future__ import annotations

import io
import os
from datetime import datetime, timezone
from pathlib import Path

from hilum.dicomweb.work import Row
from hilum.errors import OutputError
from hilum.storage import CsvWriter

COLUMNS = (
    "time", "bundle", "study", "series", "instance", "status", "predicted_label", "probability", "reason", "stored",
)  # fmt: skip
"""``stored`` has the kinds of objects that were stored, separated by spaces: seg, sr, sc, pr."""


class Log:
    """Log to which rows are appended; each row is on the disk before the next image is processed.

    An incomplete last line of an interrupted run is terminated and kept.

    Args:
        path: CSV with COLUMNS, created if it does not exist.
        bundle_id: The bundle that predicts.

    Raises:
        OutputError: The file cannot be written, or is not such a log.
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
                        f"'{path}' exists and is not a log of this version of hilum dicomweb.",
                        hint="Choose another --log.",
                    )
                stream.seek(max(0, size - 1))
                begin = head if not size else b"" if stream.read(1) == b"\n" else b"\n"
                stream.write(begin)
        except OSError as error:
            raise self._refused(error) from error

    def write(self, row: Row) -> None:
        """Append a row, with the time in UTC.

        Raises:
            OutputError: The file cannot be written.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        probability = "" if row.probability is None else f"{row.probability:.6f}"
        result = (row.status, row.label, probability, row.reason, " ".join(row.stored))
        line = _line((now, self._bundle_id, *row.image, *result))
        try:
            with self._path.open("ab") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(
            f"Cannot write '{self._path}': {error.strerror or error}.", hint="Choose another --log, or free space."
        )


def _line(cells: tuple[object, ...]) -> bytes:
    stream = io.StringIO(newline="")
    CsvWriter(stream).write_row(cells)
    return stream.getvalue().encode("utf-8", "backslashreplace")
