"""``hilum compare``: two models on one test set."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from hilum.cli.app import new_typer
from hilum.cli.console import console, say
from hilum.types import SplitName

if TYPE_CHECKING:
    from hilum.evaluation.compare import Difference

app = new_typer()


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A run's folder, a results folder or a predictions.csv.")],
    b: Annotated[Path, typer.Argument(help="The other, of the same files and labels.")],
    split: Annotated[SplitName, typer.Option(help="Which split of the runs.")] = "test",
    out: Annotated[Path | None, typer.Option(help="A JSON file for all differences, per class and source too.")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples behind the intervals.")] = 1000,
) -> None:
    """Compare two models on the same images: DeLong's test for the AUCs, the paired bootstrap for the rest."""
    from hilum.evaluation.compare import compare as run_comparison
    from hilum.evaluation.compare import open_scores, seen_sentences, verdict, write_comparison

    found = run_comparison(open_scores(a, split), open_scores(b, split), resamples=resamples)
    for sentence in seen_sentences(found):
        say(sentence)
    say(f"A: {escape(str(a))}")
    say(f"B: {escape(str(b))}")
    for part, which in ((found, ""), (found.unseen, ", unseen by both")):
        if part is not None:
            title = (
                f"{part.split} split: {part.images:,} images in {part.groups:,} groups{which}; differences are B less A"
            )
            table = Table("figure", "n", "A", "B", "difference (95% interval)", "p", "p, Holm", title=title)
            for difference in part.headline:
                table.add_row(*_row(difference))
            console.print(table)
    say("Figures with a p: DeLong's test, p by Holm for their number. The others: paired bootstrap, each on its own.")
    say(escape(verdict(found)))
    if out is not None:
        write_comparison(found, out, names=(str(a), str(b)))
        say(f"Wrote [bold]{escape(str(out))}[/].")


def _row(difference: Difference) -> list[str]:
    from hilum.evaluation.compare import figure_name

    bounds = f" ({difference.low:+.3f} to {difference.high:+.3f})" if not math.isnan(difference.low) else ""
    return [
        escape(figure_name(difference)),
        f"{difference.n:,}",
        _number(difference.a),
        _number(difference.b),
        f"{difference.difference:+.3f}{bounds}" if not math.isnan(difference.difference) else "undefined",
        _p_value(difference.p),
        _p_value(difference.p_holm),
    ]


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _p_value(p: float | None) -> str:
    if p is None:
        return ""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
