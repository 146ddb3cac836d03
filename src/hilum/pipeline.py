"""The training pipeline: index, check, split, cache, train, evaluate on the test split, export.

Each step is a function of its own package; this module only connects them.
"""

from __future__ import annotations

import platform
import time
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
from hilum.evaluation.results import REPORT_FILE, load_report
from hilum.evaluation.run import evaluate_run
from hilum.models.build import build_model, count_parameters
from hilum.progress import Step
from hilum.run_folder import RunFolder, read_summary, require_new
from hilum.storage import sha256_file, sha256_text, write_json
from hilum.training.compute import choose_compute, steps_of, with_choice_of
from hilum.training.dataset import CachedDataset
from hilum.training.device import check_precision, device_of, using_threads
from hilum.training.from_bundle import read_start, seen_before, starting_weights
from hilum.training.loop import Progress, fit
from hilum.training.observer import Silent, TrainingObserver
from hilum.training.prepare import PreparedData, prepare
from hilum.training.processes import Processes, check_parts, joined
from hilum.training.runs import open_run
from hilum.types import SPLIT_NAMES


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

    Where the environment says that this is one of several processes (hilum.training.processes), they train together;
    the first one writes the folder, evaluates and exports, and all return its result.

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
    with joined() as processes:
        check_parts(config.training.batch_size, processes)
        step = (step if processes.first else None) or Step()
        observer = (observer if processes.first else None) or Silent()
        if processes.first:
            _open_folder(config, run, resume=resume)
        device_of(config)  # fails early, before images are decoded
        if processes.first:
            save_config(config, run.config)
            step.found(check_precision(config))
        with using_threads(config.training.threads):
            data = prepare(config, run, step, anew=not resume)
            torch.manual_seed(config.training.seed)
            model = build_model(config.model, config.preprocess, len(data.index.class_names))
            origin = _start(model, config, data, run, step, processes)
            started = time.time()
            train_set, val_set = data.datasets["train"], data.datasets["val"]
            computed = _computed(model, train_set, config, run, step, processes, resume=resume)
            identity = _identity(config, data.index, data.split)
            with using_threads(computed.training.threads):
                progress = fit(model, train_set, val_set, computed, run, observer, identity=identity)
            trained = None
            if processes.first:
                report = _finished_report(run) if resume else None
                if report is None:
                    training_curves([asdict(row) for row in progress.rows], run.plots)
                    report = evaluate_run(run.root, step=step)
                    _write_summary(run, config, data, model, progress, report, origin, started)
                from hilum.export.run import export_run  # late: exporting imports onnx, which training does not need

                export_run(run.root, run.bundle, step=step)
                trained = TrainedRun(run, progress, report)
        return processes.from_first(trained)


def _open_folder(config: Config, run: RunFolder, *, resume: bool) -> None:
    if resume:
        _require_same_settings(config, run)
    else:
        require_new(run, config.data)


def _start(
    model: nn.Module, config: Config, data: PreparedData, run: RunFolder, step: Step, processes: Processes
) -> str | None:
    """Give the network of every process the initial weights, and return the origin of the encoder's."""
    origin = None
    if processes.first:
        origin = starting_weights(model, config, data.index.class_names, run)
        step.found(seen_before(run, data.datasets, data.split.digest, step))
    if processes.size > 1:
        model.load_state_dict(processes.from_first(model.state_dict()))
    return origin


def _computed(
    model: nn.Module,
    train_set: CachedDataset,
    config: Config,
    run: RunFolder,
    step: Step,
    processes: Processes,
    *,
    resume: bool,
) -> Config:
    """Return the settings with values for each ``auto``: those of the first process, while all of them measure."""
    known = processes.from_first(with_choice_of(config, run) if resume and processes.first else config)
    steps = steps_of(config, len(train_set))
    chosen = choose_compute(model, train_set, known, steps, step, run if processes.first else None)
    return processes.from_first(chosen)


def _finished_report(run: RunFolder) -> Report | None:
    """Return the report on the test split if an interrupted process had completed it for the run's best weights.

    The summary, which is written next, names the weights. Only the export is left then; it starts from its beginning,
    since it runs the network on no more than 8,000 images.
    """
    path, summary = run.results("test") / REPORT_FILE, read_summary(run)
    same = summary.get("weights") == sha256_file(run.best) and summary["hilum_version"] == __version__
    return load_report(path) if same and path.is_file() else None


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
    data: PreparedData,
    model: nn.Module,
    progress: Progress,
    report: Report,
    pretrained: str | None,
    started: float,
) -> None:
    best = progress.rows[progress.best_epoch - 1]
    start, datasets = read_start(run), data.datasets
    write_json(
        run.summary,
        {
            "hilum_version": __version__,
            "torch_version": torch.__version__,
            "python_version": platform.python_version(),
            "model": config.model.name,
            "parameters": count_parameters(model),
            "weights": sha256_file(run.best),
            "pretrained": pretrained,
            "started_from": None if start is None else asdict(start),
            "class_names": list(data.index.class_names),
            "images": {name: len(datasets[name]) for name in SPLIT_NAMES},
            "masks": {name: sum(r.mask_path is not None for r in datasets[name].records) for name in SPLIT_NAMES},
            "index_digest": data.index.digest,
            "split_digest": data.split.digest,
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
