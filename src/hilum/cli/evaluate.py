"""``hilum evaluate``: evaluate a run or a bundle and write a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.markup import escape

from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.cli.app import examples, new_typer
from hilum.cli.console import say, show_findings
from hilum.cli.inputs import CalibratePerOption, ClassesOption, ResamplesOption, SeedOption
from hilum.cli.progress import StepBars, TrainingBars
from hilum.errors import ConfigError
from hilum.types import CalibratedPer, SplitName

if TYPE_CHECKING:
    from hilum.evaluation.options import ReportOptions
    from hilum.evaluation.report import Report

app = new_typer()


@app.command(
    epilog=examples(
        "hilum evaluate runs/a --split val",
        "hilum evaluate model.hilum external.csv --output results",
    )
)
def evaluate(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(metavar="RUN|BUNDLE", help="A run's folder, a bundle (folder or .hilum file), or default."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Argument(metavar="DATA", help="Dataset for a bundle: a folder of class folders, or a CSV."),
    ] = None,
    split: Annotated[
        SplitName | None,
        typer.Option(help="Split to evaluate.  [default: test of a run, all images of DATA]", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for the report.  [default: RUN/<split>, else evaluation]", show_default=False
        ),
    ] = None,
    classes: ClassesOption = None,
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    calibrate_per: CalibratePerOption = None,
    from_predictions: Annotated[
        Path | None,
        typer.Option(help="Recompute the report from an evaluation's folder or a predictions.csv; needs no model."),
    ] = None,
    leave_one_source_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-source-out",
            help="Train again without each source in turn, and measure the drop on its images.",
        ),
    ] = False,
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", help="Train again without this source only; repeat the option for more."),
    ] = None,
    subgroup: Annotated[
        list[str] | None,
        typer.Option(help="Column of the data whose subgroups are measured, such as sex or age:18,65; repeatable."),
    ] = None,
    at_specificity: Annotated[
        float | None, typer.Option(help="Measure sensitivity at this specificity.  [default: 0.95]", show_default=False)
    ] = None,
    at_sensitivity: Annotated[
        float | None, typer.Option(help="Measure specificity at this sensitivity.  [default: 0.95]", show_default=False)
    ] = None,
    prevalence: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS=SHARE", help="Prevalence for predictive values and decision curve of a class; repeatable."
        ),
    ] = None,
    thresholds_from: Annotated[
        Path | None,
        typer.Option(
            help="Evaluation of other images, to choose thresholds on.  [default: a run's validation split]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Evaluate a run or a bundle, with confidence intervals, and write a report.

    A run is evaluated on its own data. With DATA, the run's bundle is evaluated on DATA.
    Writes report.html, claim.html (CLAIM 2024 checklist), report.json and predictions.csv.
    """
    from hilum.bundle.container import MANIFEST

    chosen = _Chosen(subgroup, at_specificity, at_sensitivity, prevalence, thresholds_from)
    held_out = leave_one_source_out or bool(leave_out)
    if from_predictions is not None:
        sources = map(context.get_parameter_source, ("resamples", "seed"))
        given = [source for source in sources if source is not None and source.name == "COMMANDLINE"]
        if target or data or split or classes or held_out or calibrate_per or given:
            raise ConfigError(
                "--from-predictions cannot be combined with data, classes, split, resamples or seed.",
                hint="They are those of the original evaluation.",
            )
        _again(from_predictions, output or Path("evaluation"), chosen)
        return
    if target is None:
        raise ConfigError("No run or bundle to evaluate.", hint="hilum evaluate RUN, or hilum evaluate BUNDLE DATA")
    path = Path(target)
    if data is not None:
        if held_out:
            raise ConfigError(
                "A bundle cannot be retrained without a source; a run can.",
                hint="hilum evaluate RUN --leave-out SOURCE",
            )
        if calibrate_per:
            raise ConfigError(
                "--calibrate-per needs a run: a bundle is evaluated with its own calibration.",
                hint="hilum recalibrate BUNDLE DATA --calibrate-per predicted-class --output NEW",
            )
        _bundle(resolve_bundle(target), data, output or Path("evaluation"), split, classes, resamples, seed, chosen)
        return
    if target == DEFAULT or path.is_file() or (path / MANIFEST).is_file():
        raise ConfigError(f"The bundle '{target}' has no data of its own.", hint="hilum evaluate BUNDLE DATA")
    if classes:
        raise ConfigError(
            "--class needs DATA: a run is evaluated on its own classes.", hint="hilum evaluate RUN DATA --class NAME"
        )
    split = split or "test"
    _run(path, split, output or path / split, leave_out or [], held_out, calibrate_per, resamples, seed, chosen)


class _Chosen(NamedTuple):
    """The options that choose parts of the report, as typed."""

    subgroups: list[str] | None
    at_specificity: float | None
    at_sensitivity: float | None
    prevalence: list[str] | None
    thresholds_from: Path | None

    def options(self, base: ReportOptions | None = None) -> ReportOptions:
        from hilum.evaluation.options import options_of

        return options_of(self.subgroups, self.at_specificity, self.at_sensitivity, self.prevalence, base=base)


def _again(table: Path, folder: Path, chosen: _Chosen) -> None:
    from hilum.evaluation.requested import with_options
    from hilum.evaluation.results import read_evaluation, write_evaluation

    evaluated, settings = read_evaluation(table)
    evaluated = with_options(evaluated, chosen.options(evaluated.options), chosen.thresholds_from)
    show(write_evaluation(evaluated, folder, resamples=settings.resamples, seed=settings.seed), folder)


def _bundle(
    bundle: Path,
    data: Path,
    folder: Path,
    split: SplitName | None,
    classes: list[str] | None,
    resamples: int,
    seed: int,
    chosen: _Chosen,
) -> None:
    options = chosen.options()
    steps = StepBars()
    from hilum.evaluation.run import evaluate_bundle
    from hilum.progress import Step

    try:
        report = evaluate_bundle(
            bundle, data, folder, split_name=split, classes=classes, resamples=resamples, seed=seed,
            step=Step(steps.begin, show_findings), options=options, thresholds=chosen.thresholds_from,
        )  # fmt: skip
    finally:
        steps.close()
    show(report, folder)


def _run(
    run: Path,
    split: SplitName,
    folder: Path,
    sources: list[str],
    held_out: bool,
    calibrate_per: CalibratedPer | None,
    resamples: int,
    seed: int,
    chosen: _Chosen,
) -> None:
    options = chosen.options()
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
        report = evaluate_run(
            run, split, held_out=left_out, calibrate_per=calibrate_per, resamples=resamples, seed=seed, out=folder,
            step=step, options=options, thresholds=chosen.thresholds_from,
        )  # fmt: skip
    finally:
        bars.close()
        steps.close()
    show(report, folder)


def show(report: Report, folder: Path) -> None:
    """Print a summary of a report and the path of its files."""
    from hilum.evaluation.page import PAGE_FILE
    from hilum.evaluation.report import summary_lines
    from hilum.evaluation.summary import requested_lines

    for line in summary_lines(report, requested_lines(report)):
        say(escape(line))
    say(
        f"Report in [bold]{escape(str(folder / PAGE_FILE))}[/], with claim.html, report.json and predictions.csv "
        "beside it."
    )
