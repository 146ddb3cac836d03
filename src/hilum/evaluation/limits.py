"""What an evaluated split cannot tell, in words: read off the split itself, before any figure is believed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hilum.metrics.scores import Scores

FEW_IMAGES = 30
"""Below so many images of a class, or of each class of a contrast, a figure is called thin."""
_MOSTLY = 0.8


def limits_of(
    scores: Scores, *, same_sources: bool = False, calibrated: bool = True, fitted_here: bool = False
) -> tuple[str, ...]:
    """Sentences, the gravest first: confounding of class and source, thin classes, missing groups and masks.

    Args:
        scores: the evaluated split.
        same_sources: whether the model was trained on images of the same sources.
        calibrated: whether a temperature was fitted.
        fitted_here: whether it, the prediction sets and the threshold were fitted on these very images.
    """
    sentences = sorted(_confounding(scores), key=lambda sentence: not sentence.startswith("No source"))
    if same_sources:
        sentences.append(
            "The test images come from the sources that the model was trained on. On images of another hospital the "
            "figures are likely to be lower; these data cannot say by how much."
        )
    sentences += [*_thin_classes(scores), *_groups(scores), *_masks(scores)]
    if not calibrated:
        sentences.append(
            "The probabilities were not calibrated on other images of this kind: they rank the images, and are no "
            "chances."
        )
    if fitted_here:
        sentences.append(
            "Temperature, prediction sets and abstention were fitted on these images: their figures here are too good."
        )
    return tuple(sentences)


def _confounding(scores: Scores) -> Iterator[str]:
    sources = np.array([source or "" for source in scores.sources])
    known = scores.labeled & (sources != "")
    if not known.any():
        if scores.labeled.any():
            yield "No source is given: nothing here tells how much of a class is its hospital, its year or its age."
        return
    labels = scores.labels
    for (a, first), (b, second) in combinations(enumerate(scores.class_names), 2):
        of_a, of_b = sources[known & (labels == a)], sources[known & (labels == b)]
        if not of_a.size or not of_b.size:
            continue
        shared = np.intersect1d(of_a, of_b)
        enough = [s for s in shared if min((of_a == s).sum(), (of_b == s).sum()) >= FEW_IMAGES]
        if not shared.size and len({*of_a, *of_b}) > 1:
            yield (
                f"No source has both {first} and {second}: that the model tells them apart may be the source alone, "
                "and these data cannot show that it is not."
            )
        elif not enough and len({*of_a, *of_b}) > 1:
            most = max(int(min((of_a == s).sum(), (of_b == s).sum())) for s in shared)
            yield (
                f"{first} and {second} share no source with {FEW_IMAGES} images of each (at most {most}): their "
                "contrast within a source is thin."
            )
        else:
            yield from _apart(first, second, of_a, of_b)


def _apart(first: str, second: str, of_a: NDArray[np.str_], of_b: NDArray[np.str_]) -> Iterator[str]:
    """A pair that shares sources, though most images of one class come from where the other has none."""
    for name, own, other_name, other in ((first, of_a, second, of_b), (second, of_b, first, of_a)):
        alone = float(np.mean(~np.isin(own, other)))
        if alone >= _MOSTLY:
            yield (
                f"{alone:.0%} of the {name} images come from sources without {other_name}: read their contrast "
                "within a source."
            )


def _thin_classes(scores: Scores) -> Iterator[str]:
    if not scores.labeled.any():
        yield "No image has a label: nothing is said of the classes."
        return
    for k, name in enumerate(scores.class_names):
        count = int((scores.labels == k).sum())
        if count < FEW_IMAGES:
            yield f"{name} has {count} images: its figures are thin, whatever their value."


def _groups(scores: Scores) -> Iterator[str]:
    if not any(scores.groups):
        yield (
            "No groups (patients) are given: the intervals take every image for a patient of its own, and are too "
            "narrow where that is not so."
        )


def _masks(scores: Scores) -> Iterator[str]:
    masked = scores.masked
    if not masked.any():
        yield "No image has a reference lung mask: nothing is said of the segmentation."
        return
    without = [
        name
        for k, name in enumerate(scores.class_names)
        if (scores.labels == k).any() and not (masked & (scores.labels == k)).any()
    ]
    if masked.sum() < len(scores.files):
        where = f", none of them of {' or '.join(without)}" if without else ""
        yield f"Lung masks exist for {masked.sum():,} of {len(scores.files):,} images{where}."
