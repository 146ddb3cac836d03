"""``hilum train-gate``: train the input check on a user's radiographs and negative examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from hilum.cli.app import examples, new_typer
from hilum.cli.console import say, show_findings
from hilum.cli.inputs import DataArgument, SeedOption, SplitFileOption
from hilum.cli.progress import StepBars
from hilum.config import load_config
from hilum.errors import ConfigError

app = new_typer()


@app.command(
    "train-gate",
    epilog=examples(
        "hilum train-gate DATA --others others.csv",
        "hilum train-gate DATA --others others.csv --steps 2000 --output gate",
    ),
)
def train_gate(
    data: DataArgument,
    others: Annotated[
        Path,
        typer.Option(
            help="CSV of negative examples with the columns image, kind (lateral, other radiograph, slice, collage, "
            "picture) and split."
        ),
    ],
    others_root: Annotated[
        Path | None, typer.Option(help="Folder that the paths of --others are relative to.  [default: the CSV's]")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the gate; an interrupted training is resumed from it.")
    ] = Path("gate"),
    split_file: SplitFileOption = None,
    steps: Annotated[int, typer.Option(min=10, help="Optimizer steps, one batch each.")] = 6000,
    batch_size: Annotated[int, typer.Option(min=2, help="Images per batch.")] = 64,
    size: Annotated[
        int, typer.Option(min=64, max=224, help="Side of the network's input, pixels; a multiple of 32.")
    ] = 96,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate of the one-cycle schedule.")] = 2e-3,
    seed: SeedOption = 0,
    workers: Annotated[int, typer.Option(min=0, help="Data-loading processes.")] = 1,
) -> None:
    """Train an input check on your own radiographs and negative examples.

    DATA are frontal chest radiographs. The thresholds are set on the validation split.
    """
    if size % 32:
        raise ConfigError(f"--size must be a multiple of 32, got {size}.", hint="The default is 96.")
    bars = StepBars()
    split = {} if split_file is None else {"split": {"split_file": split_file}}
    settings = load_config("default", None, {"data": data.resolve(), **split})
    from hilum.gate_training.loop import GateTraining
    from hilum.gate_training.run import train_gate as run_training
    from hilum.gate_training.samples import read_others
    from hilum.progress import Step

    training = GateTraining(
        steps=steps, batch_size=batch_size, size=size, learning_rate=learning_rate, seed=seed, workers=workers
    )
    try:
        stored = run_training(
            settings, read_others(others, others_root), output, training, Step(bars.begin, show_findings)
        )
    finally:
        bars.close()
    bounds = stored.thresholds
    say(
        f"Thresholds set on {stored.calibration['n']:,} validation images: frontal {bounds.frontal:g}, upright "
        f"{bounds.upright:g}, inverted {bounds.inverted:g}, cropped {bounds.cropped:g}."
    )
    place = escape(str(output))
    say(f"Wrote the gate to [bold]{place}[/]. Next: hilum export RUN --gate-from {place}")
