"""Keep a run's predictions on its validation split, and choose thresholds on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hilum.bundle.prediction_sets import Temperature, softmax
from hilum.data.index import Index
from hilum.evaluation.measure import Subject, score
from hilum.evaluation.options import ReportOptions
from hilum.evaluation.predictions import read_predictions, write_predictions
from hilum.metrics.operating_points import Thresholds, choose_thresholds
from hilum.metrics.scores import Scores
from hilum.progress import Step
from hilum.run_folder import RunFolder
from hilum.types import Record

VALIDATION = "validation split"


def validation_scores(run: RunFolder, subject: Subject, index: Index, records: Sequence[Record], step: Step) -> Scores:
    """Return the scores of a run's validation split at temperature 1, from its folder if they are of these weights.

    Args:
        run: The run's folder, where the predictions are kept.
        subject: The run's network; its id is the SHA-256 of the weights.
        index: The run's index.
        records: The records of the validation split.
        step: Progress callback.
    """
    path = run.validation_predictions(str(subject.model.id))
    if path.is_file():
        scores = read_predictions(path, "val")
        if scores.files == tuple(index.key(record) for record in records):
            return scores
    scores, _, _ = score(replace(subject, calibration=None), index, records, "val", step)
    for former in run.root.glob(run.validation_predictions("*").name):
        former.unlink()
    write_predictions(scores, path)
    return scores


def thresholds_on_validation(scores: Scores, temperature: Temperature, options: ReportOptions) -> Thresholds | None:
    """Return the thresholds of the probabilities at a temperature, chosen on a validation split at temperature 1."""
    assert scores.logits is not None
    calibrated = replace(scores, probabilities=softmax(scores.logits, temperature))
    return choose_thresholds(calibrated, options.at, VALIDATION)
