"""The form of ``audit.json``: what ``hilum audit`` says of a data set and of a model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class AuditFinding(_Part):
    """A hilum.types.Finding; ``records`` are at most the first hundred of ``count``."""

    check: str
    severity: Literal["info", "warning", "error"]
    message: str
    records: tuple[str, ...] = ()
    count: int = 0

    @property
    def is_probe_note(self) -> bool:
        """Whether it says no more than the table of probes: a probe found nothing, or maybe the disease itself."""
        return self.severity == "info" and self.check.startswith(("probe_", "shortcut_"))


class DataFacts(_Part):
    """What was audited."""

    name: str
    images: int
    readable: int
    with_masks: int
    groups: int
    classes: dict[str, int]
    sources: dict[str, dict[str, int]]
    splits: dict[str, int]


class AuditReport(_Part):
    """Findings first, worst first; then what they stand on.

    ``duplicates``, ``probes``, ``model`` and ``robustness`` are the dataclasses of hilum.audit.duplicates, .probes,
    .model_shortcuts and .robustness as JSON; null where that part was not run, and ``not_run`` says why.
    """

    format: Literal["hilum-audit-1"] = "hilum-audit-1"
    hilum_version: str
    data: DataFacts
    findings: tuple[AuditFinding, ...]
    duplicates: dict[str, Any] | None = None
    probes: tuple[dict[str, Any], ...] = ()
    model: dict[str, Any] | None = None
    robustness: tuple[dict[str, Any], ...] = ()
    not_run: dict[str, str] = {}
    seconds: float
