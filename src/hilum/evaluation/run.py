"""Evaluate a run on one of its splits, or a bundle on any dataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hilum.backends import pytorch
from hilum.backends.open import open_backend
from hilum.backends.pytorch import PyTorchBackend
from hilum.bundle.bundle import load_bundle
from hilum.bundle.calibration import Calibration, calibration_from_json, calibration_of, calibration_to_json
from hilum.bundle.training_hashes import KnownImages, known_images, united
from hilum.config import Config
from hilum.data.index import Index, build_index
from hilum.data.split import Split, make_split, records_of
from hilum.errors import DataError
from hilum.evaluation.measure import Subject, measure
from hilum.evaluation.options import ReportOptions
from hilum.evaluation.provenance import provenance_of_bundle, provenance_of_run
from hilum.evaluation.report import ModelRef, Report
from hilum.evaluation.subgroups import columns_of
from hilum.evaluation.thresholds import require_other_images, thresholds_from
from hilum.evaluation.validation import thresholds_on_validation, validation_scores
from hilum.metrics.calibration import fit_calibration
from hilum.metrics.operating_points import Thresholds
from hilum.metrics.scores import Scores, labels_of
from hilum.progress import Step
from hilum.run_folder import RunFolder
from hilum.storage import sha256_file, sha256_text, write_json
from hilum.training.device import device_of
from hilum.training.from_bundle import images_before
from hilum.training.prepare import index_and_split
from hilum.training.runs import load_model, open_run
from hilum.types import CalibratedPer, Record, SplitName


def evaluate_run(
    root: Path,
    split_name: SplitName = "test",
    *,
    held_out: Sequence[dict[str, Any]] = (),
    calibrate_per: CalibratedPer | None = None,
    resamples: int = 1000,
    seed: int = 0,
    out: Path | None = None,
    step: Step | None = None,
    options: ReportOptions | None = None,
    thresholds: Path | None = None,
) -> Report:
    """Evaluate a run's best weights on one of its splits; files go to the run's folder ``<split>/``, or to ``out``.

    The calibration is fitted on the validation split, once for each set of weights. The network's output on the
    evaluated split is kept until the evaluation is complete, so that an interrupted one does not compute it again.

    Args:
        root: The run's folder.
        split_name: The split to evaluate.
        held_out: Results of hilum.evaluation.leave_one_source_out, for the report.
        calibrate_per: See subject_of.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.
        out: Folder for the files.
        step: Progress callback.
        options: Parts of the report that are chosen by the user.
        thresholds: Predictions of other images on which the thresholds of the operating points are chosen; those of the
            validation split by default, unless it is the evaluated one.

    Raises:
        CheckpointError: The folder holds no run, or one without weights.
        HilumError: See index_and_split and measure.
    """
    run, config = open_run(root)
    step = step or Step()
    index, split = index_and_split(config, run, step)
    options = options or ReportOptions()
    records = records_of(index, split, split_name)
    options.require_classes(index.class_names)  # raises now, not after minutes
    columns_of(records, options.subgroups)
    subject = subject_of(run, config, index, split, step, calibrate_per)
    chosen = _thresholds(thresholds, subject, options)
    if chosen is None and split_name != "val":
        validation = validation_scores(run, subject, index, records_of(index, split, "val"), step)
        of_validation = thresholds_on_validation(validation, subject.temperature, options)
        chosen = lambda _: of_validation  # noqa: E731
    kept = run.unfinished(split_name, str(subject.model.id))
    report = measure(
        subject, index, records, out or run.results(split_name), options=options, thresholds=chosen,
        split=split_name, digest=split.digest, trained_on=split_name != "test", held_out=held_out,
        resamples=resamples, seed=seed, step=step, kept=kept,
        provenance=provenance_of_run(run, config, index, split, subject.network, options),
    )  # fmt: skip
    for former in run.root.glob(run.unfinished(split_name, "*").name):
        former.unlink(missing_ok=True)
    return report


def subject_of(
    run: RunFolder,
    config: Config,
    index: Index,
    split: Split,
    step: Step,
    calibrate_per: CalibratedPer | None = None,
) -> Subject:
    """Return a run's network with its best weights, calibrated on its validation split.

    Args:
        run: The run.
        config: Its settings.
        index: Its data.
        split: Its split.
        step: Progress callback.
        calibrate_per: Fit temperature and threshold over all images or for each predicted class; by default as the
            run's calibration was fitted before, else over all images.
    """
    model = load_model(run, config, len(index.class_names))
    subject = Subject(
        model=ModelRef(kind="run", name=run.root.resolve().name, id=sha256_file(run.best)),
        backend=PyTorchBackend(model, str(device_of(config))),
        class_names=index.class_names,
        spec=config.preprocess,
        network=model,
        sources=frozenset(record.source for record in records_of(index, split, "train") if record.source is not None),
        known=united([KnownImages("all"), images_before(run)]),  # its own split is there, without hashes
    )
    return Subject(**{**vars(subject), "calibration": _calibration(run, subject, index, split, step, calibrate_per)})


def evaluate_bundle(
    path: Path,
    data: Path,
    out: Path,
    *,
    split_name: SplitName | None = None,
    classes: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    step: Step | None = None,
    options: ReportOptions | None = None,
    thresholds: Path | None = None,
) -> Report:
    """Evaluate a bundle on a folder or table of images, through ONNX Runtime; files go to ``out``.

    Args:
        path: The bundle.
        data: A folder of class folders or a CSV; labels must be among the bundle's classes.
        out: Folder for the files, created if absent.
        split_name: Evaluate only this split of the data's ``split`` column; all images by default.
        classes: Keep only these labels.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.
        step: Progress callback.
        options: Parts of the report that are chosen by the user.
        thresholds: Predictions of other images on which the thresholds of the operating points are chosen; by default
            they are chosen on the evaluated images.

    Raises:
        BundleError: The bundle cannot be opened.
        DataError: No image is left, or a label is none of the bundle's.
    """
    step = step or Step()
    bundle = load_bundle(path)
    listed, _ = _records(build_index(data, classes=classes, check=False), split_name)
    labels_of(listed, bundle.manifest.class_names)  # raises now, not after minutes of reading files
    options = options or ReportOptions()
    options.require_classes(bundle.manifest.class_names)
    columns_of(listed, options.subgroups)
    index = build_index(data, classes=classes, progress=step.begin("Checking files"))
    step.found(index.findings)
    records, digest = _records(index, split_name)
    manifest = bundle.manifest
    network = pytorch.open(bundle).model
    subject = Subject(
        model=ModelRef(kind="bundle", name=manifest.name, id=manifest.bundle_id),
        backend=open_backend(bundle, "onnxruntime", precision="fp32"),
        class_names=manifest.class_names,
        spec=manifest.preprocess,
        network=network,
        mask_threshold=manifest.mask_threshold,
        calibration=calibration_of(manifest),
        sources=frozenset(manifest.sources) if manifest.sources else None,
        known=known_images(bundle),
    )
    return measure(
        subject,
        index,
        records,
        out,
        split=split_name or "all",
        digest=digest,
        resamples=resamples,
        seed=seed,
        step=step,
        provenance=provenance_of_bundle(manifest, records, index, split_name or "all", network, options),
        options=options,
        thresholds=_thresholds(thresholds, subject, options),
    )


def _thresholds(
    path: Path | None, subject: Subject, options: ReportOptions
) -> Callable[[Scores], Thresholds | None] | None:
    """Return a function that gives the thresholds in a file, once it has seen that its images are other ones."""
    if path is None:
        return None
    found, chosen_on = thresholds_from(path, subject.class_names, options.at)

    def checked(evaluated: Scores) -> Thresholds:
        require_other_images(evaluated, chosen_on)
        return found

    return checked


def _records(index: Index, split_name: SplitName | None) -> tuple[tuple[Record, ...], str]:
    """The requested records, and the digest of the split, or that over all keys."""
    if split_name is None:
        return index.records, sha256_text(json.dumps(sorted(index.key(record) for record in index.records)))
    if any(record.split is None for record in index.records):
        raise DataError(
            f"The data have no complete `split` column, which evaluating their {split_name} split needs.",
            hint="Leave --split out to evaluate all images, or give a CSV with a `split` column.",
        )
    split = make_split(index, Config().split)
    return records_of(index, split, split_name), split.digest


def _calibration(
    run: RunFolder, subject: Subject, index: Index, split: Split, step: Step, per: CalibratedPer | None
) -> Calibration | None:
    """Return the calibration in the run's folder if it is of these weights and ``per``; else fit and write one.

    None where the validation split has labeled images of fewer than two classes.
    """
    if run.calibration.is_file():
        content = json.loads(run.calibration.read_text(encoding="utf-8"))
        weights, stored = content.pop("weights", None), calibration_from_json(content)
        if weights == subject.model.id and per in (None, stored.per):
            return stored
        per = per or stored.per
    scores = validation_scores(run, subject, index, records_of(index, split, "val"), step)
    if len({*scores.labels[scores.labeled].tolist()}) < 2:
        return None
    fitted = fit_calibration(scores, digest=split.digest, per=per or "all")
    write_json(run.calibration, {**calibration_to_json(fitted), "weights": subject.model.id})
    return fitted
