"""The form of ``report.json``: what ``hilum evaluate`` says of a split, checked against this schema when written.

A number that is undefined is null. ``Report.model_json_schema()`` is the JSON Schema.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from hilum.format import format_interval, metric_title
from hilum.metrics.table import OVERLAP


def _none_if_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


Number = Annotated[float | None, BeforeValidator(_none_if_nan)]


class Part(BaseModel):
    """A part of a report: frozen, and no key is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Estimate(Part):
    """A value, its 95% interval, and how many images it rests on."""

    value: Number
    low: Number
    high: Number
    n: int


class Figure(Estimate):
    """One figure of hilum.metrics.table: its Key and its interval."""

    metric: str
    class_name: str | None = None
    source: str | None = None


class Contrast(Part):
    """AUROC of one class against one other, inside a source, or over all (source is null)."""

    source: str | None
    positive: str
    negative: str
    n_positive: int
    n_negative: int
    auc: Estimate


class ModelRef(Part):
    """What was evaluated."""

    kind: Literal["run", "bundle", "predictions"]
    name: str
    id: str | None = None


class SplitRef(Part):
    """What it was evaluated on."""

    name: str
    digest: str | None
    images: int
    groups: int
    labeled: int
    with_masks: int


class Settings(Part):
    """How the intervals were made."""

    resamples: int
    seed: int
    level: float


class Failure(Part):
    """An error of high confidence: what the reader should look at."""

    file: str
    label: str
    predicted: str
    probability: float


class TrainingOverlap(Part):
    """How many of the images measured the model was trained on, and the figures on the others.

    ``known`` says of how many of the model's training and validation images there is a hash. ``seen`` is null where
    there is none. ``unseen`` counts the images of groups without a seen image, ``figures`` are on those; both stand
    for the whole split where nothing is seen, and ``figures`` is then empty.
    """

    known: Literal["all", "part", "none"]
    seen: int | None
    unseen: int
    unseen_groups: int
    figures: tuple[Figure, ...] = ()

    def figure(self, like: Figure) -> Figure | None:
        """The same figure on the unseen images; None where they do not have it."""
        wanted = (like.metric, like.class_name, like.source)
        return next((f for f in self.figures if (f.metric, f.class_name, f.source) == wanted), None)


class Report(Part):
    """All that is known of an evaluated split.

    The parts without a schema of their own are dataclasses of the modules that compute them, as JSON:
    ``calibration`` of hilum.metrics.calibration, ``conformal`` of .conformal, ``selective`` of .selective,
    ``localization`` of .localization, ``held_out_sources`` of hilum.evaluation.leave_one_source_out.
    """

    format: Literal["hilum-report-1"] = "hilum-report-1"
    hilum_version: str
    model: ModelRef
    split: SplitRef
    training_overlap: TrainingOverlap | None = None
    settings: Settings
    class_names: tuple[str, ...]
    figures: tuple[Figure, ...]
    confusion_matrix: tuple[tuple[int, ...], ...] | None
    contrasts: tuple[Contrast, ...] = ()
    calibration: dict[str, Any] | None = None
    conformal: tuple[dict[str, Any], ...] = ()
    selective: dict[str, Any] | None = None
    localization: dict[str, Any] | None = None
    held_out_sources: tuple[dict[str, Any], ...] = ()
    limits: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()

    @property
    def overlap_sentence(self) -> str | None:
        """How many of the images are in the model's training data; None where nothing can be said of it."""
        overlap, total = self.training_overlap, self.split.images
        if overlap is None or overlap.seen is None:
            return None
        images = "images" if self.split.name == "all" else f"{self.split.name} images"
        if overlap.seen == total:
            return f"All {total:,} {images} are in this model's training data: no figure here is of a test."
        if not overlap.seen and overlap.known == "part":
            return None
        if not overlap.seen:
            return f"None of {total:,} {images} is in this model's training data."
        are = "is" if overlap.seen == 1 else "are"
        rest = (
            f"figures on the {overlap.unseen:,} unseen images are shown beside"
            if overlap.unseen
            else "no group is unseen"
        )
        least = "At least " if overlap.known == "part" else ""
        return f"{least}{overlap.seen:,} of {total:,} {images} {are} in this model's training data; {rest}."

    @property
    def unseen_figures(self) -> tuple[Figure, ...]:
        """The figures on images that are not known to be in the model's training data."""
        overlap = self.training_overlap
        return overlap.figures if overlap is not None and overlap.seen else self.figures

    def figure(self, metric: str, class_name: str | None = None, source: str | None = None) -> Figure | None:
        """Return one figure, or None where the split does not have it."""
        wanted = (metric, class_name, source)
        return next((f for f in self.figures if (f.metric, f.class_name, f.source) == wanted), None)


_OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "macro_roc_auc", "mcc")


def summary_lines(report: Report) -> list[str]:
    """Return a report as a few lines, each number with its 95% CI and n.

    Images that the model was trained on come first, what the data cannot tell comes last.
    """
    keys: list[tuple[str, str | None]] = [(metric, None) for metric in _OVERALL]
    keys += [(metric, name) for name in report.class_names for metric in ("recall", "precision")]
    keys += [(metric, None) for metric in OVERLAP]
    shown = [
        (
            " ".join(filter(None, (name, metric_title(metric)))),
            format_interval(figure, with_n=True) + _beside(report, figure),
        )
        for metric, name in keys
        if (figure := report.figure(metric, name)) is not None
    ]
    if report.calibration is not None:
        shown.append((metric_title("ece"), format_interval(report.calibration["after"]["ece"], with_n=True)))
    shown += [
        (f"{pair.positive} against {pair.negative} within {pair.source}", format_interval(pair.auc, with_n=True))
        for pair in report.contrasts
        if pair.source is not None
    ]
    width = max((len(words) for words, _ in shown), default=0)
    split = report.split
    name = "all images" if split.name == "all" else f"{split.name} split"
    head = (
        f"{name}: {split.images:,} images in {split.groups:,} groups, {split.labeled:,} labeled, "
        f"{split.with_masks:,} with masks; 95% intervals"
    )
    first = [report.overlap_sentence] if report.overlap_sentence else []
    lines = [*first, head, *(f"  {words:<{width}}  {text}" for words, text in shown)]
    if report.limits:
        lines += ["What these data cannot tell:", *(f"  - {sentence}" for sentence in report.limits)]
    return lines


def _beside(report: Report, figure: Figure) -> str:
    """Return the same figure on the unseen images, where there are some and others."""
    overlap = report.training_overlap
    unseen = overlap.figure(figure) if overlap is not None else None
    return "" if unseen is None else f"; unseen: {format_interval(unseen, with_n=True)}"
