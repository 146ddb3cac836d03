"""``hilum export`` and ``hilum import-checkpoint``: write a bundle from trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from hilum.cli.app import examples, new_typer
from hilum.cli.console import say
from hilum.cli.inputs import CalibratePerOption
from hilum.cli.progress import StepBars

app = new_typer()

Opset = Annotated[int, typer.Option(help="ONNX operator set version.")]


@app.command(epilog=examples("hilum export runs/a", "hilum export runs/a --half-weights --output model.hilum"))
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Bundle to write: a folder or a .hilum file.  [default: RUN/bundle]"),
    ] = None,
    opset: Opset = 17,
    name: Annotated[str | None, typer.Option(help="The bundle's name.  [default: the run's]")] = None,
    half_weights: Annotated[
        bool, typer.Option("--half-weights", help="Round and store weights as float16, which halves the file size.")
    ] = False,
    gate_from: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of a trained gate, written by hilum train-gate.  [default: packaged]"),
    ] = None,
    no_training_hashes: Annotated[
        bool,
        typer.Option("--no-training-hashes", help="Leave out the hashes by which training images are recognized."),
    ] = False,
    calibrate_per: CalibratePerOption = None,
) -> None:
    """Export a run as a bundle, if PyTorch and ONNX Runtime agree on its outputs."""
    steps = StepBars()
    from hilum.export.run import export_run
    from hilum.progress import Step

    out = output or run / "bundle"
    try:
        manifest = export_run(
            run,
            out,
            opset=opset,
            name=name,
            half_weights=half_weights,
            gate=gate_from,
            training_hashes=False if no_training_hashes else None,
            calibrate_per=calibrate_per,
            step=Step(steps.begin),
        )
    finally:
        steps.close()
    files = manifest.parity["files"]
    say(
        f"Parity on {files['images']} files: probabilities within {files['probabilities']:.1e}, "
        f"masks equal in {files['mask_agreement']:.4%} of pixels, labels equal in {files['labels_equal']:.0%}."
    )
    if rounding := manifest.parity.get("rounding"):
        say(
            f"Rounding to float16 changed probabilities by at most {rounding['probabilities']:.1e} on "
            f"{rounding['images']} files; calibration and metrics are those of the unrounded weights."
        )
    say(f"Wrote bundle {manifest.bundle_id[:12]} to [bold]{escape(str(out))}[/].")


@app.command(
    "import-checkpoint",
    epilog=examples(
        "hilum import-checkpoint best_covid_model.pth --output model.hilum",
        "hilum import-checkpoint two.pth --class COVID --class Normal -o two.hilum",
    ),
)
def import_checkpoint(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pth file of the original project.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle to write: a folder or a .hilum file.")],
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Class name; repeat the option in the order of the logits.")
    ] = None,
    opset: Opset = 17,
) -> None:
    """Convert a checkpoint of the original project to a bundle."""
    from hilum.export.import_original import import_checkpoint as bring

    manifest = bring(file, output, class_names=classes, opset=opset)
    names = escape(", ".join(manifest.class_names))
    say(f"Wrote bundle {manifest.bundle_id[:12]} ({names}) to [bold]{escape(str(output))}[/].")
