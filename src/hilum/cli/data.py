"""``hilum index``, ``hilum split`` and ``hilum phantom``: prepare a dataset for training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from hilum.cli.app import examples, new_typer
from hilum.cli.console import console, say, show_findings
from hilum.cli.inputs import AddressableData, ClassesOption, SeedOption
from hilum.cli.progress import counting
from hilum.config import SplitConfig
from hilum.data.find import TABLE_NAME
from hilum.errors import ConfigError
from hilum.filesystems import is_uri, local_file
from hilum.types import NO_LABEL

if TYPE_CHECKING:
    from hilum.data.index import Index

app = new_typer()


@app.command(
    epilog=examples(
        "hilum index s3://bucket/metadata.csv",
        "hilum index metadata.csv --class COVID --class Normal -o index.csv",
    )
)
def index(
    data: AddressableData,
    output: Annotated[str, typer.Option("--output", "-o", help="CSV file to write, or its address.")] = "index.csv",
    classes: ClassesOption = None,
    check: Annotated[bool, typer.Option(help="Decode every file to check it.")] = True,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of images; whole groups are drawn at random.")
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Index a dataset and report problems with its files."""
    from hilum.data.index import build_index, save_index

    if _is_table_of(output, data):
        raise ConfigError(f"--output '{output}' is the dataset's own CSV.", hint="Choose another --output.")
    with counting("Checking files") as progress:
        built = build_index(data, classes=classes, check=check, limit=limit, seed=seed, progress=progress)
    with local_file(output) as path:
        save_index(built, path)
    console.print(_table(built))
    show_findings(built.findings)
    say(f"Wrote [bold]{escape(output)}[/]. Next: hilum split {escape(output)}")


def _is_table_of(output: str, data: str) -> bool:
    """Return whether a file is the CSV of a dataset, which must not be replaced."""
    from hilum.data.index import table_of

    if is_uri(data) or is_uri(output):
        return output in (data, f"{data.rstrip('/')}/{TABLE_NAME}")
    table = table_of(Path(data))
    return table is not None and Path(output).exists() and Path(output).samefile(table)


@app.command(epilog=examples("hilum split index.csv", "hilum split DATA --test-fraction 0.2 --seed 7 -o split.json"))
def split(
    data: AddressableData,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write.")] = Path("split.json"),
    classes: ClassesOption = None,
    val_fraction: Annotated[float, typer.Option(help="Validation fraction.")] = SplitConfig().val_fraction,
    test_fraction: Annotated[float, typer.Option(help="Test fraction.")] = SplitConfig().test_fraction,
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = SplitConfig().seed,
) -> None:
    """Split a dataset into train, val and test, stratified by class, grouped by patient.

    A split that the CSV already has is checked and kept.
    """
    from hilum.config import load_config
    from hilum.data.index import build_index
    from hilum.data.split import make_split, save_split

    settings = {"val_fraction": val_fraction, "test_fraction": test_fraction, "seed": seed}
    config = load_config(overrides={"split": settings})
    with counting("Finding files") as progress:
        built = build_index(data, classes=classes, check=False, progress=progress)
    show_findings(built.findings)
    made = make_split(built, config.split)
    save_split(made, output)
    table = Table("class", "train", "val", "test", title=f"Split ({made.origin}), images")
    for name in built.class_names:
        table.add_row(escape(name), *(f"{made.counts[part].get(name, 0):,}" for part in ("train", "val", "test")))
    console.print(table)
    say(f"Wrote [bold]{escape(str(output))}[/], SHA-256 {made.digest[:16]}.")


@app.command(epilog=examples("hilum phantom phantoms", "hilum phantom phantoms --count 48 --size 128 --seed 1"))
def phantom(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder to write the dataset to.")],
    count: Annotated[int, typer.Option(min=1, help="Number of radiographs.")] = 200,
    size: Annotated[int, typer.Option(help="Side of a radiograph, pixels.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Random seed; another seed gives other patients.")] = 0,
) -> None:
    """Generate synthetic radiographs with exact lung and region masks."""
    from hilum.phantoms.chest import write_phantoms

    with counting("Generating") as progress:
        write_phantoms(folder, count, seed=seed, size=size, progress=progress)
    say(f"Generated {count:,} radiographs in [bold]{escape(str(folder))}[/]. Next: hilum train {escape(str(folder))}")


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
