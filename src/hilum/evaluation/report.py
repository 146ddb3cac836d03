"""The schema of ``report.json``, which ``hilum evaluate`` writes, and its summary in a few lines.

A number that is undefined is null. ``Report.model_json_schema()`` is the JSON Schema. The values are computed in
hilum.evaluation.results and hilum.evaluation.provenance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from hilum.data.image_hash import matches_by_chance
from hilum.format import at_least_note, format_interval, metric_title, split_title
from hilum.metrics.bootstrap import NoInterval
from hilum.metrics.table import OVERLAP, WITHIN_SOURCES


def _none_if_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


Number = Annotated[float | None, BeforeValidator(_none_if_nan)]


class Part(BaseModel):
    """Base class of the parts of a report: frozen, unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Estimate(Part):
    """A value, its 95% interval or why there is none, and the number of images it is computed from; see Interval."""

    value: Number
    low: Number
    high: Number
    n: int
    no_interval: NoInterval | None = None
    at_least: bool = False


class Figure(Estimate):
    """One metric: its hilum.metrics.table.Key and its interval.

    Attributes:
        metric: See Key.
        class_name: See Key.
        source: See Key.
        left_out: Of a macro average: the classes without images, over which it is not averaged.
        as_zero: Of the macro precision: the classes that are never predicted, whose precision counts as 0.
    """

    metric: str
    class_name: str | None = None
    source: str | None = None
    left_out: tuple[str, ...] = ()
    as_zero: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """The classes that a macro average leaves out or counts as 0; empty for other metrics."""
        parts = [f"without {', '.join(self.left_out)} (no images)"] if self.left_out else []
        parts += [f"{', '.join(self.as_zero)} as 0 (never predicted)"] if self.as_zero else []
        return "; ".join(parts)


class Contrast(Part):
    """AUROC of one class against another, within a source, or over all sources (source is null)."""

    source: str | None
    positive: str
    negative: str
    n_positive: int
    n_negative: int
    auc: Estimate


class ModelRef(Part):
    """The model that was evaluated."""

    kind: Literal["run", "bundle", "predictions"]
    name: str
    id: str | None = None


class SplitRef(Part):
    """The images that it was evaluated on."""

    name: str
    digest: str | None
    images: int
    groups: int
    labeled: int
    with_masks: int


class Settings(Part):
    """Settings of the bootstrap behind the intervals."""

    resamples: int
    seed: int
    level: float


class Failure(Part):
    """A wrong prediction of high probability."""

    file: str
    label: str
    predicted: str
    probability: float


class TrainingOverlap(Part):
    """Evaluated images that are in the model's training data, and the metrics on the others.

    Attributes:
        known: Whether hashes of all, a part or none of the model's training and validation images are known.
        seen: The number of evaluated images among them; None where no hash is known.
        unseen: The number of images in groups without a seen image; all images where none is seen.
        unseen_groups: The number of those groups.
        figures: The metrics on the unseen images; empty where no image, or every image, is seen.
    """

    known: Literal["all", "part", "none"]
    seen: int | None
    unseen: int
    unseen_groups: int
    figures: tuple[Figure, ...] = ()

    def figure(self, like: Figure) -> Figure | None:
        """Return the same metric on the unseen images; None where it does not exist."""
        wanted = (like.metric, like.class_name, like.source)
        return next((f for f in self.figures if (f.metric, f.class_name, f.source) == wanted), None)


class SplitFacts(Part):
    """Counts of one split. A record without a group counts as a group of its own.

    Attributes:
        images: All images.
        groups: Patients, or clusters of near-duplicates.
        labeled: Images with a label.
        with_masks: Images with a reference lung mask.
        classes: Label to its images.
        sources: Source to its images.
        columns: Name of a column, such as age, to its hilum.evaluation.subgroups.ColumnFacts as JSON.
        with_targets: Images with a region or boxes; None where it was not counted.
    """

    images: int
    groups: int
    labeled: int
    with_masks: int
    classes: dict[str, int] = {}
    sources: dict[str, int] = {}
    columns: dict[str, dict[str, Any]] = {}
    with_targets: int | None = None


class Provenance(Part):
    """Origin of the model and of the figures; what is not known is None or empty.

    Attributes:
        data: Name of a split to its counts; ``all`` where the data are not split.
        partition: ``given`` by the data, or ``drawn`` by hilum.
        partition_seed: Seed of a drawn split.
        grouped: Whether the data name groups (patients).
        left_out: Check to the number of files that it excluded.
        other_classes: Class to its images, which were not asked for; None where it was not counted.
        other_splits: Split of the data that was not evaluated to its images; None where all splits are in ``data``.
        unused_masks: Check to the number of masks that it excluded; None where it was not counted.
        trained_sources: Sources of the images that the model was trained on; None where they are not known.
        training: Settings of every training that made the weights, in order.
        initial_weights: Origin of the weights before the first epoch.
        parameters: Number of parameters of the network.
        epochs: Rows of metrics_epochwise.csv, without durations.
        software: Package to version, in the process that evaluated.
        hardware: Processor and device of the machine that evaluated.
    """

    data: dict[str, SplitFacts] = {}
    partition: Literal["given", "drawn"] | None = None
    partition_seed: int | None = None
    grouped: bool = False
    left_out: dict[str, int] = {}
    other_classes: dict[str, int] | None = None
    other_splits: dict[str, int] | None = None
    unused_masks: dict[str, int] | None = None
    trained_sources: tuple[str, ...] | None = None
    training: tuple[dict[str, Any], ...] = ()
    initial_weights: str | None = None
    parameters: int | None = None
    epochs: tuple[dict[str, Number], ...] = ()
    software: dict[str, str] = {}
    hardware: dict[str, str] = {}

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the lowest validation loss, whose weights are kept; None where no loss is known."""
        known = [(loss, row["epoch"]) for row in self.epochs if (loss := row.get("val_loss")) is not None]
        return int(min(known)[1] or 0) if known else None


class Report(Part):
    """The evaluation of one split.

    The parts without a schema here are dataclasses of the modules that compute them, as JSON: ``calibration`` of
    hilum.metrics.calibration, ``calibration_within`` of .calibration_within, ``conformal`` of .conformal,
    ``selective`` of .selective, ``localization`` of hilum.evaluation.localization, ``held_out_sources`` of
    hilum.evaluation.leave_one_source_out, ``subgroups`` of
    hilum.evaluation.subgroups, ``operating_points`` of hilum.metrics.operating_points, ``decision_curves`` of
    hilum.metrics.net_benefit, ``agreement`` of hilum.metrics.agreement.
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
    calibration_within: dict[str, Any] | None = None
    conformal: tuple[dict[str, Any], ...] = ()
    selective: dict[str, Any] | None = None
    localization: dict[str, Any] | None = None
    held_out_sources: tuple[dict[str, Any], ...] = ()
    subgroups: tuple[dict[str, Any], ...] = ()
    operating_points: dict[str, Any] | None = None
    decision_curves: tuple[dict[str, Any], ...] = ()
    agreement: dict[str, Any] | None = None
    limits: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    provenance: Provenance | None = None

    @property
    def contaminated(self) -> bool:
        """Whether more images match training images than unseen ones do by chance (hilum.data.image_hash)."""
        overlap = self.training_overlap
        return overlap is not None and (overlap.seen or 0) > matches_by_chance(self.split.images)

    @property
    def overlap_sentence(self) -> str | None:
        """How many of the images are in the model's training data; None where that is not known."""
        overlap, total = self.training_overlap, self.split.images
        if overlap is None or overlap.seen is None:
            return None
        images = "images" if self.split.name == "all" else f"{self.split.name} images"
        if overlap.seen == total:
            return (
                f"All {total:,} images are in this model's training data: these figures do not say how it does on "
                "others."
            )
        if not overlap.seen and overlap.known == "part":
            return None
        if not overlap.seen:
            return f"None of {total:,} {images} is in this model's training data."
        are, images = "is" if overlap.seen == 1 else "are", "images"
        rest = (
            f"figures on the {overlap.unseen:,} unseen images are shown beside"
            if overlap.unseen
            else "every group has a seen image"
        )
        if not self.contaminated:
            return (
                f"{overlap.seen:,} of {total:,} images may be in this model's training data: their hashes match, as "
                f"those of up to {matches_by_chance(total):,} unseen images do by chance; {rest}."
            )
        least = "At least " if overlap.known == "part" else ""
        return f"{least}{overlap.seen:,} of {total:,} {images} {are} in this model's training data; {rest}."

    @property
    def title(self) -> str:
        """The evaluated images in words: ``test split``, or that they, or some of them, are training data."""
        overlap = self.training_overlap
        if overlap is None or not self.contaminated or self.split.name in ("train", "val"):
            return split_title(self.split.name)
        return "training data" if overlap.seen == self.split.images else "partly training data"

    @property
    def unseen_figures(self) -> tuple[Figure, ...]:
        """The metrics on images that are not known to be in the model's training data."""
        overlap = self.training_overlap
        return overlap.figures if overlap is not None and overlap.seen else self.figures

    def figure(self, metric: str, class_name: str | None = None, source: str | None = None) -> Figure | None:
        """Return one metric, or None where the split does not have it."""
        wanted = (metric, class_name, source)
        return next((f for f in self.figures if (f.metric, f.class_name, f.source) == wanted), None)


_OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "macro_roc_auc", WITHIN_SOURCES, "mcc")


def summary_lines(report: Report, further: Iterable[tuple[str, str]] = ()) -> list[str]:
    """Return a report as a few lines, each number with its 95% CI and n.

    Overlap with the training data comes first, limitations come last.

    Args:
        report: The report.
        further: Names and texts of lines after the metrics.
    """
    keys: list[tuple[str, str | None]] = [(metric, None) for metric in _OVERALL]
    keys += [(metric, name) for name in report.class_names for metric in ("recall", "precision")]
    keys += [(metric, None) for metric in OVERLAP]
    shown = [
        (
            " ".join(filter(None, (name, metric_title(metric)))),
            format_interval(figure, with_n=True) + _beside(report, figure) + (figure.note and f"; {figure.note}"),
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
    shown += further
    width = max((len(words) for words, _ in shown), default=0)
    split = report.split
    head = (
        f"{report.title}: {split.images:,} images in {split.groups:,} groups, {split.labeled:,} labeled, "
        f"{split.with_masks:,} with masks; 95% intervals"
    )
    first = [report.overlap_sentence] if report.overlap_sentence else []
    lines = [*first, head, *(f"  {words:<{width}}  {text}" for words, text in shown)]
    lines += filter(None, [at_least_note("".join(lines))])
    if limits := [sentence for sentence in report.limits if sentence not in first]:
        lines += ["Limitations of these data:", *(f"  - {sentence}" for sentence in limits)]
    return lines


def _beside(report: Report, figure: Figure) -> str:
    """Return the same metric on the unseen images, where only some are unseen."""
    overlap = report.training_overlap
    unseen = overlap.figure(figure) if overlap is not None else None
    return "" if unseen is None else f"; unseen: {format_interval(unseen, with_n=True)}"
