"""Evidence as an image that keeps its values: a 16-bit PNG whose text says how gray levels become logits.

    logits per cell = (gray - 32768) x step

Mid-gray adds nothing, lighter speaks for the class, darker against it. The step is the smallest power of two that
holds the image, so that it is exact in text; it stands in the file, beside what else is needed to read it, and in
predictions.csv.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.errors import OutputError, ReadError
from hilum.inference.result import Prediction
from hilum.storage import write_bytes

KEYWORD = "hilum-evidence"
"""The keyword of the PNG's text chunk, which holds JSON."""
ZERO = 32768
"""The gray level of no evidence."""

_GREATEST = 65535 - ZERO
_IHDR_END = 8 + 25  # the signature and the first chunk


def step_of(evidence: NDArray[np.float32]) -> float:
    """Logits per gray level for a map of finite values: a power of two; 1 where all of it is 0."""
    largest = float(np.abs(evidence).max(initial=0.0))
    return 2.0 ** math.ceil(math.log2(largest / _GREATEST)) if largest > 0 else 1.0


def save_evidence(path: Path, evidence: NDArray[np.float32], prediction: Prediction) -> float:
    """Write what ``encode_evidence`` gives to ``path``, atomically; its step, logits per gray level.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    write_bytes(path, encode_evidence(evidence, prediction))
    return step_of(evidence)


def encode_evidence(evidence: NDArray[np.float32], prediction: Prediction) -> bytes:
    """The evidence of the predicted class as the content of a 16-bit gray PNG.

    Args:
        evidence: (H0, W0) float32, from class_evidence: logits that a cell of the network's map adds, at each pixel.
        prediction: Whose label it is of.
    """
    step = step_of(evidence)
    gray = np.rint(evidence * np.float32(1 / step)).astype(np.int32) + ZERO
    done, content = cv2.imencode(".png", gray.astype(np.uint16))
    if not done:
        raise OutputError(f"Could not encode an image of shape {evidence.shape} as PNG.")
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
    png = content.tobytes()
    return png[:_IHDR_END] + _text_chunk(KEYWORD, json.dumps(facts)) + png[_IHDR_END:]


def read_evidence(path: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """The map (H0, W0) float32 in logits per cell, within half a step of what was saved, and what the file says of it.

    Raises:
        ReadError: It is not a file that save_evidence wrote.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            facts: dict[str, Any] = json.loads(image.info[KEYWORD])
            gray = np.asarray(image)
            values = (gray.astype(np.int32) - int(facts["zero_gray_level"])) * np.float32(
                facts["logits_per_gray_level"]
            )
    except (OSError, KeyError, TypeError, ValueError, SyntaxError) as error:  # SyntaxError: PIL's for a broken PNG
        raise ReadError(
            f"Expected evidence as hilum predict --save-evidence writes it in {path}, got: {error}.",
            hint="Save it again, without passing it through another program.",
        ) from error
    return np.asarray(values, np.float32), facts


def _text_chunk(keyword: str, text: str) -> bytes:
    """A tEXt chunk (ISO/IEC 15948, 11.3.4.3); ``text`` is ASCII, as json.dumps makes it."""
    body = b"tEXt" + keyword.encode() + b"\0" + text.encode()
    return (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
