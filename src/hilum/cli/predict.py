"""``hilum predict``: predict on images and write a table, overlays, masks, evidence maps and DICOM objects."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.markup import escape

from hilum.bundle.default import DEFAULT
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
    PrecisionOption,
    SeedOption,
    VerifyKeyOption,
    check_orientation,
)
from hilum.cli.progress import counting
from hilum.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from hilum.backends.base import Backend
    from hilum.inference.folder import FolderResult
    from hilum.inference.result import Result
    from hilum.inference.saving import Wanted
    from hilum.inference.settings import PredictorSettings
    from hilum.inference.shards import ImageFile

app = new_typer()

_MEASURED = 50
"""Engines are measured only for more images than this; fewer do not repay the time."""
_LISTED = 20
"""At most this many images are listed one per line; otherwise they are counted per class."""


@app.command(epilog=examples("hilum predict image.png", "hilum predict FOLDER --save-overlays --output results"))
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES",
            help="Files, folders (searched recursively), glob patterns, or addresses with s3://, gs://, abfs:// or "
            "https://; - reads names from stdin.",
        ),
    ],
    bundle: BundleOption = DEFAULT,
    verify_key: VerifyKeyOption = None,
    column: Annotated[
        str | None,
        typer.Option("--column", help="IMAGES are CSV or Parquet tables, which name the images in this column."),
    ] = None,
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Folder, or s3://, gs:// or abfs:// address, for all output."),
    ] = "predictions",
    backend: BackendOption = "auto",
    precision: PrecisionOption = "auto",
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
        Literal["csv", "parquet"] | None,
        typer.Option(
            "--format",
            help="Format of the table; parquet is a folder of files and needs pyarrow. On Ray it is parquet.",
            show_default="csv",
        ),
    ] = None,
    shard_rows: Annotated[
        int | None, typer.Option("--shard-rows", min=1, help="Rows of each Parquet file.", show_default="1000")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the earlier table in the output folder and start over.")
    ] = False,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option("--engine", help="Run in this process, or on Ray; ray needs the ray extra."),
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option("--ray-address", help="Address of a Ray cluster; by default one is started here.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes on Ray; by default as the processors allow.")
    ] = None,
    cpus_per_worker: Annotated[
        int | None,
        typer.Option("--cpus-per-worker", min=1, help="Processors of each process on Ray.", show_default="1"),
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option("--gpus-per-worker", min=0, help="GPUs of each process on Ray.", show_default="0")
    ] = None,
    image_columns: Annotated[
        bool,
        typer.Option("--image-columns", help="On Ray: masks, evidence and overlays as PNG in columns of the table."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON per image to stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if any image has no prediction.")] = False,
) -> None:
    """Predict class, lung mask and evidence for images, folders or DICOM files."""
    check_orientation(gate, fix_orientation)
    if as_json and quiet:
        raise ConfigError("--json and --quiet exclude each other.", hint="Leave one out.")
    given = {
        "--ray-address": ray_address, "--workers": workers, "--cpus-per-worker": cpus_per_worker,
        "--gpus-per-worker": gpus_per_worker, "--image-columns": image_columns or None,
    }  # fmt: skip
    _check_options(engine, given, table_format, shard_rows, as_json=as_json)
    from hilum.bundle.bundle import load_bundle
    from hilum.bundle.default import resolve_bundle
    from hilum.cpus import available_cpus
    from hilum.data.find import sample_files
    from hilum.data.find_remote import find_inputs
    from hilum.imaging.reader_pool import ReaderPool
    from hilum.inference.folder import predict_folder
    from hilum.inference.saving import Wanted
    from hilum.inference.settings import PredictorSettings

    out = errors if as_json else console
    found, skipped = find_inputs(_names(inputs), column)
    if not quiet:
        show_findings(skipped, out)
    files = found if limit is None else sample_files(found, limit, seed)
    opened = load_bundle(resolve_bundle(bundle), verify_key=verify_key)
    settings = PredictorSettings(opened, backend, device, precision, gate, fix_orientation, batch_size)
    settings, chosen = _choose_engine(settings, len(files), None if quiet else out)
    save = Wanted(
        save_overlays, save_masks, save_evidence, dicom_seg, dicom_sr, dicom_sc, dicom_pr, overlay_format, overlay_size
    )
    listed: list[tuple[ImageFile, Result]] = []

    def on_result(file: ImageFile, result: Result) -> None:
        if as_json:
            typer.echo(result.to_json())
        elif len(files) <= _LISTED:
            listed.append((file, result))

    with nullcontext() if quiet else counting("Predicting") as progress:
        shared: Any = {"save": save, "overwrite": overwrite, "progress": progress}
        if shard_rows is not None:
            shared["shard_rows"] = shard_rows
        if engine == "ray":
            from hilum.inference.ray import predict_on_ray
            from hilum.inference.ray_cluster import Cluster

            cluster = Cluster(ray_address, workers, cpus_per_worker or 1, gpus_per_worker or 0)
            done = predict_on_ray(settings, files, output, cluster=cluster, in_columns=image_columns, **shared)
        else:
            local: Any = {"table_format": table_format or "csv", "on_result": on_result, **shared}
            with ReaderPool(min(len(files), available_cpus())) as readers:
                predictor = settings.open(chosen, readers.read_radiograph)
                done = predict_folder(predictor, files, output, **local)
    predicted = done.statuses.get("ok", 0)
    if not (as_json or quiet):
        _show(done, listed, settings.manifest.class_names, save)
    if not predicted or (strict and predicted < len(files)):
        sys.exit(1)


def _check_options(
    engine: str, of_ray: Mapping[str, object], table_format: str | None, shard_rows: int | None, *, as_json: bool
) -> None:
    """Check that no option is set that this engine would ignore.

    Args:
        engine: ``local`` or ``ray``.
        of_ray: Options that only Ray has, and their values; None where one is not set.
        table_format: Format of the table; None if it is not set.
        shard_rows: Rows of a Parquet file; None if they are not set.
        as_json: Whether results are printed.

    Raises:
        ConfigError: One is set.
    """
    if engine == "ray":
        if as_json:
            raise ConfigError("--json and --engine ray exclude each other.", hint="Read the Parquet files.")
        if table_format == "csv":
            raise ConfigError("--format csv and --engine ray exclude each other.", hint="Leave out --format.")
        return
    if ignored := [name for name, value in of_ray.items() if value is not None]:
        verb = "needs" if len(ignored) == 1 else "need"
        raise ConfigError(f"{', '.join(ignored)} {verb} --engine ray.", hint="Add --engine ray, or leave them out.")
    if shard_rows is not None and table_format != "parquet":
        raise ConfigError("--shard-rows needs --format parquet.", hint="Add --format parquet, or leave it out.")


def _choose_engine(settings: PredictorSettings, images: int, out: Console | None) -> tuple[PredictorSettings, Backend]:
    """Open the inference engine, and return the settings that name it.

    Args:
        settings: The settings, with ``auto`` or an engine.
        images: Number of images to predict on.
        out: Where to print the choice; None prints nothing.
    """
    from hilum.backends.base import name_of, precision_of
    from hilum.backends.measure import SECONDS, choose_backend
    from hilum.backends.open import BackendName

    chosen = choose_backend(
        settings.bundle, settings.backend, settings.device, settings.precision,
        seconds=SECONDS if images > _MEASURED else 0,
        say=None if out is None else lambda line: say(escape(line), out),
    )  # fmt: skip
    return replace(settings, backend=cast(BackendName, name_of(chosen)), precision=precision_of(chosen)), chosen


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


def _show(
    done: FolderResult, listed: Sequence[tuple[ImageFile, Result]], class_names: Sequence[str], save: Wanted
) -> None:
    from hilum.inference.saving import KIND_NAMES

    total = sum(done.statuses.values())
    if done.resumed:
        say(f"{done.resumed:,} of {total:,} images were predicted earlier.")
    if listed and not done.resumed:
        _list(listed)
    else:
        for name in class_names:
            say(f"{done.labels.get(name, 0):>9,}  {escape(name)}")
        say(f"{done.statuses.get('ok', 0):>9,}  predicted, {done.uncertain:,} of them uncertain")
        for status in ("refused", "unreadable"):
            say(f"{done.statuses.get(status, 0):>9,}  {status}")
    remote = isinstance(done.table, str)
    made = [f"{folder}/" for folder in save.folders if remote or (Path(done.table).parent / folder).is_dir()]
    others = f" and {', '.join(made)}" if made else ""
    table = f"[bold]{escape(str(done.table))}[/]"
    say(f"Nothing to do: {table} is complete." if done.resumed == total > 0 else f"Wrote {table}{others}.")
    counted = [f"{name}: {done.objects[kind]:,}" for kind, name in KIND_NAMES.items() if done.objects.get(kind)]
    if counted:
        say(f"DICOM {', '.join(counted)}.")
    if none := done.objects.get("none", 0):
        say(f"Images without a requested DICOM object: {none:,}. The `reason` column says why.")


def _list(listed: Sequence[tuple[ImageFile, Result]]) -> None:
    """Print one line per image: its prediction and where its evidence is, or the reason why there is none."""
    from hilum.inference.zones import brief

    rows = [("image", "prediction", "prob.", "prediction set", "evidence")]
    for image, result in listed:
        file = Path(str(image))
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
