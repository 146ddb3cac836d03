"""Run an engine over records, once, and keep what every figure is computed from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.backends.onnxruntime import Backend, BackendOutput
from hilum.config import PreprocessSpec
from hilum.data.cache import Cache
from hilum.errors import DataError
from hilum.imaging.preprocess import to_input
from hilum.inference.softmax import softmax
from hilum.metrics.scores import FloatArray, Scores, dice_and_iou
from hilum.progress import Progress
from hilum.types import Record


class Scored(NamedTuple):
    """What came of a split.

    Attributes:
        scores: of every record, in order.
        lungs: (N, S, S) bool: the reference mask where there is one, else the predicted one; None if not kept.
    """

    scores: Scores
    lungs: NDArray[np.bool_] | None


def score_records(
    backend: Backend,
    cache: Cache,
    records: Sequence[Record],
    names: Sequence[str],
    class_names: tuple[str, ...],
    spec: PreprocessSpec,
    *,
    split: str,
    temperature: float = 1.0,
    mask_threshold: float = 0.5,
    keep_lungs: bool = False,
    distances: bool = True,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Scored:
    """Every record through ``backend``: class logits, probabilities, and the overlap with the reference masks.

    Args:
        backend, spec: the engine and its preprocessing.
        cache, records, names: N decoded records (open_cache), the records, and their names for the tables (Index.key).
        class_names: K names, the order of the logits.
        split: the name of the split.
        temperature, mask_threshold: logits are divided by the one; lung is where the probability is above the other.
        keep_lungs: whether to keep the masks, N x S x S bytes.
        distances: whether to measure Hausdorff distances, which needs MONAI.
        batch_size: films in one forward pass.
        progress: called with (records done, records in all).

    Raises:
        DataError: a record has a label that the network does not know, or the network diverged.
    """
    labels = labels_of(records, class_names)
    logits: list[FloatArray] = []
    overlap = np.full((3, len(records)), np.nan)  # dice, iou, hd95
    lungs = np.zeros((len(records), spec.size, spec.size), np.bool_) if keep_lungs else None
    for rows, output in run_batches(backend, cache.images, spec, batch_size, progress):
        logits.append(output.classification.astype(np.float64))
        predicted = output.segmentation[:, 0] > mask_threshold  # (n, S, S)
        known = np.flatnonzero(cache.mask_row[rows] >= 0)
        reference = cache.masks[cache.mask_row[rows][known]] > 0  # (m, S, S)
        overlap[:, rows.start + known] = _overlap(predicted[known], reference, distances)
        if lungs is not None:
            predicted[known] = reference
            lungs[rows] = predicted
    all_logits = np.concatenate(logits)
    scores = Scores(
        files=tuple(names),
        labels=labels,
        probabilities=softmax(all_logits, temperature),
        class_names=class_names,
        groups=tuple(record.group or "" for record in records),
        sources=tuple(record.source for record in records),
        dice=overlap[0],
        iou=overlap[1],
        split=split,
        logits=all_logits,
        hd95=overlap[2] if distances else None,
    )
    return Scored(scores, lungs)


def _overlap(predicted: NDArray[np.bool_], reference: NDArray[np.bool_], distances: bool) -> FloatArray:
    """Dice, IoU and Hausdorff distance (3, m) of m mask pairs; NaN in the last row where it is not asked for."""
    dice, iou = dice_and_iou(predicted, reference)
    return np.stack([dice, iou, hausdorff_95(predicted, reference) if distances else np.full(len(dice), np.nan)])


def run_batches(
    backend: Backend,
    images: NDArray[np.uint8],
    spec: PreprocessSpec,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Iterator[tuple[slice, BackendOutput]]:
    """The engine's output for (N, S, S) uint8 fitted films, a batch at a time, with the rows it is of."""
    for start in range(0, len(images), batch_size):
        rows = slice(start, min(start + batch_size, len(images)))
        yield rows, backend.run(to_input(images[rows], spec))
        if progress:
            progress(rows.stop, len(images))


def hausdorff_95(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> FloatArray:
    """The 95th percentile of the symmetric Hausdorff distance (Huttenlocher et al. 1993) of each mask pair, by MONAI.

    Two empty masks are 0 apart; where one is empty the distance is the diagonal of the square.

    Args:
        predicted, reference: (N, S, S) bool.

    Returns:
        (N,) float64, pixels of the square.
    """
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    some = [masks.any(axis=(1, 2)) for masks in (predicted, reference)]
    distances = np.where(some[0] == some[1], 0.0, float(np.hypot(*predicted.shape[1:])))
    both = np.flatnonzero(some[0] & some[1])
    if both.size:
        first, second = (torch.from_numpy(masks[both][:, None].astype(np.uint8)) for masks in (predicted, reference))
        with warnings.catch_warnings():  # MONAI 1.6 passes an argument to itself that it deprecates
            warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
            measured = compute_hausdorff_distance(first, second, include_background=True, percentile=95)
        distances[both] = measured[:, 0].numpy()
    return distances


def labels_of(records: Sequence[Record], class_names: tuple[str, ...]) -> NDArray[np.int64]:
    """The number of each label, -1 where there is none: (N,) int64.

    Raises:
        DataError: a label is none of ``class_names``.
    """
    number = {name: place for place, name in enumerate(class_names)}
    if unknown := sorted({record.label for record in records if record.label is not None} - number.keys()):
        raise DataError(
            f"Expected labels among the model's classes {', '.join(class_names)}, got {', '.join(unknown)}.",
            cure="Name the classes to keep, each with --class, or rename the folders.",
        )
    return np.array([-1 if record.label is None else number[record.label] for record in records], np.int64)
