"""SHA-256 of many files, stored by (path, size, mtime) so that unchanged files are not read again."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hilum.cpus import available_cpus
from hilum.errors import OutputError, ReadError
from hilum.storage import sha256_file, write_text

MEMORY_NAME = "hashes.json"

_SETTLED_NS = 2_000_000_000
"""Nanoseconds. Hashes of files changed more recently are not stored, since another change may keep the mtime."""


def hash_files(paths: Sequence[Path], folder: Path, *, workers: int | None = None) -> dict[Path, str]:
    """Return the SHA-256 of each file, computed or taken from ``folder``/hashes.json.

    Args:
        paths: The files.
        folder: Folder of hashes.json, which is updated if it can be written.
        workers: Number of threads; the number of available processors by default.

    Raises:
        ReadError: A file cannot be read.
    """
    memory = _recall(folder / MEMORY_NAME)
    known: dict[str, list[Any]] = {}

    def look_up(path: Path) -> str:
        try:
            status = path.stat()
            stamp = [status.st_size, status.st_mtime_ns]
            *remembered, digest = memory.get(str(path), [""])
            if remembered != stamp:
                digest = sha256_file(path)
        except OSError as error:
            raise ReadError(f"Cannot read '{path}': {error.strerror}.", hint="Index the dataset again.") from error
        if time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
            known[str(path)] = [*stamp, digest]
        return str(digest)

    unique = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(workers or available_cpus()) as pool:
        digests = dict(zip(unique, pool.map(look_up, unique), strict=True))
    merged = memory | known
    if merged != memory:
        _remember(folder / MEMORY_NAME, merged)
    return digests


def _recall(path: Path) -> dict[str, list[Any]]:
    try:
        memory = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # absent or damaged: hash again
    if not isinstance(memory, dict):
        return {}
    return {name: entry for name, entry in memory.items() if isinstance(entry, list) and len(entry) == 3}


def _remember(path: Path, memory: dict[str, list[Any]]) -> None:
    try:
        write_text(path, json.dumps(memory))
    except OutputError:
        return  # read-only folder: files are hashed again next time
