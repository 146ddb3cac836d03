"""``hilum compare``: two models on one test set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from hilum.cli.app import examples, new_typer
from hilum.cli.console import console, say
from hilum.cli.inputs import ResamplesOption
from hilum.format import format_interval, number
from hilum.types import SplitName

if TYPE_CHECKING:
    from hilum.evaluation.compare import Difference

app = new_typer()


@app.command(
    epilog=examples("hilum compare runs/a runs/b", "hilum compare a/predictions.csv b/predictions.csv -o ab.json")
)
def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="A run's folder, an evaluation's folder or its predictions.csv.")
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="The other model, evaluated on the same images.")],
    split: Annotated[SplitName, typer.Option(help="Split of the runs to compare on.")] = "test",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="JSON file for all differences, per class and per source too."),
    ] = None,
    resamples: ResamplesOption = 1000,
) -> None:
    """Compare two models on the same images with DeLong's test and the paired bootstrap."""
    from hilum.evaluation.compare import compare as run_comparison
    from hilum.evaluation.compare import open_scores, seen_sentences, verdict, write_comparison

    found = run_comparison(open_scores(a, split), open_scores(b, split), resamples=resamples)
    for sentence in seen_sentences(found):
        say(sentence)
    say(f"A: {escape(str(a))}")
    say(f"B: {escape(str(b))}")
    for part, which in ((found, ""), (found.unseen, ", unseen by both")):
        if part is not None:
            name = "all images" if part.split == "all" else f"{part.split} split"
            title = f"{name}: {part.images:,} images in {part.groups:,} groups{which}; differences are B less A"
            table = Table("figure", "n", "A", "B", "difference (95% CI)", "p", "p, Holm", title=title)
            for difference in part.headline:
                table.add_row(*_row(difference))
            console.print(table)
    say("Figures with a p: DeLong's test, p by Holm for their number. The others: paired bootstrap, each on its own.")
    say(escape(verdict(found)))
    if output is not None:
        write_comparison(found, output, names=(str(a), str(b)))
        say(f"Wrote [bold]{escape(str(output))}[/].")


def _row(difference: Difference) -> list[str]:
    from hilum.evaluation.compare import figure_name

    estimate = {"value": difference.difference, "low": difference.low, "high": difference.high}
    return [
        escape(figure_name(difference)),
        f"{difference.n:,}",
        number(difference.a),
        number(difference.b),
        format_interval(estimate, signed=True),
        _p_value(difference.p),
        _p_value(difference.p_holm),
    ]


def _p_value(p: float | None) -> str:
    if p is None:
        return ""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
