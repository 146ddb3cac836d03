"""The training pipeline: index, check, split, cache, train, evaluate on the test split, export.

Each step is a function of its own package; this module only connects them.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from hilum._version import __version__
from hilum.config import INDIFFERENT, Config, save_config
from hilum.data.index import Index
from hilum.data.split import Split
from hilum.errors import CheckpointError
from hilum.evaluation.plots import training_curves
from hilum.evaluation.report import Report
from hilum.evaluation.run import evaluate_run
from hilum.models.build import build_model, count_parameters
from hilum.progress import Step
from hilum.run_folder import RunFolder, require_new
from hilum.storage import sha256_text, write_json
from hilum.training.dataset import CachedDataset
from hilum.training.device import check_precision, device_of, using_threads
from hilum.training.from_bundle import read_start, seen_before, starting_weights
from hilum.training.loop import Progress, fit
from hilum.training.observer import Silent, TrainingObserver
from hilum.training.prepare import prepare
from hilum.training.runs import open_run
from hilum.types import SPLIT_NAMES, SplitName


@dataclass(frozen=True)
class TrainedRun:
    """Result of ``train``.

    Attributes:
        run: The run's folder.
        progress: Metrics of each epoch and the best epoch.
        report: The report on the test split.
    """

    run: RunFolder
    progress: Progress
    report: Report


def train(
    config: Config,
    run: RunFolder,
    *,
    resume: bool = False,
    observer: TrainingObserver | None = None,
    step: Step | None = None,
) -> TrainedRun:
    """Train a model, evaluate it on the test split, export a bundle and return the TrainedRun.

    Args:
        config: All settings; ``config.data`` must be set.
        run: Output folder. Files of an attempt without a completed epoch are replaced.
        resume: Continue from the state in ``run``.
        observer: Callbacks of the training loop.
        step: Callbacks of the other steps, and of findings about the dataset.

    Raises:
        OutputError: The folder contains a run and ``resume`` is False, or it cannot be written; nothing is changed.
        CheckpointError: The run to resume has other settings; nothing is changed.
        HilumError: As raised by prepare, fit, evaluate_run and export_run.
    """
    step = step or Step()
    if resume:
        _require_same_settings(config, run)
    else:
        require_new(run, config.data)
    device_of(config)  # fails early, before images are decoded
    save_config(config, run.config)
    step.found(check_precision(config))
    with using_threads(config.training.threads):
        data = prepare(config, run, step, anew=not resume)
        torch.manual_seed(config.training.seed)
        model = build_model(config.model, config.preprocess, len(data.index.class_names))
        origin = starting_weights(model, config, data.index.class_names, run)
        step.found(seen_before(run, data.datasets, step))
        started = time.time()
        progress = fit(
            model,
            data.datasets["train"],
            data.datasets["val"],
            config,
            run,
            observer or Silent(),
            identity=_identity(config, data.index, data.split),
        )
        training_curves([asdict(row) for row in progress.rows], run.plots)
        report = evaluate_run(run.root, step=step)
        _write_summary(run, config, data.datasets, data.index, data.split, model, progress, report, origin, started)
        from hilum.export.run import export_run  # late: exporting imports onnx, which training does not need

        export_run(run.root, run.bundle, step=step)
    return TrainedRun(run, progress, report)


def _require_same_settings(config: Config, run: RunFolder) -> None:
    if _settings_that_count(open_run(run.root)[1]) != _settings_that_count(config):
        raise CheckpointError(
            f"Run '{run.root}' was started with other settings.",
            hint="Resume with the settings in its config.toml, or choose another --output.",
        )


def _identity(config: Config, index: Index, split: Split) -> str:
    """Hash the settings, index and split, which must be the same when a run is resumed."""
    return sha256_text(f"{_settings_that_count(config)} {index.digest} {split.digest}")


def _settings_that_count(config: Config) -> str:
    return config.model_dump_json(exclude={"data": True, "training": INDIFFERENT})


def _write_summary(
    run: RunFolder,
    config: Config,
    datasets: Mapping[SplitName, CachedDataset],
    index: Index,
    split: Split,
    model: nn.Module,
    progress: Progress,
    report: Report,
    pretrained: str | None,
    started: float,
) -> None:
    best = progress.rows[progress.best_epoch - 1]
    start = read_start(run)
    write_json(
        run.summary,
        {
            "hilum_version": __version__,
            "torch_version": torch.__version__,
            "python_version": platform.python_version(),
            "model": config.model.name,
            "parameters": count_parameters(model),
            "pretrained": pretrained,
            "started_from": None if start is None else asdict(start),
            "class_names": list(index.class_names),
            "images": {name: len(datasets[name]) for name in SPLIT_NAMES},
            "masks": {name: sum(r.mask_path is not None for r in datasets[name].records) for name in SPLIT_NAMES},
            "index_digest": index.digest,
            "split_digest": split.digest,
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "best_val_loss": progress.best_loss,
            "best_val_accuracy": None if np.isnan(best.val_accuracy) else best.val_accuracy,
            "best_val_dice": None if np.isnan(best.val_dice) else best.val_dice,
            "best_val_auc": None if np.isnan(best.val_auc) else best.val_auc,
            "training_seconds": round(sum(row.seconds for row in progress.rows), 1),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "test": [figure.model_dump() for figure in report.unseen_figures],
        },
    )
