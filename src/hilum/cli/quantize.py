"""``hilum quantize``: add an int8 network to a bundle, if it agrees with float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from hilum.bundle.default import resolve_bundle
from hilum.cli.app import examples, new_typer
from hilum.cli.console import console, say, show_findings
from hilum.cli.inputs import BundleArgument, ClassesOption, DataArgument, SeedOption, SplitFileOption
from hilum.cli.progress import StepBars

if TYPE_CHECKING:
    from hilum.bundle.bundle import Agreement

app = new_typer()


@app.command(
    epilog=examples(
        "hilum quantize model.hilum metadata.csv --output quantized.hilum",
        "hilum quantize model.hilum DATA --split-file split.json --output new.hilum",
    )
)
def quantize(
    bundle: BundleArgument,
    data: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle to write: a folder or a .hilum file.")],
    classes: ClassesOption = None,
    split_file: SplitFileOption = None,
    seed: SeedOption = 0,
) -> None:
    """Add an int8 network to a bundle, if it agrees with float32 on the validation split.

    Also measure the agreement of bf16. DATA is the dataset that the bundle was trained on, with the same split.
    """
    steps = StepBars()
    from hilum.export.quantize import quantize_bundle
    from hilum.progress import Step

    try:
        manifest, found = quantize_bundle(
            resolve_bundle(bundle), data, output,
            classes=classes, split_file=split_file, seed=seed, step=Step(steps.begin, show_findings),
        )  # fmt: skip
    finally:
        steps.close()
    first = found.tries[0].agreement
    table = Table(
        "precision", "layers in float", "labels agree", "macro F1", "Dice", "same cell", "",
        title=f"Agreement with float32, {first.backend}, {first.n:,} images of {first.split}",
    )  # fmt: skip
    for own in found.tries:
        table.add_row("int8", f"{len(own.float_layers)} of {len(found.costs)}", *_cells(own.agreement))
    if found.bf16 is not None:
        table.add_row("bf16", "", *_cells(found.bf16))
    console.print(table)
    say(f"Wrote bundle {manifest.bundle_id[:12]} to [bold]{escape(str(output))}[/].")


def _cells(own: Agreement) -> tuple[str, ...]:
    changes = (own.macro_f1_change, own.dice_change)
    f1, dice = ("" if change is None else f"{change:+.4f}" for change in changes)
    cell = "" if own.evidence_same_cell is None else f"{own.evidence_same_cell:.2%}"
    return f"{own.labels_agree:.2%}", f1, dice, cell, "accepted" if own.accepted else "not accepted"
