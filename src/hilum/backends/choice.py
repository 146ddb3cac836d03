"""The engine for a bundle on this machine: which one was measured as fastest, and whether ``auto`` may use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from hilum._version import __version__
from hilum.backends.base import ENGINE_TITLES, EngineName, Precision
from hilum.bundle.bundle import Bundle, Manifest
from hilum.cpus import available_cpus, processor_name
from hilum.storage import cache_folder, write_json

_FILE = "engines.json"
_KEPT = 100
"""Choices kept in the file; the oldest go first."""
LEAST_GAIN = 1.05
"""An engine replaces ONNX Runtime in float32 if it is at least so many times as fast."""


class Speed(NamedTuple):
    """Throughput of an engine in a precision, as ``hilum predict`` runs it."""

    backend: EngineName
    precision: Precision
    images_per_second: float


def machine_name() -> str:
    """Return the processor and the number of processors available to this process."""
    return f"{available_cpus()} x {processor_name()}"


def stored_speeds(bundle: Bundle) -> tuple[Speed, ...]:
    """Return the speeds stored for a bundle on this machine by this version of hilum; empty if there are none."""
    try:
        return TypeAdapter(tuple[Speed, ...]).validate_python(_read().get(_key(bundle), ()))
    except ValidationError:
        return ()


def store_speeds(bundle: Bundle, speeds: Sequence[Speed]) -> Path | None:
    """Store speeds for a bundle on this machine; return the file, or None if it cannot be written."""
    key = _key(bundle)
    others = {name: rows for name, rows in _read().items() if name != key}
    kept = dict(list(others.items())[1 - _KEPT :])
    try:
        _path().parent.mkdir(parents=True, exist_ok=True)
        write_json(_path(), {**kept, key: [speed._asdict() for speed in speeds]})
    except OSError:
        return None
    return _path()


def is_accepted(manifest: Manifest, backend: EngineName, precision: Precision) -> bool:
    """Return whether ``auto`` may use a precision: float32, or one whose agreement is in the bundle and accepted.

    Agreement applies to the engine it was measured with.
    """
    if precision == "fp32":
        return True
    found = manifest.agreement.get(precision)
    return found is not None and found.accepted and found.backend.startswith(ENGINE_TITLES[backend])


def fastest(speeds: Sequence[Speed]) -> Speed | None:
    """Return the fastest; ONNX Runtime in float32 unless another has LEAST_GAIN times its speed; None if empty."""
    best = max(speeds, key=lambda speed: speed.images_per_second, default=None)
    for usual in speeds:
        if usual[:2] == ("onnxruntime", "fp32") and best is not None:
            return best if best.images_per_second >= LEAST_GAIN * usual.images_per_second else usual
    return best


def _key(bundle: Bundle) -> str:
    return f"{machine_name()} | hilum {__version__} | {bundle.manifest.bundle_id}"


def _path() -> Path:
    return cache_folder() / _FILE


def _read() -> dict[str, object]:
    try:
        content = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
