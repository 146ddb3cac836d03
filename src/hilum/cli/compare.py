"""``hilum compare``: compare two models on the same images."""

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
from hilum.format import format_interval, number, split_title
from hilum.types import SplitName

if TYPE_CHECKING:
    from hilum.evaluation.compare import Difference

app = new_typer()


@app.command(
    epilog=examples("hilum compare runs/a runs/b", "hilum compare a/predictions.csv b/predictions.csv -o ab.html")
)
def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="A run's folder, an evaluation's folder or its predictions.csv.")
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="The other model, evaluated on the same images.")],
    split: Annotated[SplitName, typer.Option(help="Split of the runs to compare on.")] = "test",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File for all differences, also by class and source: a .html page, else JSON."
        ),
    ] = None,
    resamples: ResamplesOption = 1000,
) -> None:
    """Compare two models on the same images with DeLong's test and the paired bootstrap."""
    from hilum.evaluation.compare import compare as run_comparison
    from hilum.evaluation.compare import counts_of, open_scores, seen_sentences, verdict, write_comparison
    from hilum.evaluation.compare_page import write_comparison_page

    found = run_comparison(open_scores(a, split), open_scores(b, split), resamples=resamples)
    for sentence in seen_sentences(found):
        say(sentence)
    say(f"A: {escape(str(a))}")
    say(f"B: {escape(str(b))}")
    for part, which in ((found, ""), (found.unseen, ", unseen by both")):
        if part is not None:
            title = f"{split_title(part.split)}: {counts_of(part)}{which}"
            table = Table("metric", "n", "A", "B", "B − A (95% CI)", "p", "p (Holm)", title=title)
            for difference in part.headline:
                table.add_row(*_row(difference))
            console.print(table)
    say("n: number of images; in rows with a p value, images of the class / of all other classes.")
    say("With a p value: DeLong's test, adjusted by Holm. Without: paired bootstrap, not adjusted.")
    say(escape(verdict(found)))
    if output is not None:
        write = write_comparison_page if output.suffix == ".html" else write_comparison
        write(found, output, names=(str(a), str(b)))
        say(f"Wrote [bold]{escape(str(output))}[/].")


def _row(difference: Difference) -> list[str]:
    from hilum.evaluation.compare import figure_name, n_of

    estimate = {"value": difference.difference, "low": difference.low, "high": difference.high}
    return [
        escape(figure_name(difference)),
        n_of(difference),
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
