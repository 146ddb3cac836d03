"""State the limitations of an evaluated split, as sentences derived from its labels, sources, groups and masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hilum.bundle.training_hashes import Extent
from hilum.format import format_interval, number
from hilum.metrics.calibration_within import CalibrationWithin, PartCalibration
from hilum.metrics.scores import Scores

FEW_IMAGES = 30
"""With fewer images of a class, or of each class of a contrast, a metric is called imprecise."""
_MOSTLY = 0.8
_TRAINING_IMAGES: dict[Extent | None, str] = {
    "none": "It is not known whether the model was trained on some of these images: its bundle carries no hashes of "
    "its training images.",
    "part": "Hashes of only a part of the images that the model was trained or calibrated on are known: it is not "
    "known whether further images of these are among them.",
}


def limits_of(
    scores: Scores,
    *,
    same_sources: bool = False,
    calibrated: bool = True,
    training_images: Extent | None = "all",
    overlap: str | None = None,
    within: CalibrationWithin | None = None,
) -> tuple[str, ...]:
    """Return the limitations, the most serious first: training images, confounding, small classes, missing data.

    Args:
        scores: The evaluated split.
        same_sources: Whether the model was trained on images of the same sources.
        calibrated: Whether a temperature was fitted.
        training_images: Whether hashes of all, a part or none of the model's training images are known; None for a
            model of which nothing is known.
        overlap: The sentence that some images are training images (Report.overlap_sentence); None if none is.
        within: Calibration by source and predicted class; None where it was not measured.
    """
    sentences = [] if overlap is None else [overlap]
    sentences += [_TRAINING_IMAGES[training_images]] if training_images in _TRAINING_IMAGES else []
    sentences += sorted(_confounding(scores), key=lambda sentence: not sentence.startswith("No source"))
    if same_sources:
        sentences.append(
            "These images come from sources that the model was trained on. Performance at another hospital is likely "
            "to be lower; these data cannot tell by how much."
        )
    sentences += [] if within is None else _unlike_the_average(within.parts)
    sentences += [*_small_classes(scores), *_groups(scores), *_masks(scores)]
    if not calibrated:
        sentences.append(
            "The probabilities were not calibrated on other images of this kind: use them to rank images, not as "
            "frequencies."
        )
    return tuple(sentences)


def _confounding(scores: Scores) -> Iterator[str]:
    sources = np.array([source or "" for source in scores.sources])
    known = scores.labeled & (sources != "")
    if not known.any():
        if scores.labeled.any():
            yield "No source is given: the effect of hospital, year or patient age on the metrics cannot be separated."
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
                f"No source has both {first} and {second}: the model may separate them by source alone, and these data "
                "cannot show that it does not."
            )
        elif not enough and len({*of_a, *of_b}) > 1:
            most = max(int(min((of_a == s).sum(), (of_b == s).sum())) for s in shared)
            yield (
                f"{first} and {second} share no source with {FEW_IMAGES} images of each (at most {most}): their "
                "AUROC within a source is imprecise."
            )
        else:
            yield from _apart(first, second, of_a, of_b)


def _apart(first: str, second: str, of_a: NDArray[np.str_], of_b: NDArray[np.str_]) -> Iterator[str]:
    """Name a pair that shares sources, where most images of one class come from sources without the other."""
    for name, own, other_name, other in ((first, of_a, second, of_b), (second, of_b, first, of_a)):
        alone = float(np.mean(~np.isin(own, other)))
        if alone >= _MOSTLY:
            yield (
                f"{alone:.0%} of the {name} images come from sources without {other_name}: use their AUROC within a "
                "source."
            )


def _unlike_the_average(parts: Sequence[PartCalibration]) -> Iterator[str]:
    """Name the parts whose calibration, or whose accuracy above the threshold, differs from that of all images."""
    openings = {
        "in_the_large": "Calibration is not the same in all parts of the data: mean confidence less accuracy is",
        "accuracy": "The abstention threshold does not give the same accuracy in all parts of the data: it is",
    }
    whole = next(part for part in parts if part.kind == "all")
    for figure, opening in openings.items():
        signed = figure == "in_the_large"
        unlike = [
            f"{format_interval(getattr(part, figure), signed=signed, with_n=True)} "
            + (f"within the source {part.name}" if part.kind == "source" else f"where {part.name} is predicted")
            for part in parts
            if figure in part.differs
        ]
        if unlike:
            overall = number(getattr(whole, figure).value, signed=signed)
            yield f"{opening} {overall} over all images, but {'; '.join(unlike)}."


def _small_classes(scores: Scores) -> Iterator[str]:
    if not scores.labeled.any():
        yield "No image has a label: classification is not measured."
        return
    counts = [int((scores.labels == k).sum()) for k in range(len(scores.class_names))]
    few = [f"{name} ({n})" for name, n in zip(scores.class_names, counts, strict=True) if n < FEW_IMAGES]
    if few:
        yield f"Fewer than {FEW_IMAGES} images of {', '.join(few)}: the metrics of these classes are imprecise."


def _groups(scores: Scores) -> Iterator[str]:
    if not any(scores.groups):
        yield (
            "No groups (patients) are given: the intervals treat every image as a patient of its own, and are too "
            "narrow where patients have several images."
        )


def _masks(scores: Scores) -> Iterator[str]:
    masked = scores.masked
    if not masked.any():
        yield "No image has a reference lung mask: segmentation is not measured."
        return
    without = [
        name
        for k, name in enumerate(scores.class_names)
        if (scores.labels == k).any() and not (masked & (scores.labels == k)).any()
    ]
    if masked.sum() < len(scores.files):
        where = f", none of them of {' or '.join(without)}" if without else ""
        yield f"Lung masks exist for {masked.sum():,} of {len(scores.files):,} images{where}."
