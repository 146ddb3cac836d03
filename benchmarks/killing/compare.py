"""The content of a command's folders, to be compared: bytes, but for the times of day and durations named here."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    "last.ckpt": ("seconds",),
    "metrics_epochwise.csv": ("seconds",),
    "training_summary.json": ("started", "training_seconds"),
    "bundle.json": ("created", "bundle_id"),
    "audit.json": ("seconds",),
    "audit.html": (),
    "MODEL_CARD.md": (),
    "hashes.json": (),  # in any order, since several threads compute them
}
"""Keys that are not compared, by the name of the file: durations and times of day, and the digest over them."""
_TIMES = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?Z?|\d+(\.\d+)? (s|min|seconds|minutes)\b")
"""Times of day and durations in documents."""

LEFT_OUT_OF_OBJECTS = frozenset({
    "InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime", "ContributionDateTime",
})  # fmt: skip
"""Elements of DICOM objects that are not compared: when they were made."""

NOT_COMPARED = ("tensorboard/",)
"""Folders whose files are not compared: names and content have times of day, and each process writes its own."""

PIXELS = re.compile(r"overlays/.*\.png")
"""Files compared by their pixels: ISA-L does not always deflate to the same bytes."""


def contents(folder: Path) -> dict[str, str]:
    """Digest of each file below a folder by its relative path; ``(folder)`` for folders."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in folders:
            found[Path(root, name).relative_to(folder).as_posix() + "/"] = "(folder)"
        for name in files:
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            if not any(part in f"{relative}/" for part in NOT_COMPARED):
                found[relative] = _digest(path, relative)
    return found


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What differs between two results of ``contents``."""
    absent = [f"absent: {name}" for name in sorted({*expected} - {*found})]
    stray = [f"stray: {name}" for name in sorted({*found} - {*expected})]
    return [
        *absent, *stray,
        *(f"differs: {name}" for name in sorted({*expected} & {*found}) if expected[name] != found[name]),
    ]  # fmt: skip


def _digest(path: Path, relative: str) -> str:
    if PIXELS.search(relative):
        import cv2

        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        return "unreadable" if pixels is None else hashlib.sha256(pixels.tobytes()).hexdigest()
    if path.name in LEFT_OUT:
        return _READERS[path.suffix](path, LEFT_OUT[path.name])
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _of_state(path: Path, left_out: tuple[str, ...]) -> str:
    import torch

    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if key not in left_out:
                    digest.update(f"{key}:".encode())
                    add(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                add(item)
        else:
            digest.update(f"{value!r};".encode())

    add(torch.load(path, weights_only=True))
    return digest.hexdigest()


def _of_json(path: Path, left_out: tuple[str, ...]) -> str:
    content = {key: value for key, value in json.loads(path.read_bytes()).items() if key not in left_out}
    if path.name == "bundle.json":
        del content["files"]["MODEL_CARD.md"]  # it names the time of its making
        (content["calibration"] or {}).pop("date", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _of_csv(path: Path, left_out: tuple[str, ...]) -> str:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [{key: cell for key, cell in row.items() if key not in left_out} for row in csv.DictReader(stream)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _of_text(path: Path, left_out: tuple[str, ...]) -> str:
    return hashlib.sha256(_TIMES.sub("", path.read_text(encoding="utf-8")).encode()).hexdigest()


_READERS: Mapping[str, Callable[[Path, tuple[str, ...]], str]] = {
    ".ckpt": _of_state, ".json": _of_json, ".csv": _of_csv, ".html": _of_text, ".md": _of_text,
}  # fmt: skip
