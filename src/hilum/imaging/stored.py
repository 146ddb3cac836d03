"""The gray values that a file stores, before any window, for viewers; the model's own reading is a Radiograph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.types import Gray, Radiograph


class Preset(NamedTuple):
    """A window of a DICOM file (PS3.3 C.11.2), in the units of the rescaled values."""

    name: str
    center: float
    width: float
    function: str  # LINEAR, LINEAR_EXACT or SIGMOID


@dataclass(frozen=True)
class StoredImage:
    """The values of an image, and how they are displayed.

    Attributes:
        values: (H, W) uint8 or uint16, indices into ``table``; the stored value is ``lowest`` more.
        table: (N,) uint16, display value in [0, 65535] of every possible value, as the model's reading has it.
        lowest: Stored value at index 0.
        slope: Factor from stored to rescaled values, in whose units ``presets`` are.
        intercept: Rescaled value of stored 0.
        inverted: Whether larger values are darker (MONOCHROME1).
        presets: The windows of the file, in its order.
        pixel_aspect: Height of a pixel over its width.
    """

    values: Gray
    table: NDArray[np.uint16]
    lowest: int = 0
    slope: float = 1.0
    intercept: float = 0.0
    inverted: bool = False
    presets: tuple[Preset, ...] = ()
    pixel_aspect: float = 1.0

    @classmethod
    def plain(cls, radiograph: Radiograph) -> StoredImage:
        """Return the stored image of a radiograph without a window: all its values, black to white."""
        levels = 2**radiograph.bits_stored
        table = np.rint(np.linspace(0, 65535, levels)).astype(np.uint16)
        return cls(radiograph.pixels, table, pixel_aspect=radiograph.pixel_aspect)
