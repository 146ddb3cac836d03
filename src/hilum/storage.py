"""Writing that is atomic, and hashing. Nothing else in hilum opens a result file for writing."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from hilum.errors import OutputError

_CHUNK = 1 << 20


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync it and rename it into place.

    A process killed inside the block leaves the old file untouched. The suffix is kept, since many writers
    choose the format by it.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(
            f"Expected a writable folder for {path}, got: {error.strerror or error}.",
            hint="Choose another output folder, or free its permissions or space.",
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
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
    """Write a table to ``path`` atomically, RFC 4180 quoting, ``\\n`` line ends; None becomes an empty cell."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    write_text(path, stream.getvalue())


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
