"""Turn measured shortcuts into findings. The statistics are computed in ``probes`` and ``model_shortcuts``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from hilum.audit.model_shortcuts import ModelShortcuts, TreatedScore
from hilum.audit.probes import MIN_GROUPS, REST, ProbeResult
from hilum.audit.treatments import BLURRED, CHECK, ERASURES, HEADLINE, SWAPPED, SWAPPED_SAME
from hilum.format import format_interval
from hilum.metrics.bootstrap import Interval
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

ERROR_INFORMATION = 0.50
"""Outputs that keep more than this share of their information about the class, by the lower bounds of all ways of
erasing that leave nothing of the lungs, are an error."""

WARNING_AUC = 0.60
"""An AUROC without lungs, of the model or of the classifier that is refitted to its outputs, whose lower bound is above
this is a warning, whatever the index."""

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

ERASED = {
    "erased_inpaint": "in-painted",
    "erased_mean": "filled with the mean of their surroundings",
    "erased_fill": "filled with one gray level",
    "erased_blur": "blurred",
}
"""What was done to the lungs, as inside a sentence."""

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


class Judgment(NamedTuple):
    """What the treatments without lungs come to, together.

    Attributes:
        severity: See model_findings.
        meaning: In words, the end of a sentence.
        telling: The treatment that tells most, where the severity is above info.
        open: Why a reliance is not excluded, in words, where the severity is info; empty where it is.
    """

    severity: Severity
    meaning: str
    telling: str = HEADLINE
    open: str = ""


def model_findings(result: ModelShortcuts) -> tuple[Finding, ...]:
    """Return what audit_model found as findings, errors first.

    ``model_shortcut``: over all ways of erasing the lungs, by the shortcut index (the balanced one where that is
    undefined), the AUROC and the classifier that is refitted to the outputs; see judge. ``border_alone`` and
    ``background_swap``: warnings, the latter an error where more predictions follow the background than the lungs.
    ``model_trained_on``: the treatments that the training used.
    """
    findings = [_index_finding(result), *_border_finding(result), *_swap_finding(result), *_training_finding(result)]
    if result.left_out:
        message = (
            f"{result.left_out:,} labeled images have no lung mask to erase; the figures are of the other "
            f"{result.images:,}."
        )
        findings.append(Finding("model_left_out", "info", message))
    return tuple(sorted(findings, key=lambda finding: _RANK[finding.severity]))


def judge(result: ModelShortcuts) -> Judgment:
    """Return what the treatments without lungs come to, of a model with an index.

    An error where the headline's lower bound is above ERROR_INDEX and CHECK confirms it, by an AUROC above 0.5 or a
    refitted one above WARNING_AUC, or where the outputs keep ERROR_INFORMATION by every way that leaves nothing of the
    lungs. A warning where one of these ways shows an index, balanced or not, above WARNING_INDEX, or an AUROC, refitted
    or not, above WARNING_AUC. Blurred lungs keep their density, so that what they show is no finding, but excludes
    nothing.
    """
    bare = [result.score(name) for name in ERASURES if name != BLURRED]
    check, index = result.score(CHECK), best_index(result.score(HEADLINE))
    if np.isnan([bound for score in bare for bound in (best_index(score).low, score.auc.low)]).any():
        return Judgment("warning", "there are too few groups of images to say more.")
    if index.low > ERROR_INDEX and (check.auc.low > 0.5 or refitted_low(check) > WARNING_AUC):
        return Judgment("error", f"{min(index.value, 1):.0%} of its gain over a guess does not need the lungs.")
    kept = [score.information_kept.low for score in bare if score.information_kept is not None]
    if kept and min(kept) > ERROR_INFORMATION:
        meaning = "its outputs keep most of what they tell of the class, whatever it answers."
        return Judgment("error", meaning, min(bare, key=refitted_low).treatment)
    known = [score for score in bare if _knows(score)]
    if known:
        most = max(known, key=lambda score: max(refitted_low(score), score.auc.low))
        meaning = "a part of what it tells of the class does not come from the lungs."
        if check not in known:
            meaning = "it may come from the gray around the lungs, since filling with one gray level does not agree."
        return Judgment("warning", meaning, most.treatment)
    return Judgment("info", "no reliance on the rest of the image was found.", open=_open(result))


def _open(result: ModelShortcuts) -> str:
    blurred = result.score(BLURRED)
    if _knows(blurred):
        return f"blurred lungs, which keep their density, have an AUROC of {_figure(blurred.auc)}"
    if not result.refitted_images:
        return "no classifier could be refitted to its outputs"
    if not all(best_index(result.score(name)).high <= ERROR_INDEX for name in ERASURES):
        return "the interval is wide"
    return ""


def best_index(score: TreatedScore) -> Interval:
    """Return the shortcut index of a way of erasing, or the balanced one where that is undefined."""
    index = score.balanced_index if score.index is None or np.isnan(score.index.value) else score.index
    return index or Interval(np.nan, np.nan, np.nan, 0)


def refitted_low(score: TreatedScore) -> float:
    """Return the lower bound of the refitted classifier's AUROC; 0 where there is none."""
    return 0.0 if score.refitted_auc is None else score.refitted_auc.low


def _knows(score: TreatedScore) -> bool:
    indices = [index.low for index in (score.index, score.balanced_index) if index is not None]
    return any(low > WARNING_INDEX for low in indices) or max(score.auc.low, refitted_low(score)) > WARNING_AUC


def _index_finding(result: ModelShortcuts) -> Finding:
    score, images = result.score(HEADLINE), f"{result.images:,} images"
    majority = f"always answering {result.majority_class} gives {result.majority_share:.0%}"
    index, word = best_index(score), "Shortcut index"
    if np.isnan(result.shortcut_index.value):
        word = "Balanced shortcut index"
    if np.isnan(index.value):
        accuracy = result.score("intact").accuracy
        message = (
            f"The accuracy on {images} is {_share(accuracy)}; {majority}. The model does no better than a guess, so "
            "its use of shortcuts cannot be measured."
        )
        return Finding("model_shortcut", "warning", message)
    found = judge(result)
    erased = f"With the lungs in-painted the accuracy on {images} is {_share(score.accuracy)}; {majority}."
    ways = "; ".join(f"{ERASED[name]} {_aucs(result.score(name))}" for name in ERASURES)
    refit = ", and of a classifier refitted to the outputs" if score.refitted_auc is not None else ""
    sentences = [erased, f"{word} {_figure(index)}: {found.meaning}", f"AUROC without lungs{refit}: {ways}."]
    intact = result.score("intact").information
    if score.information is not None and intact is not None:
        sentences.append(
            f"The outputs tell {_figure(intact)} of {result.label_entropy:.2f} bits of the class, with the lungs "
            f"in-painted {_figure(score.information)}."
        )
    return Finding("model_shortcut", found.severity, " ".join(sentences))


def _aucs(score: TreatedScore) -> str:
    return ", ".join(_figure(auc) for auc in (score.auc, score.refitted_auc) if auc is not None)


def _border_finding(result: ModelShortcuts) -> Iterator[Finding]:
    score = result.score("border_only")
    if max(score.auc.low, refitted_low(score)) > WARNING_AUC:
        message = (
            f"Given the border of the image alone, the model has AUROC {_figure(score.auc)} and accuracy "
            f"{_share(score.accuracy)} on {result.images:,} images"
        )
        if score.refitted_auc is not None:
            message += f"; a classifier refitted to its outputs has AUROC {_figure(score.refitted_auc)}"
        yield Finding("border_alone", "warning", f"{message}.")


def _training_finding(result: ModelShortcuts) -> Iterator[Finding]:
    if result.trained_on:
        words = [ERASED[name] for name in result.trained_on if name in ERASED]
        filled = [f"with the lungs {' or '.join(words)}"] if words else []
        swapped = ["with the lungs over other backgrounds"] if SWAPPED in result.trained_on else []
        message = (
            f"The model was trained on images {' and '.join([*filled, *swapped])}, so scores on such images say less "
            "than those of the other treatments."
        )
        yield Finding("model_trained_on", "info", message)


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
