"""The partial table of a prediction: rows appended to a CSV file, which become the table or one shard of it.

``predictions.partial.csv`` has the rows of the current shard. A process may be killed at any instant: the next one
keeps only the complete rows. A CSV table is one shard, a Parquet table several.
"""

from __future__ import annotations

import csv
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from hilum.errors import OutputError
from hilum.filesystems import RemoteFile
from hilum.storage import csv_cell, csv_line


class Kept(NamedTuple):
    """A row of an earlier process: its image, its cells, and the position in the file where the next one begins."""

    file: Path | RemoteFile
    cells: list[str]
    end: int


class Journal:
    """Rows of the current shard, appended to a CSV file.

    Args:
        path: The CSV file.
        header: The columns.
    """

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        self.path, self._header = path, list(header)
        self._stream: BinaryIO | None = None

    def resume(
        self, files: Sequence[Path | RemoteFile], start: int, stride: int, on_row: Callable[[Kept], None]
    ) -> int:
        """Open the file and cut off everything after the complete rows of the first ``files``, in order.

        Args:
            files: The images of the shard.
            start: Position of the first one among all images.
            stride: Unless all rows are complete, the position of the next image is made a multiple of it.
            on_row: Called with each row that is kept.

        Returns:
            The number of rows kept.
        """
        with writing(self.path):
            self._stream = stream = self.path.open("r+b" if self.path.exists() else "w+b")
            count, end = 0, 0
            last: deque[Kept] = deque()
            for row in whole_rows(stream, self._header, files):
                count += 1
                last.append(row)
                if len(last) > stride:
                    end = last[0].end
                    on_row(last.popleft())
            kept = count if count == len(files) else max(count - (start + count) % stride, 0)
            for row in islice(last, kept - (count - len(last))):
                end = row.end
                on_row(row)
            if kept == 0:
                self._start(stream)
            else:
                stream.truncate(end)
                stream.seek(end)
        return kept

    def _start(self, stream: BinaryIO) -> None:
        stream.seek(0)
        stream.truncate()
        stream.write(csv_line(self._header))
        stream.flush()

    def append(self, cells: Sequence[object]) -> None:
        """Append a row, and hand it to the operating system."""
        assert self._stream is not None
        with writing(self.path):
            self._stream.write(csv_line(cells))
            self._stream.flush()

    def restart(self) -> None:
        """Begin the next shard: delete all rows."""
        assert self._stream is not None
        with writing(self.path):
            self._start(self._stream)

    def content(self) -> bytes:
        """Return header and rows."""
        with writing(self.path):
            return self.path.read_bytes()

    def become(self, path: Path) -> None:
        """Write all rows to the disk, and rename the file."""
        assert self._stream is not None
        with writing(path):
            os.fsync(self._stream.fileno())
            self.path.replace(path)

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()


class MemoryJournal:
    """Rows of the current shard in memory, where a file cannot be appended to; as Journal.

    Args:
        header: The columns.
    """

    def __init__(self, header: Sequence[str]) -> None:
        self._header = csv_line(header)
        self._rows: list[bytes] = []

    def resume(self, files: Sequence[object], start: int, stride: int, on_row: object) -> int:
        """Return 0: no rows are kept."""
        return 0

    def append(self, cells: Sequence[object]) -> None:
        """Append a row."""
        self._rows.append(csv_line(cells))

    def restart(self) -> None:
        """Begin the next shard: delete all rows."""
        self._rows.clear()

    def content(self) -> bytes:
        """Return header and rows."""
        return b"".join([self._header, *self._rows])

    def remove(self) -> None:
        """Do nothing: there is no file."""

    def close(self) -> None:
        """Do nothing: there is no file."""


def whole_rows(stream: BinaryIO, header: Sequence[str], files: Sequence[Path | RemoteFile]) -> Iterator[Kept]:
    """Yield the complete rows of a CSV file of predictions, as long as they are those of ``files``, in order."""
    stream.seek(0)
    ends: deque[int] = deque()
    rows = csv.reader(_records(stream, ends))
    first = next(rows, None)
    if first != list(header):
        return
    ends.popleft()
    for file, cells in zip(files, rows, strict=False):
        if len(cells) != len(header) or cells[0] != _text_of(file):
            return
        yield Kept(file, cells, ends.popleft())


def _text_of(file: Path | RemoteFile) -> str:
    """Return the text of a file name in a CSV table."""
    return str(csv_cell(str(file))).encode("utf-8", "backslashreplace").decode()


def _records(stream: BinaryIO, ends: deque[int]) -> Iterator[str]:
    """Yield the complete records of a CSV file, and append the position after each to ``ends``.

    A quoted cell may contain line breaks.
    """
    record, end = b"", 0
    for line in stream:
        record += line
        if record.endswith(b"\n") and record.count(b'"') % 2 == 0:
            end += len(record)
            ends.append(end)
            yield record.decode("utf-8", "replace")
            record = b""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert OSError to OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"Cannot write '{path}': {error.strerror or error}.", hint="Choose another --output, or free space."
        ) from error
