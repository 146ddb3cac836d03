"""From class logits to probabilities, once for every backend and every evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.floating[Any]], temperature: float = 1.0) -> NDArray[np.float64]:
    """(N, K) logits to (N, K) probabilities after division by the temperature (Guo et al. 2017).

    Computed in float64, so that two backends differ by their logits alone.
    """
    scaled = logits.astype(np.float64) / temperature
    exponential = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(exponential / exponential.sum(axis=1, keepdims=True))
