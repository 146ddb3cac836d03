"""Compute a report from scores and write its files; read them back to compute it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from hilum._version import __version__
from hilum.bundle.calibration import Calibration
from hilum.bundle.training_hashes import Extent
from hilum.errors import DataError
from hilum.evaluation.failure_images import FailureImages
from hilum.evaluation.limits import limits_of
from hilum.evaluation.localization import localization_result
from hilum.evaluation.localization_table import LocalizationTable
from hilum.evaluation.options import ReportOptions
from hilum.evaluation.predictions import PREDICTIONS_FILE, read_predictions, write_predictions
from hilum.evaluation.report import (
    Contrast,
    Estimate,
    Failure,
    Figure,
    ModelRef,
    Part,
    Provenance,
    Report,
    Settings,
    SplitRef,
    TrainingOverlap,
)
from hilum.evaluation.requested import requested_parts, thin_subgroups
from hilum.metrics.bootstrap import LEVEL, Interval
from hilum.metrics.calibration import calibration_result
from hilum.metrics.calibration_within import calibration_within
from hilum.metrics.conformal import conformal_results
from hilum.metrics.operating_points import Thresholds
from hilum.metrics.scores import Scores, class_metrics, confusion_counts
from hilum.metrics.selective import selective_result
from hilum.metrics.table import Key, classes_as_zero, classes_left_out, figures_of
from hilum.storage import as_json, with_current_keys, write_json, write_text

REPORT_FILE = "report.json"
CLASSIFICATION_FILE = "classification_report.json"
SETTINGS_FILE = "evaluation.json"
LOCALIZATION_FILE = "localization.csv"
LOCALIZATION_FILES = (LOCALIZATION_FILE, "localisation.csv")  # the second as earlier versions wrote it
MOST_FAILURES = 12


@dataclass(frozen=True)
class Evaluated:
    """Input of a report: exactly what the files beside it hold.

    Attributes:
        scores: The split, with probabilities after temperature.
        model: The model that was evaluated.
        digest: SHA-256 of the split; None where there is none.
        calibration: Fitted on other images; None where nothing was fitted.
        localization: Measures per image and method, where the data have regions or boxes.
        same_sources: Whether the model was trained on images of the same sources.
        held_out: Results of hilum.evaluation.leave_one_source_out.
        training_images: Whether ``scores.seen`` knows all, a part or none of the model's training images.
        provenance: Origin of model and data; None for another tool's table.
        options: Parts of the report that the user chose.
        thresholds: Of the operating points, chosen on other images; None where there are none.
    """

    scores: Scores
    model: ModelRef
    digest: str | None = None
    calibration: Calibration | None = None
    localization: LocalizationTable | None = None
    same_sources: bool = False
    held_out: tuple[Mapping[str, Any], ...] = field(default_factory=tuple)
    training_images: Extent = "none"
    provenance: Provenance | None = None
    options: ReportOptions = field(default_factory=ReportOptions)
    thresholds: Thresholds | None = None


class SettingsFile(Part):
    """The schema of ``evaluation.json``: what a report needs in addition to the tables."""

    model: ModelRef
    split: str
    digest: str | None
    settings: Settings
    calibration: Calibration | None
    same_sources: bool
    held_out: tuple[dict[str, Any], ...]
    training_images: Extent = "none"
    provenance: Provenance | None = None
    options: ReportOptions = ReportOptions()
    thresholds: Thresholds | None = None


def build_report(evaluated: Evaluated, *, resamples: int = 1000, seed: int = 0) -> Report:
    """Compute every metric of an evaluated split, with its interval and n.

    Raises:
        ConfigError: ``resamples`` is below 2.
    """
    scores, calibration = evaluated.scores, evaluated.calibration
    figures = figures_of(scores, resamples=resamples, seed=seed)
    again = {"resamples": resamples, "seed": seed}
    parts = requested_parts(scores, evaluated.options, evaluated.thresholds, **again)
    known = scores.labeled
    known_logits = scores.logits is not None and bool(known.any())
    within = calibration_within(scores, calibration, **again) if known_logits else None
    report = Report(
        hilum_version=__version__,
        model=evaluated.model,
        split=_split_ref(scores, evaluated.digest),
        training_overlap=_training_overlap(evaluated, resamples, seed),
        settings=Settings(resamples=resamples, seed=seed, level=LEVEL),
        class_names=scores.class_names,
        figures=tuple(_figure(scores, key, interval) for key, interval in figures.items() if key.versus is None),
        confusion_matrix=_confusion_matrix(scores),
        contrasts=tuple(_contrast(scores, key, interval) for key, interval in figures.items() if key.versus),
        calibration=as_json(calibration_result(scores, calibration, **again)) if known_logits else None,
        calibration_within=None if within is None else as_json(within),
        conformal=tuple(as_json(conformal_results(scores, calibration, **again)))
        if calibration and known.any()
        else (),
        selective=as_json(selective_result(scores, calibration, **again)) if known.any() else None,
        localization=as_json(localization_result(evaluated.localization, **again)) if evaluated.localization else None,
        held_out_sources=tuple(as_json(evaluated.held_out)),
        **parts,
        failures=failures_of(scores),
        provenance=evaluated.provenance,
    )
    limits = limits_of(
        scores,
        same_sources=evaluated.same_sources,
        calibrated=calibration is not None,
        within=within,
        training_images=None if evaluated.model.kind == "predictions" else evaluated.training_images,
        overlap=report.overlap_sentence if report.contaminated else None,
    )
    return report.model_copy(update={"limits": limits + thin_subgroups(parts)})


def write_evaluation(
    evaluated: Evaluated,
    folder: Path,
    *,
    resamples: int = 1000,
    seed: int = 0,
    images: Mapping[str, FailureImages] | None = None,
) -> Report:
    """Write the files of an evaluation into ``folder``, and return the report.

    They are ``report.json``, ``report.html``, ``claim.html`` and ``claim.md`` (the CLAIM checklist),
    ``predictions.csv``, ``evaluation.json`` (settings and calibration: with the table it gives the same report again),
    ``localization.csv`` where the data have regions or boxes, ``plots/`` as PNG and SVG, and
    ``classification_report.json`` as scikit-learn writes it.

    Args:
        evaluated: Scores and what is known of model and data.
        folder: Created if absent; files of an earlier evaluation in it are replaced.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.
        images: Images of the failures by file name.

    Raises:
        DataError: A class has a name that classification_report.json reserves.
        ConfigError: ``resamples`` is below 2.
        OutputError: The folder cannot be written.
    """
    from hilum.evaluation.claim import write_claim
    from hilum.evaluation.page import write_page
    from hilum.evaluation.plots import training_plots, write_plots

    scores = evaluated.scores
    plain = None
    if scores.labeled.any():
        plain = class_metrics(scores.labels, scores.probabilities, scores.class_names)
    report = build_report(evaluated, resamples=resamples, seed=seed)
    write_predictions(scores, folder / PREDICTIONS_FILE)
    write_json(folder / SETTINGS_FILE, _settings(evaluated, resamples, seed))
    if evaluated.localization is not None:
        evaluated.localization.write(folder / LOCALIZATION_FILE)
    if plain is not None:
        write_json(folder / CLASSIFICATION_FILE, plain)
    for name in _left_over(evaluated):
        (folder / name).unlink(missing_ok=True)
    plots = write_plots(scores, report, folder / "plots")
    if report.provenance is not None and report.provenance.epochs:
        plots = plots | training_plots(report.provenance.epochs, report.provenance.best_epoch)
    write_page(report, folder, plots=plots, images=images or {})
    write_claim(report, folder)
    write_text(folder / REPORT_FILE, report.model_dump_json(indent=2) + "\n")  # last: it stands for a whole evaluation
    return report


def read_evaluation(path: Path, split: str = "test") -> tuple[Evaluated, Settings]:
    """Read an evaluation from its folder, or from its ``predictions.csv`` with ``evaluation.json`` beside it.

    Another tool's table can stand alone. It has no calibration, its model is named after the file, and its split is
    ``split``.

    Raises:
        DataError: A file cannot be read, or does not follow its schema.
    """
    table = path / PREDICTIONS_FILE if path.is_dir() else path
    beside = table.with_name(SETTINGS_FILE)
    if not beside.is_file():
        scores = read_predictions(table, split)
        return Evaluated(scores, ModelRef(kind="predictions", name=table.name)), Settings(
            resamples=1000, seed=0, level=LEVEL
        )
    hint = "Evaluate again, or move the file away to read the table alone."
    try:
        content = SettingsFile.model_validate(with_current_keys(json.loads(beside.read_bytes())))
    except ValidationError as error:
        reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(f"'{beside}' does not hold the settings of an evaluation: {reason}.", hint=hint) from error
    except ValueError as error:
        raise DataError(f"'{beside}' is not valid JSON: {error}.", hint=hint) from error
    scores = read_predictions(table, content.split)
    classes = len(scores.class_names)
    if content.calibration and any(len(own) != classes for own in content.calibration.by_class):
        raise DataError(f"The calibration in '{beside}' is not for the {classes} classes of '{table.name}'.", hint=hint)
    localized = next((path for name in LOCALIZATION_FILES if (path := table.with_name(name)).is_file()), None)
    evaluated = Evaluated(
        scores=scores,
        model=content.model,
        digest=content.digest,
        calibration=content.calibration,
        localization=LocalizationTable.read(localized) if localized else None,
        same_sources=content.same_sources,
        held_out=content.held_out,
        training_images=content.training_images,
        provenance=content.provenance,
        options=content.options,
        thresholds=content.thresholds,
    )
    return evaluated, content.settings


def load_report(path: Path) -> Report:
    """Read ``report.json``, of this version or an earlier one, and check it against the schema.

    Raises:
        DataError: The file cannot be read or does not follow the schema.
    """
    try:
        return Report.model_validate(with_current_keys(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError) as error:
        raise DataError(f"'{path}' is not a report of hilum: {str(error).splitlines()[0]}.") from error


def failures_of(scores: Scores) -> tuple[Failure, ...]:
    """Return the wrong predictions of highest probability, in descending order, at most MOST_FAILURES."""
    predicted = scores.predicted
    confidence = scores.probabilities.max(axis=1)
    wrong = np.flatnonzero(scores.labeled & (predicted != scores.labels))
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST_FAILURES]
    names = scores.class_names
    return tuple(
        Failure(
            file=scores.files[row],
            label=names[scores.labels[row]],
            predicted=names[predicted[row]],
            probability=float(confidence[row]),
        )
        for row in worst
    )


def _split_ref(scores: Scores, digest: str | None) -> SplitRef:
    return SplitRef(
        name=scores.split,
        digest=digest,
        images=len(scores.files),
        groups=int(scores.clusters().max()) + 1,
        labeled=int(scores.labeled.sum()),
        with_masks=int(scores.masked.sum()),
    )


def _training_overlap(evaluated: Evaluated, resamples: int, seed: int) -> TrainingOverlap | None:
    """Count the overlap with the training data; None for another tool's table, whose model is not known."""
    scores = evaluated.scores
    if evaluated.model.kind == "predictions" and scores.seen is None:
        return None
    unseen = scores.unseen
    figures: tuple[Figure, ...] = ()
    if unseen.any() and not unseen.all():
        rest = scores.subset(unseen)
        found = figures_of(rest, resamples=resamples, seed=seed)
        figures = tuple(_figure(rest, key, interval) for key, interval in found.items() if key.versus is None)
    return TrainingOverlap(
        known=evaluated.training_images,
        seen=None if scores.seen is None else int(np.count_nonzero(scores.seen)),
        unseen=int(np.count_nonzero(unseen)),
        unseen_groups=len(np.unique(scores.clusters()[unseen])),
        figures=figures,
    )


def _figure(scores: Scores, key: Key, interval: Interval) -> Figure:
    return Figure(
        metric=key.metric,
        class_name=key.class_name,
        source=key.source,
        left_out=classes_left_out(scores, key),
        as_zero=classes_as_zero(scores, key),
        **vars(interval),
    )


def _contrast(scores: Scores, key: Key, interval: Interval) -> Contrast:
    inside = np.array([key.source is None or source == key.source for source in scores.sources])
    counts = [
        int(np.count_nonzero(inside & (scores.labels == scores.class_names.index(str(name)))))
        for name in (key.class_name, key.versus)
    ]
    return Contrast(
        source=key.source,
        positive=str(key.class_name),
        negative=str(key.versus),
        n_positive=counts[0],
        n_negative=counts[1],
        auc=Estimate(**vars(interval)),
    )


def _confusion_matrix(scores: Scores) -> tuple[tuple[int, ...], ...] | None:
    known = scores.labeled
    if not known.any():
        return None
    counts = confusion_counts(scores.labels[known], scores.predicted[known], len(scores.class_names))[0]
    return tuple(tuple(row) for row in counts.astype(int).tolist())


def _settings(evaluated: Evaluated, resamples: int, seed: int) -> dict[str, Any]:
    return SettingsFile(
        model=evaluated.model,
        split=evaluated.scores.split,
        digest=evaluated.digest,
        settings=Settings(resamples=resamples, seed=seed, level=LEVEL),
        calibration=evaluated.calibration,
        same_sources=evaluated.same_sources,
        held_out=tuple(as_json(evaluated.held_out)),
        training_images=evaluated.training_images,
        provenance=evaluated.provenance,
        options=evaluated.options,
        thresholds=evaluated.thresholds,
    ).model_dump()


def _left_over(evaluated: Evaluated) -> list[str]:
    """Name the files of an earlier evaluation that this one does not write."""
    labeled = bool(evaluated.scores.labeled.any())
    absent = {LOCALIZATION_FILE: evaluated.localization is None, CLASSIFICATION_FILE: not labeled}
    return [name for name, gone in absent.items() if gone]
