"""Train the same run from several random seeds, and report how much its metrics vary between them.

Each seed is a whole run in the folder ``seed-N``; the partition is the same for all. Only weights, order and
augmentation differ, so that the spread is that of the training, which intervals of one model do not contain.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hilum._version import __version__
from hilum.config import Config, save_config
from hilum.document import write_document
from hilum.errors import CheckpointError, ConfigError, OutputError
from hilum.evaluation.report import Report
from hilum.evaluation.results import REPORT_FILE, load_report
from hilum.export.run import export_run
from hilum.format import metric_title
from hilum.metrics.bootstrap import Interval
from hilum.metrics.table import Key
from hilum.pipeline import train
from hilum.progress import Step
from hilum.run_folder import RunFolder, read_seeds, read_summary, require_new, seed_run
from hilum.storage import as_json, write_json
from hilum.training.compute import with_choice_of
from hilum.training.observer import TrainingObserver
from hilum.training.processes import require_one_process
from hilum.training.runs import open_run

SEEDS_PAGE = "seeds.html"


@dataclass(frozen=True)
class Spread:
    """One metric of the test split over the seeds.

    Attributes:
        key: The metric.
        values: Its value for each seed.
        mean: Mean of the values.
        sd: Standard deviation between seeds, with n - 1 in the denominator.
        low: Smallest value.
        high: Largest value.
        chosen: The metric of the chosen seed, with its 95% interval over test images.
    """

    key: Key
    values: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float
    chosen: Interval


@dataclass(frozen=True)
class TrainedSeeds:
    """Result of ``train_seeds``.

    Attributes:
        root: The folder of all runs, with the bundle of the chosen one.
        seeds: The random seeds.
        chosen: The seed with the lowest validation loss.
        losses: Lowest validation loss of each seed.
        spread: One entry per metric of the test split.
        report: The report of the chosen run on the test split.
    """

    root: Path
    seeds: tuple[int, ...]
    chosen: int
    losses: tuple[float, ...]
    spread: tuple[Spread, ...]
    report: Report

    @property
    def run(self) -> RunFolder:
        """The folder of the chosen run."""
        return seed_run(self.root, self.chosen)

    def headline(self) -> list[Spread]:
        """Return the metrics over all images, in the order of the report."""
        return [entry for entry in self.spread if entry.key.class_name is None and entry.key.source is None]


def train_seeds(
    config: Config,
    root: Path,
    count: int,
    *,
    observer: TrainingObserver | None = None,
    step: Step | None = None,
) -> TrainedSeeds:
    """Train a run from ``count`` seeds, beginning with ``training.seed``; see resume_seeds for the result.

    Args:
        config: All settings; ``config.data`` must be set.
        root: Output folder.
        count: Number of seeds, at least 2.
        observer: Callbacks of the training loop.
        step: Callbacks of the other steps.

    Raises:
        ConfigError: ``count`` is below 2, or this is one of several processes.
        OutputError: The folder contains runs, or cannot be written.
        HilumError: As raised by hilum.pipeline.train.
    """
    require_one_process("Training from several seeds")
    if count < 2:
        raise ConfigError(f"Expected at least 2 seeds, got {count}.", hint="Without seeds, one run is trained.")
    require_new(RunFolder(root), config.data)
    if read_seeds(root) is not None:
        raise OutputError(
            f"'{root}' already contains runs of several seeds.",
            hint=f"Continue them with `hilum train --resume {root}`, or choose another --output.",
        )
    first = config.training.seed
    configs = [_with_seed(config, seed) for seed in range(first, first + count)]
    save_config(configs[0], seed_run(root, first).config)  # from which resume_seeds takes the settings
    write_json(root / RunFolder.SEEDS, {"seeds": [own.training.seed for own in configs], "chosen": None})
    return _finish(root, configs, observer, step or Step())


def resume_seeds(root: Path, *, observer: TrainingObserver | None = None, step: Step | None = None) -> TrainedSeeds:
    """Continue the runs of ``train_seeds``, export the best by validation loss, and report the spread.

    Finished runs are kept. The test split takes no part in the choice. Writes ``seeds.json``, ``seeds.html`` and
    ``bundle/`` into the folder.

    Args:
        root: The folder of the runs.
        observer: Callbacks of the training loop.
        step: Callbacks of the other steps.

    Raises:
        ConfigError: This is one of several processes.
        CheckpointError: The folder does not contain runs of several seeds.
        HilumError: As raised by hilum.pipeline.train.
    """
    require_one_process("Training from several seeds")
    known = read_seeds(root)
    if known is None:
        raise CheckpointError(f"'{root}' does not contain runs of several seeds.", hint="Start them with --seeds.")
    seeds = known["seeds"]
    _, config = open_run(seed_run(root, seeds[0]).root)
    return _finish(root, [_with_seed(config, seed) for seed in seeds], observer, step or Step())


def _with_seed(config: Config, seed: int) -> Config:
    return config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})


def _finish(root: Path, configs: Sequence[Config], observer: TrainingObserver | None, step: Step) -> TrainedSeeds:
    first = seed_run(root, configs[0].training.seed)
    for number, config in enumerate(configs, 1):
        if number > 1:  # all compute alike, or the spread would tell of that
            config = with_choice_of(config, first)
        run = seed_run(root, config.training.seed)
        if not run.bundle.exists():
            step.begin(f"Seed {config.training.seed}, {number} of {len(configs)}")
            train(config, run, resume=run.state.exists(), observer=observer, step=step)
    result = _collect(root, [config.training.seed for config in configs])
    write_json(root / RunFolder.SEEDS, _content(result))
    _write_page(result)
    export_run(result.run.root, RunFolder(root).bundle, name=root.resolve().name, step=step)
    return result


def _collect(root: Path, seeds: Sequence[int]) -> TrainedSeeds:
    """Read the reports and losses of finished runs."""
    runs = [seed_run(root, seed) for seed in seeds]
    losses = [float(read_summary(run)["best_val_loss"]) for run in runs]
    reports = [load_report(run.results("test") / REPORT_FILE) for run in runs]
    best = min(range(len(seeds)), key=losses.__getitem__)
    tables = [_figures(report) for report in reports]
    spread = []
    for key, chosen in tables[best].items():
        values = [table[key].value for table in tables if key in table]
        if len(values) == len(seeds) and all(value == value for value in values):
            spread.append(Spread(
                key, tuple(values), statistics.fmean(values), statistics.stdev(values), min(values), max(values), chosen
            ))  # fmt: skip
    return TrainedSeeds(root, tuple(seeds), seeds[best], tuple(losses), tuple(spread), reports[best])


def _figures(report: Report) -> dict[Key, Interval]:
    """The metrics on images outside the training data, and the contrasts within sources."""
    found = {Key(figure.metric, figure.class_name, figure.source): figure for figure in report.unseen_figures}
    table = {key: _interval(figure.model_dump()) for key, figure in found.items()}
    for contrast in report.contrasts:
        key = Key("roc_auc", contrast.positive, contrast.source, contrast.negative)
        table[key] = _interval(contrast.auc.model_dump())
    return table


def _interval(estimate: dict[str, Any]) -> Interval:
    value, low, high = (float("nan") if estimate[name] is None else estimate[name] for name in ("value", "low", "high"))
    return Interval(value, low, high, estimate["n"], at_least=estimate["at_least"])


def name_of(key: Key) -> str:
    """Return a metric in words: ``AUROC of COVID against Normal within hospital-1``."""
    words = metric_title(key.metric, first=True)
    for joint, part in (("of", key.class_name), ("against", key.versus), ("within", key.source)):
        words += f" {joint} {part}" if part is not None else ""
    return words


def _content(result: TrainedSeeds) -> dict[str, Any]:
    content: dict[str, Any] = as_json({
        "hilum_version": __version__,
        "seeds": result.seeds,
        "chosen": result.chosen,
        "chosen_by": "lowest validation loss",
        "validation_loss": result.losses,
        "split": result.report.split.model_dump(),
        "spread": [
            {**entry.key._asdict(), **{k: v for k, v in vars(entry).items() if k not in ("key", "chosen")},
             "chosen": asdict(entry.chosen)}
            for entry in result.spread
        ],
    })  # fmt: skip
    return content


def _write_page(result: TrainedSeeds) -> None:
    sections = {"spread": "Metrics over the seeds", "more": "By class and source", "method": "Methods"}
    every = [{"name": name_of(entry.key), **as_json(vars(entry))} for entry in result.spread]
    main = {name_of(entry.key) for entry in result.headline()}
    write_document(result.root / SEEDS_PAGE, "seeds.html.j2", {
        "kind": "Training from several seeds",
        "title": f"{result.root.resolve().name}, {result.report.title}",
        "seeds": result.seeds,
        "chosen": result.chosen,
        "losses": result.losses,
        "images": result.report.split.images,
        "sections": sections,
        "tables": {
            "spread": [row for row in every if row["name"] in main],
            "more": [row for row in every if row["name"] not in main],
        },
    })  # fmt: skip
