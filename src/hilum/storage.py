"""Atomic writing, the CSV dialect and hashing. Nothing else in hilum opens a result file for writing."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from numbers import Number
from pathlib import Path
from typing import Any, TextIO

from hilum.errors import OutputError

_CHUNK = 1 << 20
_LONGEST_SUFFIX = 32
"""Bytes. What is longer is part of a name, not a format, and would make the temporary file's name too long."""

# A spreadsheet evaluates a cell that begins so: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync it and rename it into place.

    A process killed inside the block leaves the old file untouched. The suffix is kept, since many writers
    choose the format by it; the rest of the name is not, so that any name that a file can have can be written.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
        temporary = path.parent / f".hilum-{secrets.token_hex(8)}{suffix}"
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))  # less the umask, as of any new file
    except OSError as error:
        raise OutputError(
            f"Expected a writable folder for {path}, got: {error.strerror or error}.",
            hint="Choose another output folder, or free its permissions or space.",
        ) from error
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"Could not write {path}: {error.strerror or error}.",
            hint="The file that was there is unchanged.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` as UTF-8 to ``path`` atomically.

    Raises:
        OutputError: it holds what UTF-8 has no code for, such as a file name in another encoding; see atomic_path.
    """
    try:
        encoded = content.encode()
    except UnicodeEncodeError as error:
        around = ascii(content[max(0, error.start - 40) : error.end + 20])
        raise OutputError(
            f"Expected text in UTF-8 for {path}, got {around}.", hint="Rename the file whose name this is."
        ) from error
    write_bytes(path, encoded)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON to ``path`` atomically. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table to ``path`` atomically, as CsvWriter does."""
    stream = io.StringIO(newline="")
    writer = CsvWriter(stream)
    writer.write_row(header)
    writer.write_rows(rows)
    write_text(path, stream.getvalue())


class CsvWriter:
    """Write rows of CSV to an open text file: RFC 4180 quoting, ``\\n`` line ends, every cell through csv_cell.

    Args:
        stream: opened with ``newline=""``.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write_row(self, cells: Iterable[object]) -> None:
        """Write one row; None becomes an empty cell."""
        line = io.StringIO(newline="")
        csv.writer(line).writerow([csv_cell(cell) for cell in cells])  # a carriage return is quoted only so
        self._stream.write(line.getvalue().removesuffix("\r\n") + "\n")

    def write_rows(self, rows: Iterable[Iterable[object]]) -> None:
        """Write one row after the other."""
        for row in rows:
            self.write_row(row)


def csv_cell(value: object) -> object:
    """Return a value as CSV holds it: text that a spreadsheet would evaluate gets an apostrophe in front.

    That is text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end. Numbers, and text that is one
    decimal number, stay as they are. ``csv_text`` undoes it.
    """
    if value is None or isinstance(value, Number):
        return value
    text = str(value)
    return f"'{text}" if _FORMULA.match(text) and not _DECIMAL.fullmatch(text) else text


def csv_text(cell: str) -> str:
    """Return the text that ``csv_cell`` made a cell of; any other text as it is."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_bytes(content: bytes) -> str:
    """The SHA-256 of ``content``, as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_text(text: str) -> str:
    """The SHA-256 of a text's UTF-8 bytes, as 64 hex digits."""
    return sha256_bytes(text.encode())


def as_json(value: Any) -> Any:
    """Dataclasses, mappings, sequences and NumPy scalars as what JSON has; NaN becomes None."""
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if hasattr(value, "tolist"):  # a NumPy scalar or array
        return as_json(value.tolist())
    return None if isinstance(value, float) and math.isnan(value) else value


_FORMER_KEYS = {
    "colour": "color",
    "colour_difference": "color_difference",
    "grey_levels": "gray_levels",
    "label_set_level": "prediction_set_level",
    "labelled": "labeled",
    "localisation": "localization",
    "localisation_weight": "localization_weight",
    "split_seed": "seed",
}


def with_current_keys(content: Any) -> Any:
    """Rename the keys that earlier versions wrote into bundles, runs and reports, at any depth."""
    if isinstance(content, dict):
        return {_FORMER_KEYS.get(key, key): with_current_keys(item) for key, item in content.items()}
    return [with_current_keys(item) for item in content] if isinstance(content, list) else content
