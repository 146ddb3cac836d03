"""``hilum train-gate``: a gate of the user's own films and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from hilum.cli.app import new_typer
from hilum.cli.console import say, show_findings
from hilum.cli.progress import StepBars
from hilum.config import load_config
from hilum.errors import ConfigError

app = new_typer()


@app.command("train-gate")
def train_gate(
    data: Annotated[Path, typer.Argument(help="Frontal chest films: a folder of class folders, or a CSV.")],
    others: Annotated[
        Path,
        typer.Option(
            help="A CSV of other pictures: image, kind (lateral, other radiograph, slice, collage, picture), split."
        ),
    ],
    others_root: Annotated[Path | None, typer.Option(help="Where its paths start. \\[default: its folder]")] = None,
    out: Annotated[Path, typer.Option(help="The gate's folder; a killed training goes on from it.")] = Path("gate"),
    split_file: Annotated[Path | None, typer.Option(help="A split.json, where the data have no split column.")] = None,
    steps: Annotated[int, typer.Option(min=10, help="Batches of views.")] = 6000,
    batch_size: Annotated[int, typer.Option(min=2, help="Views in a batch.")] = 64,
    size: Annotated[int, typer.Option(min=64, max=224, help="Side of the gate's input, a multiple of 32.")] = 96,
    learning_rate: Annotated[float, typer.Option(min=0, help="The greatest of the one-cycle schedule.")] = 2e-3,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and of every view.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw views.")] = 1,
) -> None:
    """Train a gate on frontal films, drawn pictures and a table of others, and set its bounds."""
    if size % 32:
        raise ConfigError(f"Expected --size to be a multiple of 32, got {size}.", hint="96 is the default.")
    bars = StepBars()
    split = {} if split_file is None else {"split": {"split_file": split_file}}
    settings = load_config("default", None, {"data": data.resolve(), **split})
    from hilum.gate_training.loop import GateTraining
    from hilum.gate_training.pictures import read_others
    from hilum.gate_training.run import train_gate as run_training
    from hilum.progress import Step

    training = GateTraining(
        steps=steps, batch_size=batch_size, size=size, learning_rate=learning_rate, seed=seed, workers=workers
    )
    try:
        stored = run_training(
            settings, read_others(others, others_root), out, training, Step(bars.begin, show_findings)
        )
    finally:
        bars.close()
    bounds = stored.thresholds
    say(
        f"Bounds set on {stored.calibration['n']:,} validation films: frontal {bounds.frontal:g}, upright "
        f"{bounds.upright:g}, inverted {bounds.inverted:g}, cropped {bounds.cropped:g}."
    )
    say(f"Wrote the gate to [bold]{escape(str(out))}[/]. Next: hilum export RUN --gate-from {escape(str(out))}")
