"""Refit a classifier to a network's outputs: how much they tell of the class, whatever the network answers.

A network that answers images without lungs wrongly, or with one class, can still show in its logits that it knows the
class. A classifier that is fitted to these logits reads what is there (a probe: Alain & Bengio 2017, ICLR Workshop).
It is a multinomial logistic regression on the standardized logits, cross-validated over whole groups, by scikit-learn.
Its expected out-of-fold cross-entropy is at least the entropy of the class given the logits, so that the label entropy
less the cross-entropy estimates a lower bound of their mutual information (usable information: Xu et al. 2020, ICLR).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from hilum.audit.probes import FOLDS, MIN_GROUPS, area_within_folds
from hilum.metrics.scores import FloatArray, divide

INFORMATION = ("information", "information_share", "information_kept")
FIGURES = ("refitted_auc", *INFORMATION)


@dataclass(frozen=True, eq=False)
class Folds:
    """The images that a refitted classifier is measured on, in folds of whole groups.

    Attributes:
        rows: (M,) bool over the images, True for those of classes with at least MIN_GROUPS groups.
        labels: (n,) int64 from 0 to J - 1 for the n images of ``rows``.
        fold: (n,) int64, the fold in which each is held out.
    """

    rows: NDArray[np.bool_]
    labels: NDArray[np.int64]
    fold: NDArray[np.int64]


def folds_of(labels: NDArray[np.int64], clusters: NDArray[np.int64]) -> Folds | None:
    """Return the folds, stratified by class; None with fewer than two classes of MIN_GROUPS groups.

    None, too, without scikit-learn, which the ``train`` extra installs.

    Args:
        labels: (M,) int64.
        clusters: (M,) int64, the group of each image.
    """
    kept = [k for k in np.unique(labels) if np.unique(clusters[labels == k]).size >= MIN_GROUPS]
    if len(kept) < 2 or find_spec("sklearn") is None:
        return None
    from sklearn.model_selection import StratifiedGroupKFold

    rows = np.isin(labels, kept)
    own = np.searchsorted(kept, labels[rows]).astype(np.int64)
    fold = np.zeros(own.size, np.int64)
    splits = StratifiedGroupKFold(FOLDS).split(own[:, None], own, clusters[rows])
    for number, (_, held_out) in enumerate(splits):
        fold[held_out] = number
    return Folds(rows, own, fold)


def refitted(logits: FloatArray, folds: Folds) -> FloatArray:
    """Return out-of-fold probabilities (n, J) of the classes of ``folds``, from the logits (M, K) of all images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    own = np.asarray(logits, np.float64)[folds.rows]
    found = np.zeros((own.shape[0], int(folds.labels.max()) + 1))
    for number in np.unique(folds.fold):
        held_out = folds.fold == number
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(own[~held_out], folds.labels[~held_out])
        found[np.ix_(held_out, model.classes_)] = model.predict_proba(own[held_out])
    return found


def label_entropy(folds: Folds, weights: FloatArray) -> FloatArray:
    """Return the entropy (R,) in bits of the labels, for R weightings (R, M) of all images."""
    own = weights[:, folds.rows]
    counts = np.stack([own[:, folds.labels == k].sum(axis=1) for k in np.unique(folds.labels)], axis=1)
    shares = divide(counts, counts.sum(axis=1, keepdims=True))
    return np.asarray(-(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1))


def refitted_auc(probabilities: FloatArray, folds: Folds, weights: FloatArray) -> FloatArray:
    """Return the macro one-vs-rest AUROC (R,) within the folds, for R weightings (R, M) of all images."""
    own = weights[:, folds.rows]
    areas = [
        area_within_folds(probabilities[:, k], folds.labels == k, folds.fold, own)
        for k in range(probabilities.shape[1])
    ]
    return np.asarray(np.mean(areas, axis=0))


def information(probabilities: FloatArray, folds: Folds, weights: FloatArray) -> FloatArray:
    """Return label entropy less out-of-fold cross-entropy (R,) in bits, for R weightings (R, M) of all images.

    It is below 0 where the classifier is worse than the classes' shares.
    """
    own = weights[:, folds.rows]
    true = probabilities[np.arange(folds.labels.size), folds.labels]
    loss = -np.log2(np.maximum(true, np.finfo(np.float64).tiny))
    return np.asarray(label_entropy(folds, weights) - divide(own @ loss, own.sum(axis=1)))


def figures_of(
    refits: Mapping[str, FloatArray], folds: Folds, weights: FloatArray
) -> dict[tuple[str, str], FloatArray]:
    """Return FIGURES (R,) of each treatment, for R weightings (R, M) of all images.

    ``information`` is in bits, ``information_share`` a share of the label entropy, and ``information_kept``, left out
    for intact images, a share of the information of these; NaN where they tell nothing.

    Args:
        refits: Treatment to the result of refitted, ``intact`` among them.
        folds: The images.
        weights: (R, M) float64.
    """
    values: dict[tuple[str, str], FloatArray] = {}
    entropy = label_entropy(folds, weights)
    intact = np.maximum(information(refits["intact"], folds, weights), 0)
    for name, probabilities in refits.items():
        bits = information(probabilities, folds, weights)
        figures = (refitted_auc(probabilities, folds, weights), bits, divide(bits, entropy), divide(bits, intact))
        values |= {(name, figure): value for figure, value in zip(FIGURES, figures, strict=True)}
    del values["intact", "information_kept"]
    return values
