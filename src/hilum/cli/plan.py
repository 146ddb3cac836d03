"""``hilum plan``: the size of an evaluation, before its data exist."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from hilum.cli.app import examples, new_typer
from hilum.cli.console import say
from hilum.errors import ConfigError
from hilum.format import number

app = new_typer()


@app.command(
    epilog=examples(
        "hilum plan --metric sensitivity --expect 0.9 --share 0.2 --width 0.1",
        "hilum plan --metric auroc --expect 0.9 --share 0.2 --margin 0.03",
    )
)
def plan(
    expect: Annotated[float, typer.Option(help="Expected value of the metric.")],
    metric: Annotated[
        Literal["accuracy", "sensitivity", "specificity", "auroc"], typer.Option(help="Primary metric.")
    ] = "accuracy",
    width: Annotated[
        float | None, typer.Option(help="Width of the 95% interval, upper less lower bound.", show_default=False)
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Non-inferiority margin of a new model against another.", show_default=False)
    ] = None,
    share: Annotated[float, typer.Option(help="Share of the class among the images; not for accuracy.")] = 0.5,
    images_per_group: Annotated[float, typer.Option(help="Mean number of images per patient.")] = 1.0,
    icc: Annotated[float, typer.Option(help="Correlation of results within a patient.")] = 0.5,
    difference: Annotated[float, typer.Option(help="With --margin: expected difference, new minus other.")] = 0.0,
    correlation: Annotated[float, typer.Option(help="With --margin: correlation of the two models.")] = 0.5,
    power: Annotated[float, typer.Option(help="With --margin: probability of showing non-inferiority.")] = 0.8,
) -> None:
    """Plan an evaluation: images and groups for an interval width or a non-inferiority margin."""
    from hilum.metrics.sample_size import Design, plan_margin, plan_width

    design = Design(metric, expect, share, images_per_group, icc)
    if (width is None) == (margin is None):
        raise ConfigError("Name either --width or --margin.", hint="hilum plan --expect 0.9 --width 0.05")
    if width is not None:
        found = plan_width(design, width)
        goal = f"a 95% interval of width {width:g}, such as {number(found.low)}–{number(found.high)}"
    else:
        assert margin is not None
        found = plan_margin(design, margin, difference=difference, correlation=correlation, power=power)
        goal = f"non-inferiority by a margin of {margin:g}, power {power:g}, one-sided at 0.025"
    title = {"auroc": "AUROC"}.get(metric, metric)
    say(f"{title} {expect:g}, {goal}:")
    say(f"  [bold]{found.images:,} images in {found.groups:,} groups[/]{_counted(metric, found.counted)}")
    say("Assumptions:")
    for line in _assumptions(metric, design.share, images_per_group, icc, design.design_effect):
        say(f"  - {line}")
    if margin is not None:
        say(f"  - both models predict the same images; their results correlate by {correlation:g}")
        say(f"  - expected difference, new minus other: {number(difference, signed=True)}")


def _counted(metric: str, counted: int) -> str:
    kind = {
        "sensitivity": "of the class",
        "specificity": "of the other classes",
        "auroc": "of the rarer of class and rest",
    }.get(metric)
    return "" if kind is None else f", {counted:,} images {kind}"


def _assumptions(metric: str, share: float, images_per_group: float, icc: float, effect: float) -> list[str]:
    lines = [] if metric == "accuracy" else [f"{share:.1%} of the images are of the class"]
    if images_per_group > 1:
        lines.append(
            f"{images_per_group:g} images per group, correlated by {icc:g}: the variance is {effect:.2f} times that of "
            "independent images"
        )
    else:
        lines.append("one image per group (patient)")
    if metric == "auroc":
        lines.append("exponential ratings (Hanley & McNeil 1982), which is conservative for normal ones")
    return lines
