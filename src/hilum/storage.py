"""Atomic file writing, the CSV dialect, JSON conversion and hashing.

All result files are written through this module, except logs that grow row by row.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import platform
import re
import secrets
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from functools import cache
from numbers import Number
from pathlib import Path
from typing import Any, TextIO

from hilum.errors import OutputError

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where an open file cannot be renamed either
    fcntl = None  # type: ignore[assignment]

_CHUNK = 1 << 20
_LONGEST_SUFFIX = 32
"""Maximum length in bytes of a suffix that the temporary file keeps; longer ones are part of a name, not a format."""

TEMPORARY_NAME = re.compile(r"\.hilum-[0-9a-f]{16}(\..*)?")
"""Names of the files that atomic_path renames when they are complete, and of the folders of temporary_folder."""
_STRAY_SECONDS = 3600.0

# Spreadsheets evaluate cells that begin with these: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success, fsync the file and rename it to ``path``.

    A process killed inside the block leaves an existing file unchanged and its temporary file behind, which the first
    write of a later process into the folder removes. The temporary name keeps the suffix, since many writers choose
    the format by it.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stray(path.parent.absolute())
        suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
        temporary, lock = _create_temporary(path.parent, suffix)
    except OSError as error:
        raise OutputError(
            f"Cannot write '{path}': {error.strerror or error}.",
            hint="Choose another output folder, or check its permissions and free space.",
        ) from error
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"Cannot write '{path}': {error.strerror or error}.",
            hint="An existing file is unchanged. Check the permissions and the free space.",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in ``parent``, which is removed afterwards; as atomic_path where the process is killed.

    Raises:
        OSError: It cannot be created.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _remove_stray(parent.absolute())
    folder, lock = _create_temporary(parent, "", folder=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _create_temporary(parent: Path, suffix: str, *, folder: bool = False) -> tuple[Path, int | None]:
    """Create a file or folder with a TEMPORARY_NAME; return it and a descriptor that locks it until it is closed.

    The lock ends with the process. Where files cannot be locked, the descriptor is None.
    """
    while True:
        path = parent / f".hilum-{_machine()}{secrets.token_hex(4)}{suffix}"
        if folder:
            path.mkdir(mode=0o700)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))  # subject to the umask
        try:
            descriptor = _lock(path)
        except (FileNotFoundError, BlockingIOError):
            continue  # another process removed it as stray before it was locked, or is about to
        if descriptor is None or path.exists():
            return path, descriptor
        os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Lock a file or folder and return a descriptor that holds the lock; None where files cannot be locked.

    Raises:
        BlockingIOError: Another process has locked it.
    """
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


@cache
def _machine() -> str:
    """Return eight hexadecimal digits that are those of all processes under this kernel, which share their locks."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        boot = f"{platform.node()} {uuid.getnode()}"
    return sha256_text(boot)[:8]


@cache
def _remove_stray(parent: Path) -> None:
    """Remove temporary files and folders that killed processes left in a folder, once for each folder and process.

    Those of processes under this kernel are stray where they are not locked; others, where they are an hour old.
    """
    with suppress(OSError), os.scandir(parent) as entries:  # not readable
        for entry in [entry for entry in entries if TEMPORARY_NAME.fullmatch(entry.name)]:
            with suppress(OSError):  # in use, or another process was faster
                own = entry.name.startswith(f".hilum-{_machine()}")
                lock = _lock(Path(entry)) if own else None
                if lock is not None or entry.stat(follow_symlinks=False).st_mtime < time.time() - _STRAY_SECONDS:
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry, ignore_errors=True)
                    else:
                        Path(entry).unlink()
                if lock is not None:
                    os.close(lock)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` as UTF-8 to ``path`` atomically.

    Raises:
        OutputError: The text cannot be encoded, for example because it contains a file name in another encoding; or the
            file cannot be written.
    """
    try:
        encoded = content.encode()
    except UnicodeEncodeError as error:
        around = ascii(content[max(0, error.start - 40) : error.end + 20])
        raise OutputError(
            f"Cannot write '{path}' as UTF-8: it contains {around}.", hint="Rename the file with that name."
        ) from error
    write_bytes(path, encoded)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON to ``path`` atomically; NaN is not JSON and raises ValueError."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a header and rows as CSV to ``path`` atomically, in the dialect of CsvWriter."""
    stream = io.StringIO(newline="")
    writer = CsvWriter(stream)
    writer.write_row(header)
    writer.write_rows(rows)
    write_text(path, stream.getvalue())


class CsvWriter:
    r"""Writer of CSV rows to an open text file: RFC 4180 quoting, ``\n`` line ends, cells escaped by csv_cell.

    Args:
        stream: Text file opened with ``newline=""``.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write_row(self, cells: Iterable[object]) -> None:
        """Write one row; None is written as an empty cell."""
        self._stream.write(_csv_text_line(cells))

    def write_rows(self, rows: Iterable[Iterable[object]]) -> None:
        """Write several rows."""
        for row in rows:
            self.write_row(row)


def csv_line(cells: Iterable[object]) -> bytes:
    """Return one row of CsvWriter as UTF-8; what cannot be encoded, as in a file name, is escaped by backslashes."""
    return _csv_text_line(cells).encode("utf-8", "backslashreplace")


def _csv_text_line(cells: Iterable[object]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line).writerow([csv_cell(cell) for cell in cells])  # quotes \r only with its default line end
    return line.getvalue().removesuffix("\r\n") + "\n"


def csv_cell(value: object) -> object:
    """Return a cell for CSV: text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe.

    This concerns text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break. Numbers, and text that is a
    decimal number, are unchanged. ``csv_text`` reverses the change.
    """
    if value is None or isinstance(value, Number):
        return value
    text = str(value)
    return f"'{text}" if _FORMULA.match(text) and not _DECIMAL.fullmatch(text) else text


def csv_text(cell: str) -> str:
    """Return the text of a cell without the apostrophe that ``csv_cell`` added; other text is unchanged."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of ``content`` as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 encoding as 64 hexadecimal digits."""
    return sha256_bytes(text.encode())


def as_json(value: Any) -> Any:
    """Convert dataclasses, mappings, sequences and NumPy values to JSON types; NaN becomes None."""
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
    """Return content with the keys of earlier versions of bundles, runs and reports renamed, at any depth."""
    if isinstance(content, dict):
        return {_FORMER_KEYS.get(key, key): with_current_keys(item) for key, item in content.items()}
    return [with_current_keys(item) for item in content] if isinstance(content, list) else content


def cache_folder() -> Path:
    """Return the cache folder: ``$HILUM_CACHE`` if set, else ``hilum`` in the user's cache folder."""
    own = os.environ.get("HILUM_CACHE")
    if own:
        return Path(own)
    import platformdirs  # here, since importing hilum.storage is to be quick

    return platformdirs.user_cache_path("hilum", appauthor=False)
