"""Measure whether a network needs the lungs: its scores with lungs erased, alone, or on another background.

After DeGrave, Janizek & Lee (2021, Nat. Mach. Intell. 3:610) and Maguolo & Nanni (2021, Inf. Fusion 76:1).

The **shortcut index** of a way of erasing is (e - m) / (a - m): a the accuracy on intact images, e on images without
lungs, m the share of the commonest class. 0: without the lungs the network does no better than a guess; 1: it does not
need them. The headline is that of ``erased_mean``. Blurring leaves the mean density of the lungs, which a network may
rightly use, so the index of ``erased_blur`` can be too high. A constant gray makes an image unlike any in training, so
that a network may give one answer to all, and the index of ``erased_fill`` can be too low. The mean of the surroundings
does neither, but carries their gray to where a network looks for lungs. A finding therefore also requires the AUROC of
``erased_fill``, which a common answer does not lower. All three, and the index of their mean accuracy, are reported.

The **balanced index** is the same with balanced accuracy and a chance of 1/K. It is also defined where the classes are
so uneven that the commonest one leaves nothing to gain. A network that uses the heart, the bones or the patient's age
has an index above 0 too: the index says that the lungs are not needed, not why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilum.audit import erasure
from hilum.audit.erasure import Image, Mask, has_lungs
from hilum.backends.base import Backend, BackendOutput
from hilum.bundle.prediction_sets import softmax
from hilum.config import PreprocessSpec
from hilum.errors import DataError
from hilum.imaging.preprocess import to_input
from hilum.metrics.bootstrap import Interval, bootstrap
from hilum.metrics.scores import FloatArray, confusion_counts, confusion_rates, divide, nan_mean, one_vs_rest_auc
from hilum.progress import Progress

Rows: TypeAlias = NDArray[np.int64]

ERASURES = {
    "erased_mean": erasure.erase_mean,
    "erased_fill": erasure.erase_fill,
    "erased_blur": erasure.erase_blur,
}
HEADLINE, CHECK = "erased_mean", "erased_fill"
PARTS = {"lungs_only": erasure.lungs_only, "border_only": erasure.border_only}
SWAPPED, SWAPPED_SAME = "background_other_class", "background_same_class"
TREATMENTS = ("intact", *ERASURES, *PARTS, SWAPPED, SWAPPED_SAME)


@dataclass(frozen=True)
class TreatedScore:
    """A network's scores on the images after one treatment.

    Attributes:
        treatment: One of TREATMENTS.
        accuracy: Against the image's label; with a swapped background, that of the lungs.
        balanced_accuracy: Mean recall over the classes.
        auc: Macro one-vs-rest AUROC.
        index, balanced_index: The shortcut indices, for the ways of erasing alone; NaN where the network does no
            better than the guess on intact images.
        follows_background: Share given the background's label, for swapped backgrounds alone.
    """

    treatment: str
    accuracy: Interval
    balanced_accuracy: Interval
    auc: Interval
    index: Interval | None = None
    balanced_index: Interval | None = None
    follows_background: Interval | None = None


@dataclass(frozen=True)
class ModelShortcuts:
    """The results of audit_model. All intervals rest on the same images and the same resamples.

    Attributes:
        images: How many labeled images have lungs to erase.
        left_out: How many labeled images have not, and were left out.
        classes: How many classes have images.
        majority_class: The commonest class of ``images``.
        majority_share: Its share, in [0, 1].
        scores: One per treatment, in the order of TREATMENTS; without the swaps where there is one class alone.
        shortcut_index, balanced_index: Of HEADLINE.
        mean_index: Of the mean accuracy over the three ways of erasing.
        background_effect: Accuracy over a background of the same class less that over another class's, so that
            what the cutting itself costs is not counted; None where there is one class alone.
    """

    images: int
    left_out: int
    classes: int
    majority_class: str
    majority_share: float
    scores: tuple[TreatedScore, ...]
    shortcut_index: Interval
    balanced_index: Interval
    mean_index: Interval
    background_effect: Interval | None

    def score(self, treatment: str) -> TreatedScore:
        """Return the score of one of TREATMENTS."""
        return next(score for score in self.scores if score.treatment == treatment)


class _Labeled(NamedTuple):
    """M images that count; a rank is a place among them."""

    images: NDArray[np.uint8]  # (N, S, S)
    lungs: Mask  # (N, S, S)
    rows: Rows  # (M,) of the N
    labels: NDArray[np.int64]  # (M,)
    partners: dict[str, Rows]  # (M,) ranks, per swap

    @property
    def treatments(self) -> tuple[str, ...]:
        """TREATMENTS, less the swaps where they have no partners."""
        swaps = (SWAPPED, SWAPPED_SAME)
        return tuple(name for name in TREATMENTS if name in self.partners or name not in swaps)

    def pair(self, rank: int) -> tuple[Image, Mask]:
        """The image and its lungs."""
        return self.images[self.rows[rank]], self.lungs[self.rows[rank]]

    def treat(self, name: str) -> Callable[[int], Image]:
        """From the rank of an image to the treated image."""
        if name == "intact":
            return lambda rank: self.pair(rank)[0]
        if name in self.partners:
            givers = self.partners[name]
            return lambda rank: erasure.swap_background(*self.pair(rank), *self.pair(givers[rank]))
        treat = {**ERASURES, **PARTS}[name]
        return lambda rank: treat(*self.pair(rank))


def audit_model(
    backend: Backend,
    images: NDArray[np.uint8],
    lungs: Mask,
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    clusters: NDArray[np.int64],
    spec: PreprocessSpec,
    *,
    temperature: float = 1.0,
    batch_size: int = 32,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> ModelShortcuts:
    """Score a network on the images after each of TREATMENTS.

    Every treatment is scored on the same images: labeled, with a mask of at least MINIMUM_LUNG of the square. Intervals
    are at 95%, clustered by group within classes; that a swapped image has two groups is not modeled. One batch of
    treated images is held at a time.

    Args:
        backend: The inference engine.
        images: (N, S, S) uint8 fitted images, from fit_image with ``spec``; may be memory-mapped.
        lungs: (N, S, S) bool, the reference mask where there is one, else the predicted one.
        labels: (N,) int64 in [-1, K); rows of -1 are left out.
        class_names: K names, the order of the logits.
        clusters: (N,) int64, the group of each image.
        spec: The network's preprocessing.
        temperature: Logits are divided by it before softmax.
        batch_size: Images in one forward pass.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap and of the choice of backgrounds.
        progress: Called with (images done, images in all), all treatments together.

    Raises:
        DataError: The lengths differ, no image is left, or the network's output is not finite.
    """
    if not len(images) == len(lungs) == labels.size == clusters.size:
        raise DataError(
            f"Masks, labels and groups must match the images in number, got {len(lungs)}, {labels.size} and "
            f"{clusters.size} for {len(images)} images."
        )
    rows: Rows = np.flatnonzero((labels >= 0) & has_lungs(lungs))
    if not rows.size:
        raise DataError(
            "No labeled image has a lung mask, so there is nothing to erase.",
            hint="Add lung masks, or use a model that segments the lungs.",
        )
    labeled = _Labeled(images, lungs, rows, labels[rows], _partners(labels[rows], np.random.default_rng(seed)))
    probabilities = {}
    for step, name in enumerate(labeled.treatments):
        logits = []
        for batch, output in run_changed(backend, rows.size, labeled.treat(name), spec, len(class_names), batch_size):
            logits.append(output.classification)
            if progress:
                progress(step * rows.size + batch.stop, len(labeled.treatments) * rows.size)
        probabilities[name] = softmax(np.concatenate(logits), temperature)
    group = np.unique(clusters[rows], return_inverse=True)[1].astype(np.int64)
    found = _intervals(labeled, probabilities, group, resamples, seed)
    return _result(labeled, class_names, found, left_out=int(np.count_nonzero(labels >= 0)) - rows.size)


def run_changed(
    backend: Backend, count: int, change: Callable[[int], Image], spec: PreprocessSpec, classes: int, batch_size: int
) -> Iterator[tuple[slice, BackendOutput]]:
    """Yield the network's output for ``change(0)``, ..., ``change(count - 1)``, images (S, S) uint8 made as needed.

    Raises:
        DataError: The logits are not (n, ``classes``) or not finite.
    """
    for start in range(0, count, batch_size):
        batch = slice(start, min(start + batch_size, count))
        output = backend.run(to_input(np.stack([change(row) for row in range(batch.start, batch.stop)]), spec))
        logits = output.classification
        if logits.shape[1:] != (classes,) or not np.isfinite(logits).all():
            raise DataError(
                f"Expected {classes} finite logits per image, got an array {logits.shape} with "
                f"{np.count_nonzero(~np.isfinite(logits))} that are not finite.",
                hint="Check that the model belongs to these classes.",
            )
        yield batch, output


def _partners(labels: NDArray[np.int64], generator: np.random.Generator) -> dict[str, Rows]:
    """Per swap, the image that gives each image its background; another class is drawn evenly, then one of its images.

    Empty where there is one class alone.
    """
    members = {int(k): np.flatnonzero(labels == k) for k in np.unique(labels)}
    if len(members) < 2:
        return {}
    other, same = np.zeros_like(labels), np.zeros_like(labels)
    for row, label in enumerate(labels.tolist()):
        other[row] = generator.choice(members[int(generator.choice([k for k in members if k != label]))])
        mates = members[label][members[label] != row]
        same[row] = generator.choice(mates) if mates.size else row
    return {SWAPPED: other, SWAPPED_SAME: same}


def _intervals(
    labeled: _Labeled, probabilities: dict[str, FloatArray], clusters: NDArray[np.int64], resamples: int, seed: int
) -> dict[tuple[str, str], Interval]:
    """Every statistic of every treatment, on the same resamples."""
    labels, partners = labeled.labels, labeled.partners
    classes = probabilities["intact"].shape[1]

    def statistics(weights: FloatArray) -> dict[tuple[str, str], FloatArray]:
        values: dict[tuple[str, str], FloatArray] = {}
        true = np.stack([weights[:, labels == k].sum(axis=1) for k in range(classes)], axis=1)  # (R, K)
        majority = true.max(axis=1) / true.sum(axis=1)
        chance = 1 / np.count_nonzero(true, axis=1)
        for name, scores in probabilities.items():
            predicted = scores.argmax(axis=1)
            rates = confusion_rates(confusion_counts(labels, predicted, classes, weights))
            values[name, "accuracy"] = rates.accuracy
            values[name, "balanced"] = nan_mean(rates.recall)
            values[name, "auc"] = nan_mean(one_vs_rest_auc(labels, scores, weights))
            if name in partners:
                follows = (predicted == labels[partners[name]]).astype(np.float64)
                values[name, "follows"] = weights @ follows / weights.sum(axis=1)
        for key in ("accuracy", "balanced"):
            values["erased", key] = np.mean([values[name, key] for name in ERASURES], axis=0)
        for name in (*ERASURES, "erased"):
            for index, key, guess in (("index", "accuracy", majority), ("balanced_index", "balanced", chance)):
                values[name, index] = index_of(values[name, key], values["intact", key], guess)
        if partners:
            values[SWAPPED, "effect"] = values[SWAPPED_SAME, "accuracy"] - values[SWAPPED, "accuracy"]
        return values

    every = np.ones(labels.size, np.bool_)
    keys = statistics(np.ones((1, labels.size)))
    members = [labels == k for k in np.unique(labels)]
    return bootstrap(
        statistics, dict.fromkeys(keys, every), clusters, strata=labels,
        bounds={key: (-1.0 if key[1] == "effect" else 0.0, 1.0) for key in keys if not key[1].endswith("index")},
        sides={key: members for key in keys if key[1] in ("balanced", "auc", "balanced_index")},
        resamples=resamples, seed=seed,
    )  # fmt: skip


def index_of(erased: FloatArray, intact: FloatArray, guess: FloatArray) -> FloatArray:
    """Return the shortcut index (erased - guess) / (intact - guess); NaN where intact is no better than guess."""
    gain = intact - guess
    return divide(erased - guess, np.where(gain > 1e-9, gain, 0.0))


def _result(
    labeled: _Labeled, class_names: tuple[str, ...], found: dict[tuple[str, str], Interval], left_out: int
) -> ModelShortcuts:
    counts = np.bincount(labeled.labels, minlength=len(class_names))
    return ModelShortcuts(
        images=labeled.rows.size,
        left_out=left_out,
        classes=int(np.count_nonzero(counts)),
        majority_class=class_names[int(counts.argmax())],
        majority_share=float(counts.max() / labeled.rows.size),
        scores=tuple(_score(name, found) for name in labeled.treatments),
        shortcut_index=found[HEADLINE, "index"],
        balanced_index=found[HEADLINE, "balanced_index"],
        mean_index=found["erased", "index"],
        background_effect=found.get((SWAPPED, "effect")),
    )


def _score(name: str, found: dict[tuple[str, str], Interval]) -> TreatedScore:
    erased = name in ERASURES
    return TreatedScore(
        treatment=name,
        accuracy=found[name, "accuracy"],
        balanced_accuracy=found[name, "balanced"],
        auc=found[name, "auc"],
        index=found[name, "index"] if erased else None,
        balanced_index=found[name, "balanced_index"] if erased else None,
        follows_background=found.get((name, "follows")),
    )
