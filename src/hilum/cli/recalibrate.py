"""``hilum recalibrate``: refit the calibration of a bundle on local images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from hilum.bundle.default import resolve_bundle
from hilum.cli.app import examples, new_typer
from hilum.cli.console import console, say, show_findings
from hilum.cli.inputs import (
    BundleArgument,
    CalibratePerOption,
    ClassesOption,
    DataArgument,
    ResamplesOption,
    SeedOption,
)
from hilum.cli.progress import StepBars
from hilum.format import capital, metric_title
from hilum.types import SplitName

if TYPE_CHECKING:
    from hilum.export.recalibrate import Recalibration

app = new_typer()


@app.command(
    epilog=examples(
        "hilum recalibrate default DATA --output local.hilum",
        "hilum recalibrate model.hilum local.csv --split val --output local.hilum",
    )
)
def recalibrate(
    bundle: BundleArgument,
    data: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle to write: a folder or a .hilum file.")],
    classes: ClassesOption = None,
    split: Annotated[SplitName | None, typer.Option(help="Use only this split of the data.")] = None,
    target_accuracy: Annotated[
        float,
        typer.Option(min=0.5, max=0.999, help="Target accuracy on images without abstention; sets the threshold."),
    ] = 0.95,
    no_training_hashes: Annotated[
        bool,
        typer.Option("--no-training-hashes", help="Do not add hashes by which these images are recognized later."),
    ] = False,
    per: CalibratePerOption = None,
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
) -> None:
    """Recalibrate a bundle on 100 or more local labeled images, without training.

    Fits the temperature, the prediction sets and the abstention threshold.
    """
    steps = StepBars()
    from hilum.export.recalibrate import recalibrate as refit
    from hilum.progress import Step

    try:
        result = refit(
            resolve_bundle(bundle),
            data,
            output,
            classes=classes,
            split=split,
            target_accuracy=target_accuracy,
            training_hashes=not no_training_hashes,
            per=per or "all",
            resamples=resamples,
            seed=seed,
            step=Step(steps.begin, show_findings),
        )
    finally:
        steps.close()
    _show(result)
    say(f"Wrote bundle {result.manifest.bundle_id[:12]} to [bold]{escape(str(output))}[/].")


def _show(result: Recalibration) -> None:
    from hilum.bundle.calibration import temperature_text, threshold_text

    calibration = result.calibration
    table = Table("metric", "before", "after", title=f"{calibration.n:,} images, {calibration.groups:,} groups")
    for name in ("ece", "brier", "nll"):
        table.add_row(
            metric_title(name, first=True), *(str(getattr(own, name)) for own in (result.before, result.after))
        )
    console.print(table)
    say("After: five-fold cross-validation, with whole groups per fold. Intervals: 95%.")
    names = tuple(result.images)
    say(escape(capital(temperature_text(calibration, names)) + "."))
    if calibration.applied_threshold is None:
        say(
            f"No abstention threshold: none is shown to reach an accuracy of {calibration.target_accuracy:.0%} on "
            "these images."
        )
    else:
        within = "" if calibration.per == "all" else " within each predicted class"
        abstains = escape(threshold_text(calibration, names))
        say(f"Abstains {abstains}; target accuracy {calibration.target_accuracy:.0%}{within}.")
    for level, quantiles in calibration.quantiles.items():
        if unbounded := [n for n, q in zip(result.images, quantiles, strict=True) if q == 1]:
            say(f"Prediction sets at {float(level):.0%} always contain {escape(', '.join(unbounded))}: too few groups.")
