"""``hilum dicomweb``: predict on radiographs of a PACS and store segmentations and reports there."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.cli.app import examples, new_typer
from hilum.cli.console import console, images_table, say
from hilum.cli.inputs import BundleOption, FixOrientation, GateOption, VerifyKeyOption, check_orientation
from hilum.cli.progress import counting
from hilum.errors import ConfigError, MissingExtraError, ServerError, extra_hint

if TYPE_CHECKING:
    from hilum.bundle.bundle import Bundle, Manifest
    from hilum.bundle.gate import GateName
    from hilum.dicomweb.selection import Study
    from hilum.dicomweb.server import Server
    from hilum.dicomweb.table import Log
    from hilum.dicomweb.work import Counts, Row, ToDo, Worker
    from hilum.inference.dicom_names import Kind
    from hilum.inference.predictor import Predictor

app = new_typer()


@app.command(
    epilog=examples(
        "hilum dicomweb http://localhost:8042/dicom-web --since 2w --dry-run",
        "hilum dicomweb http://localhost:8042/dicom-web --since 1d --watch 60",
    )
)
def dicomweb(
    url: Annotated[str, typer.Argument(metavar="URL", help="DICOMweb root; Orthanc's is http://HOST:8042/dicom-web.")],
    study: Annotated[list[str] | None, typer.Option(help="Study instance UID; repeat the option for more.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Studies since a date (2026-11-01), or within a span before now (24h, 7d, 2w).")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All studies of the archive.")] = False,
    bundle: BundleOption = DEFAULT,
    verify_key: VerifyKeyOption = None,
    gate: GateOption = "learned",
    fix_orientation: FixOrientation = False,
    dicom_sc: Annotated[bool, typer.Option("--dicom-sc", help="Also store overlays as Secondary Captures.")] = False,
    dicom_pr: Annotated[bool, typer.Option("--dicom-pr", help="Also store outlines as presentation states.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the studies with radiographs to process, their date and number.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of images to process, at most; with --watch, per round.")
    ] = None,
    watch: Annotated[
        float | None, typer.Option(min=1, help="Interval between rounds, seconds; repeats until interrupted.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="CSV file to append a row to for each image: UIDs, prediction.")
    ] = None,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Allow unencrypted images and credentials to another machine.")
    ] = False,
) -> None:
    """Predict on the chest radiographs of a PACS and store segmentations and reports there.

    Takes CR and DX images. Credentials come from HILUM_DICOMWEB_TOKEN, or from HILUM_DICOMWEB_USER and
    HILUM_DICOMWEB_PASSWORD.
    """
    _check(study, since, everything, gate, fix_orientation)
    try:
        from hilum.dicomweb.address import address_of
        from hilum.dicomweb.server import Server
        from hilum.dicomweb.table import Log
        from hilum.dicomweb.work import Worker
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"This command needs {error.name}, which is not installed.", hint=extra_hint("dicomweb")
        ) from error
    from hilum.bundle.bundle import load_bundle

    for name in ("dicomweb_client", "urllib3", "pydicom", "retrying"):  # their logs may quote responses and headers
        logging.getLogger(name).setLevel(logging.CRITICAL)
    address = address_of(url, os.environ, plain_http=plain_http)
    opened = load_bundle(resolve_bundle(bundle), verify_key=verify_key)
    with _predictor(opened, gate, fix_orientation) as predictor, Server(address) as server, _stopping() as stop:
        table = Log(log, opened.manifest.bundle_id) if log and not dry_run else None
        more: dict[Kind, bool] = {"sc": dicom_sc, "pr": dicom_pr}
        worker = Worker(server, predictor, more=[kind for kind, is_wanted in more.items() if is_wanted])
        find = _studies(server, study, since)
        work = _list_work if dry_run else _round
        failed = work(worker, find(), table, limit, stop, opened.manifest)
        while watch is not None and not stop.event.wait(watch):
            try:
                work(worker, find(), table, limit, stop, opened.manifest, quiet=True)
            except ServerError as error:
                say(f"[yellow]warning[/] {escape(str(error))} Retrying in {watch:g} s.")
    if watch is None and stop.signal:
        say("Interrupted. Completed work is kept.")
        sys.exit(128 + stop.signal)
    if watch is None and failed:
        sys.exit(1)


def _check(study: list[str] | None, since: str | None, everything: bool, gate: str, fix_orientation: bool) -> None:
    from hilum.dicomweb.selection import first_day, is_uid

    if bool(study) + (since is not None) + everything != 1:
        raise ConfigError(
            "Choose exactly one of --study, --since and --all.",
            hint="For example, --since 1d selects the studies of yesterday and today.",
        )
    for uid in study or ():
        if not is_uid(uid):
            raise ConfigError(
                f"--study takes a UID, got {uid!r}.", hint="A UID consists of digits and dots, at most 64 characters."
            )
    if since is not None:
        first_day(since, datetime.now())
    check_orientation(gate, fix_orientation)


@contextmanager
def _predictor(bundle: Bundle, gate: GateName, fix_orientation: bool) -> Iterator[Predictor]:
    """Yield the predictor, whose files are decoded by a process of its own."""
    from hilum.backends.measure import choose_backend
    from hilum.bundle.gate import open_gate
    from hilum.imaging.reader_pool import ReaderPool
    from hilum.inference.predictor import Predictor

    with ReaderPool(1) as readers:
        yield Predictor(
            bundle,
            backend=choose_backend(bundle, say=lambda line: say(escape(line))),
            gate=open_gate(bundle, gate),
            fix_orientation=fix_orientation,
            read=readers.read_radiograph,
        )


def _studies(server: Server, study: list[str] | None, since: str | None) -> Callable[[], list[Study]]:
    """Return a function that lists the studies; a time span is counted back from each call."""
    from hilum.dicomweb.archive import find_studies
    from hilum.dicomweb.selection import Study, first_day

    if study:
        return lambda: [Study(uid) for uid in dict.fromkeys(study)]
    return lambda: find_studies(server, None if since is None else first_day(since, datetime.now()))


class _Stop:
    """Records the first SIGINT or SIGTERM."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal = 0


@contextmanager
def _stopping() -> Iterator[_Stop]:
    """Let the first SIGINT or SIGTERM finish the current image; a second one has its usual effect."""
    stop = _Stop()

    def on_signal(number: int, frame: object) -> None:
        stop.signal = number
        stop.event.set()
        restore()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield stop
    finally:
        restore()


def _round(
    worker: Worker,
    studies: list[Study],
    table: Log | None,
    limit: int | None,
    stop: _Stop,
    manifest: Manifest,
    *,
    quiet: bool = False,
) -> int:
    """Process the studies once, print the counts and return the number of failed images.

    Each image adds a row to the table, and images without a prediction are printed. With ``quiet``, nothing is printed
    if there was no image to process.
    """
    from hilum.dicomweb.work import Counts

    counts = Counts()
    try:
        with counting("Studies") as progress:
            for row in worker.work(studies, counts, limit=limit, stopped=stop.event.is_set, progress=progress):
                if table:
                    table.write(row)
                _tell(row)
    finally:
        if counts.worked_on or not quiet:
            _show(counts, manifest)
    return counts.statuses["failed"]


def _list_work(
    worker: Worker,
    studies: list[Study],
    table: Log | None,
    limit: int | None,
    stop: _Stop,
    manifest: Manifest,
    *,
    quiet: bool = False,
) -> int:
    """Print the studies with images to process, and the counts; return the number of failures. See _round."""
    from hilum.dicomweb.work import Counts

    counts = Counts()
    with counting("Studies") as progress:
        for item in worker.to_do(studies, counts, limit=limit, stopped=stop.event.is_set, progress=progress):
            _tell(item)
    if counts.worked_on or not quiet:
        _show(counts, manifest)
    return counts.statuses["failed"]


def _tell(item: Row | ToDo) -> None:
    from hilum.dicomweb.work import ToDo

    if isinstance(item, ToDo):
        uid, day = item.study
        date = f"{day[:4]}-{day[4:6]}-{day[6:]}" if len(day) == 8 else "no date"
        say(f"[dim]to do[/] study {uid}, {date}: {item.images:,} {'image' if item.images == 1 else 'images'}")
    elif item.status != "ok":
        where = f"image {item.image.instance}" if item.image.instance else f"study {item.image.study}"
        reason = f": {escape(item.reason)}" if item.reason else ""
        say(f"[{'red' if item.status == 'failed' else 'yellow'}]{item.status}[/] {where}{reason}")


def _show(counts: Counts, manifest: Manifest) -> None:
    from hilum.inference.saving import KIND_NAMES

    table = images_table(counts.worked_on, manifest, counts.statuses, counts.labels)
    for reason, count in counts.skipped.most_common():
        table.add_row(f"skipped: {escape(reason)}", f"{count:,}")
    for kind, name in KIND_NAMES.items():
        if counts.stored[kind]:
            table.add_row(f"stored: {name}", f"{counts.stored[kind]:,}")
    console.print(table)
