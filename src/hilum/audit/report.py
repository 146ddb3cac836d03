"""The format of ``audit.json``, which ``hilum audit`` writes and the web app reads. Nothing is computed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

Kind: TypeAlias = Literal["leak", "shortcut", "model", "robustness", "quality"]
"""What a finding is about: images or patients in two splits, shortcuts in the data, shortcuts that the model uses,
sensitivity to changes of the image, or the files and labels."""

KINDS: dict[Kind, str] = {
    "leak": "Leaks",
    "shortcut": "Shortcuts in the data",
    "model": "Shortcuts in the model",
    "robustness": "Robustness",
    "quality": "Files and labels",
}
"""The kinds in reading order, with the heading of each."""

_CHECKS: dict[str, Kind] = {
    "duplicate_across_splits": "leak",
    "group_across_splits": "leak",
    "duplicate_across_groups": "leak",
    "model_seen": "leak",
    "model_shortcut": "model",
    "model_left_out": "model",
    "model_trained_on": "model",
    "border_alone": "model",
    "background_swap": "model",
    "robustness": "robustness",
}
_WORDS: dict[Kind, tuple[str, str]] = {
    "leak": ("leak", "leak risk"),
    "shortcut": ("shortcut", "weak shortcut"),
    "model": ("shortcut", "possible shortcut"),
    "robustness": ("not robust", "sensitive"),
    "quality": ("problem", "to check"),
}
_NOUNS = {"leak", "leak risk", "shortcut", "weak shortcut", "possible shortcut", "problem", "note"}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class AuditFinding(_Part):
    """A ``hilum.types.Finding``; ``records`` holds at most the first hundred of ``count`` names."""

    check: str
    severity: Literal["info", "warning", "error"]
    message: str
    records: tuple[str, ...] = ()
    count: int = 0

    @property
    def is_probe_note(self) -> bool:
        """Whether the finding only repeats a cell of the matrix of probes in which no shortcut was found."""
        return self.severity == "info" and self.kind == "shortcut"

    @property
    def kind(self) -> Kind:
        """What the finding is about."""
        if self.check.startswith(("shortcut_", "probe_")):
            return "shortcut"
        return _CHECKS.get(self.check, "quality")

    @property
    def word(self) -> str:
        """The severity in words: ``shortcut``, ``leak``, ``to check``, ...; ``note`` where nothing is wrong."""
        if self.severity == "info":
            return "note"
        return _WORDS[self.kind][self.severity == "warning"]


def count_words(findings: Iterable[AuditFinding]) -> str:
    """Return how many findings have each word: ``2 shortcuts, 1 note``."""
    counts = Counter(finding.word for finding in findings)
    return ", ".join(f"{n} {word}{'s' if n != 1 and word in _NOUNS else ''}" for word, n in counts.items())


class Conclusion(_Part):
    """What the audit comes to.

    Attributes:
        text: The conclusion in words.
        data: ``shortcut``: at least one probe finds a shortcut; ``weak_shortcut``: one beats chance, and its interval
            rules out a strong one; ``none_found``; ``not_measured``.
        model: ``relies_on_them``: an error of hilum.audit.findings.model_findings; ``may_rely_on_them``: a warning;
            ``no_reliance``: neither, and the intervals of the shortcut index exclude a reliance for every way of
            erasing, as does a classifier refitted to the outputs; ``inconclusive``: neither, and they do not, or the
            model does no better than a guess; ``not_measured``; ``no_model``.
        leaks: How many checks found images, patients or training images in two splits (errors of that kind).
    """

    text: str
    data: Literal["shortcut", "weak_shortcut", "none_found", "not_measured"]
    model: Literal["relies_on_them", "may_rely_on_them", "no_reliance", "inconclusive", "not_measured", "no_model"]
    leaks: int


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
    """An audit: the conclusion, the findings with the worst first, and the results they rest on.

    ``files`` holds the commonest file facts of each class, see hilum.audit.features.commonest_file_facts.
    ``duplicates``, ``probes``, ``model`` and ``robustness`` are the dataclasses of hilum.audit.duplicates, .probes,
    .model_shortcuts and .robustness as JSON; a probe's result also has the ``severity`` of its finding. They are null
    or empty where that part was not run, and ``not_run`` says why.
    """

    format: Literal["hilum-audit-1"] = "hilum-audit-1"
    hilum_version: str
    conclusion: Conclusion | None = None  # absent from the files of earlier versions
    data: DataFacts
    files: dict[str, dict[str, dict[str, Any]]] = {}
    findings: tuple[AuditFinding, ...]
    duplicates: dict[str, Any] | None = None
    probes: tuple[dict[str, Any], ...] = ()
    model: dict[str, Any] | None = None
    robustness: tuple[dict[str, Any], ...] = ()
    not_run: dict[str, str] = {}
    seconds: float
