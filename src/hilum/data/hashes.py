"""SHA-256 of many files, remembered by (path, size, mtime), so that opening a cache again reads no file."""

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
"""A file changed within the last two seconds is not remembered: a second change may leave its mtime equal."""


def hash_files(paths: Sequence[Path], folder: Path, *, workers: int | None = None) -> dict[Path, str]:
    """Return the SHA-256 of each file, read or remembered in ``folder``/hashes.json.

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
            raise ReadError(
                f"Expected a readable file at {path}, got: {error.strerror}.", hint="Index again."
            ) from error
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
        return  # only speed is lost: a finished cache in a read-only folder still opens
