"""Interface of inference backends."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DeviceError

Floats: TypeAlias = NDArray[np.float32]


class BackendOutput(NamedTuple):
    """Output of a network for one batch, the same for all backends."""

    segmentation: Floats  # (N, 1, S, S) lung probability in [0, 1]
    classification: Floats  # (N, K) logits, before temperature and softmax
    evidence: Floats | None  # (N, K, h, w)
    features: Floats | None = None  # (N, F), see ModelOutput


class Backend(Protocol):
    """A loaded network in an inference engine."""

    def run(self, images: Floats) -> BackendOutput:
        """Run the network on images (N, C, S, S) float32 in [0, 1] and return a BackendOutput.

        Raises:
            DeviceError: The device is out of memory.
        """


@runtime_checkable
class ThreadedBackend(Protocol):
    """A backend that can also run in several threads at once, on one processor in each."""

    def on_one_thread(self) -> Backend | None:
        """Return the network with one thread per forward pass, or None if its device is no CPU."""


def out_of_memory(device: str, images: Floats) -> DeviceError:
    """Return the error of a device that is out of memory for a batch (N, C, S, S)."""
    number, _, size, _ = images.shape
    return DeviceError(
        f"Device {device} is out of memory with {number} images of {size}x{size} pixels per batch.",
        hint="Use a smaller --batch-size.",
    )
