"""``hilum bench``: measure the inference engines of this machine on a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from hilum.bundle.default import DEFAULT, resolve_bundle
from hilum.cli.app import examples, new_typer
from hilum.cli.console import console, errors, say, show_findings
from hilum.cli.inputs import BundleArgument

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hilum.inference.bench import BenchReport, EngineSummary, NetworkTime

app = new_typer()


@app.command(epilog=examples("hilum bench", "hilum bench model.hilum --images FOLDER --seconds 120 --json"))
def bench(
    bundle: BundleArgument = DEFAULT,
    images: Annotated[
        str | None,
        typer.Option(
            "--images", help="Folder of radiographs to predict on, the first 64 of them; phantoms by default.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, help="Time to measure, seconds; loading the engines is extra.")
    ] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON instead.")] = False,
) -> None:  # fmt: skip
    """Measure this machine's inference engines, and choose the one that --backend auto uses.

    Every engine that is installed runs the bundle's network in every precision: alone, with batches of 1 to 32 images,
    on one thread, on all threads and on one thread per processor; and from file to result. The outputs are compared
    with those of ONNX Runtime in fp32. The choice is stored for this machine, bundle and version of hilum.
    """
    import json

    from hilum.bundle.bundle import load_bundle
    from hilum.cli.progress import StepBars
    from hilum.data.find import find_images
    from hilum.inference.bench import bench as measure
    from hilum.progress import Step
    from hilum.storage import as_json as to_json

    opened = load_bundle(resolve_bundle(bundle))
    files: Sequence[Path] = ()
    if images is not None:
        files = found = find_images(images)
        show_findings(found.skipped, errors)
    bars = StepBars()
    try:
        report = measure(opened, files, seconds=seconds, step=Step(begin=bars.begin))
    finally:
        bars.close()
    if as_json:
        typer.echo(json.dumps({**to_json(report), "stored": report.stored and str(report.stored)}, indent=2))
    else:
        _show(report)


def _show(report: BenchReport) -> None:
    say(f"{escape(report.machine)}; hilum {report.hilum_version}, bundle {report.bundle_id[:12]}")
    kind = "phantoms" if report.phantoms else "files"
    _table(
        ["engine", "images/s: network", f"{report.images} {kind}", "one file, ms: p50", "p95", "memory, MiB",
         "max. logit difference", f"same class (n = {report.compared})", "auto"],
        [_summary(own) for own in report.engines],
    )  # fmt: skip
    if not all(own.accepted for own in report.engines):
        say("'no' under auto: the bundle has no accepted agreement with fp32 for this engine and precision.")
    say("")
    say("Network alone, ms per forward pass, median (95th percentile):")
    batches = sorted({own.batch for own in report.network})
    rows: dict[tuple[str, str], dict[int, NetworkTime]] = {}
    for own in report.network:
        at_once = f", {own.at_once} at once" if own.at_once > 1 else ""
        threads = f"{own.threads} thread{'s' if own.threads > 1 else ''}{at_once}"
        rows.setdefault((_title(own.backend, own.precision), threads), {})[own.batch] = own
    _table(
        ["engine", "forward pass on", *(f"batch {batch}" for batch in batches)],
        [[*name, *(_time(cells.get(batch)) for batch in batches)] for name, cells in sorted(rows.items())],
    )
    say("")
    say(f"--backend auto uses {_title(*report.chosen)} for this bundle on this machine.")
    if report.stored is None:
        say("[yellow]warning[/] The choice could not be stored. Set HILUM_CACHE to a folder that can be written.")


def _title(backend: str, precision: str) -> str:
    from hilum.backends.base import ENGINE_TITLES

    return f"{ENGINE_TITLES[backend]} {precision}"  # type: ignore[index]


def _summary(own: EngineSummary) -> list[str]:
    low, high = own.images_per_second_range
    return [
        _title(own.backend, own.precision),
        f"{own.network_images_per_second:.0f}",
        f"{own.images_per_second:.0f} ({low:.0f}–{high:.0f})",
        f"{own.image_ms_p50:.1f}",
        f"{own.image_ms_p95:.1f}",
        "" if own.memory_mib is None else f"{own.memory_mib:.0f}",
        f"{own.logit_difference:.1e}",
        f"{own.labels_agree:.1%}",
        "yes" if own.accepted else "no",
    ]


def _time(own: NetworkTime | None) -> str:
    return "" if own is None else f"{own.p50_ms:.1f} ({own.p95_ms:.1f})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns of text, the first one and a second one of text aligned to the left."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = [f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)]
        cells[0] = f"{line[0]:<{widths[0]}}"
        console.print("  ".join(cells).rstrip(), highlight=False, soft_wrap=True, markup=False)
