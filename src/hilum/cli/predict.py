"""``hilum predict``: the command that the lean install is for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.cli.app import new_typer
from hilum.cli.console import console, films_table, say
from hilum.cli.inputs import BundleName, FixOrientation, GateOption, Inputs, check_orientation
from hilum.cli.progress import counting
from hilum.errors import ConfigError

if TYPE_CHECKING:
    from hilum.bundle.bundle import Manifest
    from hilum.inference.folder import FolderResult

app = new_typer()


@app.command()
def predict(
    inputs: Inputs,
    bundle: BundleName = DEFAULT,
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv and what is saved beside it.")] = Path(
        "predictions"
    ),
    backend: Annotated[Literal["onnx", "torch"], typer.Option(help="The engine; torch needs hilum[train].")] = "onnx",
    providers: Annotated[
        str | None, typer.Option(help="Of ONNX Runtime, in order: cpu, cuda, tensorrt, with commas between.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Of the torch backend: cpu, cuda, cuda:N.")] = None,
    num_samples: Annotated[int | None, typer.Option(min=1, help="Take only so many files, at random.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of --num-samples.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Films in one forward pass.")] = 8,
    save_overlays: Annotated[
        bool, typer.Option("--save-overlays", help="Draw lung outline, evidence with its scale, legend.")
    ] = False,
    save_masks: Annotated[bool, typer.Option("--save-masks", help="Write lung masks at the files' own size.")] = False,
    save_evidence: Annotated[
        bool, typer.Option("--save-evidence", help="Write the evidence at the files' own size, 16-bit PNG.")
    ] = False,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="Write lungs and evidence of DICOM files as DICOM Segmentation.")
    ] = False,
    dicom_sr: Annotated[
        bool, typer.Option("--dicom-sr", help="Write the answer, or the refusal, of DICOM files as DICOM report (SR).")
    ] = False,
    gate: GateOption = "learned",
    no_gate: Annotated[bool, typer.Option("--no-gate", help="The same as --gate open.")] = False,
    fix_orientation: FixOrientation = False,
) -> None:
    """Predict on films: class probabilities, lung mask, evidence."""
    gate = "open" if no_gate else gate
    check_orientation(gate, fix_orientation)
    _check_engine(backend, providers, device)
    from hilum.backends.open import open_backend
    from hilum.bundle.bundle import load_bundle
    from hilum.bundle.gate import open_gate
    from hilum.data.find import find_images, sample_files
    from hilum.inference.folder import predict_folder
    from hilum.inference.predictor import Predictor
    from hilum.inference.saving import Wanted

    files: Sequence[Path] = find_images(inputs)
    if num_samples is not None:
        files = sample_files(files, num_samples, seed)
    opened = load_bundle(resolve_bundle(bundle))
    engine = open_backend(opened, backend, providers=(providers or "cpu").split(","), device=device or "cpu")
    chosen = open_gate(opened, gate)
    predictor = Predictor(opened, backend=engine, gate=chosen, batch_size=batch_size, fix_orientation=fix_orientation)
    save = Wanted(save_overlays, save_masks, save_evidence, dicom_seg, dicom_sr)
    with counting("Predicting") as progress:
        result = predict_folder(predictor, files, out, save=save, progress=progress)
    _show(result, opened.manifest, len(files))
    if dicom_seg or dicom_sr:
        _show_objects(result)


def _check_engine(backend: str, providers: str | None, device: str | None) -> None:
    """That the options go together."""
    if (providers and backend == "torch") or (device and backend == "onnx"):
        raise ConfigError(
            f"Expected options of the {backend} backend, got {'--providers' if providers else '--device'}.",
            hint="--providers goes with --backend onnx, --device with --backend torch.",
        )


def _show(result: FolderResult, manifest: Manifest, files: int) -> None:
    console.print(films_table(files, manifest, result.statuses, result.labels))
    say(f"Wrote [bold]{escape(str(result.table))}[/].")


def _show_objects(result: FolderResult) -> None:
    segs, reports, none = (result.objects.get(kind, 0) for kind in ("seg", "sr", "none"))
    if segs or reports:
        place = escape(str(result.table.parent / "dicom"))
        say(f"Wrote under [bold]{place}[/] DICOM segmentations: {segs:,}, reports: {reports:,}.")
    else:
        say("[bold]No DICOM object was written.[/]")
    if none:
        say(f"Files without, such as those that are not DICOM: {none:,}; the table says why of each.")
