"""``hilum evaluate``: how good a run or a bundle is, each number with its interval and n."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from hilum.bundle.default import resolve_bundle
from hilum.cli.app import new_typer
from hilum.cli.console import say, show_findings
from hilum.cli.progress import StepBars, TrainingBars
from hilum.errors import ConfigError
from hilum.types import SplitName

if TYPE_CHECKING:
    from hilum.evaluation.report import Report

app = new_typer()


@app.command()
def evaluate(
    target: Annotated[
        str | None, typer.Argument(help="A run's folder, a bundle, or default: the bundle that comes with hilum.")
    ] = None,
    data: Annotated[Path | None, typer.Argument(help="For a bundle: a folder of class folders, or a CSV.")] = None,
    split: Annotated[
        SplitName | None,
        typer.Option(help="Which split. \\[default: test of a run; of a bundle's data all films]", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the report. \\[default: RUN/<split>, else evaluation]", show_default=False),
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="For a bundle: keep only this class; repeat for more.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples behind the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    from_predictions: Annotated[
        Path | None, typer.Option(help="Compute the report again from an evaluation's folder or a predictions.csv.")
    ] = None,
    leave_one_source_out: Annotated[
        bool, typer.Option("--leave-one-source-out", help="Train again without each source. Takes a training each.")
    ] = False,
    leave_out: Annotated[
        list[str] | None, typer.Option("--leave-out", help="Train again without this source; repeat for more.")
    ] = None,
) -> None:
    """Measure a run or a bundle, with 95% intervals, as a report, a page and tables."""
    from hilum.bundle.container import MANIFEST

    held_out = leave_one_source_out or bool(leave_out)
    if from_predictions is not None:
        if target or data or split or classes or held_out:
            raise ConfigError("Expected --from-predictions alone, got other inputs beside it.", hint="Leave them out.")
        _again(from_predictions, out or Path("evaluation"))
        return
    if target is None:
        raise ConfigError("Expected a run or a bundle to measure, got none.", hint="hilum evaluate RUN")
    path = resolve_bundle(target)
    is_bundle = path.is_file() or (path / MANIFEST).is_file()
    if is_bundle and (held_out or data is None):
        got = "--leave-out" if held_out else "no DATA"
        raise ConfigError(
            f"Expected a bundle with DATA to measure it on, and nothing to train again, got {got}.",
            hint="hilum evaluate BUNDLE DATA; sources are left out of a run: hilum evaluate RUN --leave-out SOURCE",
        )
    if not is_bundle and (data is not None or classes):
        raise ConfigError(
            "Expected a run alone, which brings its own data, got DATA or --class beside it.",
            hint="Measure its bundle on other data: hilum evaluate RUN/bundle DATA",
        )
    if is_bundle:
        folder = out or Path("evaluation")
        _bundle(path, data or Path(), folder, split, classes, resamples, seed)
    else:
        folder = out or path / (split or "test")
        _run(path, split or "test", folder, leave_out or [], held_out, resamples, seed)


def _again(table: Path, folder: Path) -> None:
    from hilum.evaluation.evaluate import read_evaluation, write_evaluation

    evaluated, settings = read_evaluation(table)
    show(write_evaluation(evaluated, folder, resamples=settings.resamples, seed=settings.seed), folder)


def _bundle(
    bundle: Path,
    data: Path,
    folder: Path,
    split: SplitName | None,
    classes: list[str] | None,
    resamples: int,
    seed: int,
) -> None:
    steps = StepBars()
    from hilum.evaluation.run import evaluate_bundle
    from hilum.progress import Step

    try:
        report = evaluate_bundle(
            bundle, data, folder, split_name=split, classes=classes, resamples=resamples, seed=seed,
            step=Step(steps.begin, show_findings),
        )  # fmt: skip
    finally:
        steps.close()
    show(report, folder)


def _run(
    run: Path, split: SplitName, folder: Path, sources: list[str], held_out: bool, resamples: int, seed: int
) -> None:
    steps = StepBars()
    bars = TrainingBars(steps)
    from hilum.evaluation.run import evaluate_run
    from hilum.progress import Step
    from hilum.storage import as_json

    step = Step(bars.begin, show_findings)
    try:
        left_out = []
        if held_out:
            from hilum.evaluation.leave_one_source_out import leave_sources_out

            left_out = as_json(
                leave_sources_out(run, sources, resamples=resamples, seed=seed, step=step, observer=bars)
            )
        report = evaluate_run(run, split, held_out=left_out, resamples=resamples, seed=seed, out=folder, step=step)
    finally:
        bars.close()
        steps.close()
    show(report, folder)


def show(report: Report, folder: Path) -> None:
    """Print a report in a few lines, and where the whole of it lies."""
    from hilum.evaluation.page import PAGE_FILE
    from hilum.evaluation.report import summary_lines

    for line in summary_lines(report):
        say(escape(line))
    say(f"Report in [bold]{escape(str(folder / PAGE_FILE))}[/]; beside it report.json and predictions.csv.")
