"""Class-wise measures from confusion counts and from rankings, weighted and in bulk, for the bootstrap.

Undefined values (a class without images, a class never predicted) are NaN, as in hilum.metrics.scores.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hilum.metrics.scores import FloatArray, divide


def specificity(confusion: FloatArray) -> FloatArray:
    """TN / (TN + FP) of each class against the rest: counts (..., K, K), rows the true class, to (..., K)."""
    total = confusion.sum(axis=(-2, -1))[..., None]
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return divide(total - true - predicted + hits, total - true)


def matthews(confusion: FloatArray) -> FloatArray:
    """The multiclass Matthews correlation R_K (Gorodkin 2004, Comput. Biol. Chem. 28:367): (..., K, K) to (...).

    0 where it is 0/0 because a single class is predicted or present, as scikit-learn has it.
    """
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    hits = np.trace(confusion, axis1=-2, axis2=-1)
    total = true.sum(axis=-1)
    covariance = hits * total - (true * predicted).sum(axis=-1)
    spread = np.sqrt((total**2 - (predicted**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1)))
    return np.where(total == 0, np.nan, np.nan_to_num(divide(covariance, spread)))


def matthews_by_class(confusion: FloatArray) -> FloatArray:
    """The Matthews correlation of each class against the rest: (..., K, K) to (..., K)."""
    total = confusion.sum(axis=(-2, -1))[..., None]
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    spread = np.sqrt(true * (total - true) * predicted * (total - predicted))
    values = np.nan_to_num(divide(hits * total - true * predicted, spread))
    return np.where(true == 0, np.nan, values)


def average_precision(positive: NDArray[np.bool_], scores: FloatArray, weights: FloatArray) -> FloatArray:
    """Area under the precision–recall curve as a step function, sum of (R_k - R_k-1) P_k: (R,) for weights (R, N).

    As scikit-learn's ``average_precision_score``: equal scores are one step, nothing is interpolated (Davis &
    Goadrich 2006). NaN where the class has no weight.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last of each run of equal scores
    own = weights[:, order]
    seen = np.cumsum(own, axis=1)[:, ends]
    found = np.cumsum(own * positive[order], axis=1)[:, ends]
    steps = np.diff(found, axis=1, prepend=0)
    area = np.einsum("rt,rt->r", steps, np.nan_to_num(divide(found, seen)))
    return divide(area, found[:, -1])
