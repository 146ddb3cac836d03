"""The model card and the audit's findings, as the page shows them."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from hilum.audit.report import AuditFinding, AuditReport
from hilum.audit.run import REPORT_FILE
from hilum.bundle.bundle import MODEL_CARD, Bundle
from hilum.errors import DataError

_CARD_PARTS = ("Confounding", "Training and evaluation data", "Limitations", "What it cannot tell")
"""Headings of a card to show; the last one is that of earlier versions."""


def read_audit(path: Path) -> AuditReport:
    """An audit report: ``audit.json``, or the folder that ``hilum audit`` wrote it into.

    Raises:
        DataError: it is absent, or not of that form.
    """
    file = path / REPORT_FILE if path.is_dir() else path
    try:
        return AuditReport.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DataError(
            f"Expected an audit report at {file}, got: {error.strerror or error}.", hint="hilum audit DATA writes one."
        ) from error
    except (ValidationError, json.JSONDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"Expected {REPORT_FILE} as hilum audit writes it at {file}, got: {reason}.",
            hint="Write it again with this version of hilum.",
        ) from error


def told_findings(report: AuditReport) -> list[AuditFinding]:
    """What an audit has to say, worst first, without notes that only repeat its table of probes."""
    return [finding for finding in report.findings if not finding.is_probe_note]


def model_card(bundle: Bundle) -> str:
    """The bundle's card, Markdown; a sentence where it has none."""
    return bundle.read(MODEL_CARD).decode("utf-8", "replace") if MODEL_CARD in bundle else "This bundle has no card."


def card_part(card: str, title: str) -> str:
    """One part of a card, without its heading; empty where the card has none of that name."""
    lines = card.splitlines()
    heading = f"## {title}"
    if heading not in lines:
        return ""
    rest = lines[lines.index(heading) + 1 :]
    end = next((number for number, line in enumerate(rest) if line.startswith("## ")), len(rest))
    return "\n".join(rest[:end]).strip()


def card_on_data(card: str) -> list[tuple[str, str]]:
    """The parts of a card that say what an audit would: (title, Markdown)."""
    parts = [(title, card_part(card, title)) for title in _CARD_PARTS]
    return [(title, text) for title, text in parts if text]
