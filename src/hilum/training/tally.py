"""Metrics of a training epoch, summed while it runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.training.step import Done


class Tally:
    """Running sums of metrics over a training epoch; NaN without labels or masks.

    Args:
        state: The state of a tally to go on with, or None.
    """

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self._sums = dict.fromkeys(("classification", "segmentation", "correct"), 0.0) | (state or {}).get("sums", {})
        self._counts = dict.fromkeys(("labels", "masks"), 0) | (state or {}).get("counts", {})
        self._dice = [np.array(state["dice"], np.float64)] if state else []
        self.last_loss = float("nan")

    def state(self) -> dict[str, Any]:
        """Return the sums so far, to go on with."""
        return {"sums": dict(self._sums), "counts": dict(self._counts), "dice": np.concatenate(self._dice).tolist()}

    def add(self, done: Done) -> None:
        """Count a batch."""
        total, classification, segmentation = (float(value.detach()) for value in done.losses)
        self.last_loss = total
        self._sums["classification"] += classification * done.labels
        self._sums["segmentation"] += segmentation * done.masks
        self._sums["correct"] += done.correct
        self._counts["labels"] += done.labels
        self._counts["masks"] += done.masks
        self._dice.append(done.dice)

    def _share(self, name: str, count: str) -> float:
        return self._sums[name] / self._counts[count] if self._counts[count] else float("nan")

    @property
    def classification_loss(self) -> float:
        """Mean over the labels."""
        return self._share("classification", "labels")

    @property
    def segmentation_loss(self) -> float:
        """Mean over the masks."""
        return self._share("segmentation", "masks")

    @property
    def accuracy(self) -> float:
        """Fraction of the labels that were predicted."""
        return self._share("correct", "labels")

    @property
    def dice(self) -> float:
        """Mean over the masks."""
        return mean(np.concatenate(self._dice))


def mean(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
