"""``hilum audit``: duplicates, leaks and shortcuts, in the data and in a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from hilum.bundle.default import resolve_bundle
from hilum.cli.app import examples, new_typer
from hilum.cli.console import say, show_findings
from hilum.cli.inputs import ClassesOption, DataArgument, ResamplesOption, SeedOption, SplitFileOption
from hilum.cli.progress import StepBars

app = new_typer()


@app.command(epilog=examples("hilum audit DATA", "hilum audit DATA --bundle default --limit 200 --strict"))
def audit(
    data: DataArgument,
    bundle: Annotated[
        str | None,
        typer.Option(help="Bundle to audit for shortcuts: a folder, a .hilum file, a run's folder, or default."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for audit.html and audit.json.")] = Path(
        "audit"
    ),
    classes: ClassesOption = None,
    split_file: SplitFileOption = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Number of images for the bundle's robustness tests, at most; 0 disables them.")
    ] = 500,
    permutations: Annotated[int, typer.Option(min=39, help="Label permutations for the chance bands.")] = 199,
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit with code 1 on an error: a leak, a shortcut, an unreadable file."),
    ] = False,
) -> None:
    """Audit a dataset for duplicates, leaks and shortcuts, and a model for shortcuts."""
    steps = StepBars()
    from hilum.audit.run import PAGE_FILE
    from hilum.audit.run import audit as run_audit
    from hilum.progress import Step
    from hilum.types import Finding

    try:
        report = run_audit(
            data, output, model=None if bundle is None else resolve_bundle(bundle), classes=classes,
            split_file=split_file, limit=limit, permutations=permutations, resamples=resamples, seed=seed,
            step=Step(steps.begin),
        )  # fmt: skip
    finally:
        steps.close()
    facts = report.data
    say(f"{facts.readable:,} of {facts.images:,} images read, {facts.groups:,} groups, {report.seconds:.0f} s")
    told = [found for found in report.findings if not found.is_probe_note]
    show_findings(Finding(found.check, found.severity, found.message) for found in told)
    if notes := len(report.findings) - len(told):
        say(
            f"[dim]{notes} {'probe' if notes == 1 else 'probes'} found nothing, could not be measured, or saw only "
            "what may be the disease itself: see the report.[/]"
        )
    for part, reason in report.not_run.items():
        say(f"[dim]not run: {escape(part)}: {escape(reason)}[/]")
    say(f"Report in [bold]{escape(str(output / PAGE_FILE))}[/], figures in audit.json.")
    if strict and any(found.severity == "error" for found in report.findings):
        sys.exit(1)
