"""From measured shortcuts to findings: which probes and treatments say what, and how sure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hilum.audit.model_shortcuts import CHECK, HEADLINE, SWAPPED, SWAPPED_SAME, ModelShortcuts
from hilum.format import format_interval
from hilum.types import Finding, Severity

if TYPE_CHECKING:  # the probes belong to the train part, the words do not
    from hilum.audit.probes import ProbeResult


ALPHA = 0.025
"""Highest family-wise p-value of a shortcut: the chance that a data set without any has one found. Half of the 5%
that benchmarks/confounds.py allows, so that the bound holds with room."""


EFFECT = 0.60
"""A shortcut is an error where its interval reaches this AUROC: an effect of 0.10 or more is not ruled out."""


_FROM = {
    "file": "the file's size, format and depth alone",
    "border": "the border alone",
    "outside_lung": "the image with the lungs erased",
    "source": "the source column alone",
    "thumbnail": "an 8×8 thumbnail",
    "histogram": "the histogram",
}


_share = partial(format_interval, digits=1, percent=True)
_figure = partial(format_interval, digits=2)

_RANK: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}


def verdicts(results: Iterable[ProbeResult]) -> tuple[Finding, ...]:
    """One Finding per result, ``shortcut_<probe>`` or ``probe_<probe>``, the worst first, pairs of classes
    before one against the rest, then by AUROC.

    ``error``: a shortcut probe beats chance over the whole family of tests (ALPHA), and its interval reaches EFFECT.
    ``warning``: it beats chance, and the interval ends below. ``info``: all else. What sees the whole image
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
        f"AUROC {_figure(result.auc, with_n=True)}; chance {result.chance_low:.2f}–{result.chance_high:.2f}, "
        f"p = {result.p_value:.3f}"
    )
    if result.p_value > ALPHA:
        return f"{contrast} cannot be told from {source}: {figures}."
    whole = "" if result.shortcut else " The lung is in it, so that this may be the disease."
    return f"{contrast} can be told from {source}: {figures}.{whole}"


ERROR_INDEX = 0.25
"""A headline index surely above this is an error."""


WARNING_INDEX = 0.10
"""A headline index surely above this is a warning."""


WARNING_AUC = 0.60
"""An AUROC without lungs surely above this is a warning, whatever the index."""


WARNING_SWAP = 0.05
"""A loss of accuracy to the background's class surely above this is a warning."""


def model_findings(result: ModelShortcuts) -> tuple[Finding, ...]:
    """What audit_model found, in words, errors first.

    ``model_shortcut``: the headline index, or the balanced one where that is undefined. An error where it is surely
    (lower bound) above ERROR_INDEX and both AUROCs without lungs, of HEADLINE and CHECK, surely above 0.5; a warning
    where it is surely above WARNING_INDEX, both AUROCs above WARNING_AUC, or nothing can be said; else info.
    ``border_alone`` and ``background_swap``: warnings, the latter an error where more images follow the background
    than the lungs.
    """
    findings = [_index_finding(result), *_border_finding(result), *_swap_finding(result)]
    if result.left_out:
        message = (
            f"{result.left_out:,} labeled images have no lung mask to erase; the figures rest on {result.images:,}."
        )
        findings.append(Finding("model_left_out", "info", message))
    return tuple(sorted(findings, key=lambda finding: ("error", "warning", "info").index(finding.severity)))


def _index_finding(result: ModelShortcuts) -> Finding:
    score, images = result.score(HEADLINE), f"{result.images:,} images"
    majority = f"the commonest class alone ({result.majority_class}) gives {result.majority_share:.0%}"
    index, word = result.shortcut_index, "Shortcut index"
    if np.isnan(index.value):
        index, word = result.balanced_index, "Balanced shortcut index"
    if np.isnan(index.value):
        accuracy = result.score("intact").accuracy
        message = f"The model is right on {_share(accuracy)} of {images}; {majority}. There is no skill to explain."
        return Finding("model_shortcut", "warning", message)
    erased = f"With the lungs erased the model is still right on {_share(score.accuracy)} of {images}; {majority}."
    check = result.score(CHECK).auc
    aucs = f"AUROC without lungs {_figure(score.auc)}, with a constant gray in their place {_figure(check)}."
    least = float(np.minimum(score.auc.low, check.low))
    severity: Severity = "warning"
    if np.isnan([index.low, least]).any():
        meaning = "there are too few groups of images to say more."
    elif index.low > ERROR_INDEX and least > 0.5:
        severity, meaning = "error", f"{min(index.value, 1):.0%} of its gain over a guess does not need the lungs."
    elif index.low > WARNING_INDEX and least <= 0.5:
        meaning = "it may have read the gray that filled the lungs, since a constant one does not bear it out."
    elif index.low > WARNING_INDEX or least > WARNING_AUC:
        meaning = "a part of what it knows does not come from the lungs."
    else:
        severity, meaning = "info", "little of what it knows is seen to come from elsewhere."
    return Finding("model_shortcut", severity, f"{erased} {word} {_figure(index)}: {meaning} {aucs}")


def _border_finding(result: ModelShortcuts) -> Iterator[Finding]:
    score = result.score("border_only")
    if score.auc.low > WARNING_AUC:
        message = (
            f"From the border of the image alone the model tells the classes with AUROC {_figure(score.auc)} and is "
            f"right on {_share(score.accuracy)} of {result.images:,} images."
        )
        yield Finding("border_alone", "warning", message)


def _swap_finding(result: ModelShortcuts) -> Iterator[Finding]:
    effect = result.background_effect
    if effect is None or not effect.low > WARNING_SWAP:
        return
    score, same = result.score(SWAPPED), result.score(SWAPPED_SAME)
    follows = score.follows_background
    if follows is None:
        return
    message = (
        f"Over a background of another class the model is right on {_share(score.accuracy)} of {result.images:,} "
        f"images, over one of the same class on {_share(same.accuracy)}; it names the background's class on "
        f"{_share(follows)}."
    )
    yield Finding("background_swap", "error" if follows.value > score.accuracy.value else "warning", message)
