"""Open the folder of a finished or interrupted run."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from hilum.config import Config, load_config
from hilum.errors import CheckpointError
from hilum.models.build import build_model
from hilum.models.weights import load_weights
from hilum.run_folder import RunFolder


def open_run(root: Path) -> tuple[RunFolder, Config]:
    """Return a run's folder and its settings.

    Raises:
        CheckpointError: The folder contains no run.
    """
    run = RunFolder(root)
    if not run.config.is_file():
        raise CheckpointError(
            f"'{root}' is not a run's folder: it has no config.toml.", hint="Name the --output of `hilum train`."
        )
    return run, load_config("original", run.config)  # the file overrides all settings of the preset


def load_model(run: RunFolder, config: Config, num_classes: int) -> nn.Module:
    """Return the network of a run with its best weights, in evaluation mode."""
    model = build_model(config.model, config.preprocess, num_classes)
    load_weights(model, run.best)
    return model.eval()
