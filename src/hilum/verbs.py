"""Public functions for training, evaluation and dataset audits, and the class Run. Prediction is in hilum.model.

The logger ``hilum`` receives findings about the dataset as warnings, steps and epochs as information.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hilum.config import PresetName, load_config, merge, nest
from hilum.errors import ConfigError, DataError, missing_from_train
from hilum.filesystems import is_uri
from hilum.model import Model, bundle_path
from hilum.model import load as load_model
from hilum.progress import Step
from hilum.run_folder import RunFolder, new_root, read_seeds
from hilum.types import Finding, SplitName

if TYPE_CHECKING:
    from hilum.audit.report import AuditReport
    from hilum.evaluation.report import Report
    from hilum.training.journal import EpochRow

_log = logging.getLogger("hilum")
_Call = TypeVar("_Call", bound=Callable[..., Any])


def _needs_train(function: _Call) -> _Call:
    """Raise MissingExtraError if the function lacks a module of the extra ``train``."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except ModuleNotFoundError as error:
            if (missing := missing_from_train(error, f"{function.__qualname__}()")) is None:
                raise
            raise missing from error

    return cast(_Call, call)


class _EpochLog:
    """TrainingObserver that logs each epoch."""

    def epoch_started(self, epoch: int, epochs: int, batches: int) -> None:
        self._epochs = epochs

    def batch_done(self, loss: float) -> None: ...

    def epoch_done(self, row: EpochRow, *, best: bool) -> None:
        _log.info("epoch %d/%d  %s", row.epoch, self._epochs, row.line())


def _log_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        level = logging.INFO if finding.severity == "info" else logging.WARNING
        _log.log(level, "%s: %s", finding.check, finding.message)


_LOGGED = Step(begin=lambda title: _log.info("%s", title), found=_log_findings)


class Run:
    """A finished training run. Returned by ``train``; also opened from the path of its folder.

    Args:
        path: The run's folder.

    Attributes:
        path: The run's folder with settings, split, weights, curves, reports and the bundle.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def report(self) -> Report:
        """The report on the test split, written by training.

        Raises:
            DataError: The run has no report.
        """
        from hilum.evaluation.results import REPORT_FILE, load_report

        path = RunFolder(self.path).results("test") / REPORT_FILE
        if not path.is_file():
            raise DataError(f"Run '{self.path}' has no report.", hint="Create one with Run.evaluate().")
        return load_report(path)

    @_needs_train
    def evaluate(
        self,
        split: SplitName = "test",
        *,
        out: str | os.PathLike[str] | None = None,
        subgroups: Sequence[str] | None = None,
        at_specificity: float = 0.95,
        at_sensitivity: float = 0.95,
        prevalence: Mapping[str, float] | None = None,
    ) -> Report:
        """Evaluate the run's best weights on one of its splits, with 95% confidence intervals.

        Args:
            split: ``train``, ``val`` or ``test``.
            out: Folder for report.html, claim.html, report.json and predictions.csv; ``<split>`` in the run's folder
                by default.
            subgroups: Columns of the data whose subgroups are measured, such as ``sex`` or ``age:18,65``.
            at_specificity: Specificity at which sensitivity is measured.
            at_sensitivity: Sensitivity at which specificity is measured.
            prevalence: Class to its prevalence, for predictive values and decision curves.

        Returns:
            The report, as written to report.json.

        Raises:
            CheckpointError: The folder contains no run, or a run without weights.
            DataError: A subgroup names no column of the data.
            MissingExtraError: The extra ``train`` is not installed.
        """
        from hilum.evaluation.options import options_of
        from hilum.evaluation.run import evaluate_run

        options = options_of(subgroups, at_specificity, at_sensitivity, prevalence)
        return evaluate_run(self.path, split, out=None if out is None else Path(out), step=_LOGGED, options=options)

    @_needs_train
    def export(
        self, path: str | os.PathLike[str] | None = None, *, name: str | None = None, half_weights: bool = False
    ) -> Path:
        """Export the run as a bundle and return its path.

        The bundle is written only if PyTorch and ONNX Runtime agree on images of the test split.

        Args:
            path: Folder, or file that ends in ``.hilum``; ``bundle`` in the run's folder by default.
            name: Display name of the bundle; the run's name by default.
            half_weights: Round weights to float16, which halves the file size.

        Returns:
            Path of the bundle; ``hilum.load`` opens it.

        Raises:
            ParityError: PyTorch and ONNX Runtime disagree; nothing is written.
            OutputError: ``path`` exists and is not a bundle, or cannot be written.
        """
        from hilum.export.run import export_run

        place = RunFolder(self.path).bundle if path is None else Path(path)
        export_run(self.path, place, name=name, half_weights=half_weights, step=_LOGGED)
        return place

    def load(self) -> Model:
        """Load the run's bundle and return a Model for prediction."""
        return load_model(self.path)


@_needs_train
def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    preset: PresetName = "default",
    from_bundle: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    size: int | None = None,
    device: str | None = None,
    random_state: int | None = None,
    seeds: int | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> Run:
    """Train a model on a dataset, evaluate it on the test split, export a bundle and return the Run.

    Args:
        data: A folder of class folders, or a CSV with the columns ``image, mask, label, group, source, split``; or the
            address of one, whose files are fetched to the cache folder.
        out: The run's folder; ``runs/<time>`` by default.
        preset: Base settings: ``default``, or ``original`` (those of the original project).
        from_bundle: Fine-tune this bundle: ``default``, a bundle, or a run's folder.
        classes: Keep only these classes.
        epochs: Passes over the training split; the preset's by default.
        batch_size: Images per forward pass; the preset's by default.
        learning_rate: Peak learning rate of AdamW; the preset's by default.
        size: Side of the square network input in pixels; the preset's by default.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        random_state: Random seed of split, weights, order and augmentation.
        seeds: Train from this many random seeds, ``random_state`` and the following, on one split. Each is a run in
            ``out``, with the spread of the metrics in ``seeds.json``. The run with the lowest validation loss is
            returned.
        settings: Other settings by name, such as ``{"shortcuts.lesion_p": 0.2}``; listed by
            ``hilum train --help-settings``.
        resume: Continue the run in ``out`` on its own data and with its own settings; ``data`` is ignored, and only
            ``device`` may be set.

    Returns:
        The finished run; ``Run.load`` opens its bundle.

    Raises:
        ConfigError: A setting is unknown or out of range, or ``out`` is an address.
        DataError: The data cannot be used.
        OutputError: ``out`` already holds a run, or cannot be written.
        MissingExtraError: The extra ``train`` is not installed.
    """
    from hilum.pipeline import train as run_training
    from hilum.training.from_bundle import settings_from_bundle
    from hilum.training.runs import open_run

    given = (from_bundle, classes, epochs, batch_size, learning_rate, size, random_state, seeds, settings or None)
    if resume:
        if out is None:
            raise ConfigError("resume=True needs the run's folder.", hint="Pass the run's folder as `out`.")
        if preset != "default" or any(value is not None for value in given):
            raise ConfigError("A run is resumed with its own settings.", hint="Pass only `out`, `resume` and `device`.")
        if read_seeds(Path(out)) is not None:
            from hilum.seeds import resume_seeds

            return Run(resume_seeds(Path(out), observer=_EpochLog(), step=_LOGGED).run.root)
        run, config = open_run(Path(out))
        if device is not None:
            config = load_config("original", run.config, nest({"training.device": device}))
        run_training(config, run, resume=True, observer=_EpochLog(), step=_LOGGED)
        return Run(run.root)
    flat = {
        "training.epochs": epochs, "training.batch_size": batch_size, "training.learning_rate": learning_rate,
        "training.device": device, "training.seed": random_state, "split.seed": random_state, "preprocess.size": size,
        "data": data if is_uri(data) else _data(data).resolve(), "classes": classes,
    }  # fmt: skip
    overrides = nest({name: value for name, value in flat.items() if value is not None})
    overrides = merge(overrides, nest(settings or {}))
    if from_bundle is None:
        config = load_config(preset, None, overrides)
    else:
        start = from_bundle if isinstance(from_bundle, str) else str(Path(from_bundle).resolve())
        config = settings_from_bundle(start, preset, None, overrides)
    folder = new_root(out)
    if seeds is not None:
        from hilum.seeds import train_seeds

        return Run(train_seeds(config, folder, seeds, observer=_EpochLog(), step=_LOGGED).run.root)
    run_training(config, RunFolder(folder), observer=_EpochLog(), step=_LOGGED)
    return Run(folder)


@_needs_train
def evaluate(
    model: Model | Run | str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    split: SplitName | None = None,
    classes: Sequence[str] | None = None,
    random_state: int = 0,
    subgroups: Sequence[str] | None = None,
    at_specificity: float = 0.95,
    at_sensitivity: float = 0.95,
    prevalence: Mapping[str, float] | None = None,
    thresholds_from: str | os.PathLike[str] | None = None,
) -> Report:
    """Evaluate a model on a labeled dataset and return a report with 95% confidence intervals.

    Args:
        model: A Model, a Run, or an argument of ``hilum.load``. The bundle of a Model is opened again, on the CPU.
        data: A folder of class folders, or a CSV. All labels must be classes of the model.
        out: Folder for report.html, claim.html, report.json and predictions.csv; not written by default.
        split: Evaluate only this split, if the dataset has a ``split`` column.
        classes: Keep only these classes.
        random_state: Random seed of the bootstrap.
        subgroups: Columns of the data whose subgroups are measured, such as ``sex`` or ``age:18,65``.
        at_specificity: Specificity at which sensitivity is measured.
        at_sensitivity: Sensitivity at which specificity is measured.
        prevalence: Class to its prevalence, for predictive values and decision curves.
        thresholds_from: Evaluation of other images, to choose thresholds on; the evaluated images by default.

    Returns:
        The report, as written to report.json.

    Raises:
        DataError: No image is left, a label is not a class of the model, or a subgroup names no column.
        MissingExtraError: The extra ``train`` is not installed.
    """
    from hilum.evaluation.options import options_of
    from hilum.evaluation.run import evaluate_bundle

    with _folder(out) as folder:
        return evaluate_bundle(
            _place(model), _data(data), Path(folder), split_name=split, classes=classes, seed=random_state,
            step=_LOGGED, options=options_of(subgroups, at_specificity, at_sensitivity, prevalence),
            thresholds=None if thresholds_from is None else Path(thresholds_from),
        )  # fmt: skip


@_needs_train
def audit_dataset(
    data: str | os.PathLike[str],
    model: Model | Run | str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    random_state: int = 0,
) -> AuditReport:
    """Audit a dataset for duplicates, leaks and shortcuts, and a model for its use of shortcuts; return a report.

    Args:
        data: A folder of class folders, or a CSV.
        model: A Model, a Run, or an argument of ``hilum.load``; None audits only the dataset. The bundle of a Model
            is opened again, on the CPU.
        out: Folder for audit.html and audit.json; not written by default.
        classes: Keep only these classes.
        random_state: Random seed of probes, permutations and sampling.

    Returns:
        The report, as written to audit.json.

    Raises:
        DataError: The dataset cannot be used.
    """
    from hilum.audit.run import audit

    place = None if model is None else _place(model)
    with _folder(out) as folder:
        return audit(_data(data), Path(folder), model=place, classes=classes, seed=random_state, step=_LOGGED)


def _data(data: str | os.PathLike[str]) -> Path:
    if not os.fspath(data):
        raise DataError("The path of the dataset is empty.", hint="Name a folder of class folders, or a CSV.")
    return Path(data)


def _place(model: Model | Run | str | os.PathLike[str]) -> Path:
    if isinstance(model, Model):
        return model.bundle.path
    return bundle_path(model.path if isinstance(model, Run) else model)


def _folder(out: str | os.PathLike[str] | None) -> AbstractContextManager[str]:
    return TemporaryDirectory() if out is None else nullcontext(os.fspath(out))
