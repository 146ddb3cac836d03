"""Logistic recalibration: calibration slope and intercept of a probability (Cox 1958, Biometrika 45:562).

Van Calster et al. (2019, BMC Med. 17:230) recommend both as the minimum that a validation reports.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hilum.metrics.scores import FloatArray

_STEPS = 25
_TOLERANCE = 1e-3  # of the last step; the error is about its square
_LONGEST = 2.0  # a longer Newton step can leave the region where the method converges


def log_odds(logits: FloatArray, own: int | NDArray[np.int64]) -> FloatArray:
    """Return log p / (1 - p) of one class of each image, (N,), without the rounding of p near 1.

    Args:
        logits: (N, K) float64 before softmax, after temperature; K is at least 2.
        own: The class, or (N,) int64 that of each image.
    """
    chosen = np.zeros(logits.shape, np.bool_)
    chosen[np.arange(len(logits)), own] = True
    others = np.where(chosen, -np.inf, logits)
    most = others.max(axis=1)
    rest = most + np.log(np.exp(others - most[:, None]).sum(axis=1))
    return np.asarray(logits[chosen] - rest)


class Recalibration:
    """Fits slope and intercept of logistic regressions of outcomes on log-odds, for many weightings.

    Args:
        odds: (N,) float64 log-odds of the predicted probability.
        outcomes: (N,) float64, 0 or 1; both occur.
    """

    def __init__(self, odds: FloatArray, outcomes: FloatArray) -> None:
        self._odds, self._outcomes = odds, outcomes
        self._center, self._spread = float(odds.mean()), float(odds.std()) or 1.0
        self._scaled = (odds - self._center) / self._spread
        start = self._center, self._spread, 0.0  # an intercept of 0 and a slope of 1
        one = np.ones((1, odds.size))
        self._start = tuple(float(value[0]) for value in (*self._line(one, *start[:2]), self._offset(one, start[2])))

    def __call__(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the slope, and the intercept at a slope of 1, each (R,), for weights (R, N).

        NaN where the fit does not converge, as for separable outcomes.
        """
        level, slope, intercept = self._start
        return self._line(weights, level, slope)[1] / self._spread, self._offset(weights, intercept)

    def _line(self, weights: FloatArray, level: float, slope: float) -> tuple[FloatArray, FloatArray]:
        """Return both parameters of the regression on the standardized log-odds, by Newton's method."""
        from scipy.special import expit

        a, b = (np.full(len(weights), value) for value in (level, slope))
        x, square = self._scaled, self._scaled**2
        for _ in range(_STEPS):
            p = expit(a[:, None] + b[:, None] * x)
            residual, spread = weights * (self._outcomes - p), weights * p * (1 - p)
            first, second = residual.sum(axis=1), residual @ x
            aa, ab, bb = spread.sum(axis=1), spread @ x, spread @ square
            determinant = np.maximum(aa * bb - ab**2, 1e-300)
            steps = (bb * first - ab * second) / determinant, (aa * second - ab * first) / determinant
            moved = [np.clip(step, -_LONGEST, _LONGEST) for step in steps]
            a, b = a + moved[0], b + moved[1]
            far = np.maximum(*np.abs(moved)) > _TOLERANCE
            if not far.any():
                break
        return np.where(far, np.nan, a), np.where(far, np.nan, b)

    def _offset(self, weights: FloatArray, intercept: float) -> FloatArray:
        """Return the intercept of the regression with the log-odds as offset, by Newton's method."""
        from scipy.special import expit

        a = np.full(len(weights), intercept)
        for _ in range(_STEPS):
            p = expit(a[:, None] + self._odds)
            curvature = np.maximum((weights * p * (1 - p)).sum(axis=1), 1e-300)
            step = np.clip((weights * (self._outcomes - p)).sum(axis=1) / curvature, -_LONGEST, _LONGEST)
            a = a + step
            far = np.abs(step) > _TOLERANCE
            if not far.any():
                break
        return np.where(far, np.nan, a)
