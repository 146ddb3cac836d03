"""``hilum export`` and ``hilum import-checkpoint``: write a bundle from trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from hilum.bundle.container import SUFFIX
from hilum.cli.app import examples, new_typer
from hilum.cli.console import say
from hilum.cli.inputs import CalibratePerOption
from hilum.cli.progress import StepBars
from hilum.errors import ConfigError
from hilum.filesystems import is_uri, local_file

if TYPE_CHECKING:
    from hilum.bundle.bundle import Manifest

app = new_typer()

Opset = Annotated[int, typer.Option(help="ONNX operator set version.")]


@app.command(epilog=examples("hilum export runs/a", "hilum export runs/a --half-weights --output model.hilum"))
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Bundle to write: a folder or a .hilum file, or the address of one.  [default: RUN/bundle]",
        ),
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
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Add an int8 network, if it agrees with float32; needs the quantize extra."),
    ] = False,
    triton: Annotated[
        Path | None,
        typer.Option(
            "--triton",
            metavar="DIR",
            help="Write the network of RUN's bundle as a Triton model repository, and no bundle; RUN may be a bundle.",
        ),
    ] = None,
) -> None:
    """Export a run as a bundle, if PyTorch and ONNX Runtime agree on its outputs."""
    if triton is not None:
        if output or half_weights or int8 or gate_from or no_training_hashes or calibrate_per:
            raise ConfigError("--triton writes no bundle.", hint="Leave out the options of a bundle, all but --name.")
        _write_triton(run, triton, name)
        return
    steps = StepBars()
    from hilum.export.run import export_run
    from hilum.progress import Step

    out = output or str(run / "bundle")
    if is_uri(out) and not out.endswith(SUFFIX):
        raise ConfigError(f"A bundle at an address is one file, got '{out}'.", hint=f"Name a {SUFFIX} file.")
    try:
        with local_file(out) as path:
            manifest = export_run(
                run,
                path,
                opset=opset,
                name=name,
                half_weights=half_weights,
                gate=gate_from,
                training_hashes=False if no_training_hashes else None,
                calibrate_per=calibrate_per,
                int8=int8,
                step=Step(steps.begin),
            )
    finally:
        steps.close()
    _show(manifest)
    say(f"Wrote bundle {manifest.bundle_id[:12]} to [bold]{escape(out)}[/].")


def _write_triton(run: Path, repository: Path, name: str | None) -> None:
    from hilum.bundle.bundle import load_bundle
    from hilum.bundle.default import resolve_bundle
    from hilum.export.triton import write_triton_repository

    folder = write_triton_repository(load_bundle(resolve_bundle(str(run))), repository, name or "hilum")
    say(f"Wrote [bold]{escape(str(folder))}[/]. It is the network alone: config.pbtxt says what a client has to do.")


def _show(manifest: Manifest) -> None:
    """Show parity, the effect of rounding and the agreement of reduced precisions."""
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
    for precision, own in manifest.agreement.items():
        say(
            f"{precision} in {own.backend}: labels agree on {own.labels_agree:.2%} of {own.n:,} images of {own.split}, "
            f"{'accepted' if own.accepted else 'not accepted'}."
        )


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
