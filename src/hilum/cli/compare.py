"""``hilum compare``: compare two models on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from hilum.cli.app import examples, new_typer
from hilum.cli.console import console, say
from hilum.cli.inputs import ResamplesOption, SeedOption
from hilum.format import at_least_note, format_interval, number, split_title
from hilum.types import SplitName

if TYPE_CHECKING:
    from hilum.evaluation.compare import Difference

app = new_typer()


@app.command(
    epilog=examples(
        "hilum compare runs/a runs/b --primary dice --margin 0.01",
        "hilum compare a/predictions.csv b/predictions.csv -o ab.html",
    )
)
def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="A run's folder, an evaluation's folder or its predictions.csv.")
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="The other model, evaluated on the same images.")],
    split: Annotated[SplitName, typer.Option(help="Split of the runs to compare on.")] = "test",
    primary: Annotated[
        str | None,
        typer.Option(
            help="The metric that decides, such as accuracy, dice or recall:CLASS; by default the macro AUROC within "
            "sources, or where no source has two classes the macro AUROC."
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(min=0, help="Largest difference of the primary metric that does not matter; tests equivalence."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File for all differences, also by class and source: a .html page, else JSON."
        ),
    ] = None,
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
) -> None:
    """Compare two models on the same images by one primary metric; the others are adjusted for their number."""
    from hilum.evaluation.compare import compare as run_comparison
    from hilum.evaluation.compare import open_scores
    from hilum.evaluation.compare_page import write_comparison_page
    from hilum.evaluation.decision import counts_of, macro_notes, others, seen_sentences, verdict, write_comparison

    found = run_comparison(
        open_scores(a, split), open_scores(b, split), primary=primary, margin=margin, resamples=resamples, seed=seed
    )
    seen = "\n".join(seen_sentences(found))
    if any(found.seen):
        say(seen)
    say(f"[bold]{escape(verdict(found))}[/]")
    if words := others(found):
        say(escape(words))
    if not any(found.seen):
        say(seen)
    say(f"A: {escape(str(a))}")
    say(f"B: {escape(str(b))}")
    for part, which in ((found.unseen, ", unseen by both"), (found, "")):
        if part is not None:
            title = f"{split_title(part.split)}: {counts_of(part)}{which}"
            table = Table("metric", "n", "A", "B", "B − A (95% CI)", "p", "better", title=title)
            for difference in part.headline:
                table.add_row(*_row(difference))
            console.print(table)
            note = at_least_note("".join(map(_interval, part.headline)))
            for text in filter(None, [*macro_notes(part.headline), note]):
                say(escape(text))
    say("n: number of images; of an AUROC, images of the class / of the other classes.")
    say("p: of the first row alone; of the others adjusted for their number. Each interval stands alone.")
    if output is not None:
        write = write_comparison_page if output.suffix == ".html" else write_comparison
        write(found, output, names=(str(a), str(b)))
        say(f"Wrote [bold]{escape(str(output))}[/].")


def _row(difference: Difference) -> list[str]:
    from hilum.evaluation.decision import figure_name, n_of, p_of

    return [
        escape(figure_name(difference)) + (" (primary)" if difference.primary else ""),
        n_of(difference),
        number(difference.a),
        number(difference.b),
        _interval(difference),
        p_of(difference),
        difference.better or "",
    ]


def _interval(difference: Difference) -> str:
    return format_interval(difference.interval, signed=True)
