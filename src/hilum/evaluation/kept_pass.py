"""Keep what a network computed on all images of a split until their evaluation is complete.

An evaluation that is interrupted afterwards does not run the network again. ``hilum.evaluation.validation`` keeps the
predictions on a run's validation split for longer, as a table.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hilum.data.cache import Cache
from hilum.storage import atomic_path, sha256_text


@dataclass(frozen=True)
class Pass:
    """Output of a network on N images, as far as an evaluation needs it.

    Attributes:
        logits: (N, K) float64.
        overlap: (3, N) float64: Dice, IoU and Hausdorff share; NaN without a reference mask.
        lungs: (N, S, S) bool, or None if not kept.
    """

    logits: NDArray[np.float64]
    overlap: NDArray[np.float64]
    lungs: NDArray[np.bool_] | None


def key_of(cache: Cache, settings: dict[str, float]) -> str:
    """Return a digest of settings and of the content of images and masks, which a kept pass must have in common."""
    return sha256_text(json.dumps([cache.path.name, settings]))


def read_pass(path: Path, key: str) -> Pass | None:
    """Return a kept pass; None if there is none with this key, or its file is damaged."""
    try:
        with np.load(path) as stored:
            if str(stored["key"]) != key:
                return None
            lungs = None
            if "lungs" in stored:
                shape = tuple(stored["shape"].tolist())
                lungs = np.unpackbits(stored["lungs"], count=int(np.prod(shape))).reshape(shape).view(np.bool_)
            return Pass(stored["logits"], stored["overlap"], lungs)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def write_pass(path: Path, key: str, done: Pass) -> None:
    """Write a pass atomically; lungs as bits.

    Raises:
        OutputError: The file cannot be written.
    """
    arrays: dict[str, NDArray[np.generic]] = {"key": np.array(key), "logits": done.logits, "overlap": done.overlap}
    if done.lungs is not None:
        arrays |= {"lungs": np.packbits(done.lungs), "shape": np.array(done.lungs.shape)}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
