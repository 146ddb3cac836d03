"""Point metrics over a whole split.

A ratio with a zero denominator, such as the recall of a class without images, is undefined: NaN in arrays, None in
JSON. Macro averages are over the classes with images, and count the precision of a class that is never predicted as 0,
as scikit-learn does with these classes as ``labels`` and ``zero_division=0``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DataError
from hilum.types import Record

FloatArray = NDArray[np.float64]

RESERVED_NAMES = frozenset(
    {"accuracy", "balanced_accuracy", "macro avg", "weighted avg", "class_names", "confusion_matrix"}
    | {"split", "images", "groups", "labeled", "with_masks", "intervals"}
)
"""Keys of classification_report.json other than class names, which no class may have as its name."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Predictions and labels of an evaluated split with N images and K classes.

    Attributes:
        files: The N files, as named by the index.
        labels: (N,) int64, index into ``class_names``; -1 if unknown.
        probabilities: (N, K) float64 in [0, 1] with rows of sum 1; K is 0 for segmentation only.
        class_names: The K class names.
        groups: N group names; images of a group are resampled together. An empty name is a group of its own.
        sources: N source names, or None.
        dice: (N,) float64 in [0, 1], NaN without a reference mask.
        iou: (N,) float64 in [0, 1], NaN without a reference mask.
        split: Name of the split.
        logits: (N, K) float64 before temperature and softmax, or None if unknown.
        hd95_share: (N,) float64, 95th percentile of the Hausdorff distance by the height of the reference lungs, NaN
            without a reference mask; None if not measured.
        seen: (N,) bool, True for known training or validation images of the model; None if these are unknown.
        columns: Other columns of the table, such as age, to N texts; empty where unknown.

    Raises:
        DataError: Lengths differ, a value is out of range, or there is no image.
    """

    files: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: FloatArray
    class_names: tuple[str, ...]
    groups: tuple[str, ...]
    sources: tuple[str | None, ...]
    dice: FloatArray
    iou: FloatArray
    split: str
    logits: FloatArray | None = None
    hd95_share: FloatArray | None = None
    seen: NDArray[np.bool_] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count, classes = len(self.files), len(self.class_names)
        if not count:
            raise DataError("There are no images to evaluate.", hint="Check the size of the split.")
        for name, values in {"groups": self.groups, "sources": self.sources, **self.columns}.items():
            if len(values) != count:
                raise DataError(f"Expected {count} {name}, one per file, got {len(values)}.")
        _check_shape("labels", self.labels, (count,))
        _check_shape("dice", self.dice, (count,))
        _check_shape("iou", self.iou, (count,))
        if self.logits is not None:
            _check_shape("logits", self.logits, (count, classes))
        if self.hd95_share is not None:
            _check_shape("hd95_share", self.hd95_share, (count,))
        if self.seen is not None:
            _check_shape("seen", self.seen, (count,))
        _check_labels_and_probabilities(self.labels, self.probabilities, classes)
        if classes and not np.allclose(self.probabilities.sum(axis=1), 1, atol=1e-2):
            raise DataError("The probabilities of an image do not sum to 1.", hint="Apply softmax to the logits.")
        overlaps = np.stack([self.dice, self.iou])
        if np.any(np.isnan(overlaps[0]) != np.isnan(overlaps[1])) or np.any((overlaps < 0) | (overlaps > 1)):
            raise DataError("Expected dice and iou in [0, 1], NaN for the same images (those without a mask).")

    @property
    def labeled(self) -> NDArray[np.bool_]:
        """(N,) bool, True for images with a label."""
        return self.labels >= 0

    @property
    def masked(self) -> NDArray[np.bool_]:
        """(N,) bool, True for images with a reference mask."""
        return ~np.isnan(self.dice)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) int64, the predicted class; the first one if tied."""
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """(N,) bool, True for images of groups without an image in ``seen``."""
        if self.seen is None:
            return np.ones(len(self.files), np.bool_)
        clusters = self.clusters()
        return ~np.isin(clusters, clusters[self.seen])

    def subset(self, rows: NDArray[np.bool_]) -> Scores:
        """Return the scores of the images in ``rows``, (N,) bool with at least one True."""

        def kept(values: Any) -> Any:
            return None if values is None else values[rows]

        def listed(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(value for value, keep in zip(values, rows, strict=True) if keep)

        return replace(
            self, files=listed(self.files), labels=self.labels[rows], probabilities=self.probabilities[rows],
            groups=listed(self.groups), sources=listed(self.sources), dice=self.dice[rows], iou=self.iou[rows],
            logits=kept(self.logits), hd95_share=kept(self.hd95_share), seen=kept(self.seen),
            columns={name: listed(values) for name, values in self.columns.items()},
        )  # fmt: skip

    def clusters(self) -> NDArray[np.int64]:
        """Return the group of each image, (N,) int64 from 0 to G - 1."""
        return clusters_of(self.groups)


def labels_of(records: Sequence[Record], class_names: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the class index of each record, (N,) int64; -1 where there is no label.

    Raises:
        DataError: A label is none of ``class_names``.
    """
    number = {name: place for place, name in enumerate(class_names)}
    if unknown := sorted({record.label for record in records if record.label is not None} - number.keys()):
        raise DataError(
            f"The model has no class {', '.join(unknown)}; its classes are {', '.join(class_names)}.",
            hint="Select classes with --class, or rename the folders.",
        )
    return np.array([-1 if record.label is None else number[record.label] for record in records], np.int64)


def clusters_of(groups: Iterable[str | None]) -> NDArray[np.int64]:
    """Return the number of each image's group, (N,) int64 from 0 to G - 1; no group is a group of its own."""
    names = [group or f"\0{row}" for row, group in enumerate(groups)]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


class Rates(NamedTuple):
    """Ratios of confusion counts; NaN if the denominator is zero."""

    accuracy: FloatArray  # (...,)
    precision: FloatArray  # (..., K)
    recall: FloatArray  # (..., K)
    f1: FloatArray  # (..., K)


def dice_and_iou(predicted: NDArray[np.bool_], target: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Return the overlap of each pair of masks: Dice 2|A∩B| / (|A|+|B|) and IoU |A∩B| / |A∪B|.

    Both are 1.0 for two empty masks.

    Args:
        predicted: (N, H, W) bool.
        target: (N, H, W) bool.

    Returns:
        Dice (N,) float64 and IoU (N,) float64, both in [0, 1].

    Raises:
        DataError: The shapes differ, are not (N, H, W), or an array is not bool.
    """
    if predicted.ndim != 3 or predicted.shape != target.shape:
        raise DataError(f"Expected two masks of one shape (N, H, W), got {predicted.shape} and {target.shape}.")
    if predicted.dtype != np.bool_ or target.dtype != np.bool_:
        raise DataError(
            f"Expected bool masks, got {predicted.dtype} and {target.dtype}.", hint="Threshold probabilities first."
        )
    both = np.count_nonzero(predicted & target, axis=(1, 2))
    total = np.count_nonzero(predicted, axis=(1, 2)) + np.count_nonzero(target, axis=(1, 2))
    empty = total == 0
    dice = np.where(empty, 1.0, 2 * both / np.where(empty, 1, total))
    iou = np.where(empty, 1.0, both / np.where(empty, 1, total - both))
    return dice, iou


def class_metrics(labels: NDArray[np.int64], probabilities: FloatArray, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Return classification metrics over all labeled images of a split.

    The structure is that of scikit-learn's ``classification_report(output_dict=True)``, with ``roc_auc`` (one-vs-rest)
    in each class and in ``macro avg``, and with ``balanced_accuracy``, ``confusion_matrix`` (rows: true class) and
    ``class_names`` at the top level. Undefined values of a class are None; averages are those of macro_average.

    Args:
        labels: (N,) int64 in [-1, K); rows with -1 are ignored.
        probabilities: (N, K) float64.
        class_names: The K class names.

    Raises:
        DataError: Shapes or values are invalid, there is no label, or a class name is one of RESERVED_NAMES.
    """
    _check_labels_and_probabilities(labels, probabilities, len(class_names))
    if taken := RESERVED_NAMES.intersection(class_names):
        raise DataError(
            f"Class names are reserved for keys of the report: {', '.join(sorted(taken))}.", hint="Rename the class."
        )
    known = labels >= 0
    if not known.any():
        raise DataError("There are no labeled images.", hint="Use a labeled dataset.")
    labels, probabilities = labels[known], probabilities[known]
    confusion = confusion_counts(labels, probabilities.argmax(axis=1), len(class_names))[0]
    rates = confusion_rates(confusion)
    support = confusion.sum(axis=1)
    columns = {"precision": rates.precision, "recall": rates.recall, "f1-score": rates.f1}
    with_auc = {**columns, "roc_auc": one_vs_rest_auc(labels, probabilities)[0]}
    report: dict[str, Any] = {}
    for row, name in enumerate(class_names):
        report[name] = {key: none_if_nan(values[row]) for key, values in with_auc.items()}
        report[name]["support"] = int(support[row])
    report["accuracy"] = float(rates.accuracy)
    with_auc["precision"] = columns["precision"] = np.nan_to_num(rates.precision)
    macro = {key: macro_average(values, rates.recall, support > 0) for key, values in with_auc.items()}
    report["macro avg"] = {key: none_if_nan(value) for key, value in macro.items()}
    report["weighted avg"] = {key: none_if_nan(nan_mean(values, support)) for key, values in columns.items()}
    report["macro avg"]["support"] = report["weighted avg"]["support"] = int(support.sum())
    report["balanced_accuracy"] = none_if_nan(macro["recall"])
    report["confusion_matrix"] = confusion.astype(int).tolist()
    report["class_names"] = list(class_names)
    return report


def validation_auc(labels: NDArray[np.int64], probabilities: FloatArray) -> float:
    """Return the macro one-vs-rest AUROC over classes with positive and negative images; NaN if there is none.

    Args:
        labels: (N,) int64, -1 if unknown.
        probabilities: (N, K) float, or other scores that rank the images of each class.

    Raises:
        DataError: Shapes are invalid, or a value is not finite.
    """
    classes = probabilities.shape[1] if probabilities.ndim == 2 else 0
    _check_labels_and_probabilities(labels, probabilities, classes, bounded=False)
    known = labels >= 0
    return float(nan_mean(one_vs_rest_auc(labels[known], probabilities[known])[0]))


def confusion_counts(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int, weights: FloatArray | None = None
) -> FloatArray:
    """Return weighted confusion counts (R, K, K), rows are true classes, for R weightings of N labeled images.

    Args:
        labels: (N,) int64 in [0, K).
        predicted: (N,) int64 in [0, K).
        classes: Number of classes K.
        weights: (R, N) float64; by default R is 1 and all weights are 1.
    """
    weights = np.ones((1, labels.size)) if weights is None else weights
    cells = classes * classes
    cell = np.arange(weights.shape[0])[:, None] * cells + (labels * classes + predicted)  # (R, N)
    counts = np.bincount(cell.ravel(), weights.ravel(), minlength=weights.shape[0] * cells)
    return np.asarray(counts, np.float64).reshape(-1, classes, classes)  # (R * K * K,) -> (R, K, K)


def confusion_rates(confusion: FloatArray) -> Rates:
    """Return accuracy, precision, recall and F1 = 2 TP / (2 TP + FP + FN) from confusion counts (..., K, K)."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    accuracy = divide(hits.sum(axis=-1), true.sum(axis=-1))
    return Rates(accuracy, divide(hits, predicted), divide(hits, true), divide(2 * hits, true + predicted))


def one_vs_rest_auc(
    labels: NDArray[np.int64], probabilities: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """Return the weighted one-vs-rest AUROC (R, K) of each class, for R weightings (R, N) of N labeled images.

    This is the Mann-Whitney statistic (Hanley & McNeil 1982): the weighted fraction of pairs of an image of the class
    and another image whose scores are in the correct order; ties count 0.5. NaN if a class or its rest has no weight.
    """
    weights = np.ones((1, labels.size)) if weights is None else weights
    areas = [weighted_auc(labels == k, probabilities[:, k], weights) for k in range(probabilities.shape[1])]
    return np.stack(areas, axis=1) if areas else np.full((weights.shape[0], 0), np.nan)


def weighted_auc(positive: NDArray[np.bool_], scores: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the AUROC (R,) of ``scores`` (N,) for ``positive`` (N,) bool with weights (R, N); see one_vs_rest_auc."""
    own, rest = np.flatnonzero(positive), np.flatnonzero(~positive)
    rest = rest[np.argsort(scores[rest])]
    below = np.searchsorted(scores[rest], scores[own], side="left")
    up_to = np.searchsorted(scores[rest], scores[own], side="right")
    beaten = np.zeros((weights.shape[0], rest.size + 1))
    np.cumsum(weights[:, rest], axis=1, out=beaten[:, 1:])
    won = np.einsum("rp,rp->r", weights[:, own], beaten[:, below] + beaten[:, up_to]) / 2
    return divide(won, weights[:, own].sum(axis=1) * beaten[:, -1])


def divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Return the elementwise quotient, NaN (without a warning) if the denominator is zero."""
    undefined = np.equal(denominator, 0)
    return np.where(undefined, np.nan, numerator / np.where(undefined, 1.0, denominator))


def nan_mean(values: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Return the weighted mean of the finite values over the last axis, NaN (without a warning) if there are none."""
    weights = np.isfinite(values) * (1.0 if weights is None else weights)
    return divide((np.nan_to_num(values) * weights).sum(axis=-1), weights.sum(axis=-1))


def macro_average(values: FloatArray, recall: FloatArray, present: NDArray[np.bool_]) -> FloatArray:
    """Return the mean of a metric (..., K) over the classes ``present`` (K,) bool, as (...,).

    All resamples of a split average the same classes: the mean is NaN where one of them has no weight (its ``recall``
    (..., K) is NaN) or an undefined value. For the macro precision, pass 0 for classes that are never predicted.
    """
    return np.asarray(np.where(np.isnan(recall), np.nan, values)[..., present].mean(axis=-1))


def none_if_nan(value: float | FloatArray) -> float | None:
    """Return a float, or None for NaN, which JSON does not support."""
    return None if np.isnan(value) else float(value)


def _check_shape(name: str, values: NDArray[Any], expected: tuple[int, ...]) -> None:
    if values.shape != expected:
        raise DataError(f"Expected {name} of shape {expected}, got {values.shape}.")


def _check_labels_and_probabilities(
    labels: NDArray[np.int64], probabilities: FloatArray, classes: int, *, bounded: bool = True
) -> None:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"Expected labels (N,) of integers, got {labels.shape} of {labels.dtype}.")
    _check_shape("probabilities", probabilities, (labels.size, classes))
    if labels.size and (labels.min() < -1 or labels.max() >= classes):
        raise DataError(f"Expected labels from -1 to {classes - 1}, got {labels.min()} to {labels.max()}.")
    if not np.isfinite(probabilities).all():
        raise DataError(
            "The probabilities contain NaN or infinity.", hint="The training diverged: lower the learning rate."
        )
    if bounded and probabilities.size and (probabilities.min() < 0 or probabilities.max() > 1 + 1e-6):
        raise DataError(
            f"Expected probabilities in [0, 1], got {probabilities.min():.3g} to {probabilities.max():.3g}.",
            hint="Apply softmax to the logits.",
        )


def specificity(confusion: FloatArray) -> FloatArray:
    """Return the one-vs-rest specificity TN / (TN + FP), (..., K), from confusion counts (..., K, K)."""
    total = confusion.sum(axis=(-2, -1))[..., None]
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return divide(total - true - predicted + hits, total - true)


def matthews(confusion: FloatArray) -> FloatArray:
    """Return the multiclass Matthews correlation R_K (Gorodkin 2004, Comput. Biol. Chem. 28:367), (...).

    It is computed from confusion counts (..., K, K). As in scikit-learn, it is 0 if a single class is predicted or
    present.
    """
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    hits = np.trace(confusion, axis1=-2, axis2=-1)
    total = true.sum(axis=-1)
    covariance = hits * total - (true * predicted).sum(axis=-1)
    spread = np.sqrt((total**2 - (predicted**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1)))
    return np.where(total == 0, np.nan, np.nan_to_num(divide(covariance, spread)))


def matthews_by_class(confusion: FloatArray) -> FloatArray:
    """Return the one-vs-rest Matthews correlation (..., K) from confusion counts (..., K, K)."""
    total = confusion.sum(axis=(-2, -1))[..., None]
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    spread = np.sqrt(true * (total - true) * predicted * (total - predicted))
    values = np.nan_to_num(divide(hits * total - true * predicted, spread))
    return np.where(true == 0, np.nan, values)


def average_precision(positive: NDArray[np.bool_], scores: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the area under the precision–recall curve, sum of (R_k - R_k-1) P_k, as (R,) for weights (R, N).

    As in scikit-learn's ``average_precision_score``, ties form one step, without interpolation (Davis & Goadrich 2006).
    NaN if the class has no weight.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # last of each run of ties
    own = weights[:, order]
    seen = np.cumsum(own, axis=1)[:, ends]
    found = np.cumsum(own * positive[order], axis=1)[:, ends]
    steps = np.diff(found, axis=1, prepend=0)
    area = np.einsum("rt,rt->r", steps, np.nan_to_num(divide(found, seen)))
    return divide(area, found[:, -1])
