"""Choose the thresholds of operating points on given predictions of other images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hilum.errors import DataError
from hilum.evaluation.predictions import PREDICTIONS_FILE, read_predictions
from hilum.metrics.operating_points import Fixed, Thresholds, choose_thresholds
from hilum.metrics.scores import Scores


def thresholds_from(path: Path, class_names: tuple[str, ...], at: Mapping[Fixed, float]) -> tuple[Thresholds, Scores]:
    """Return thresholds chosen on the predictions of an evaluation of other images, and these predictions.

    Args:
        path: Folder of an evaluation, or a ``predictions.csv``.
        class_names: The classes of the model, in its order.
        at: What is fixed to its target.

    Raises:
        DataError: The file cannot be read, its classes differ, or no class has images and a rest.
    """
    table = path / PREDICTIONS_FILE if path.is_dir() else path
    scores = read_predictions(table, "")
    if scores.class_names != class_names:
        raise DataError(
            f"'{table}' has the classes {', '.join(scores.class_names)}, the model {', '.join(class_names)}.",
            hint="Name predictions of the same model.",
        )
    found = choose_thresholds(scores, at, f"predictions in {table.parent.name or table.name}")
    if found is None:
        raise DataError(f"No class of '{table}' has both labeled images and others.", hint="Name other predictions.")
    return found, scores


def require_other_images(evaluated: Scores, chosen_on: Scores) -> None:
    """Check that the thresholds were not chosen on the evaluated images.

    Raises:
        DataError: An image has the same name and the same probabilities in both.
    """
    rows = {file: row for row, file in enumerate(chosen_on.files)}
    same = [
        file
        for row, file in enumerate(evaluated.files)
        if file in rows and np.allclose(evaluated.probabilities[row], chosen_on.probabilities[rows[file]], atol=1e-6)
    ]
    if same:
        raise DataError(
            f"The thresholds would be chosen on {len(same)} of the evaluated images (first: {same[0]}).",
            hint="Name predictions of other images with --thresholds-from, or leave the option out.",
        )
