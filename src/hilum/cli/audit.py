"""``hilum audit``: duplicates, leaks and shortcuts, in the data and in a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from hilum.bundle.default import resolve_bundle
from hilum.cli.app import new_typer
from hilum.cli.console import say, show_findings
from hilum.cli.progress import StepBars

app = new_typer()


@app.command()
def audit(
    data: Annotated[Path, typer.Argument(help="A folder of class folders, or a CSV.")],
    model: Annotated[
        str | None,
        typer.Option(help="A bundle, or default: the one that comes with hilum. Does it use the shortcuts?"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for audit.html and audit.json.")] = Path("audit"),
    classes: Annotated[list[str] | None, typer.Option("--class", help="Keep only this class; repeat for more.")] = None,
    split_file: Annotated[Path | None, typer.Option(help="A split.json, where the data have no split column.")] = None,
    films: Annotated[
        int, typer.Option(min=0, help="Films for the model's robustness to changes; 0 leaves it out.")
    ] = 500,
    permutations: Annotated[int, typer.Option(min=39, help="Permuted labels behind the chance bands.")] = 199,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples behind the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")] = 0,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with code 1 if a finding is an error: a leak, a shortcut, an unreadable file."
        ),
    ] = False,
) -> None:
    """Look for duplicates, leaks and shortcuts in a data set, and for shortcuts in a model."""
    steps = StepBars()
    from hilum.audit.run import PAGE_FILE
    from hilum.audit.run import audit as run_audit
    from hilum.progress import Step
    from hilum.types import Finding

    try:
        report = run_audit(
            data, out, model=None if model is None else resolve_bundle(model), classes=classes, split_file=split_file,
            films=films, permutations=permutations, resamples=resamples, seed=seed, step=Step(steps.begin),
        )  # fmt: skip
    finally:
        steps.close()
    facts = report.data
    say(f"{facts.readable:,} of {facts.images:,} films read, {facts.groups:,} groups, {report.seconds:.0f} s")
    told = [found for found in report.findings if not found.is_probe_note]
    show_findings(Finding(found.check, found.severity, found.message) for found in told)
    if notes := len(report.findings) - len(told):
        say(
            f"[dim]{notes} {'probe' if notes == 1 else 'probes'} found nothing, could not be measured, or saw only "
            "what may be the disease itself: see the report.[/]"
        )
    for part, reason in report.not_run.items():
        say(f"[dim]not run: {escape(part)}: {escape(reason)}[/]")
    say(f"Report in [bold]{escape(str(out / PAGE_FILE))}[/], figures in audit.json.")
    if strict and any(found.severity == "error" for found in report.findings):
        sys.exit(1)
