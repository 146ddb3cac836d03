"""Probe results in words, ranked: which class can be told from what beside the lung."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hilum.types import Finding, Severity

if TYPE_CHECKING:  # the probes belong to the train part, the words do not
    from hilum.audit.probes import ProbeResult

ALPHA = 0.025
"""Highest family-wise p-value of a shortcut: the chance that a data set without any has one found. Half of the 5%
that benchmarks/confounds.py allows, so that the bound holds with room."""

EFFECT = 0.60
"""A shortcut is an error where its interval reaches this AUC: an effect of 0.10 or more is not ruled out."""

_FROM = {
    "file": "the file's size, format and depth alone",
    "border": "the border alone",
    "outside_lung": "the image with the lungs erased",
    "source": "the source column alone",
    "thumbnail": "an 8×8 thumbnail",
    "histogram": "the histogram",
}
_RANK: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}


def verdicts(results: Iterable[ProbeResult]) -> tuple[Finding, ...]:
    """One Finding per result, ``shortcut_<probe>`` or ``probe_<probe>``, the worst first, pairs of classes
    before one against the rest, then by AUC.

    ``error``: a shortcut probe beats chance over the whole family of tests (ALPHA), and its interval reaches EFFECT.
    ``warning``: it beats chance, and the interval ends below. ``info``: all else. What sees the whole film
    (thumbnail, histogram) may follow the disease itself, and is never more than ``info``.
    """
    found = [(_severity(result), result) for result in results]
    found.sort(key=_place)
    return tuple(Finding(_check(result), severity, sentence(result)) for severity, result in found)


def _place(found: tuple[Severity, ProbeResult]) -> tuple[int, bool, float]:
    severity, result = found
    return _RANK[severity], not result.pairwise, -result.auc.value if result.measurable else 1.0


def _check(result: ProbeResult) -> str:
    return f"shortcut_{result.probe}" if result.shortcut else f"probe_{result.probe}"


def _severity(result: ProbeResult) -> Severity:
    if not (result.measurable and result.shortcut and result.p_value <= ALPHA):
        return "info"
    reaches = result.auc.high if result.auc.high == result.auc.high else result.auc.value  # NaN: one group
    return "error" if max(reaches, result.auc.value) >= EFFECT else "warning"


def sentence(result: ProbeResult) -> str:
    """A result as one sentence."""
    contrast = f"{result.positive} against {result.negative}"
    source = _FROM.get(result.probe, result.probe)
    if not result.measurable:
        (more, groups), (fewer, rest) = zip(result.counts, result.groups, strict=True)
        fewest = f"{more:,} in {groups:,} and {fewer:,} in {rest:,}"
        return f"{contrast} from {source}: cannot be measured with {fewest} (images in groups)."
    figures = (
        f"AUC {result.auc.value:.2f} ({result.auc.low:.2f}–{result.auc.high:.2f}), n = {result.auc.n:,};"
        f" chance {result.chance_low:.2f}–{result.chance_high:.2f}, p = {result.p_value:.3f}"
    )
    if result.p_value > ALPHA:
        return f"{contrast} cannot be told from {source}: {figures}."
    whole = "" if result.shortcut else " The lung is in it, so that this may be the disease."
    return f"{contrast} can be told from {source}: {figures}.{whole}"
