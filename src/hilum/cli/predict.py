"""``hilum predict``: predict on images and write a table, overlays, masks, evidence maps and DICOM objects."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.cli.app import examples, new_typer
from hilum.cli.console import console, errors, say, show_findings
from hilum.cli.inputs import (
    BackendOption,
    BatchSizeOption,
    BundleOption,
    DeviceOption,
    FixOrientation,
    GateOption,
    LimitOption,
    SeedOption,
    check_orientation,
)
from hilum.cli.progress import counting
from hilum.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hilum.inference.folder import FolderResult
    from hilum.inference.result import Result
    from hilum.inference.saving import Wanted

app = new_typer()

_LISTED = 20
"""At most this many images are listed one per line; otherwise they are counted per class."""


@app.command(epilog=examples("hilum predict image.png", "hilum predict FOLDER --save-overlays --output results"))
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES", help="Files, folders (searched recursively) or glob patterns; - reads names from stdin."
        ),
    ],
    bundle: BundleOption = DEFAULT,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the table and all other output.")] = Path(
        "predictions"
    ),
    backend: BackendOption = "auto",
    device: DeviceOption = "cpu",
    gate: GateOption = "learned",
    fix_orientation: FixOrientation = False,
    batch_size: BatchSizeOption = 8,
    limit: LimitOption = None,
    seed: SeedOption = 0,
    save_overlays: Annotated[
        bool, typer.Option("--save-overlays", help="Write overlays: lung outline, evidence, legend.")
    ] = False,
    overlay_format: Annotated[
        Literal["png", "jpg", "webp"],
        typer.Option("--overlay-format", help="Format of overlays; jpg and webp are lossy."),
    ] = "png",
    overlay_size: Annotated[
        int, typer.Option("--overlay-size", min=64, help="Longest side of the image in overlays, pixels.")
    ] = 1024,
    save_masks: Annotated[bool, typer.Option("--save-masks", help="Write lung masks at the images' own size.")] = False,
    save_evidence: Annotated[
        bool, typer.Option("--save-evidence", help="Write evidence maps at the images' own size, as 16-bit PNG.")
    ] = False,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="Write DICOM Segmentations of lungs and evidence, for DICOM files.")
    ] = False,
    dicom_sr: Annotated[
        bool,
        typer.Option("--dicom-sr", help="Write DICOM structured reports and their segmentations, for DICOM files."),
    ] = False,
    dicom_sc: Annotated[
        bool, typer.Option("--dicom-sc", help="Write overlays as DICOM Secondary Captures, for DICOM files.")
    ] = False,
    dicom_pr: Annotated[
        bool, typer.Option("--dicom-pr", help="Write outlines as DICOM presentation states, for DICOM files.")
    ] = False,
    table_format: Annotated[
        Literal["csv", "parquet"], typer.Option("--format", help="Format of the table; parquet needs pyarrow.")
    ] = "csv",
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per image to stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if any image has no prediction.")] = False,
) -> None:
    """Predict class, lung mask and evidence for images, folders or DICOM files."""
    check_orientation(gate, fix_orientation)
    if as_json and quiet:
        raise ConfigError("--json and --quiet exclude each other.", hint="Leave one out.")
    from hilum.backends.open import open_backend
    from hilum.bundle.bundle import load_bundle
    from hilum.bundle.gate import open_gate
    from hilum.data.find import find_images, sample_files
    from hilum.inference.folder import predict_folder
    from hilum.inference.predictor import Predictor
    from hilum.inference.saving import Wanted

    found = find_images(_names(inputs))
    if not quiet:
        show_findings(found.skipped, errors if as_json else console)
    files: Sequence[Path] = found if limit is None else sample_files(found, limit, seed)
    opened = load_bundle(resolve_bundle(bundle))
    predictor = Predictor(
        opened,
        backend=open_backend(opened, backend, device),
        gate=open_gate(opened, gate),
        batch_size=batch_size,
        fix_orientation=fix_orientation,
    )
    save = Wanted(
        save_overlays, save_masks, save_evidence, dicom_seg, dicom_sr, dicom_sc, dicom_pr, overlay_format, overlay_size
    )
    listed: list[tuple[Path, Result]] = []

    def on_result(file: Path, result: Result) -> None:
        if as_json:
            typer.echo(result.to_json())
        elif len(files) <= _LISTED:
            listed.append((file, result))

    with nullcontext() if quiet else counting("Predicting") as progress:
        done = predict_folder(
            predictor, files, output, save=save, table_format=table_format, progress=progress, on_result=on_result
        )
    if not (as_json or quiet):
        _show(done, listed, opened.manifest.class_names, save)
    predicted = done.statuses.get("ok", 0)
    if not predicted or (strict and predicted < len(files)):
        sys.exit(1)


def _names(inputs: Sequence[str]) -> list[str]:
    """Return the inputs, with ``-`` replaced by the names on standard input, one per line."""
    names: list[str] = []
    for item in inputs:
        names += _stdin_names() if item == "-" else [item]
    if not names:
        raise ConfigError("No names on standard input.", hint="Write one file name per line.")
    return names


def _stdin_names() -> list[str]:
    lines = os.fsdecode(sys.stdin.buffer.read()).split("\n")  # a name may contain anything but a line break
    return [name for line in lines if (name := line.removesuffix("\r"))]


def _show(done: FolderResult, listed: Sequence[tuple[Path, Result]], class_names: Sequence[str], save: Wanted) -> None:
    from hilum.inference.saving import KIND_NAMES

    if listed:
        _list(listed)
    else:
        for name in class_names:
            say(f"{done.labels.get(name, 0):>9,}  {escape(name)}")
        say(f"{done.statuses.get('ok', 0):>9,}  predicted, {done.uncertain:,} of them uncertain")
        for status in ("refused", "unreadable"):
            say(f"{done.statuses.get(status, 0):>9,}  {status}")
    made = [f"{folder}/" for folder in save.folders if (done.table.parent / folder).is_dir()]
    others = f" and {', '.join(made)}" if made else ""
    say(f"Wrote [bold]{escape(str(done.table))}[/]{others}.")
    counted = [f"{name}: {done.objects[kind]:,}" for kind, name in KIND_NAMES.items() if done.objects.get(kind)]
    if counted:
        say(f"DICOM {', '.join(counted)}.")
    if none := done.objects.get("none", 0):
        say(f"Images without a requested DICOM object: {none:,}. The `reason` column says why.")


def _list(listed: Sequence[tuple[Path, Result]]) -> None:
    """Print one line per image: its prediction and where its evidence is, or the reason why there is none."""
    from hilum.inference.zones import brief

    rows = [("image", "prediction", "prob.", "prediction set", "evidence")]
    for file, result in listed:
        if result.probability is None:
            rows.append((file.name, result.status, "", result.reason, ""))
        else:
            uncertain = "  uncertain" if result.abstained else ""
            sets = ", ".join(result.prediction_set or ())
            where = brief(result.evidence_zones) if result.evidence_zones else ""
            rows.append((file.name, result.label or "", f"{result.probability:.3f}", f"{sets}{uncertain}", where))
    if not any(row[4] for row in rows[1:]):
        rows[0] = (*rows[0][:4], "")
    name, label = (max(len(row[column]) for row in rows) for column in (0, 1))
    sets_width = max(len(row[3]) for row in rows if row[2])
    for number, row in enumerate(rows):
        line = escape(f"{row[0]:<{name}}  {row[1]:<{label}}  {row[2]:<5}  {row[3]:<{sets_width}}  {row[4]}".rstrip())
        say(f"[dim]{line}[/]" if number == 0 else line)
