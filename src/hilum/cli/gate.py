"""``hilum gate``: run the input check on images and print the reasons for each decision."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.cli.app import examples, new_typer
from hilum.cli.console import console, say, show_findings
from hilum.cli.inputs import BundleOption, Inputs
from hilum.cli.progress import counting

if TYPE_CHECKING:
    from hilum.inference.gate_report import FileVerdict

app = new_typer()

_EXPLAINED = 10
"""For at most this many files, all measurements are printed; otherwise only those of refused images that failed."""


@app.command(epilog=examples("hilum gate image.png", "hilum gate FOLDER --output gate.csv --strict"))
def gate(
    inputs: Inputs,
    bundle: BundleOption = DEFAULT,
    which: Annotated[
        Literal["learned", "classic"],
        typer.Option("--gate", help="Input check; classic: the original project's nine checks."),
    ] = "learned",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV file for every measurement of every image.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if an image is not accepted.")] = False,
) -> None:
    """Check whether images are upright frontal chest radiographs, with reasons."""
    from hilum.bundle.bundle import load_bundle
    from hilum.bundle.gate import open_gate
    from hilum.data.find import find_images
    from hilum.gate.verdict import ACCEPTED
    from hilum.imaging.reader_pool import ReaderPool
    from hilum.inference.gate_report import examine_files
    from hilum.inference.predictor import Predictor

    files = find_images(inputs)
    show_findings(files.skipped)
    opened = load_bundle(resolve_bundle(bundle))
    reasons: Counter[str] = Counter()
    with ReaderPool(1) as readers, counting("Examining") as progress:
        predictor = Predictor(opened, gate=open_gate(opened, which), read=readers.read_radiograph)
        for done, verdict in enumerate(examine_files(predictor, files, output), start=1):
            reasons[verdict.reason] += 1
            _show(verdict, everything=len(files) <= _EXPLAINED)
            progress(done, len(files))
    if len(files) > 1:
        table = Table("verdict", "files", title=f"{len(files):,} files, {which} gate")
        for reason, count in reasons.most_common():
            table.add_row(escape(reason), f"{count:,}")
        console.print(table)
    if output is not None:
        say(f"Wrote [bold]{escape(str(output))}[/].")
    if strict and sum(reasons.values()) > reasons[ACCEPTED]:
        sys.exit(1)


def _show(verdict: FileVerdict, *, everything: bool) -> None:
    color = "green" if verdict.accepted else "red"
    orientation_fix = (
        f" [dim](hilum predict --fix-orientation corrects it: {escape(verdict.orientation_fix)})[/]"
        if verdict.orientation_fix
        else ""
    )
    if everything or not verdict.accepted:
        say(f"{escape(str(verdict.file))}: [{color}]{escape(verdict.reason)}[/]{orientation_fix}")
    for reading in verdict.readings:
        if reading.passed and everything:
            say(f"  [dim]ok       {escape(reading.measured)}, expected {escape(reading.expected)}[/]")
        elif not reading.passed and (everything or not verdict.accepted):
            mark = "[red]error[/]   " if reading.severity == "error" else "[yellow]warning[/] "
            say(f"  {mark} {escape(reading.words)}: {escape(reading.measured)}, expected {escape(reading.expected)}")
    for message in verdict.messages:
        say(f"  [red]error[/]    {escape(message)}")
