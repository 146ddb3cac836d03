"""The evidence of a class as a region of the lung: its strongest part that covers a chosen share of the lung."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PERCENTS = 101


@dataclass(frozen=True)
class RegionScale:
    """For each whole percent of the lung, 0 to 100, the region that covers it; arrays are (101,) float64.

    Only evidence in favor makes a region, so that it may cover less than was asked for. Places of equal evidence come
    together, so that it may also cover a little more.

    Attributes:
        thresholds: the region is where the evidence is at least this, inside the lung; inf where it is empty.
        lung: the share of the lung that the region covers, in [0, 1].
        evidence: the share of all evidence in favor, on the image, that lies in the region, in [0, 1].
    """

    thresholds: NDArray[np.float64]
    lung: NDArray[np.float64]
    evidence: NDArray[np.float64]


def region_scale(evidence: NDArray[np.float32], lung: NDArray[np.bool_]) -> RegionScale:
    """Measure the regions of one class.

    Args:
        evidence: (h, w) float32 on a grid over the image, logits per cell of the network's map.
        lung: (h, w) bool on the same grid.
    """
    inside = np.sort(evidence[lung].astype(np.float64))[::-1]
    positive = inside[inside > 0]
    total = float(evidence[evidence > 0].sum(dtype=np.float64))
    thresholds = np.full(PERCENTS, np.inf)
    covered, held = np.zeros(PERCENTS), np.zeros(PERCENTS)
    if positive.size:
        wanted = np.ceil(np.arange(PERCENTS) * inside.size / (PERCENTS - 1)).astype(np.int64)
        last = np.minimum(wanted, positive.size) - 1
        asked = last >= 0
        thresholds[asked] = positive[last[asked]]
        # how many are at least the threshold, among values that descend
        counts = np.searchsorted(-positive, -thresholds[asked], side="right")
        covered[asked] = counts / inside.size
        held[asked] = np.cumsum(positive)[counts - 1] / total
    return RegionScale(thresholds, covered, held)
