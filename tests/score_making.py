"""Scores of a split, of which a test says only what matters to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from hilum.metrics.scores import Scores


def scores_of(labels: ArrayLike, probabilities: ArrayLike, **fields: Any) -> Scores:
    """Scores of the test split with these labels (N,) and probabilities (N, K).

    Files are ``0.png``, ``1.png`` and so on, classes ``a``, ``b`` and so on; no group, source or mask is known. The
    IoU follows from a Dice that is given.
    """
    own, chances = np.asarray(labels), np.asarray(probabilities)
    count = len(own)
    dice = fields.get("dice", np.full(count, np.nan))
    given: dict[str, Any] = {
        "files": tuple(f"{row}.png" for row in range(count)),
        "labels": own,
        "probabilities": chances,
        "class_names": tuple("abcdefgh"[: chances.shape[1]]),
        "groups": ("",) * count,
        "sources": (None,) * count,
        "dice": dice,
        "iou": dice / (2 - dice),
        "split": "test",
    }
    return Scores(**{**given, **fields})


def wilson_of(hits: int, images: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share of independent images, in its closed form, with Student's t for the quantile."""
    share, n, quantile = hits / images, images - 1, float(t.ppf(0.975, images - 1))
    center = (share + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    reach = quantile * np.sqrt(share * (1 - share) / n + quantile**2 / (4 * n**2)) / (1 + quantile**2 / n)
    return center - float(reach), center + float(reach)
