"""``hilum predict``: the command that the lean install is for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.cli.app import examples, new_typer
from hilum.cli.console import console, films_table, say
from hilum.cli.inputs import (
    BackendOption,
    BatchSizeOption,
    BundleOption,
    DeviceOption,
    FixOrientation,
    GateOption,
    Inputs,
    LimitOption,
    SeedOption,
    check_orientation,
)
from hilum.cli.progress import counting

if TYPE_CHECKING:
    from hilum.bundle.bundle import Manifest
    from hilum.inference.folder import FolderResult

app = new_typer()


@app.command(epilog=examples("hilum predict image.png", "hilum predict FOLDER --save-overlays --output results"))
def predict(
    inputs: Inputs,
    bundle: BundleOption = DEFAULT,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for predictions.csv and what is saved beside it.")
    ] = Path("predictions"),
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
    limit: LimitOption = None,
    seed: SeedOption = 0,
    batch_size: BatchSizeOption = 8,
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
    fix_orientation: FixOrientation = False,
) -> None:
    """Predict class, lung mask and evidence for images, folders or DICOM files."""
    check_orientation(gate, fix_orientation)
    from hilum.backends.open import open_backend
    from hilum.bundle.bundle import load_bundle
    from hilum.bundle.gate import open_gate
    from hilum.inference.folder import find_files, predict_folder, sample_files
    from hilum.inference.predictor import Predictor
    from hilum.inference.saving import Wanted

    files = find_files(inputs)
    if limit is not None:
        files = sample_files(files, limit, seed)
    opened = load_bundle(resolve_bundle(bundle))
    engine = open_backend(opened, backend, device)
    chosen = open_gate(opened, gate)
    predictor = Predictor(opened, backend=engine, gate=chosen, batch_size=batch_size, fix_orientation=fix_orientation)
    save = Wanted(save_overlays, save_masks, save_evidence, dicom_seg, dicom_sr)
    with counting("Predicting") as progress:
        result = predict_folder(predictor, files, output, save=save, progress=progress)
    _show(result, opened.manifest, len(files))
    if dicom_seg or dicom_sr:
        _show_objects(result)


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
