"""Hold out one source: train again without it, and measure the drop on its images.

A network that was trained on images of every test source says little about another hospital. Here each source in turn
stands for the other hospital (Zech et al. 2018, PLoS Med. 15:e1002683).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hilum.backends.pytorch import PyTorchBackend
from hilum.config import Config
from hilum.data.index import Index
from hilum.data.split import Split, records_of
from hilum.errors import DataError
from hilum.evaluation.measure import Subject, score
from hilum.evaluation.report import ModelRef
from hilum.evaluation.run import subject_of
from hilum.metrics.bootstrap import Interval
from hilum.metrics.scores import Scores
from hilum.metrics.table import Key, figures_of, intervals_of, statistics_of
from hilum.models.build import build_model
from hilum.models.weights import load_weights
from hilum.progress import Step
from hilum.run_folder import RunFolder
from hilum.storage import sha256_text
from hilum.training.compute import with_choice_of
from hilum.training.dataset import CachedDataset
from hilum.training.device import device_of, using_threads
from hilum.training.from_bundle import Start, read_start, starting_weights
from hilum.training.loop import fit
from hilum.training.observer import Silent, TrainingObserver
from hilum.training.prepare import PreparedData, prepare
from hilum.training.runs import open_run
from hilum.types import SplitName

_METRICS = ("accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class HeldOut:
    """Both networks on the test images of one source that was held out of training.

    Attributes:
        source: Name of the source.
        trained_on: Number of training images without it.
        accuracy: Accuracy of the network trained without the source.
        balanced_accuracy: Balanced accuracy of that network.
        accuracy_with: Accuracy of the run's own network, trained with the source.
        balanced_accuracy_with: Balanced accuracy of the run's own network.
        fall: ``accuracy_with`` minus ``accuracy``, on the same images and resamples.
    """

    source: str
    trained_on: int
    accuracy: Interval
    balanced_accuracy: Interval
    accuracy_with: Interval
    balanced_accuracy_with: Interval
    fall: Interval


def leave_sources_out(
    root: Path,
    sources: Sequence[str] = (),
    *,
    resamples: int = 1000,
    seed: int = 0,
    step: Step | None = None,
    observer: TrainingObserver | None = None,
) -> tuple[HeldOut, ...]:
    """Train again without each source, with the run's settings, and evaluate on its test images.

    Every such training is a run of its own in the folder ``held_out/``. An interrupted one resumes, and a finished one
    is not repeated.

    Args:
        root: The run's folder.
        sources: The sources to hold out; by default all with labeled test images that can be held out.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the bootstrap.
        step: Progress callback of the steps.
        observer: Progress callback of the training loop.

    Raises:
        DataError: There is no such source; or without it a class has no image to train or validate on; or the run
            started from a bundle that was, or may have been, trained on it.
    """
    run, config = open_run(root)
    step = step or Step()
    data = prepare(config, run, step)
    start = read_start(run)
    chosen = list(sources) or [name for name in _sources(data) if not _obstacle(data, name, start)]
    if not chosen:
        raise DataError(
            "No source can be left out: each has no labeled test image, or is the only one of some class, or may be "
            "known to the bundle that the run started from.",
            hint="Give a `source` column with several sources per class.",
        )
    for name in chosen:
        if obstacle := _obstacle(data, name, start):
            raise DataError(f"The source {name} cannot be left out: {obstacle}", hint="Choose another source.")
    usual = subject_of(run, config, data.index, data.split, step)
    return tuple(_leave_out(name, data, config, run, usual, resamples, seed, step, observer) for name in chosen)


def _leave_out(
    source: str,
    data: PreparedData,
    config: Config,
    run: RunFolder,
    usual: Subject,
    resamples: int,
    seed: int,
    step: Step,
    observer: TrainingObserver | None,
) -> HeldOut:
    train, val = _without(data.datasets["train"], source), _without(data.datasets["val"], source)
    folder = RunFolder(run.held_out(source))
    step.begin(f"Training without {source}")
    torch.manual_seed(config.training.seed)
    model = build_model(config.model, config.preprocess, len(data.index.class_names))
    starting_weights(model, config, data.index.class_names, folder)
    _check_start(folder, run)
    computed = with_choice_of(config, run)
    identity = sha256_text(f"{usual.model.id} {data.index.digest} {data.split.digest} {source}")
    with using_threads(computed.training.threads):
        fit(model, train, val, computed, folder, observer or Silent(), identity=identity)
    load_weights(model, folder.best)
    other = Subject(
        model=ModelRef(kind="run", name=f"without {source}"),
        backend=PyTorchBackend(model, str(device_of(config))),
        class_names=usual.class_names,
        spec=usual.spec,
    )
    records = [r for r in records_of(data.index, data.split, "test") if r.source == source and r.label is not None]
    without, _, _ = score(other, data.index, records, "test", step)
    within, _, _ = score(usual, data.index, records, "test", step)
    return _compare(source, len(train), without, within, resamples, seed)


def _check_start(held_out: RunFolder, run: RunFolder) -> None:
    """Raise DataError where the bundle that the run started from has changed."""
    now, then = read_start(held_out), read_start(run)
    if now and then and now.bundle_id != then.bundle_id:
        raise DataError(
            f"The run started from bundle {then.bundle_id[:12]}; its place now holds {now.bundle_id[:12]}.",
            hint="Restore the first bundle, or fine-tune again.",
        )


def _compare(source: str, trained_on: int, without: Scores, within: Scores, resamples: int, seed: int) -> HeldOut:
    """Compare both networks on the same images and resamples."""
    each = {"": without, "_with": within}
    figures = {name: figures_of(scores, resamples=resamples, seed=seed) for name, scores in each.items()}
    accuracy = Key("accuracy")
    of_without, of_within = statistics_of(without), statistics_of(within)
    fall = intervals_of(
        lambda weights: {accuracy: of_within(weights)[accuracy] - of_without(weights)[accuracy]},
        without, {accuracy: without.labeled}, differences=True, resamples=resamples, seed=seed,
    )[accuracy]  # fmt: skip
    measured = {metric + name: figures[name][Key(metric)] for name in each for metric in _METRICS}
    return HeldOut(source=source, trained_on=trained_on, fall=fall, **measured)


def _without(dataset: CachedDataset, source: str) -> CachedDataset:
    return dataset.subset([row for row, record in enumerate(dataset.records) if record.source != source])


def _sources(data: PreparedData) -> list[str]:
    return sorted({record.source for record in data.index.records if record.source is not None})


def _obstacle(data: PreparedData, source: str, start: Start | None) -> str:
    """Say why a source cannot be left out; empty where it can."""
    index: Index = data.index
    split: Split = data.split
    if source not in _sources(data):
        return f"the data have the sources {', '.join(_sources(data)) or '(none)'}."
    if not any(r.source == source and r.label is not None for r in records_of(index, split, "test")):
        return "it has no labeled image in the test split."
    parts: tuple[SplitName, ...] = ("train", "val")
    for name in parts:
        left = {r.label for r in data.datasets[name].records if r.source != source}
        if lost := [label for label in index.class_names if label not in left]:
            return f"without it {', '.join(lost)} has no image in the {name} split."
    if start and (not start.sources or source in start.sources):
        seen = "was trained on it" if start.sources else "does not say which sources it was trained on"
        return f"the run started from the bundle {start.name}, which {seen}."
    return ""
