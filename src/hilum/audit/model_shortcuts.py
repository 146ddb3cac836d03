"""Measure whether a network needs the lungs: its scores with lungs erased, alone, or on another background.

After DeGrave, Janizek & Lee (2021, Nat. Mach. Intell. 3:610) and Maguolo & Nanni (2021, Inf. Fusion 76:1).

The **shortcut index** of a way of erasing is (e - m) / (a - m), at least 0: a the accuracy on intact images, e without
lungs, m the share of the commonest class. 0: without the lungs the network does no better than a guess; 1: it does not
need them. The headline is that of ``erased_inpaint``, which no training of hilum uses; a network that was trained on
filled lungs can give them one answer (trained_treatments). Blurring leaves the mean density of the lungs, which a
network may rightly use, so the index of ``erased_blur`` can be too high. In-painting and the mean carry the gray of the
surroundings to where a network looks for lungs, so theirs can be too high, too; one gray level does not. The **balanced
index** is the same with balanced accuracy and a chance of 1/K. It is also defined where the classes are so uneven that
the commonest one leaves nothing to gain.

An index of 0 does not show that a network ignores the rest of the image: it may answer wrongly on purpose. A classifier
**refitted** to its outputs (hilum.audit.refit) reads what they still carry, as AUROC and as information in bits. A
network that uses the heart, the bones or the patient's age has an index above 0 too, and its outputs carry information:
the figures say that the lungs are not needed, not why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilum.audit import refit
from hilum.audit.erasure import Mask, has_lungs
from hilum.audit.treatments import ERASURES, HEADLINE, SWAPPED, SWAPPED_SAME, Labeled, Rows, partners_of, run_changed
from hilum.backends.base import Backend
from hilum.bundle.prediction_sets import Temperature, softmax
from hilum.config import PreprocessSpec
from hilum.errors import DataError
from hilum.metrics.bootstrap import Bounds, Interval, bootstrap
from hilum.metrics.scores import FloatArray, confusion_counts, confusion_rates, divide, nan_mean, one_vs_rest_auc
from hilum.progress import Progress

_FLOORED = ("index", "balanced_index", *refit.INFORMATION)


@dataclass(frozen=True)
class TreatedScore:
    """A network's scores on the images after one treatment.

    Attributes:
        treatment: One of TREATMENTS.
        accuracy: Against the image's label; with a swapped background, that of the lungs.
        balanced_accuracy: Mean recall over the classes.
        auc: Macro one-vs-rest AUROC.
        index, balanced_index: The shortcut indices, at least 0, for the ways of erasing alone; NaN where the network
            does no better than the guess on intact images.
        follows_background: Share given the background's label, for swapped backgrounds alone.
        refitted_auc: Macro AUROC of a classifier that is refitted to the network's outputs, within folds. This and
            the information are None for swapped backgrounds, and where ``refitted_images`` is 0.
        information: What these outputs tell of the class, in bits, at least 0.
        information_share: The same as a share of ``label_entropy``.
        information_kept: The same as a share of that of intact images; None for these.
    """

    treatment: str
    accuracy: Interval
    balanced_accuracy: Interval
    auc: Interval
    index: Interval | None = None
    balanced_index: Interval | None = None
    follows_background: Interval | None = None
    refitted_auc: Interval | None = None
    information: Interval | None = None
    information_share: Interval | None = None
    information_kept: Interval | None = None


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
        headline: HEADLINE, the treatment of ``shortcut_index`` and ``balanced_index``.
        shortcut_index, balanced_index: Its indices.
        background_effect: Accuracy over a background of the same class less that over another class's, so that
            what the cutting itself costs is not counted; None where there is one class alone.
        refitted_images: Images of the refitted classifiers, of classes with at least MIN_GROUPS groups; 0 where there
            are fewer than two such classes, or without scikit-learn.
        label_entropy: Of these images' labels, in bits; 0 without any.
        trained_on: The treatments that the network's training used; None where that is unknown.
    """

    images: int
    left_out: int
    classes: int
    majority_class: str
    majority_share: float
    scores: tuple[TreatedScore, ...]
    headline: str
    shortcut_index: Interval
    balanced_index: Interval
    background_effect: Interval | None
    refitted_images: int = 0
    label_entropy: float = 0.0
    trained_on: tuple[str, ...] | None = None

    def score(self, treatment: str) -> TreatedScore:
        """Return the score of one of TREATMENTS."""
        return next(score for score in self.scores if score.treatment == treatment)


def audit_model(
    backend: Backend,
    images: NDArray[np.uint8],
    lungs: Mask,
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    clusters: NDArray[np.int64],
    spec: PreprocessSpec,
    *,
    temperature: Temperature = 1.0,
    trained_on: tuple[str, ...] | None = None,
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
        temperature: Divisor of the logits before softmax, see hilum.bundle.prediction_sets.softmax.
        trained_on: The result of trained_treatments.
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
    labeled = Labeled(images, lungs, rows, labels[rows], partners_of(labels[rows], np.random.default_rng(seed)))
    logits = {}
    for step, name in enumerate(labeled.treatments):
        parts = []
        for batch, output in run_changed(backend, rows.size, labeled.treat(name), spec, len(class_names), batch_size):
            parts.append(output.classification)
            if progress:
                progress(step * rows.size + batch.stop, len(labeled.treatments) * rows.size)
        logits[name] = np.concatenate(parts).astype(np.float64)
    group = np.unique(clusters[rows], return_inverse=True)[1].astype(np.int64)
    answers = _answers(logits, temperature, refit.folds_of(labeled.labels, group))
    found = _intervals(labeled, answers, group, resamples, seed)
    left_out = int(np.count_nonzero(labels >= 0)) - rows.size
    return _result(labeled, class_names, found, answers.folds, left_out, trained_on)


class _Answers(NamedTuple):
    """A network's answers per treatment: its own, and those of a classifier refitted to its outputs."""

    probabilities: dict[str, FloatArray]  # (M, K)
    refitted: dict[str, FloatArray]  # (n, J) of the images of ``folds``
    folds: refit.Folds | None


def _answers(logits: dict[str, FloatArray], temperature: Temperature, folds: refit.Folds | None) -> _Answers:
    own = {name: softmax(values, temperature) for name, values in logits.items()}
    names = [name for name in logits if name not in (SWAPPED, SWAPPED_SAME)]
    refitted = {} if folds is None else {name: refit.refitted(logits[name], folds) for name in names}
    return _Answers(own, refitted, folds)


def _intervals(
    labeled: Labeled, answers: _Answers, clusters: NDArray[np.int64], resamples: int, seed: int
) -> dict[tuple[str, str], Interval]:
    """Every statistic of every treatment, on the same resamples."""

    def statistics(weights: FloatArray) -> dict[tuple[str, str], FloatArray]:
        scored = _scored(labeled, answers.probabilities, weights)
        if answers.folds is not None:
            scored |= refit.figures_of(answers.refitted, answers.folds, weights)
        return scored

    every = np.ones(labeled.labels.size, np.bool_)
    some = every if answers.folds is None else answers.folds.rows
    values = {key: float(value[0]) for key, value in statistics(np.ones((1, every.size))).items()}
    members = [labeled.labels == k for k in np.unique(labeled.labels)]
    found = bootstrap(
        statistics, {key: some if key[1] in refit.FIGURES else every for key in values}, clusters,
        strata=labeled.labels, bounds=_bounds(values, labeled.labels),
        sides={key: members for key in values if key[1] in ("balanced", "auc", "balanced_index")},
        shares=[key for key in values if key[1] in ("accuracy", "follows")],
        aurocs=[key for key in values if key[1] in ("auc", "refitted_auc")],
        resamples=resamples, seed=seed,
    )  # fmt: skip
    return {key: floored(value) if key[1] in _FLOORED else value for key, value in found.items()}


def _bounds(values: dict[tuple[str, str], float], labels: NDArray[np.int64]) -> dict[tuple[str, str], Bounds]:
    """Return the minimum and maximum of the bounded figures; of an index, with the accuracy on the intact images."""
    _, counts = np.unique(labels, return_counts=True)
    chance = {"index": ("accuracy", counts.max() / labels.size), "balanced_index": ("balanced", 1 / counts.size)}
    found: dict[tuple[str, str], Bounds] = {}
    for name, figure in values:
        if figure in ("accuracy", "balanced", "auc", "follows", "refitted_auc", "effect"):
            found[name, figure] = (-1.0 if figure == "effect" else 0.0, 1.0)
        elif figure in chance:
            key, guess = chance[figure]
            low, high = index_of(np.array([0.0, 1.0]), np.full(2, values["intact", key]), np.full(2, guess))
            found[name, figure] = (float(low), float(high))
        elif values[name, figure] > 0:  # the information is at most the entropy of the label
            kept = figure == "information_kept"
            whole = (1.0 if kept else values[name, figure]) / values["intact" if kept else name, "information_share"]
            found[name, figure] = (0.0, whole)
    return found


def _scored(
    labeled: Labeled, probabilities: dict[str, FloatArray], weights: FloatArray
) -> dict[tuple[str, str], FloatArray]:
    """The scores (R,) of the network's own answers, for R weightings (R, M)."""
    labels, partners = labeled.labels, labeled.partners
    classes = probabilities["intact"].shape[1]
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
    for name in ERASURES:
        for index, key, guess in (("index", "accuracy", majority), ("balanced_index", "balanced", chance)):
            values[name, index] = index_of(values[name, key], values["intact", key], guess)
    if partners:
        values[SWAPPED, "effect"] = values[SWAPPED_SAME, "accuracy"] - values[SWAPPED, "accuracy"]
    return values


def index_of(erased: FloatArray, intact: FloatArray, guess: FloatArray) -> FloatArray:
    """Return (erased - guess) / (intact - guess), not yet floored at 0; NaN where intact is no better than guess."""
    gain = intact - guess
    return divide(erased - guess, np.where(gain > 1e-9, gain, 0.0))


def floored(interval: Interval) -> Interval:
    """Return the interval with no bound below 0: below it, an index or an information has no meaning."""
    value, low, high = (float(np.maximum(bound, 0)) for bound in (interval.value, interval.low, interval.high))
    return replace(interval, value=value, low=low, high=high)


def _result(
    labeled: Labeled,
    class_names: tuple[str, ...],
    found: dict[tuple[str, str], Interval],
    folds: refit.Folds | None,
    left_out: int,
    trained_on: tuple[str, ...] | None,
) -> ModelShortcuts:
    counts = np.bincount(labeled.labels, minlength=len(class_names))
    entropy = 0.0 if folds is None else float(refit.label_entropy(folds, np.ones((1, folds.rows.size)))[0])
    return ModelShortcuts(
        images=labeled.rows.size,
        left_out=left_out,
        classes=int(np.count_nonzero(counts)),
        majority_class=class_names[int(counts.argmax())],
        majority_share=float(counts.max() / labeled.rows.size),
        scores=tuple(_score(name, found) for name in labeled.treatments),
        headline=HEADLINE,
        shortcut_index=found[HEADLINE, "index"],
        balanced_index=found[HEADLINE, "balanced_index"],
        background_effect=found.get((SWAPPED, "effect")),
        refitted_images=0 if folds is None else folds.labels.size,
        label_entropy=entropy,
        trained_on=trained_on,
    )


def _score(name: str, found: dict[tuple[str, str], Interval]) -> TreatedScore:
    return TreatedScore(
        treatment=name,
        accuracy=found[name, "accuracy"],
        balanced_accuracy=found[name, "balanced"],
        auc=found[name, "auc"],
        index=found.get((name, "index")),
        balanced_index=found.get((name, "balanced_index")),
        follows_background=found.get((name, "follows")),
        refitted_auc=found.get((name, "refitted_auc")),
        information=found.get((name, "information")),
        information_share=found.get((name, "information_share")),
        information_kept=found.get((name, "information_kept")),
    )
