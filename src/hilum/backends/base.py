"""What every backend offers."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DeviceError

Floats: TypeAlias = NDArray[np.float32]


class BackendOutput(NamedTuple):
    """One batch's answer; what the ONNX graph gives, whichever engine gave it."""

    segmentation: Floats  # (N, 1, S, S) lung probability in [0, 1]
    classification: Floats  # (N, K) logits, before temperature and softmax
    evidence: Floats | None  # (N, K, h, w)
    features: Floats | None = None  # (N, F), see ModelOutput


class Backend(Protocol):
    """An engine that holds one network."""

    def run(self, images: Floats) -> BackendOutput:
        """(N, C, S, S) float32 in [0, 1] to a BackendOutput."""


def out_of_memory(device: str, images: Floats) -> DeviceError:
    """Return the error of a device whose memory does not hold a batch: (N, C, S, S)."""
    number, _, size, _ = images.shape
    return DeviceError(
        f"The device {device} is out of memory with {number} images of {size}x{size} per batch.",
        hint="Use a smaller --batch-size.",
    )
