"""``hilum audit``: duplicates, leaks and shortcuts, in a dataset and in a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from hilum.bundle.default import resolve_bundle
from hilum.cli.app import examples, new_typer
from hilum.cli.console import COLORS, errors, say
from hilum.cli.inputs import ClassesOption, DataArgument, ResamplesOption, SeedOption, SplitFileOption
from hilum.cli.progress import StepBars
from hilum.format import at_least_note

if TYPE_CHECKING:
    from hilum.audit.report import AuditReport

app = new_typer()

_MOST_SHOWN = 5


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
        int,
        typer.Option(min=0, help="Maximum number of images for the robustness test (41 passes each); 0 skips it."),
    ] = 500,
    permutations: Annotated[
        int, typer.Option(min=39, help="Label permutations for the p-values and chance bands of the probes.")
    ] = 199,
    resamples: ResamplesOption = 1000,
    seed: SeedOption = 0,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit with code 1 if the audit finds a leak, a shortcut or an unreadable file."),
    ] = False,
) -> None:
    """Audit a dataset for duplicates, leaks and shortcuts, and a model for shortcuts."""
    steps = StepBars()
    from hilum.audit.run import PAGE_FILE
    from hilum.audit.run import audit as run_audit
    from hilum.progress import Step

    try:
        report = run_audit(
            data, output, model=None if bundle is None else resolve_bundle(bundle), classes=classes,
            split_file=split_file, limit=limit, permutations=permutations, resamples=resamples, seed=seed,
            step=Step(steps.begin, expected=_expect),
        )  # fmt: skip
    except KeyboardInterrupt:
        steps.close()
        earlier = f" The report in '{output}' is from an earlier run." if (output / PAGE_FILE).exists() else ""
        say(f"Interrupted. No report was written.{escape(earlier)}", errors)
        sys.exit(130)
    finally:
        steps.close()
    _show(report, output)
    if strict and any(found.severity == "error" for found in report.findings):
        sys.exit(1)


def _expect(seconds: float, work: str) -> None:
    about = f"{max(10, round(seconds, -1)):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    say(f"This will take about {about} on this machine: {escape(work)}.", errors)


def _show(report: AuditReport, output: Path) -> None:
    """Print the conclusion, then the findings by kind."""
    from hilum.audit.report import KINDS, count_words
    from hilum.audit.run import PAGE_FILE

    if report.conclusion:
        say(f"[bold]{escape(report.conclusion.text)}[/]")
    facts = report.data
    say(f"{facts.readable:,} of {facts.images:,} images read, {facts.groups:,} groups, {report.seconds:.0f} s")
    for kind, heading in KINDS.items():
        own = [found for found in report.findings if found.kind == kind and not found.is_probe_note]
        if not own:
            continue
        say(f"\n[bold]{heading}[/]: {count_words(own)}")
        for found in own[:_MOST_SHOWN]:
            say(f"  [{COLORS[found.severity]}]{found.word}[/] {found.check}: {escape(found.message)}")
        if len(own) > _MOST_SHOWN:
            say(f"  [dim]and {len(own) - _MOST_SHOWN} more in the report[/]")
    say("")
    if note := at_least_note("".join(found.message for found in report.findings)):
        say(f"[dim]{escape(note)}[/]")
    if notes := sum(found.is_probe_note for found in report.findings):
        probes = "1 probe" if notes == 1 else f"{notes} probes"
        say(f"[dim]{probes} found no shortcut or could not be measured: see the report.[/]")
    for part, reason in report.not_run.items():
        say(f"[dim]not run: {escape(part)}: {escape(reason)}[/]")
    say(f"Report: [bold]{escape(str(output / PAGE_FILE))}[/]; results: audit.json.")
