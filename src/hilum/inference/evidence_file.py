"""Write and read evidence maps as 16-bit PNG, with the conversion from gray levels to logits in a text chunk.

    logits per cell = (gray - 32768) x step

Gray level 32768 is no evidence, lighter is evidence for the class, darker against it. The step is the smallest power
of two that represents the whole map, so that it is exact as text; it is stored in the file and in predictions.csv.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.errors import ReadError
from hilum.inference.png import png_bytes
from hilum.inference.result import Prediction
from hilum.storage import write_bytes

KEYWORD = "hilum-evidence"
"""Keyword of the PNG text chunk, which contains JSON."""
ZERO = 32768
"""Gray level of no evidence."""

_GREATEST = 65535 - ZERO


def step_of(evidence: NDArray[np.float32]) -> float:
    """Return the logits per gray level for a map of finite values, a power of two; 1 if all values are 0."""
    largest = float(np.abs(evidence).max(initial=0.0))
    return 2.0 ** math.ceil(math.log2(largest / _GREATEST)) if largest > 0 else 1.0


def save_evidence(path: Path, evidence: NDArray[np.float32], prediction: Prediction) -> float:
    """Write an evidence map as PNG, atomically, and return its step in logits per gray level.

    Args:
        path: PNG file to write.
        evidence: As for ``encode_evidence``.
        prediction: As for ``encode_evidence``.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    write_bytes(path, encode_evidence(evidence, prediction))
    return step_of(evidence)


def encode_evidence(evidence: NDArray[np.float32], prediction: Prediction) -> bytes:
    """Return the evidence for the predicted class as the content of a 16-bit gray PNG.

    Args:
        evidence: (H0, W0) float32 from class_evidence, logits per cell of the network's map at each pixel.
        prediction: The prediction, whose label names the class.
    """
    step = step_of(evidence)
    gray = np.rint(evidence * np.float32(1 / step)).astype(np.int32) + ZERO
    cells = prediction.evidence
    facts = {
        "class": prediction.label,
        "logits_per_gray_level": step,
        "zero_gray_level": ZERO,
        "cells": None if cells is None else list(cells.shape[1:]),
        "bundle_id": prediction.bundle_id,
        "meaning": "(gray - zero_gray_level) x logits_per_gray_level is what one cell of the network's map adds to "
        "the logit of the class",
    }
    return png_bytes(gray.astype(np.uint16), {KEYWORD: json.dumps(facts)})


def read_evidence(path: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Read an evidence map written by save_evidence.

    Returns:
        The map (H0, W0) float32 in logits per cell, within half a step of the saved values, and the JSON metadata.

    Raises:
        ReadError: The file was not written by save_evidence.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            facts: dict[str, Any] = json.loads(image.info[KEYWORD])
            gray = np.asarray(image)
            values = (gray.astype(np.int32) - int(facts["zero_gray_level"])) * np.float32(
                facts["logits_per_gray_level"]
            )
    except (OSError, KeyError, TypeError, ValueError, SyntaxError) as error:  # SyntaxError: Pillow on a broken PNG
        raise ReadError(
            f"'{path}' is not an evidence map written by hilum predict --save-evidence: {error}.",
            hint="Save it again, and do not edit it with other programs.",
        ) from error
    return np.asarray(values, np.float32), facts
