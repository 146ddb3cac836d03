"""Turn measured shortcuts into findings. The statistics are computed in ``probes`` and ``model_shortcuts``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from hilum.audit.model_shortcuts import CHECK, HEADLINE, SWAPPED, SWAPPED_SAME, ModelShortcuts
from hilum.audit.probes import MIN_GROUPS, REST, ProbeResult
from hilum.format import format_interval
from hilum.types import Finding, Severity

ALPHA = 0.025
"""Largest family-wise p-value of a shortcut: the probability that one is found in a dataset that has none. It is half
of the 5% that benchmarks/confounds.py allows."""

EFFECT = 0.60
"""A shortcut is an error where the interval of its AUROC reaches this value."""

ERROR_INDEX = 0.25
"""A shortcut index whose lower bound is above this is an error."""

WARNING_INDEX = 0.10
"""A shortcut index whose lower bound is above this is a warning."""

WARNING_AUC = 0.60
"""An AUROC without lungs whose lower bound is above this is a warning, whatever the index."""

WARNING_SWAP = 0.05
"""A loss of accuracy to another class's background whose lower bound is above this is a warning."""

PROBE_INPUTS = {
    "file": "file facts alone",
    "border": "the border alone",
    "outside_lung": "the image with the lungs erased",
    "source": "the source column alone",
    "thumbnail": "an 8×8 thumbnail",
    "histogram": "the gray-level histogram",
}
"""What each probe sees, as inside a sentence."""

_RANK: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}

_share = partial(format_interval, digits=1, percent=True)
_figure = partial(format_interval, digits=2)


def verdicts(results: Iterable[ProbeResult]) -> tuple[Finding, ...]:
    """Return one Finding per result, ``shortcut_<probe>`` or ``probe_<probe>``, each with severity_of the result.

    The worst come first; among equals, pairs of classes before one class against the rest, then the higher AUROC.
    """
    found = [(severity_of(result), result) for result in results]
    found.sort(key=_place)
    return tuple(Finding(_check(result), severity, sentence(result)) for severity, result in found)


def _place(found: tuple[Severity, ProbeResult]) -> tuple[int, bool, float]:
    severity, result = found
    return _RANK[severity], not result.pairwise, -result.auc.value if result.measurable else 1.0


def _check(result: ProbeResult) -> str:
    return f"shortcut_{result.probe}" if result.shortcut else f"probe_{result.probe}"


def severity_of(result: ProbeResult) -> Severity:
    """Return the severity of a probe's result.

    ``error``: a shortcut probe beats chance over the whole family of tests (ALPHA), and its interval reaches EFFECT.
    ``warning``: it beats chance, and the interval ends below EFFECT. ``info``: all else. Probes of the whole image
    (thumbnail, histogram) may follow the disease itself and are never more than ``info``.
    """
    if not (result.measurable and result.shortcut and result.p_value <= ALPHA):
        return "info"
    reaches = result.auc.high if result.auc.high == result.auc.high else result.auc.value  # NaN: one group
    return "error" if max(reaches, result.auc.value) >= EFFECT else "warning"


def sentence(result: ProbeResult) -> str:
    """Return a result in words, with its figures."""
    source = PROBE_INPUTS.get(result.probe, result.probe)
    if not result.measurable:
        return f"{contrast_name(result.positive, result.negative)} by {source}: not measured, {too_few(result)}."
    figures = (
        f"AUROC {_figure(result.auc, with_n=True)}; chance {result.chance_low:.2f}–{result.chance_high:.2f}, "
        f"p = {result.p_value:.3f}"
    )
    if result.p_value > ALPHA:
        return f"{told_apart(result, verb='were not')} by {source}: {figures}."
    whole = "" if result.shortcut else " It sees the lungs, so this may be the disease itself."
    return f"{told_apart(result)} by {source}: {figures}.{whole}"


def told_apart(result: ProbeResult, verb: str = "can be") -> str:
    """Return ``COVID and Normal can be told apart``, or ``COVID can be told from the rest``."""
    if result.negative == REST:
        return f"{result.positive} {'was not' if verb == 'were not' else verb} told from {REST}"
    return f"{result.positive} and {result.negative} {verb} told apart"


def contrast_name(positive: str, negative: str) -> str:
    """Return the name of a comparison of two classes, or of one class and the rest: ``COVID vs Normal``."""
    return f"{positive} vs {negative}"


def too_few(result: ProbeResult) -> str:
    """Return why a result could not be measured."""
    if result.probe == "outside_lung" and not sum(result.counts):
        return "no image has a lung mask"
    (own, own_groups), (others, other_groups) = zip(result.counts, result.groups, strict=True)
    return f"{MIN_GROUPS} groups of each are needed, got {own_groups} and {other_groups} ({own} and {others} images)"


def model_findings(result: ModelShortcuts) -> tuple[Finding, ...]:
    """Return what audit_model found as findings, errors first.

    ``model_shortcut``: the headline index, or the balanced one where that is undefined. An error where its lower bound
    is above ERROR_INDEX and those of both AUROCs without lungs, of HEADLINE and CHECK, are above 0.5; a warning where
    it is above WARNING_INDEX, or both AUROCs above WARNING_AUC, or where the index cannot be measured; else info.
    ``border_alone`` and ``background_swap``: warnings, the latter an error where more predictions follow the
    background than the lungs.
    """
    findings = [_index_finding(result), *_border_finding(result), *_swap_finding(result)]
    if result.left_out:
        message = (
            f"{result.left_out:,} labeled images have no lung mask to erase; the figures are of the other "
            f"{result.images:,}."
        )
        findings.append(Finding("model_left_out", "info", message))
    return tuple(sorted(findings, key=lambda finding: _RANK[finding.severity]))


def _index_finding(result: ModelShortcuts) -> Finding:
    score, images = result.score(HEADLINE), f"{result.images:,} images"
    majority = f"always answering {result.majority_class} gives {result.majority_share:.0%}"
    index, word = result.shortcut_index, "Shortcut index"
    if np.isnan(index.value):
        index, word = result.balanced_index, "Balanced shortcut index"
    if np.isnan(index.value):
        accuracy = result.score("intact").accuracy
        message = (
            f"The accuracy on {images} is {_share(accuracy)}; {majority}. The model does no better than a guess, so "
            "its use of shortcuts cannot be measured."
        )
        return Finding("model_shortcut", "warning", message)
    erased = f"With the lungs erased the accuracy on {images} is {_share(score.accuracy)}; {majority}."
    check = result.score(CHECK).auc
    aucs = f"AUROC without lungs {_figure(score.auc)}, with the lungs filled with one gray level {_figure(check)}."
    least = float(np.minimum(score.auc.low, check.low))
    severity: Severity = "warning"
    if np.isnan([index.low, least]).any():
        meaning = "there are too few groups of images to say more."
    elif index.low > ERROR_INDEX and least > 0.5:
        severity, meaning = "error", f"{min(index.value, 1):.0%} of its gain over a guess does not need the lungs."
    elif index.low > WARNING_INDEX and least <= 0.5:
        meaning = "it may come from the gray that filled the lungs, since filling with one gray level does not agree."
    elif index.low > WARNING_INDEX or least > WARNING_AUC:
        meaning = "a part of its accuracy does not come from the lungs."
    else:
        severity, meaning = "info", "no reliance on the rest of the image was found."
    return Finding("model_shortcut", severity, f"{erased} {word} {_figure(index)}: {meaning} {aucs}")


def _border_finding(result: ModelShortcuts) -> Iterator[Finding]:
    score = result.score("border_only")
    if score.auc.low > WARNING_AUC:
        message = (
            f"Given the border of the image alone, the model tells the classes apart with AUROC {_figure(score.auc)} "
            f"and accuracy {_share(score.accuracy)} on {result.images:,} images."
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
        f"With the lungs on the background of another class the accuracy on {result.images:,} images is "
        f"{_share(score.accuracy)}, on another background of the same class {_share(same.accuracy)}; the prediction "
        f"is the background's class in {_share(follows)}."
    )
    yield Finding("background_swap", "error" if follows.value > score.accuracy.value else "warning", message)
