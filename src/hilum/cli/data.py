"""``hilum index``, ``hilum split``, ``hilum phantom``: before training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from hilum.cli.app import new_typer
from hilum.cli.console import console, say, show_findings
from hilum.cli.progress import counting
from hilum.config import SplitConfig
from hilum.types import NO_LABEL

if TYPE_CHECKING:
    from hilum.data.index import Index

app = new_typer()

Classes = Annotated[list[str] | None, typer.Option("--class", help="Keep only this class; repeat for more.")]


@app.command()
def index(
    data: Annotated[Path, typer.Argument(help="A folder of class folders, or a CSV.")],
    out: Annotated[Path, typer.Option(help="The table to write.")] = Path("index.csv"),
    classes: Classes = None,
    check: Annotated[bool, typer.Option(help="Decode every file to check it.")] = True,
) -> None:
    """Index a data set and report what is wrong with its files."""
    from hilum.data.index import build_index, save_index

    with counting("Checking files") as progress:
        built = build_index(data, classes=classes, check=check, progress=progress)
    save_index(built, out)
    console.print(_table(built))
    show_findings(built.findings)
    say(f"Wrote [bold]{escape(str(out))}[/]. Next: hilum split {escape(str(out))}")


@app.command()
def split(
    data: Annotated[Path, typer.Argument(help="A folder of class folders, or a CSV, such as hilum index wrote.")],
    out: Annotated[Path, typer.Option(help="The JSON to write.")] = Path("split.json"),
    classes: Classes = None,
    val_fraction: Annotated[float, typer.Option(help="Share for validation.")] = SplitConfig().val_fraction,
    test_fraction: Annotated[float, typer.Option(help="Share for the test.")] = SplitConfig().test_fraction,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = SplitConfig().seed,
) -> None:
    """Split a data set, stratified by class and grouped by patient; a CSV's own is checked and kept."""
    from hilum.config import load_config
    from hilum.data.index import build_index
    from hilum.data.split import make_split, save_split

    settings = {"val_fraction": val_fraction, "test_fraction": test_fraction, "seed": seed}
    config = load_config(overrides={"split": settings})
    with counting("Finding files") as progress:
        built = build_index(data, classes=classes, check=False, progress=progress)
    show_findings(built.findings)
    made = make_split(built, config.split)
    save_split(made, out)
    table = Table("class", "train", "val", "test", title=f"Split ({made.origin}), images")
    for name in built.class_names:
        table.add_row(escape(name), *(f"{made.counts[part].get(name, 0):,}" for part in ("train", "val", "test")))
    console.print(table)
    say(f"Wrote [bold]{escape(str(out))}[/], SHA-256 {made.digest[:16]}.")


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    n: Annotated[int, typer.Option(help="How many films.")] = 200,
    size: Annotated[int, typer.Option(help="Side, pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed; another seed draws other patients.")] = 0,
) -> None:
    """Draw chest radiographs of nobody, with exact lung and region masks, in the folder layout."""
    from hilum.phantoms.chest import write_phantoms

    with counting("Drawing") as progress:
        write_phantoms(out, n, seed=seed, size=size, progress=progress)
    say(f"Drew {n} films in [bold]{escape(str(out))}[/]. Next: hilum train {escape(str(out))}")


def _table(built: Index) -> Table:
    images = Counter(record.label for record in built.records)
    masks = Counter(record.label for record in built.records if record.mask_path)
    groups = {label: len({r.group for r in built.records if r.label == label and r.group}) for label in images}
    table = Table("class", "images", "masks", "groups", title=f"{len(built.records):,} images")
    for label in sorted(images, key=lambda name: name or ""):
        name = escape(label) if label else NO_LABEL
        table.add_row(name, f"{images[label]:,}", f"{masks[label]:,}", f"{groups[label]:,}")
    for label, count in built.left_out.items():
        table.add_row(f"[dim]{escape(label)} (left out)[/]", f"[dim]{count:,}[/]", "", "")
    return table
